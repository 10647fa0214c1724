//! `ringbridge user`: who may log in. Works beside a running server.

use std::process::ExitCode;

use jiff::Timestamp;

use super::database::{self, CommandError, DatabaseArgs, new_password, or_dash, print_table, words};
use crate::store::users::{self, Role, User};

/// What to do.
#[derive(Debug, clap::Args)]
pub(super) struct UserArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, clap::Subcommand)]
enum UserCommand {
    /// Add a user. The password is asked for, or read from the first line of stdin.
    Add(AddArgs),
    /// List the users.
    List,
    /// Remove a user whose mailbox is empty.
    Remove {
        /// What the user logs in with.
        name: String,
    },
    /// Set another password, asked for or read from stdin.
    Passwd {
        /// What the user logs in with.
        name: String,
    },
    /// Print the hash of a password for `password_hash` in the configuration.
    Hash,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What the user logs in with.
    name: String,
    /// The number of the user's telephone.
    #[arg(long, value_name = "N")]
    extension: Option<String>,
    /// What the user may do: `icws`, `verba` or `admin`. May be repeated.
    #[arg(long = "role", value_name = "R")]
    roles: Vec<Role>,
    /// The name shown to people.
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// The station the user sits at unless another is named.
    #[arg(long, value_name = "ID")]
    station: Option<String>,
    /// Time zone of times shown to the user, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

pub(super) fn main(args: UserArgs) -> ExitCode {
    database::done(run(args))
}

fn run(args: UserArgs) -> Result<(), CommandError> {
    let open = || args.database.open();
    let now = Timestamp::now();
    match args.command {
        UserCommand::Add(add) => {
            let connection = open()?;
            // Told before a password is asked for.
            if users::find(&connection, &add.name)?.is_some() {
                return Err(CommandError::Refused(format!("user {} exists already", add.name)));
            }
            let password = new_password(&add.name)?;
            let user = User {
                display_name: add.display_name.unwrap_or_else(|| add.name.clone()),
                extension: add.extension,
                station: add.station,
                time_zone: add.time_zone,
                roles: add.roles,
                ..User::new(add.name, password)
            };
            users::add(&connection, &user, now)?;
        }
        UserCommand::List => {
            let rows = users::list_all(&open()?)?.into_iter().map(|user| {
                let roles = words(&user.roles);
                vec![user.name, user.display_name, or_dash(user.extension), or_dash(user.station), roles]
            });
            print_table(&["NAME", "DISPLAY NAME", "EXTENSION", "STATION", "ROLES"], rows.collect());
        }
        UserCommand::Remove { name } => users::remove(&open()?, &name)?,
        UserCommand::Passwd { name } => {
            let connection = open()?;
            if users::find(&connection, &name)?.is_none() {
                return Err(CommandError::Refused(format!("user {name} does not exist")));
            }
            users::set_password(&connection, &name, &new_password(&name)?, now)?;
        }
        UserCommand::Hash => println!("{}", new_password("the user")?.as_str()),
    }
    Ok(())
}
