//! `ringbridge check`

use std::process::ExitCode;

use ringbridge_shard::probe::{self, Problem, Wanted};

use super::serve::{ServeArgs, machine};

/// Whether this machine can run the server as these options and its configuration file say.
pub(super) fn main(args: ServeArgs) -> ExitCode {
    // The server raises its limit of open files as it starts; what is judged is what it will have.
    let machine = match machine() {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("ringbridge: can't tell what this process may use: {error}");
            return ExitCode::FAILURE;
        }
    };
    let derived = match args.into_config().and_then(|config| config.derive(&machine)) {
        Ok(derived) => derived,
        Err(error) => {
            eprintln!("ringbridge: {error}");
            return ExitCode::FAILURE;
        }
    };
    let shards = u32::try_from(derived.shard_cpus.len()).unwrap_or(u32::MAX);
    let ports = u32::try_from(derived.port_pairs * 2).unwrap_or(u32::MAX);
    let probe = probe::probe();
    println!("kernel {}, {shards} shards, {ports} media ports", probe.kernel);
    let mut fit = true;
    for problem in probe.problems(Wanted { shards, ports }) {
        // With fewer files there can be fewer connections than ports; everything else works.
        let fatal = problem.is_fatal() && !matches!(problem, Problem::TooFewFiles { .. });
        fit &= !fatal;
        println!("{}: {problem}", if fatal { "problem" } else { "advice" });
    }
    if !fit {
        return ExitCode::FAILURE;
    }
    println!("this machine can run the server");
    ExitCode::SUCCESS
}
