//! Clients that mean harm, and a disk that is full.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use hound::WavReader;
use ringbridge_tests::audio::Codec;
use ringbridge_tests::{PATIENCE, until};

use crate::Row;
use crate::media::Talk;
use crate::rig::{ALWAYS, ENDED, OPEN, Rig, SPAN, Serving, encode, state};

/// Texts an endpoint may signal as its number.
const HOSTILE: [&str; 14] = [
    "<script>alert(1)</script>",
    "</source_caller_id><source_caller_id>x",
    "</Response></VerbaApi><Response code=\"0\"/>",
    "\" onload=\"x",
    "' or ''='",
    "]]><![CDATA[x",
    "<!--",
    "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>&e;",
    "&lt;&amp;&#0;&#x26;",
    "a\r\nSet-Cookie: x=y\r\n\r\n<html>",
    "a\ncode=0\ntype=MuteRecording",
    "\u{0}\u{1}\u{8}\u{1b}[31m",
    "\u{202e}\u{feff}\u{fffe}\u{ffff}\u{10ffff}",
    "%00%0d%0a{{7*7}}${x}",
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, text) in HOSTILE.into_iter().enumerate() {
        for side in [0, 1] {
            rows.push(Row::new(format!("hostile::number_{number:02}_of_{}", ["caller", "called"][side]), move |rig| {
                signalled(rig, text, side);
            }));
        }
        rows.push(Row::new(format!("hostile::every_parameter_{number:02}"), move |rig| every_parameter(rig, text)));
    }
    let mut row = |name: &str, run: fn(&mut Rig)| rows.push(Row::new(format!("hostile::{name}"), run));
    row("long_numbers", long_numbers);
    row("thousands_of_parameters", thousands_of_parameters);
    row("requests_that_are_no_http", no_http);
    row("two_requests_in_one", two_in_one);
    row("a_body_that_never_ends_is_cut_off", half_body);
    row("searches_as_large_as_can_be", large_searches);
    rows.push(Row::alone("hostile::hundreds_of_half_requests", half_requests));
    rows.push(Row::alone("hostile::a_disk_that_gets_full", full_disk));
    rows.push(Row::alone("hostile::a_listener_for_everybody_needs_tls", everybody));
    rows
}

/// What XML can't hold is replaced; the rest comes back as it was.
fn told(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { char })
        .collect()
}

fn signalled(rig: &mut Rig, text: &str, side: usize) {
    let own = rig.number(0);
    let hostile = format!("{own}{text}");
    let mut numbers = [ALWAYS, ALWAYS];
    numbers[side] = &hostile;
    rig.call(numbers[0], numbers[1]);
    let found = until("the call", || {
        rig.ok(&format!("action=SearchCalls&status=ongoing&{SPAN}&anynum={own}")).child("ccdr_id")
    });
    let element = ["source_caller_id", "destination_caller_id"][side];
    for query in [
        format!("action=GetCallInformation&callID={found}"),
        format!("action=SearchCalls&status=ongoing&{SPAN}&anynum={own}"),
    ] {
        // A strict reader of XML takes it, and finds the text as text.
        let reply = rig.ok(&query);
        assert_eq!(reply.children(element), [told(&hostile)]);
        assert!(!reply.head.contains("set-cookie"), "{reply:?}");
        let html = rig.ask(&format!("{query}&responseType=HTML"));
        let cells = html.text.matches("<td>").count();
        assert_eq!(cells, html.text.matches("</td>").count());
        assert!(
            !html.text.contains("<script") && !html.text.contains("<!--") && !html.text.contains("\" onload"),
            "{html:?}"
        );
        // One line for each item, whatever is in it.
        let lines = rig.ask(&format!("{query}&responseType=TEXT"));
        assert_eq!(lines.text.lines().filter(|line| line.starts_with("code=")).count(), 1, "{lines:?}");
        assert_eq!(lines.text.lines().filter(|line| line.starts_with("type=")).count(), 1, "{lines:?}");
        assert!(lines.text.lines().all(|line| line.contains('=')), "{lines:?}");
        assert!(!lines.head.contains("set-cookie"), "{lines:?}");
    }
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={found}&mute=1")).muted(), state(1));
}

fn every_parameter(rig: &mut Rig, text: &str) {
    let value = encode(text);
    for name in [
        "action",
        "apiKey",
        "token",
        "responseType",
        "callID",
        "extension",
        "status",
        "mute",
        "type",
        "unmark",
        "start",
        "end",
        "pagelen",
        "cid",
        "format",
        "platformCallID",
        "nativeID",
        "userName",
        &value,
    ] {
        for action in ["MuteRecording", "SearchCalls", "GetMediaEncoded", "KeepCall"] {
            let reply = rig.get(&format!("action={action}&apiKey={OPEN}&{name}={value}"));
            assert_ne!(reply.code(), "0", "{name}: {reply:?}");
            assert_ne!(reply.code(), "9", "{name}: {reply:?}");
            assert!(!reply.head.contains("set-cookie"), "{name}: {reply:?}");
        }
    }
}

fn long_numbers(rig: &mut Rig) {
    let number = format!("{}{}", rig.number(0), "9".repeat(247));
    assert_eq!(number.len(), 256);
    let (_, id) = rig.recorded(&number);
    assert_eq!(rig.ok(&format!("action=GetCallInformation&callID={id}")).child("source_caller_id"), Some(number));
    for length in [257, 1000, 15_000] {
        let reply = rig.ask(&format!("action=MuteRecording&status=ongoing&extension={}", "9".repeat(length)));
        assert_eq!(reply.code(), "2", "{reply:?}");
    }
}

fn thousands_of_parameters(rig: &mut Rig) {
    let number = rig.number(0);
    let (_, id) = rig.recorded(&number);
    let many = "&a=1".repeat(3500);
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}{many}&mute=1")).muted(), state(1));
    let all = "&".repeat(8000);
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}{all}&mute=2")).muted(), state(2));
    let equals = "&===".repeat(2000);
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}{equals}&mute=3")).muted(), state(3));
}

/// Sends bytes and reads to the end.
fn raw(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset counts as closed.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn no_http(rig: &mut Rig) {
    let long = [b"GET /verba/api?x=".as_slice(), &vec![b'y'; 200_000], b" HTTP/1.0\r\n\r\n"].concat();
    let headers = [b"GET /verba/api HTTP/1.0\r\n".as_slice(), "x: y\r\n".repeat(1000).as_bytes(), b"\r\n"].concat();
    let cases: [&[u8]; 8] = [
        b"\r\n\r\n\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /verba/api\r\n\r\n",
        b"GET /verba/api HTTP/9.9\r\n\r\n",
        b"POST /verba/api HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /verba/api HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        &long,
        &headers,
    ];
    for bytes in cases {
        let answer = raw(rig, bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{answer}");
    }
    // A length that is a lie, and one that is given twice.
    let declared = raw(rig, b"POST /verba/api HTTP/1.0\r\ncontent-length: 1000000\r\n\r\n");
    assert!(declared.contains(" 413 "), "{declared}");
    let twice = raw(rig, b"POST /verba/api HTTP/1.0\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nabc");
    assert!(twice.is_empty() || twice.contains(" 400 "), "{twice}");
    rig.settle();
}

fn two_in_one(rig: &mut Rig) {
    // A line break in an address makes no second request or header out of it.
    for path in [
        "/verba/api?action=x%0d%0aGET%20/verba/api",
        "/verba/api?action=x%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0aX-Evil:%201",
    ] {
        let answer = raw(rig, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
        assert!(!answer.to_ascii_lowercase().contains("x-evil"), "{answer}");
    }
    // Chunks and a length at once: one answer at most, and no second request hidden in the body.
    let smuggled = format!(
        "POST /verba/api?apiKey={OPEN} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\nGET /verba/api HTTP/1.1\r\nhost: x\r\n\r\n"
    );
    let answer = raw(rig, smuggled.as_bytes());
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
}

fn half_body(rig: &mut Rig) {
    let mut stream = TcpStream::connect(rig.api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /verba/api HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\naction=").unwrap();
    rig.settle();
    let mut answer = String::new();
    // The rest never comes: the server says so and closes, by itself.
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

fn large_searches(rig: &mut Rig) {
    let words: String = (0..32).map(|word| format!("&anynum={}{word}", "7".repeat(300))).collect();
    for _ in 0..5 {
        rig.ok(&format!("action=SearchCalls&{SPAN}&pagelen=1000{words}"));
    }
}

fn half_requests() {
    let serving = Serving::start(8, 1, "");
    let mut rig = serving.rig();
    let mut halves = Vec::new();
    for (number, half) in ["GET /verba/api?", "POST /verba/api HTTP/1.1\r\nhost: x\r\n", "", "G"]
        .into_iter()
        .cycle()
        .take(1500)
        .enumerate()
    {
        let mut stream = TcpStream::connect(rig.api).unwrap();
        stream.write_all(half.as_bytes()).unwrap();
        halves.push(stream);
        if number % 500 == 0 {
            rig.settle();
        }
    }
    // Everybody else is served as before.
    let number = rig.number(0);
    let (_, id) = rig.recorded(&number);
    assert_eq!(rig.ok(&format!("action=MuteRecording&callID={id}&mute=3")).muted(), state(3));
    drop(halves);
    drop(rig);
    serving.server.stop();
}

/// A file system of its own, gone with this.
struct Small(std::path::PathBuf);

impl Small {
    /// `None` where this process may not mount.
    fn mount(directory: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&directory).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&directory).status();
        status.is_ok_and(|status| status.success()).then_some(Self(directory))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a writer may still hold a file.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn full_disk() {
    let serving = Serving::start(8, 1, "");
    let mut rig = serving.rig();
    let Some(small) = Small::mount(rig.directory.join("recordings/verba")) else {
        println!("this process may not mount");
        drop(rig);
        return serving.server.stop();
    };
    let number = rig.number(0);
    let mut talk = Talk::begin(&mut rig, Codec::Pcmu, &number, ALWAYS);
    let id = rig.id(&number, "ongoing");
    // 256 KiB are some eight seconds; then the recording is over, but not the call.
    until("the end of the recording", || {
        (rig.ask(&format!("action=GetCallInformation&callID={id}")).cdr_state()? == "1").then_some(())
    });
    rig.fails(&format!("action=MuteRecording&callID={id}&mute=1"), 2, ENDED);
    rig.fails(&format!("action=MuteRecording&extension={number}&status=ongoing&mute=1"), 2, "not being recorded");
    talk.pass(10);
    talk.fall_silent();
    // What there is of it can be fetched and played.
    let answer = rig.request("GET", &format!("/verba/api?action=GetMediaEncoded&apiKey={OPEN}&cid={id}"), &[], "");
    assert_eq!(answer.status, 200);
    let samples = WavReader::new(answer.body.as_slice()).unwrap().duration();
    assert!(samples > 8000 && samples < 65_536, "{samples}");
    // No other call can be recorded, and nobody is told that it is.
    let other = rig.number(1);
    rig.call(&other, ALWAYS);
    rig.settle();
    let reply = rig.ask(&format!("action=MuteRecording&extension={other}&status=ongoing&mute=1"));
    assert_ne!(reply.code(), "9", "{reply:?}");
    // Room is made, and everything is as before.
    rig.ok(&format!("action=DeleteCall&callID={id}"));
    rig.gone(&id);
    let third = rig.number(2);
    let (pair, id) = rig.recorded(&third);
    rig.finish(&pair, &id);
    assert_eq!(rig.manifest(&id)["state"], "complete");
    drop(talk);
    drop(rig);
    drop(small);
    serving.server.stop();
}

fn everybody() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringbridge-under-test"))
        .args(["serve", "--shards", "1", "--ports", "40000-40003", "--verba", "0.0.0.0:0", "--state-dir"])
        .arg(directory.path())
        .arg("--control-socket")
        .arg(directory.path().join("control.sock"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("without TLS"), "{text}");
}
