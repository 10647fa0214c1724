//! SIPp, which sends the telephone-events (RFC 4733) of recorded telephones.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ringbridge_tests::server::{Events, wait_for_exit};
use serde_json::json;

use crate::setup;
use ringbridge_tests::server::free_pair;

/// Where Debian's sip-tester keeps its recordings; all have one SSRC, and these are in order.
const RECORDINGS: &str = "/usr/share/sip-tester";
const PRESSED: [(&str, &str); 5] = [("1", "1"), ("2", "2"), ("9", "9"), ("star", "*"), ("pound", "#")];

/// A process of SIPp. Ended when dropped.
pub(crate) struct Sipp(Child);

impl Sipp {
    /// Takes one call at `port`, and names `media` as the place to send RTP of this format to: payload type and `rtpmap`.
    pub(crate) fn answer(directory: &Path, port: u16, media: SocketAddr, format: (u8, &str)) -> Self {
        let name = format!("callee-{port}");
        Self::start(directory, &name, &callee(media, &[format]), &["-p".into(), port.to_string()])
    }

    fn start(directory: &Path, name: &str, scenario: &str, args: &[String]) -> Self {
        let file = directory.join(format!("{name}.xml"));
        fs::write(&file, scenario).unwrap();
        let log = fs::File::create(directory.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(&file).args(["-i", "127.0.0.1", "-m", "1", "-nostdin", "-timeout", "60s"]).args(args);
        command.current_dir(directory).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().expect("sipp is installed (Debian: sip-tester)"))
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Accepts a call and names `media` as the place to send RTP of these formats to.
fn callee(media: SocketAddr, formats: &[(u8, &str)]) -> String {
    let (ip, port) = (media.ip(), media.port());
    let numbers: String = formats.iter().map(|(number, _)| format!(" {number}")).collect();
    let names: Vec<String> = formats.iter().map(|(number, name)| format!("      a=rtpmap:{number} {name}")).collect();
    let names = names.join("\n");
    format!(
        r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="callee">
  <recv request="INVITE"/>
  <send><![CDATA[
      SIP/2.0 200 OK
      [last_Via:]
      [last_From:]
      [last_To:];tag=callee[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Contact: <sip:[local_ip]:[local_port]>
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=- 1 1 IN IP4 {ip}
      s=-
      c=IN IP4 {ip}
      t=0 0
      m=audio {port} RTP/AVP{numbers}
{names}
  ]]></send>
  <recv request="ACK"/>
  <recv request="BYE"/>
  <send><![CDATA[
      SIP/2.0 200 OK
      [last_Via:]
      [last_From:]
      [last_To:]
      [last_Call-ID:]
      [last_CSeq:]
      Content-Length: 0
  ]]></send>
</scenario>
"#
    )
}

/// Calls, presses the digits one by one, and hangs up.
fn caller() -> String {
    let presses: String = PRESSED
        .iter()
        .map(|(name, _)| {
            format!(
                "  <nop><action><exec play_pcap_audio=\"{RECORDINGS}/dtmf_2833_{name}.pcap\"/></action></nop>\n  \
                 <pause milliseconds=\"400\"/>\n"
            )
        })
        .collect();
    format!(
        r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="caller">
  <send><![CDATA[
      INVITE sip:ivr@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:caller@[local_ip]:[local_port]>;tag=caller[call_number]
      To: <sip:ivr@[remote_ip]:[remote_port]>
      Call-ID: [call_id]
      CSeq: 1 INVITE
      Contact: <sip:caller@[local_ip]:[local_port]>
      Max-Forwards: 70
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=- 1 1 IN IP4 [local_ip]
      s=-
      c=IN IP4 [media_ip]
      t=0 0
      m=audio [media_port] RTP/AVP 0 101
      a=rtpmap:101 telephone-event/8000
  ]]></send>
  <recv response="200"/>
  <send><![CDATA[
      ACK sip:ivr@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:caller@[local_ip]:[local_port]>;tag=caller[call_number]
      [last_To:]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Max-Forwards: 70
      Content-Length: 0
  ]]></send>
{presses}  <send><![CDATA[
      BYE sip:ivr@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: <sip:caller@[local_ip]:[local_port]>;tag=caller[call_number]
      [last_To:]
      Call-ID: [call_id]
      CSeq: 2 BYE
      Max-Forwards: 70
      Content-Length: 0
  ]]></send>
  <recv response="200"/>
</scenario>
"#
    )
}

#[test]
#[ignore = "needs SIPp (Debian: sip-tester), and root for its raw sockets"]
fn telephone_events_arrive_as_digits() {
    let server = setup().start();
    let mut events = Events::follow(&server);
    let media = free_pair();
    let leg = server.create(json!({"remote": format!("127.0.0.1:{media}"), "telephone_event_pt": 101}));
    let (callee_port, caller_port) = (free_pair(), free_pair());
    let directory = server.directory();
    let formats = [(0, "PCMU/8000"), (101, "telephone-event/8000")];
    let args = |port: u16, rest: &[String]| [&["-p".to_owned(), port.to_string()][..], rest].concat();
    let _callee = Sipp::start(directory, "callee", &callee(leg.local, &formats), &args(callee_port, &[]));
    let to = format!("127.0.0.1:{callee_port}");
    let mut call =
        Sipp::start(directory, "caller", &caller(), &args(caller_port, &["-mp".into(), media.to_string(), to]));
    for (_, digit) in PRESSED {
        events.wait("digit", "digit", digit);
    }
    let ended = wait_for_exit(&mut call.0);
    assert!(
        ended.is_some_and(|status| status.success()),
        "{ended:?}: {}",
        fs::read_to_string(directory.join("caller.log")).unwrap_or_default()
    );
    let heard = events.of("digit", "connection_id", &leg.id);
    let digits: Vec<&str> = heard.iter().filter_map(|event| event["digit"].as_str()).collect();
    assert_eq!(digits, PRESSED.map(|(_, digit)| digit), "each once, in order");
    server.stop();
}
