//! Conformance of the ICWS voicemail API, rule by rule: each row here is one case of one rule.
//!
//! All rows share one server, the real binary with real shards and real RTP on loopback, and each has a user, a mailbox,
//! a station and sessions of its own; those that restart or end a server have their own. `cargo test -p ringbridge-tests
//! --test icws`, with a part of a name to run only those.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "icws/calls.rs"]
mod calls;
#[path = "icws/client.rs"]
mod client;
#[path = "icws/concurrency.rs"]
mod concurrency;
#[path = "icws/hostile.rs"]
mod hostile;
#[path = "icws/mailboxes.rs"]
mod mailboxes;
#[path = "icws/media.rs"]
mod media;
#[path = "icws/messages.rs"]
mod messages;
#[path = "icws/playing.rs"]
mod playing;
#[path = "icws/rig.rs"]
mod rig;
#[path = "icws/row.rs"]
mod row;
#[path = "icws/sessions.rs"]
mod sessions;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They wait more than they work.
    arguments.test_threads.get_or_insert(THREADS);
    let rows = [
        calls::rows(),
        sessions::rows(),
        messages::rows(),
        playing::rows(),
        mailboxes::rows(),
        media::rows(),
        concurrency::rows(),
        hostile::rows(),
    ];
    let trials = rows.into_iter().flatten().map(|row| {
        Trial::test(row.name, move || {
            (row.run)();
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    rig::end_world();
    conclusion.exit_code()
}

/// Rows at a time.
const THREADS: usize = 12;
