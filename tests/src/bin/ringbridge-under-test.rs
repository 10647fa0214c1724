//! The product itself, built with its tests so that what they start is never stale.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringbridge_control::cli::main()
}
