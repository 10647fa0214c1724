//! Settings and machines the server can't run with: a status that is not zero, and one sentence that says what to
//! change.

use std::fs;
use std::process::{Command, Output, Stdio};

use ringbridge_tests::server::wait_for_exit;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::BINARY;

/// Runs `program` with the server's options for a directory of its own; it has to end by itself.
fn run(program: &mut Command, args: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ringbridge.toml"), "").unwrap();
    program.arg("serve").args(["--ports", "10000-10015", "--shards", "1", "--state-dir"]).arg(directory.path());
    program.arg("--control-socket").arg(directory.path().join("control.sock"));
    run_as_is(program, args)
}

fn run_as_is(program: &mut Command, args: &[&str]) -> Output {
    program.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    if wait_for_exit(&mut child).is_none() {
        child.kill().unwrap();
    }
    child.wait_with_output().unwrap()
}

/// The status is one of failure, and the last line names what is wrong.
fn fails(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{}: {text}", output.status);
    assert!(output.stdout.is_empty(), "it said that it was ready");
    let sentences: Vec<&str> = text.lines().filter(|line| line.starts_with("ringbridge: ")).collect();
    assert_eq!(sentences.len(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

macro_rules! options {
    ($($name:ident: $($arg:literal),+ => $($word:literal),+;)*) => {
        mod options {
            use super::*;
            $(#[test]
            fn $name() {
                // Given last, an option that stands twice is refused as well; so the others are left out.
                let output = run_as_is(Command::new(BINARY).arg("serve"), &[$($arg),+]);
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(!output.status.success() && output.status.code().is_some(), "{}: {text}", output.status);
                assert!(output.stdout.is_empty() && !text.contains("panicked"), "{text}");
                $(assert!(text.contains($word), "{text}");)+
            })*
        }
    };
}

options! {
    no_shards: "--shards", "0" => "--shards", "1 to 255";
    shards_a_word: "--shards", "many" => "--shards";
    shards_256: "--shards", "256" => "--shards";
    ports_odd: "--ports", "10001-10010" => "--ports", "even";
    ports_low: "--ports", "80-90" => "--ports", "1024";
    ports_backwards: "--ports", "20000-10000" => "--ports";
    ports_a_word: "--ports", "some" => "--ports";
    ports_too_high: "--ports", "60000-70000" => "--ports";
    bind_a_name: "--bind", "localhost" => "--bind";
    bind_anywhere: "--bind", "0.0.0.0" => "bind", "one address of this machine";
    cpus_backwards: "--cpus", "3-1" => "--cpus";
    cpus_twice: "--cpus", "0,0" => "--cpus", "twice";
    cpus_not_there: "--cpus", "1000" => "cpus";
    metrics_without_port: "--metrics", "127.0.0.1" => "--metrics";
    metrics_for_everybody: "--metrics", "0.0.0.0:9999" => "metrics", "loopback";
    adapter_of_later: "--ng", "127.0.0.1:9999" => "--ng", "not supported";
    icws_for_everybody: "--icws", "0.0.0.0:9999" => "icws", "without TLS";
    unknown: "--colour", "red" => "--colour";
    config_missing: "--config", "/nowhere/ringbridge.toml" => "/nowhere/ringbridge.toml";
    config_a_directory: "--config", "/tmp" => "/tmp";
}

macro_rules! configs {
    ($($name:ident: $config:literal => $($word:literal),+;)*) => {
        mod configs {
            use super::*;
            $(#[test]
            fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let file = directory.path().join("ringbridge.toml");
                fs::write(&file, $config).unwrap();
                let output = run(&mut Command::new(BINARY), &["--config", file.to_str().unwrap()]);
                fails(&output, &[$($word),+]);
            })*
        }
    };
}

configs! {
    unknown_key: "colour = \"red\"" => "colour";
    unknown_key_within: "[rtp]\ncolour = \"red\"" => "colour";
    not_toml: "this is nothing" => "ringbridge.toml";
    wrong_type: "media_threads = \"two\"" => "media_threads";
    shards_negative: "shards = -1" => "shards";
    batch_wait: "batch_wait_us = 1001" => "batch_wait_us", "0 to 1000";
    cache: "prompt_cache_mib = 0" => "prompt_cache_mib";
    threads: "media_threads = 65" => "media_threads", "1 to 64";
    drain: "drain_deadline_ms = 3600001" => "drain_deadline_ms";
    codec: "[rtp]\ncodec = \"G728\"" => "codec";
    ptime: "[rtp]\nptime_ms = 0" => "ptime_ms", "1 to 200";
    telephone_event: "[rtp]\ntelephone_event_pt = 8" => "telephone_event_pt";
    dscp: "[rtp]\ndscp = 64" => "dscp";
    interface_anywhere: "interfaces = { all = \"0.0.0.0\" }" => "interfaces";
    group: "control_group = \"no-such-group-here\"" => "no-such-group-here";
}

#[test]
fn a_control_socket_that_is_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("precious");
    fs::write(&file, "precious").unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--shards", "1", "--ports", "10000-10015", "--state-dir"]).arg(directory.path());
    let output = run_as_is(command.arg("--control-socket").arg(&file), &[]);
    fails(&output, &["precious", "no socket"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn a_state_directory_that_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("precious");
    fs::write(&file, "precious").unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--shards", "1", "--ports", "10000-10015", "--state-dir"]).arg(&file);
    let output = run_as_is(command.arg("--control-socket").arg(directory.path().join("s")), &[]);
    fails(&output, &["precious"]);
}

#[test]
fn too_little_locked_memory() {
    let output = run(Command::new("prlimit").args(["--memlock=65536:65536", BINARY]), &[]);
    fails(&output, &["RLIMIT_MEMLOCK", "LimitMEMLOCK"]);
}

#[test]
fn too_few_files() {
    let output = run(Command::new("prlimit").args(["--nofile=20:20", BINARY]), &[]);
    fails(&output, &["RLIMIT_NOFILE"]);
}

/// Starts the server behind a filter that answers every io_uring call with `errno`.
fn without_io_uring(errno: i32) -> Output {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let machine = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine).unwrap().try_into().unwrap();
    // A filter holds for the thread that sets it and all it starts, and for nobody else.
    std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        run(&mut Command::new(BINARY), &[])
    })
    .join()
    .unwrap()
}

#[test]
fn io_uring_is_not_permitted() {
    fails(&without_io_uring(libc::EPERM), &["io_uring", "seccomp"]);
}

#[test]
fn there_is_no_io_uring() {
    fails(&without_io_uring(libc::ENOSYS), &["io_uring", "CONFIG_IO_URING"]);
}
