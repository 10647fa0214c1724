//! The command line.

mod check;
mod ctl;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::demo;

/// A media server for carriers: forwards RTP and mixes conferences, steered over a control socket.
#[derive(Debug, Parser)]
#[command(name = "ringbridge", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run the server in the foreground.
    Serve(Box<serve::ServeArgs>),
    /// Call a method of a running server, or follow its events with `ctl events`.
    Ctl(ctl::CtlArgs),
    /// Tell whether this machine can run the server, and what to change if not.
    Check(Box<serve::ServeArgs>),
    /// The main job on real speech, with nothing set up.
    Demo(demo::DemoArgs),
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Subcommands::Serve(args) => serve::main(*args),
        Subcommands::Ctl(args) => ctl::main(&args),
        Subcommands::Check(args) => check::main(*args),
        Subcommands::Demo(args) => match demo::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("ringbridge: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_contract_are_understood() {
        let line = "ringbridge serve --config f --shards auto --cpus 0-1 --bind 127.0.0.1 --ports 30000-30099 \
                    --control-socket s --mediacontrol 127.0.0.1:1 --agentgateway 127.0.0.1:2 --icws 127.0.0.1:3 \
                    --verba 127.0.0.1:4 --ng 127.0.0.1:5 --metrics 127.0.0.1:6 --state-dir d --audio-root a";
        Cli::try_parse_from(line.split_whitespace()).expect("valid");
        Cli::try_parse_from(["ringbridge", "ctl", "connection.get", "connection_id=conn-0-0-0"]).expect("valid");
        Cli::try_parse_from(["ringbridge", "ctl", "--json", "server.info"]).expect("valid");
        Cli::try_parse_from(["ringbridge", "ctl", "server.info", "--json"]).expect("valid");
        Cli::try_parse_from(["ringbridge", "serve", "--shards", "0"]).expect_err("no shards");
    }
}
