//! Runs one target with one file, as `cargo run -p ringbridge-fuzz-targets --example replay -- engine FILE`.

use std::env;
use std::fs;
use std::process::ExitCode;

use ringbridge_fuzz_targets::TARGETS;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let (Some(name), Some(file)) = (args.next(), args.next()) else {
        eprintln!("usage: replay TARGET FILE");
        return ExitCode::FAILURE;
    };
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        eprintln!("no target {name}; there are: {}", TARGETS.map(|(name, _)| name).join(", "));
        return ExitCode::FAILURE;
    };
    match fs::read(&file) {
        Ok(bytes) => {
            target(&bytes);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}
