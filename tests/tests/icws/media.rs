//! What a telephone hears: real RTP on loopback from the first packet of a message to the last.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use ringbridge_tests::audio::{Codec, Stream, share, tone};
use ringbridge_tests::endpoint::{Endpoint, Speech};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::rig::{LONG_HZ, SHORT_HZ, Seat, Session, VOICEMAIL, WAITING, World, world};
use crate::row::{Plain, Row, plain};

const ROWS: &[Plain] = &[
    ("media::heard_on_the_stations_connection", heard),
    ("media::nothing_from_the_effect_on", effect),
    ("media::nothing_from_the_effect_on_ten_times", effect_again),
    ("media::natural_end", natural_end),
    ("media::station_with_a_remote_is_called_and_hung_up", remote_station),
    ("media::station_with_a_remote_by_its_number", remote_number),
    ("media::station_with_a_remote_after_the_end", remote_end),
    ("media::station_with_a_remote_again_and_again", remote_again),
    ("media::remote_workstation_rings_at_its_number", remote_workstation),
    ("media::a_connection_is_preferred_to_the_remote", label_first),
    ("media::stopped_while_waiting_for_the_target", stop_waiting),
    ("media::stopped_by_another_session", stop_by_other),
    ("media::message_becomes_read", becomes_read),
    ("media::recorded_by_the_server_and_heard", recorded),
    ("media::recording_stopped_by_hand", recorded_stopped),
    ("media::two_messages_on_two_stations", two_stations),
    ("media::the_file_is_the_message", file),
    ("media::a_restart_keeps_everything", restart),
    ("media::signing_out_falls_silent", sign_out),
];

pub(crate) fn rows() -> Vec<Row> {
    plain(ROWS)
}

/// Waits until so many packets were heard.
#[track_caller]
fn listen(phone: &Endpoint, packets: usize) {
    phone.until("some of it", |heard| (heard.len() > packets).then_some(()));
}

/// How much of a tone a telephone has heard, in packets of 20 ms.
fn packets_of(phone: &Endpoint, hz: u32) -> usize {
    phone
        .stream(Codec::Pcmu)
        .map_or(0, |stream| stream.samples.chunks_exact(160).filter(|frame| share(frame, hz) > 0.5).count())
}

/// Stops a message and checks the stamp against what was heard: all before it, nothing from it on. Returns how long
/// after its receipt it took effect, in milliseconds of media time.
#[track_caller]
fn stop_exactly(session: &Session, phone: &Endpoint, id: &str, connection: Option<&str>) -> f64 {
    let stopped = session.stop(id);
    stopped.done(204);
    let effect: Value = serde_json::from_str(stopped.header("ringbridge-effect")).unwrap();
    let told = &effect["streams"][0];
    if let Some(connection) = connection {
        assert_eq!(told["connection_id"], connection);
    }
    let took = effect["media_time_ms"].as_f64().unwrap() - effect["received_media_time_ms"].as_f64().unwrap();
    assert!(took >= 0.0, "{effect}");
    let number = |name: &str| u32::try_from(told[name].as_u64().unwrap()).unwrap();
    let (ssrc, stamp) = (number("ssrc"), number("rtp_timestamp"));
    // The last packet with the message is on its way when the stop is answered.
    let stream: Stream = until("everything up to the stamp", || {
        let stream = phone.stream_of(ssrc, Codec::Pcmu)?;
        let index = stream.index(stamp)?;
        (stream.samples.len() >= index).then_some(stream)
    });
    let index = stream.index(stamp).unwrap();
    let last = &stream.samples[index.saturating_sub(320)..index];
    assert!(share(last, LONG_HZ) > 0.9, "it is heard up to the stamp");
    session.stop(id).done(204);
    if let Some(connection) = connection {
        // What is heard next is something else.
        let tone = json!({"kind": "tone", "connection_id": connection, "frequency_hz": 400, "duration_ms": 200});
        session.world.server.ok("operation.start", tone);
        phone.until("a tone", |_| (packets_of(phone, 400) > 5).then_some(()));
    }
    let stream = phone.stream_of(ssrc, Codec::Pcmu).unwrap();
    let after = &stream.samples[index..];
    assert!(
        after.chunks_exact(160).all(|frame| share(frame, LONG_HZ) < 0.1),
        "{} samples after the stamp",
        after.len()
    );
    took
}

/// A seat at a telephone, with a long message, about to be told.
struct Desk {
    seat: Seat,
    phone: Endpoint,
    connection: String,
    session: Session,
    id: String,
}

fn desk() -> Desk {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let connection = seat.connect(&phone).id;
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    Desk { seat, phone, connection, session, id }
}

fn heard() {
    let Desk { phone, session, id, .. } = desk();
    session.play(&id).done(204);
    assert_eq!(session.statuses(&id, 1), [0]);
    listen(&phone, 50);
    let stream = phone.stream(Codec::Pcmu).unwrap();
    let loud = stream.samples.chunks_exact(160).filter(|frame| share(frame, LONG_HZ) > 0.9).count();
    assert!(loud >= 49, "{loud} of 50 packets");
    assert!(share(&stream.samples, SHORT_HZ) < 0.05);
    session.stop(&id).done(204);
}

fn effect() {
    let Desk { phone, connection, session, id, .. } = desk();
    session.play(&id).done(204);
    listen(&phone, 30);
    stop_exactly(&session, &phone, &id, Some(&connection));
    assert_eq!(session.statuses(&id, 3), [0, 1, 1]);
}

fn effect_again() {
    let Desk { phone, connection, session, id, .. } = desk();
    let mut took = Vec::new();
    for round in 0..10 {
        phone.forget();
        session.play(&id).done(204);
        listen(&phone, 5 + round);
        took.push(stop_exactly(&session, &phone, &id, Some(&connection)));
        world().server.ok("operation.stop", json!({"connection_id": connection}));
    }
    // Two frames of 20 ms at most, if the machine lets the server work at all.
    assert!(took.iter().any(|took| *took <= 40.0), "{took:?}");
}

fn natural_end() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let connection = seat.connect(&phone).id;
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    assert_eq!(session.statuses(&id, 2), [0, 1]);
    // It was told after its last packet, and is told once.
    assert!((19..=21).contains(&packets_of(&phone, SHORT_HZ)), "{}", packets_of(&phone, SHORT_HZ));
    assert_eq!(session.poll(), [] as [Value; 0]);
    assert_eq!(seat.world.server.get(&connection)["operations"], json!([]), "the station stays up");
}

/// Connections with a station's label.
fn lines(world: &World, station: &str) -> usize {
    let listed = world.server.ok("connection.list", json!({}));
    let label = format!("station:{station}");
    listed["connections"].as_array().unwrap().iter().filter(|it| it["label"] == label.as_str()).count()
}

#[track_caller]
fn until_hung_up(world: &World, station: &str) {
    until("hung up", || (lines(world, station) == 0).then_some(()));
}

fn remote_station() {
    let (seat, phone) = (world().seat(), world().phone());
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    assert_eq!(lines(&seat.world, &phone.station), 0);
    session.play_at(&id, &phone.station).done(204);
    assert_eq!(lines(&seat.world, &phone.station), 1);
    listen(phone.endpoint(), 30);
    stop_exactly(&session, phone.endpoint(), &id, None);
    until_hung_up(&seat.world, &phone.station);
    assert_eq!(session.statuses(&id, 3), [0, 1, 1]);
}

fn remote_number() {
    let (seat, phone) = (world().seat(), world().phone());
    let (session, id) = (seat.sign_in(), seat.voicemail());
    let settings = json!({"__type": "urn:inin.com:connection:remoteNumberSettings", "remoteNumber": phone.number()});
    session.call("PUT", "connection/station", settings.to_string()).done(200);
    session.play(&id).done(204);
    listen(phone.endpoint(), 10);
    session.stop(&id).done(204);
    until_hung_up(&seat.world, &phone.station);
}

fn remote_end() {
    let (seat, phone) = (world().seat(), world().phone());
    let (session, id) = (seat.sign_in(), seat.message("short.wav", "1.wav"));
    session.subscribe(VOICEMAIL);
    session.play_at(&id, &phone.number()).done(204);
    assert_eq!(session.statuses(&id, 2), [0, 1]);
    until_hung_up(&seat.world, &phone.station);
    assert!((19..=21).contains(&packets_of(phone.endpoint(), SHORT_HZ)));
}

fn remote_again() {
    // A line that is being hung up is not the next message's.
    let (seat, phone) = (world().seat(), world().phone());
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    for _ in 0..20 {
        phone.endpoint().forget();
        session.play_at(&id, &phone.station).done(204);
        listen(phone.endpoint(), 2);
        session.stop(&id).done(204);
        assert_eq!(session.statuses(&id, 2), [0, 1]);
    }
    until_hung_up(&seat.world, &phone.station);
}

fn remote_workstation() {
    let (seat, phone) = (world().seat(), world().phone());
    let (session, id) = (seat.sign_in(), seat.voicemail());
    let settings = json!({"__type": "urn:inin.com:connection:remoteWorkstationSettings", "workstation": seat.station,
                          "remoteNumber": phone.number()});
    session.call("PUT", "connection/station", settings.to_string()).done(200);
    session.play(&id).done(204);
    listen(phone.endpoint(), 10);
    session.stop(&id).done(204);
    until_hung_up(&seat.world, &phone.station);
}

fn label_first() {
    let (seat, phone, other) = (world().seat(), world().phone(), Endpoint::open());
    let (session, id) = (seat.sign_in(), seat.voicemail());
    let label = format!("station:{}", phone.station);
    let leg = seat.world.server.create(json!({"label": label, "remote": other.address().to_string()}));
    session.play_at(&id, &phone.station).done(204);
    listen(&other, 10);
    session.stop(&id).done(204);
    assert_eq!(phone.endpoint().heard_packets(), 0);
    assert_eq!(lines(&seat.world, &phone.station), 1, "it was there before, and stays");
    seat.world.server.ok("connection.delete", json!({"connection_id": leg.id}));
}

fn stop_waiting() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let label = format!("station:{}", seat.station);
    let leg = seat.world.server.create(json!({"label": label, "reserve_ms": 60_000}));
    let (session, id) = (seat.sign_in(), seat.voicemail());
    session.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    session.stop(&id).done(204);
    assert_eq!(session.statuses(&id, 1), [1]);
    let remote = phone.address().to_string();
    seat.world.server.ok("connection.modify", json!({"connection_id": leg.id, "remote": remote}));
    // Something else is heard there, and nothing of the message before it.
    let tone = json!({"kind": "tone", "connection_id": leg.id, "frequency_hz": 400, "duration_ms": 300});
    seat.world.server.ok("operation.start", tone);
    listen(&phone, 10);
    assert_eq!(packets_of(&phone, LONG_HZ), 0);
}

fn stop_by_other() {
    let Desk { seat, phone, connection, session, id } = desk();
    let other = seat.sign_in();
    other.subscribe(VOICEMAIL);
    session.play(&id).done(204);
    listen(&phone, 10);
    stop_exactly(&other, &phone, &id, Some(&connection));
    assert_eq!((session.statuses(&id, 3), other.statuses(&id, 3)), (vec![0, 1, 1], vec![0, 1, 1]));
}

fn becomes_read() {
    let Desk { seat, session, id, .. } = desk();
    assert_eq!(session.subscribe(WAITING)["messagesWaiting"], 1);
    session.play(&id).done(204);
    assert_eq!(session.until("none waits", |message| message["messagesWaiting"].is_u64())["messagesWaiting"], 0);
    session.stop(&id).done(204);
    let listed = seat.sign_in().subscribe(VOICEMAIL);
    assert_eq!(listed["voicemailMessagesAdded"][0]["state"], 1);
}

/// Somebody calls and leaves a message, as docs/icws.md says.
fn leave_by_phone(seat: &Seat, max_time_ms: Option<u64>) -> (Endpoint, String) {
    let caller = Endpoint::open();
    let leg = seat.world.server.create(json!({"remote": caller.address().to_string()}));
    let path = format!("voicemail/{}/+4930111222_1.wav", seat.user);
    let mut record = json!({"kind": "record", "connection_id": leg.id, "path": path});
    if let Some(limit) = max_time_ms {
        record["max_time_ms"] = limit.into();
    }
    seat.world.server.ok("operation.start", record);
    (caller, leg.id)
}

fn recorded() {
    let (seat, phone) = (world().seat(), Endpoint::open());
    let session = seat.sign_in();
    session.subscribe(VOICEMAIL);
    let (caller, leg) = leave_by_phone(&seat, Some(1500));
    let local = seat.world.server.get(&leg)["local"].as_str().unwrap().parse().unwrap();
    let speaker = caller.speak(local, Speech::new(7), |index| tone(900, 8000, index));
    let told = session.until("a message", |message| message["voicemailMessagesAdded"][0].is_object());
    speaker.stop();
    let message = &told["voicemailMessagesAdded"][0];
    assert_eq!((&message["from"], &message["subject"]), (&json!("+4930111222"), &json!("Voicemail (2 s)")));
    let id = message["unifiedMessageId"].as_str().unwrap();
    let _desk = seat.connect(&phone);
    session.play(id).done(204);
    assert_eq!(session.statuses(id, 2), [0, 1]);
    let heard = packets_of(&phone, 900);
    assert!(heard > 50, "what was said is heard: {heard} packets");
}

fn recorded_stopped() {
    let seat = world().seat();
    let session = seat.sign_in();
    session.subscribe(VOICEMAIL);
    let (caller, leg) = leave_by_phone(&seat, None);
    let local = seat.world.server.get(&leg)["local"].as_str().unwrap().parse().unwrap();
    let speech = caller.speak_to(local, Speech::new(7), 40, |index| tone(900, 8000, index));
    speech.join();
    // It is no message before it ends.
    assert_eq!(session.poll(), [] as [Value; 0]);
    seat.world.server.ok("connection.delete", json!({"connection_id": leg}));
    let told = session.until("a message", |message| message["voicemailMessagesAdded"][0].is_object());
    let id = told["voicemailMessagesAdded"][0]["unifiedMessageId"].as_str().unwrap().to_owned();
    let recordings = seat.world.server.recording(&format!("voicemail/{}", seat.user));
    let left: Vec<_> = fs::read_dir(recordings).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".wav")), "it has moved: {left:?}");
    assert_eq!(&session.call("GET", &format!("files/{id}.wav"), "").done(200).body[..4], b"RIFF");
}

fn two_stations() {
    let (one, other) = (desk(), desk());
    let second = one.seat.message("short.wav", "2.wav");
    one.session.play(&one.id).done(204);
    one.session.play_at(&second, &other.seat.station).done(204);
    listen(&one.phone, 20);
    listen(&other.phone, 10);
    assert!(packets_of(&one.phone, LONG_HZ) >= 15 && packets_of(&one.phone, SHORT_HZ) == 0);
    assert!(packets_of(&other.phone, SHORT_HZ) >= 5 && packets_of(&other.phone, LONG_HZ) == 0);
    one.session.stop(&one.id).done(204);
}

fn file() {
    let Desk { seat, session, id, .. } = desk();
    let listed = session.subscribe(VOICEMAIL);
    let uri = listed["voicemailMessagesAdded"][0]["attachments"][0]["fileUri"].as_str().unwrap().to_owned();
    assert_eq!(uri, session.path(&format!("files/{id}.wav")));
    let answer = session.call("GET", &format!("files/{id}.wav"), "");
    assert_eq!(answer.header("content-type"), "audio/wav");
    assert_eq!(answer.body, fs::read(seat.world.master("long.wav")).unwrap());
}

fn restart() {
    let mut world = World::start(2, 1, "");
    let (played, unread, heard);
    {
        let shared = Arc::new(world);
        let seat = shared.seat_number(0);
        (played, unread) = (seat.voicemail(), seat.message("short.wav", "+49_2.wav"));
        let session = seat.sign_in();
        let phone = shared.phone();
        session.play_at(&played, &phone.station).done(204);
        listen(phone.endpoint(), 5);
        heard = session.cookie.clone();
        // Nobody signs out: the server ends in the middle of it all.
        drop(phone);
        session.forget();
        drop(seat);
        world = Arc::into_inner(shared).unwrap_or_else(|| panic!("nobody else has it"));
    }
    world.server.restart();
    let world = Arc::new(world);
    let seat = world.seat_number(0);
    let session = seat.sign_in();
    assert_ne!(session.cookie, heard);
    let listed = session.subscribe(VOICEMAIL);
    let told: HashSet<_> = listed["voicemailMessagesAdded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["unifiedMessageId"].as_str().unwrap(), it["state"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, HashSet::from([(played.as_str(), 1), (unread.as_str(), 0)]));
    // Database and disk agree, and the files can still be heard.
    let files: Vec<_> = fs::read_dir(seat.files()).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for id in [&played, &unread] {
        assert_eq!(&session.call("GET", &format!("files/{id}.wav"), "").done(200).body[..4], b"RIFF");
    }
    let phone = world.phone();
    session.play_at(&unread, &phone.station).done(204);
    assert_eq!(session.statuses(&unread, 2), [0, 1]);
    assert!(packets_of(phone.endpoint(), SHORT_HZ) >= 19);
    session.call("DELETE", &format!("unified-messaging/{played}"), "").done(204);
    assert_eq!(fs::read_dir(seat.files()).unwrap().count(), 1);
    drop((phone, session, seat));
    Arc::into_inner(world).unwrap_or_else(|| panic!("nobody else has it")).server.stop();
}

fn sign_out() {
    let Desk { seat, phone, session, id, .. } = desk();
    session.play(&id).done(204);
    listen(&phone, 5);
    session.call("DELETE", "connection", "").done(200);
    // Whatever is heard from now on was sent after the answer.
    let before = packets_of(&phone, LONG_HZ);
    let other = seat.sign_in();
    other.stop(&id).done(204);
    listen(&phone, 1);
    assert!(packets_of(&phone, LONG_HZ) <= before + 2, "what was on its way, no more");
}
