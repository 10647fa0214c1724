//! What `user`, `agent` and `key` have in common: the database, passwords, lists.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use rusqlite::Connection;

use crate::auth::{Password, PasswordError, PasswordHash, Passwords};
use crate::config::{Config, ConfigError};
use crate::store::{self, StoreError};

/// Where the database is.
#[derive(Debug, clap::Args)]
pub(super) struct DatabaseArgs {
    /// Configuration file (TOML) of the server; its `state_dir` is looked in.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The server's state directory.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("{0}")]
    Refused(String),
    #[error("can't make the state directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("can't read the password: {0}")]
    Prompt(io::Error),
}

impl DatabaseArgs {
    /// Opens the database; a server may run beside it.
    pub(super) fn open(&self) -> Result<Connection, CommandError> {
        let mut config = self.config.as_deref().map(Config::from_file).transpose()?.unwrap_or_default();
        config.state_dir = self.state_dir.clone().or(config.state_dir);
        let path = config.state_dir()?;
        std::fs::create_dir_all(&path).map_err(|source| CommandError::Directory { path: path.clone(), source })?;
        Ok(store::connect(&store::path_in(&path))?)
    }
}

/// Ends a command.
pub(super) fn done(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringbridge: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks for a new password: twice and without showing it at a terminal, otherwise the first line of stdin.
pub(super) fn new_password(what: &str) -> Result<PasswordHash, CommandError> {
    let password = if io::stdin().is_terminal() {
        let ask = |prompt: String| rpassword::prompt_password(prompt).map_err(CommandError::Prompt);
        let first = ask(format!("New password of {what}: "))?;
        if ask("Once more: ".to_owned())? != first {
            return Err(CommandError::Refused("the two passwords differ".to_owned()));
        }
        first
    } else {
        first_line(&mut io::stdin().lock()).map_err(CommandError::Prompt)?
    };
    let password = Password::new(password);
    password.check().map_err(CommandError::Refused)?;
    Ok(Passwords::hash_here(&password)?)
}

fn first_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    // Longer than any password, and an end all the same.
    input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Prints a list.
pub(super) fn print_table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    table.add_rows(rows);
    println!("{}", table.trim_fmt());
}

/// What is not there.
pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Words of a list in one column.
pub(super) fn words<T: ToString>(words: &[T]) -> String {
    if words.is_empty() {
        return "-".to_owned();
    }
    words.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// Bytes of stdin that are looked at.
const LINE_BYTES_MAX: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line() {
        for (input, expected) in [
            ("secret word\nmore\n", "secret word"),
            ("with space \r\n", "with space "),
            ("no newline", "no newline"),
            ("", ""),
        ] {
            assert_eq!(first_line(&mut input.as_bytes()).unwrap(), expected);
        }
        let endless = "x".repeat(100_000);
        assert_eq!(first_line(&mut endless.as_bytes()).unwrap().len(), 8192);
    }
}
