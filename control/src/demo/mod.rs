//! The main job on real speech with nothing set up.

use std::process::ExitCode;

/// Options of the demonstration.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {}

/// Runs the demonstration.
pub fn run(_args: DemoArgs) -> ExitCode {
    ExitCode::FAILURE
}
