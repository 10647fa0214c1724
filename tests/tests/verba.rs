//! Conformance of the Verba recording API, row by row of its tables: each is one case, over HTTP against the real
//! server.
//!
//! Most rows share one server, each with calls, numbers and addresses of its own. `media::` sends real RTP through real
//! calls and reads the files; `hostile::` and `restart::` have servers of their own.
//! `cargo test -p ringbridge-tests --test verba`, with a part of a name to run only those.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "verba/concurrency.rs"]
mod concurrency;
#[path = "verba/frame.rs"]
mod frame;
#[path = "verba/hostile.rs"]
mod hostile;
#[path = "verba/keep.rs"]
mod keep;
#[path = "verba/look_up.rs"]
mod look_up;
#[path = "verba/media.rs"]
mod media;
#[path = "verba/mute.rs"]
mod mute;
#[path = "verba/naming.rs"]
mod naming;
#[path = "verba/next.rs"]
mod next;
#[path = "verba/restart.rs"]
mod restart;
#[path = "verba/rig.rs"]
mod rig;
#[path = "verba/tokens.rs"]
mod tokens;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use rig::Rig;

/// A case.
pub(crate) struct Row {
    name: String,
    run: Box<dyn FnOnce() + Send>,
}

impl Row {
    /// One on the server that is shared.
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce(&mut Rig) + Send + 'static) -> Self {
        Self::alone(name, move || run(&mut rig::shared()))
    }

    /// One that has no server yet.
    pub(crate) fn alone(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let rows = [
        concurrency::rows(),
        frame::rows(),
        hostile::rows(),
        keep::rows(),
        look_up::rows(),
        media::rows(),
        mute::rows(),
        naming::rows(),
        next::rows(),
        restart::rows(),
        tokens::rows(),
    ];
    let trials = rows.into_iter().flatten().map(|Row { name, run }| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    rig::end_shared();
    conclusion.exit_code()
}
