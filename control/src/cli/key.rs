//! `ringbridge key`: API keys of applications. Works beside a running server.

use std::io::{self, Write};
use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};

use super::database::{self, CommandError, DatabaseArgs, or_dash, print_table, words};
use crate::auth::Token;
use crate::store::keys::{self, ApiKey, Network, Scope};

/// What to do.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeyCommand {
    /// Make a key and print it, this once: only its SHA-256 is kept.
    Add(AddArgs),
    /// List the keys.
    List,
    /// Revoke a key for good.
    Revoke {
        /// Which application has it.
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Which application gets it; shows in the audit log.
    name: String,
    /// What it opens: `mediacontrol` or `verba`. May be repeated.
    #[arg(long = "scope", value_name = "S", required = true)]
    scopes: Vec<Scope>,
    /// After how many days it expires; never without this.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
    /// An address or network it may be used from, such as 192.0.2.0/24. May be repeated; any without this.
    #[arg(long = "network", value_name = "NET")]
    networks: Vec<Network>,
    /// Calls need the token of a user besides the key.
    #[arg(long)]
    requires_token: bool,
    /// Make it a GUID, for clients that take nothing else.
    #[arg(long)]
    guid: bool,
}

pub(super) fn main(args: KeyArgs) -> ExitCode {
    database::done(run(args))
}

fn run(args: KeyArgs) -> Result<(), CommandError> {
    let connection = args.database.open()?;
    let now = Timestamp::now();
    match args.command {
        KeyCommand::Add(add) => {
            let token = if add.guid { Token::random_guid() } else { Token::random() };
            let key = ApiKey {
                networks: add.networks,
                requires_token: add.requires_token,
                expires_at: add.days.map(|days| now + SignedDuration::from_hours(24 * i64::from(days))),
                ..ApiKey::new(add.name, token.hash(), &add.scopes)
            };
            keys::add(&connection, &key, now)?;
            let mut out = io::stdout().lock();
            if let Err(error) = writeln!(out, "{}", token.as_str()).and_then(|()| out.flush()) {
                // A key nobody has seen is of no use.
                keys::revoke(&connection, &key.name, now)?;
                return Err(CommandError::Refused(format!("the key can't be printed and was revoked: {error}")));
            }
        }
        KeyCommand::List => {
            let rows = keys::list_all(&connection)?.into_iter().map(|record| {
                let state = match (record.revoked_at, record.key.expires_at) {
                    (Some(at), _) => format!("revoked {at:.0}"),
                    (None, Some(at)) if at <= now => format!("expired {at:.0}"),
                    (None, _) => "valid".to_owned(),
                };
                let expires = or_dash(record.key.expires_at.map(|at| format!("{at:.0}")));
                let (scopes, networks) = (words(&record.key.scopes), words(&record.key.networks));
                vec![record.key.name, scopes, networks, expires, state]
            });
            print_table(&["NAME", "SCOPES", "NETWORKS", "EXPIRES", "STATE"], rows.collect());
        }
        KeyCommand::Revoke { name } => keys::revoke(&connection, &name, now)?,
    }
    Ok(())
}
