//! The `ringbridge` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringbridge_control::cli::main()
}
