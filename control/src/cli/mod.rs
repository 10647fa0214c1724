//! The command line.

mod agent;
mod check;
mod ctl;
mod database;
mod key;
mod serve;
mod user;

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
    /// Tell whether this machine can run the server, and what to change if not; or make a certificate.
    Check(Box<check::CheckArgs>),
    /// Add, list and remove users, and set their passwords.
    User(user::UserArgs),
    /// Add, list and remove agents of the AgentGateway API.
    Agent(agent::AgentArgs),
    /// Make, list and revoke API keys.
    Key(key::KeyArgs),
    /// The main job on real speech, with nothing set up.
    Demo(demo::DemoArgs),
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Subcommands::Serve(args) => serve::main(*args),
        Subcommands::Ctl(args) => ctl::main(&args),
        Subcommands::Check(args) => check::main(*args),
        Subcommands::User(args) => user::main(args),
        Subcommands::Agent(args) => agent::main(args),
        Subcommands::Key(args) => key::main(args),
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

    #[test]
    fn users_agents_and_keys_are_understood() {
        for line in [
            "user add anna --extension 7001 --role icws --role verba --state-dir d",
            "user list --config f",
            "user --state-dir d remove anna",
            "user passwd anna",
            "user hash",
            "agent add 101 --phone 8801 --vdn 2 --inspector --no-password",
            "agent list",
            "key add crm --scope verba --days 90 --network 192.0.2.0/24 --requires-token --guid",
            "key revoke crm",
            "check --make-cert d --name a --name 192.0.2.1",
            "check --config f --ports 30000-30099",
        ] {
            Cli::try_parse_from(["ringbridge"].into_iter().chain(line.split(' '))).expect(line);
        }
        for line in [
            // A password on the command line would show in the process list.
            "user add anna --password secret",
            "user add anna secret",
            "user passwd anna secret",
            "user add anna --role boss",
            "key add crm",
            "key add crm --scope everything",
            "key add crm --scope verba --days 0",
            "check --name a",
        ] {
            Cli::try_parse_from(["ringbridge"].into_iter().chain(line.split(' '))).expect_err(line);
        }
    }
}
