//! `ringbridge agent`: agents of the AgentGateway API. Works beside a running server.

use std::process::ExitCode;

use jiff::Timestamp;

use super::database::{self, CommandError, DatabaseArgs, new_password, or_dash, print_table};
use crate::auth::{Password, Passwords};
use crate::store::agents::{self, Agent};

/// What to do.
#[derive(Debug, clap::Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AgentCommand {
    /// Add an agent. The password is asked for, or read from the first line of stdin.
    Add(AddArgs),
    /// List the agents.
    List,
    /// Remove an agent.
    Remove {
        /// The work number.
        work_number: u32,
    },
    /// Set another password, asked for or read from stdin.
    Passwd {
        /// The work number.
        work_number: u32,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What the agent signs in with, 101 to 999999.
    work_number: u32,
    /// The only number the agent may sign in with.
    #[arg(long, value_name = "N")]
    phone: Option<String>,
    /// The virtual call centre (VDN) the agent belongs to.
    #[arg(long, value_name = "N", default_value_t = 1)]
    vdn: u32,
    /// The agent may query the conferences of others.
    #[arg(long)]
    inspector: bool,
    /// The agent signs in with an empty password. For closed networks.
    #[arg(long)]
    no_password: bool,
}

pub(super) fn main(args: AgentArgs) -> ExitCode {
    database::done(run(args))
}

fn run(args: AgentArgs) -> Result<(), CommandError> {
    let connection = args.database.open()?;
    let now = Timestamp::now();
    match args.command {
        AgentCommand::Add(add) => {
            if agents::find(&connection, add.work_number)?.is_some() {
                return Err(CommandError::Refused(format!("agent {} exists already", add.work_number)));
            }
            let password = if add.no_password {
                Passwords::hash_here(&Password::new(""))?
            } else {
                new_password(&format!("agent {}", add.work_number))?
            };
            let agent = Agent {
                phone: add.phone,
                vdn_id: add.vdn,
                inspector: add.inspector,
                ..Agent::new(add.work_number, password)
            };
            agents::add(&connection, &agent, now)?;
        }
        AgentCommand::List => {
            let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
            let rows = agents::list_all(&connection)?.into_iter().map(|agent| {
                let (vdn, inspector, locked) = (agent.vdn_id.to_string(), yes(agent.inspector), yes(agent.locked));
                vec![agent.work_number.to_string(), or_dash(agent.phone), vdn, inspector, locked]
            });
            print_table(&["WORK NUMBER", "PHONE", "VDN", "INSPECTOR", "LOCKED"], rows.collect());
        }
        AgentCommand::Remove { work_number } => agents::remove(&connection, work_number)?,
        AgentCommand::Passwd { work_number } => {
            if agents::find(&connection, work_number)?.is_none() {
                return Err(CommandError::Refused(format!("agent {work_number} does not exist")));
            }
            let password = new_password(&format!("agent {work_number}"))?;
            agents::set_password(&connection, work_number, &password, now)?;
        }
    }
    Ok(())
}
