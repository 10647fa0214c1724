//! `ringbridge check`

use std::path::PathBuf;
use std::process::ExitCode;

use ringbridge_shard::probe::{self, Problem, Wanted};

use super::serve::{ServeArgs, machine};
use crate::tls;

/// What to check, or which certificate to make.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Make a certificate that signs itself, DIR/cert.pem and DIR/key.pem, instead of checking. Never overwrites.
    #[arg(long, value_name = "DIR")]
    make_cert: Option<PathBuf>,
    /// A host name or address the certificate is for; localhost without this. May be repeated.
    #[arg(long = "name", value_name = "HOST", requires = "make_cert")]
    names: Vec<String>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Whether this machine can run the server as these options and its configuration file say.
pub(super) fn main(args: CheckArgs) -> ExitCode {
    if let Some(directory) = &args.make_cert {
        // What is printed is to hold wherever the server is started.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
        return match tls::make_certificate(&directory, &args.names) {
            Ok(files) => {
                println!("[tls]\ncert = {:?}\nkey = {:?}", files.cert, files.key);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("ringbridge: {error}");
                ExitCode::FAILURE
            }
        };
    }
    // The server raises its limit of open files as it starts; what is judged is what it will have.
    let machine = match machine() {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("ringbridge: can't tell what this process may use: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = args.serve.into_config().and_then(|config| Ok((config.derive(&machine)?, config)));
    let (derived, config) = match config {
        Ok(checked) => checked,
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
    if let Some(Err(error)) = config.tls.as_ref().map(tls::load) {
        fit = false;
        println!("problem: {error}");
    }
    if !fit {
        return ExitCode::FAILURE;
    }
    println!("this machine can run the server");
    ExitCode::SUCCESS
}
