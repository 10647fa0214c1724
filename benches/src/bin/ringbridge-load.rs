//! Load generator and measuring tool; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringbridge_benches::cli::run()
}
