//! `ringbridge user`, `agent`, `key` and `check --make-cert` as they are run.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use ringbridge_control::auth::{KeyHash, Password, Passwords};
use ringbridge_control::store::users::Role;
use ringbridge_control::store::{agents, connect, keys, path_in, users};

/// What a command printed on stdout and stderr, and whether it succeeded.
struct Ran {
    out: String,
    err: String,
    done: bool,
}

fn run(dir: &Path, line: &str, stdin: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringbridge"))
        .args(line.split(' '))
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that asks for nothing may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { out: text(output.stdout), err: text(output.stderr), done: output.status.success() }
}

fn verify(password: &str, stored: &users::User) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let passwords = Passwords::new().unwrap();
    runtime.block_on(passwords.verify(Password::new(password), Some(stored.password.clone()))).unwrap()
}

#[test]
fn users_are_added_listed_changed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("ringbridge.toml"), format!("state_dir = {:?}", dir.join("state"))).unwrap();
    let add = "user add anna --extension 7001 --role icws --role verba --config ringbridge.toml";
    let ran = run(dir, add, "a good password\nnot this\n");
    assert!(ran.done && ran.out.is_empty(), "{}", ran.err);
    let database = connect(&path_in(&dir.join("state"))).unwrap();
    let anna = users::find(&database, "anna").unwrap().unwrap();
    assert_eq!((anna.extension.as_deref(), &anna.roles[..]), (Some("7001"), &[Role::Icws, Role::Verba][..]));
    assert!(verify("a good password", &anna) && !verify("not this", &anna));
    // The connection above stays open, as a server's would.
    let ran = run(dir, "user add anna --state-dir state", "a good password\n");
    assert!(!ran.done && ran.err.contains("anna exists already"), "{}", ran.err);
    let ran = run(dir, "user add berta --state-dir state --extension 7001", "a good password\n");
    assert!(!ran.done && ran.err.contains("extension 7001 exists already"), "{}", ran.err);
    let ran = run(dir, "user add berta --state-dir state", "short\n");
    assert!(!ran.done && ran.err.contains("at least 8"), "{}", ran.err);
    let ran = run(dir, "user list --state-dir state", "");
    assert!(ran.out.lines().count() == 2 && ran.out.contains("7001") && ran.out.contains("icws,verba"), "{}", ran.out);
    assert!(!ran.out.contains("argon2"), "{}", ran.out);
    assert!(run(dir, "user passwd anna --state-dir state", "another password\n").done);
    let anna = users::find(&database, "anna").unwrap().unwrap();
    assert!(verify("another password", &anna) && !verify("a good password", &anna));
    assert!(run(dir, "user remove anna --state-dir state", "").done);
    let ran = run(dir, "user remove anna --state-dir state", "");
    assert!(!ran.done && ran.err.contains("does not exist"), "{}", ran.err);
    assert!(run(dir, "agent add 101 --no-password --vdn 3 --state-dir state", "").done);
    assert_eq!(agents::find(&database, 101).unwrap().unwrap().vdn_id, 3);
    assert!(!run(dir, "agent add 100 --no-password --state-dir state", "").done);
    let ran = run(dir, "user hash", "a good password\n");
    assert!(ran.out.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", ran.out);
}

#[test]
fn a_key_is_printed_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ran = run(dir, "key add crm --scope verba --days 1 --state-dir state", "");
    let key = ran.out.trim();
    assert!(ran.done && key.len() == 43, "{}", ran.err);
    let database = connect(&path_in(&dir.join("state"))).unwrap();
    let now = Timestamp::now();
    let found = keys::find_valid(&database, &KeyHash::of(key), now).unwrap().unwrap();
    assert_eq!(found.name, "crm");
    let days = (found.expires_at.unwrap() - now).total(jiff::Unit::Second).unwrap() / 86_400.0;
    assert!((0.9..=1.0).contains(&days), "{days}");
    let ran = run(dir, "key list --state-dir state", "");
    assert!(ran.out.contains("valid") && !ran.out.contains(key), "{}", ran.out);
    assert!(run(dir, "key revoke crm --state-dir state", "").done);
    assert_eq!(keys::find_valid(&database, &KeyHash::of(key), now).unwrap(), None);
    let ran = run(dir, "key list --state-dir state", "");
    assert!(ran.out.contains("revoked"), "{}", ran.out);
    let ran = run(dir, "key add crm --scope verba --state-dir state", "");
    assert!(!ran.done && ran.out.is_empty() && ran.err.contains("exists already"), "{}", ran.err);
}

#[test]
fn a_certificate_is_made_that_the_configuration_takes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ran = run(dir, "check --make-cert tls --name media.example", "");
    assert!(ran.done, "{}", ran.err);
    // What it prints goes into the configuration as it is.
    std::fs::write(dir.join("ringbridge.toml"), &ran.out).unwrap();
    let config = ringbridge_control::config::Config::from_file(&dir.join("ringbridge.toml")).unwrap();
    ringbridge_control::tls::load(&config.tls.unwrap()).unwrap();
    let ran = run(dir, "check --make-cert tls", "");
    assert!(!ran.done && ran.err.contains("never overwritten"), "{}", ran.err);
}
