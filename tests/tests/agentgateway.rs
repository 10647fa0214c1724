//! Conformance of the AgentGateway API, rule by rule: each row here is one case of one rule.
//!
//! All rows ask one server, the real binary over HTTPS with real RTP on loopback, each with agents and telephones of its
//! own; `timers::` has servers of its own on virtual time. `cargo test -p ringbridge-tests --test agentgateway`, with a
//! part of a name to run only those.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "agentgateway/announcements.rs"]
mod announcements;
#[path = "agentgateway/calls.rs"]
mod calls;
#[path = "agentgateway/checks.rs"]
mod checks;
#[path = "agentgateway/concurrency.rs"]
mod concurrency;
#[path = "agentgateway/conferences.rs"]
mod conferences;
#[path = "agentgateway/events.rs"]
mod events;
#[path = "agentgateway/hostile.rs"]
mod hostile;
#[path = "agentgateway/media.rs"]
mod media;
#[path = "agentgateway/members.rs"]
mod members;
#[path = "agentgateway/push.rs"]
mod push;
#[path = "agentgateway/rig.rs"]
mod rig;
#[path = "agentgateway/row.rs"]
mod row;
#[path = "agentgateway/sessions.rs"]
mod sessions;
#[path = "agentgateway/timers.rs"]
mod timers;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Trial};

use crate::rig::{World, lock};

/// The server, from the first row that needs it on.
static WORLD: Mutex<Option<Arc<World>>> = Mutex::new(None);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of what a row does is to wait for audio.
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let rows = [
        announcements::rows(),
        checks::rows(),
        concurrency::rows(),
        conferences::rows(),
        events::rows(),
        hostile::rows(),
        media::rows(),
        members::rows(),
        push::rows(),
        sessions::rows(),
    ];
    let rows = rows.into_iter().flatten().map(|row| {
        Trial::test(row.name.clone(), move || {
            let world = Arc::clone(lock(&WORLD).get_or_insert_with(World::start));
            row.run(&world);
            Ok(())
        })
    });
    let timers = timers::ROWS.iter().map(|(name, run)| {
        Trial::test(format!("timers::{name}"), move || {
            run();
            Ok(())
        })
    });
    let trials: Vec<Trial> = rows.chain(timers).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(world) = lock(&WORLD).take().and_then(Arc::into_inner) {
        world.stop();
    }
    conclusion.exit_code()
}

/// Rows at a time: each needs five telephones at most.
const THREADS: usize = 6;
