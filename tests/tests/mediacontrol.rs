//! Conformance of the Metreos.MediaControl adapter, rule by rule: each row here is one case of one rule, on a server of
//! its own.
//!
//! Most rows run on virtual time; `http::` goes over HTTP with real RTP, `load::` and `hostile::` are as large and as
//! bad as the real world. `cargo test -p ringbridge-tests --test mediacontrol`, with a part of a name to run only those.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

#[path = "mediacontrol/adjust.rs"]
mod adjust;
#[path = "mediacontrol/codes.rs"]
mod codes;
#[path = "mediacontrol/concurrency.rs"]
mod concurrency;
#[path = "mediacontrol/conditions.rs"]
mod conditions;
#[path = "mediacontrol/conferences.rs"]
mod conferences;
#[path = "mediacontrol/connections.rs"]
mod connections;
#[path = "mediacontrol/delete.rs"]
mod delete;
#[path = "mediacontrol/digits.rs"]
mod digits;
#[path = "mediacontrol/hostile.rs"]
mod hostile;
#[path = "mediacontrol/http.rs"]
mod http;
#[path = "mediacontrol/load.rs"]
mod load;
#[path = "mediacontrol/prompts.rs"]
mod prompts;
#[path = "mediacontrol/resources.rs"]
mod resources;
#[path = "mediacontrol/rig.rs"]
mod rig;
#[path = "mediacontrol/row.rs"]
mod row;
#[path = "mediacontrol/script.rs"]
mod script;
#[path = "mediacontrol/stop.rs"]
mod stop;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let rows = [
        adjust::rows(),
        codes::rows(),
        concurrency::rows(),
        conditions::rows(),
        conferences::rows(),
        connections::rows(),
        delete::rows(),
        digits::rows(),
        hostile::rows(),
        prompts::rows(),
        resources::rows(),
        script::rows(),
        stop::rows(),
    ]
    .into_iter()
    .flatten();
    let rows = rows.map(|row| {
        let name = row.name.clone();
        Trial::test(name, move || {
            row.run();
            Ok(())
        })
    });
    let real = [http::ROWS, load::ROWS, hostile::REAL].into_iter().flatten().map(|(name, run)| {
        Trial::test(*name, move || {
            run();
            Ok(())
        })
    });
    let trials: Vec<Trial> = rows.chain(real).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
