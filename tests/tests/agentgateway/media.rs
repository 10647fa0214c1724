//! What is heard: real RTP from and to telephones, judged by tones, and by the stamps of the answers.

use std::time::Duration;

use ringbridge_tests::audio::{Codec, share};
use ringbridge_tests::until;
use serde_json::{Value, json};

use crate::rig::{Agent, Desk, Party, Phone, Room, phone_address, voice, with};
use crate::row::{Plain, Row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Row::plain("media", ROWS);
    // What a participant hears and whether it is heard, for every way to get from one mode to another.
    for from in 1..=4u32 {
        for to in 1..=4u32 {
            rows.push(Row::new(format!("media::mode_{from}_to_{to}_by_who_hears_whom"), move |desk| {
                let talk = Talk::open(desk);
                for attribute in [from, to] {
                    talk.mode(desk, attribute);
                }
                talk.is_in_mode(to);
            }));
        }
    }
    rows
}

/// Three parties, each with a tone of its own: the chair 500 Hz, an agent 700 Hz, a telephone 1100 Hz.
struct Talk {
    room: Room,
    second: Agent,
    guest: Party,
}

const CHAIR_HZ: u32 = 500;
const SECOND_HZ: u32 = 700;
const GUEST_HZ: u32 = 1100;
/// The tone of `long.wav`.
const LONG_HZ: u32 = 1000;
/// The tone of `alone.wav`.
const ALONE_HZ: u32 = 1300;
/// The tone of `music.wav`.
const MUSIC_HZ: u32 = 600;
/// The tone of `beep.wav`.
const BEEP_HZ: u32 = 1700;
/// Shares of what a party says when it is heard as loud as it speaks.
const LOUD: std::ops::Range<f64> = 0.6..1.6;
const SILENT: std::ops::Range<f64> = 0.0..0.02;

impl Talk {
    fn open(desk: &Desk) -> Self {
        let room = desk.room();
        let second = desk.second(&room);
        let guest = desk.guest(&room);
        room.chair.phone().say(CHAIR_HZ);
        second.phone().say(SECOND_HZ);
        guest.phone.say(GUEST_HZ);
        Self { room, second, guest }
    }

    fn phones(&self) -> [&Phone; 3] {
        [self.room.chair.phone(), self.second.phone(), &self.guest.phone]
    }

    fn mode(&self, desk: &Desk, attribute: u32) {
        let body = with(&self.guest.address, json!({"attribute": attribute}));
        desk.ok(&self.room.chair, "changeparticipantmode", body);
    }

    #[track_caller]
    fn is_in_mode(&self, attribute: u32) {
        let (hears, speaks) = (matches!(attribute, 1 | 3), matches!(attribute, 2 | 3));
        let range = |heard: bool| if heard { LOUD } else { SILENT };
        for phone in [self.room.chair.phone(), self.second.phone()] {
            phone.hears(GUEST_HZ, range(speaks));
        }
        self.guest.phone.hears(CHAIR_HZ, range(hears));
        self.guest.phone.hears(SECOND_HZ, range(hears));
        // The others are not touched.
        self.room.chair.phone().hears(SECOND_HZ, LOUD);
        self.second.phone().hears(CHAIR_HZ, LOUD);
    }
}

/// Milliseconds of the media clock from the receipt of a command to its effect. Two frames of 20 ms at most is what
/// `timers::` asks for; here the machine may be busy with something else.
#[track_caller]
pub(crate) fn delay_ms(effect: &Value) -> f64 {
    let time = |name: &str| effect[name].as_f64().unwrap_or_else(|| panic!("no {name} in {effect}"));
    let ms = time("media_time_ms") - time("received_media_time_ms");
    assert!(ms >= 0.0, "in force before it was asked for: {effect}");
    ms
}

/// Nobody hears a tone from the stamp of an effect on, for each outgoing stream it names; how many those are.
#[track_caller]
fn is_gone_from(effect: &Value, phones: &[&Phone], hz: u32) -> usize {
    let streams = effect["streams"].as_array().expect("streams");
    let mut found = 0;
    for stream in streams.iter().filter(|stream| stream["direction"] == "out") {
        let ssrc = u32::try_from(stream["ssrc"].as_u64().expect("a number")).unwrap();
        let stamp = u32::try_from(stream["rtp_timestamp"].as_u64().expect("a number")).unwrap();
        let phone =
            until("the stream", || phones.iter().find(|phone| phone.endpoint.stream_of(ssrc, Codec::Pcmu).is_some()));
        let after = phone.after_stamp(ssrc, stamp, 1600);
        let heard = share(&after, hz);
        assert!(heard < 0.01, "{heard} of it is heard after the stamp: {effect}");
        found += 1;
    }
    found
}

const ROWS: &[Plain] = &[
    ("everybody_hears_everybody_else_and_not_itself", |desk| {
        let talk = Talk::open(desk);
        let [chair, second, guest] = talk.phones();
        for (phone, own, others) in [
            (chair, CHAIR_HZ, [SECOND_HZ, GUEST_HZ]),
            (second, SECOND_HZ, [CHAIR_HZ, GUEST_HZ]),
            (guest, GUEST_HZ, [CHAIR_HZ, SECOND_HZ]),
        ] {
            others.iter().for_each(|hz| phone.hears(*hz, LOUD));
            phone.hears(own, SILENT);
        }
    }),
    ("an_announcement_is_heard_by_all_beside_the_talk", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
        for phone in talk.phones() {
            phone.hears(LONG_HZ, LOUD);
        }
        talk.room.chair.phone().hears(SECOND_HZ, LOUD);
        talk.guest.phone.hears(CHAIR_HZ, LOUD);
    }),
    ("after_the_stop_it_is_heard_by_nobody_from_the_stamp_on", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
        for phone in talk.phones() {
            phone.hears(LONG_HZ, LOUD);
        }
        let effect = desk.effect(&talk.room.chair, "stopvoicetoconf", Value::Null);
        delay_ms(&effect);
        assert_eq!(is_gone_from(&effect, &talk.phones(), LONG_HZ), 3);
        talk.room.chair.phone().hears(SECOND_HZ, LOUD);
    }),
    ("after_the_stop_both_are_heard_by_nobody", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&talk.room.chair, "playvoicetoconf", with(&voice("alone.wav"), json!({"playType": 1})));
        for phone in talk.phones() {
            phone.hears(LONG_HZ, LOUD);
            phone.hears(ALONE_HZ, 0.1..0.25);
        }
        let effect = desk.effect(&talk.room.chair, "stopvoicetoconf", Value::Null);
        delay_ms(&effect);
        for hz in [LONG_HZ, ALONE_HZ] {
            assert_eq!(is_gone_from(&effect, &talk.phones(), hz), 3);
        }
    }),
    ("the_stamp_is_near_again_and_again", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        let mut near = 0;
        for _ in 0..10 {
            desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
            guest.phone.hears(LONG_HZ, LOUD);
            let effect = desk.effect(&room.chair, "stopvoicetoconf", Value::Null);
            near += u32::from(delay_ms(&effect) <= 40.0);
            assert_eq!(is_gone_from(&effect, &[room.chair.phone(), &guest.phone], LONG_HZ), 2);
        }
        assert!(near > 0, "not one of ten within two frames");
    }),
    ("a_background_is_sixteen_decibels_lower", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        for phone in talk.phones() {
            // 10^(-16/20) is 0.158; the talk is as loud as before.
            phone.hears(LONG_HZ, 0.12..0.2);
            let others = [CHAIR_HZ, SECOND_HZ, GUEST_HZ].into_iter();
            let heard = phone.listen(1600);
            assert_eq!(others.filter(|hz| share(&heard, *hz) > 0.5).count(), 2);
        }
    }),
    ("a_background_is_played_again_and_again", |desk| {
        let room = desk.room();
        let guest = desk.guest(&room);
        // A tenth of a second: more than 64 turns are two operations.
        desk.ok(&room.chair, "playvoicetoconf", with(&voice("short.wav"), json!({"playType": 1})));
        guest.phone.hears(LONG_HZ, 0.1..0.25);
        guest.phone.endpoint.forget();
        let heard = guest.phone.endpoint.until("eight seconds of it", |_| {
            let samples = guest.phone.endpoint.stream(Codec::Pcmu)?.samples;
            (samples.len() > 8 * 8000).then_some(samples)
        });
        let quiet = heard.chunks_exact(1600).filter(|chunk| share(chunk, LONG_HZ) < 0.03).count();
        assert!(quiet <= 1, "{quiet} of {} fifths of a second are silent", heard.len() / 1600);
        assert_eq!(desk.drain(&room), Vec::<Value>::new(), "no turn is told");
        let effect = desk.effect(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(is_gone_from(&effect, &[room.chair.phone(), &guest.phone], LONG_HZ), 2);
    }),
    ("an_announcement_to_one_is_heard_by_that_one_instead_of_the_conference", |desk| {
        let talk = Talk::open(desk);
        talk.guest.phone.hears(CHAIR_HZ, LOUD);
        desk.ok(&talk.room.chair, "playvoicetoparticipant", with(&talk.guest.address, voice("alone.wav")));
        talk.guest.phone.hears(ALONE_HZ, LOUD);
        talk.guest.phone.hears(CHAIR_HZ, SILENT);
        talk.guest.phone.hears(SECOND_HZ, SILENT);
        for phone in [talk.room.chair.phone(), talk.second.phone()] {
            phone.hears(ALONE_HZ, SILENT);
            // The conference still hears the participant.
            phone.hears(GUEST_HZ, LOUD);
        }
        let effect = desk.effect(&talk.room.chair, "stopvoicetoparticipant", talk.guest.address.clone());
        delay_ms(&effect);
        assert_eq!(is_gone_from(&effect, &[&talk.guest.phone], ALONE_HZ), 1);
        talk.guest.phone.hears(CHAIR_HZ, LOUD);
    }),
    ("an_announcement_to_one_leaves_the_others_theirs", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
        desk.ok(&talk.room.chair, "playvoicetoparticipant", with(&talk.guest.address, voice("alone.wav")));
        talk.guest.phone.hears(ALONE_HZ, LOUD);
        talk.guest.phone.hears(LONG_HZ, SILENT);
        talk.second.phone().hears(LONG_HZ, LOUD);
        desk.ok(&talk.room.chair, "stopvoicetoconf", Value::Null);
        talk.second.phone().hears(LONG_HZ, SILENT);
        talk.guest.phone.hears(ALONE_HZ, LOUD);
    }),
    ("at_the_end_of_an_announcement_to_one_it_is_back", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoparticipant", with(&talk.guest.address, voice("short.wav")));
        desk.event(&talk.room.chair, "AgentConf_StopParticipantVoice");
        talk.guest.phone.hears(CHAIR_HZ, LOUD);
    }),
    ("on_hold_there_is_music_and_nothing_else", |desk| {
        let talk = Talk::open(desk);
        talk.guest.phone.hears(CHAIR_HZ, LOUD);
        let effect = desk.effect(&talk.room.chair, "holdparticipant", with(&talk.guest.address, voice("music.wav")));
        delay_ms(&effect);
        talk.guest.phone.hears(MUSIC_HZ, 0.5..1.6);
        talk.guest.phone.hears(CHAIR_HZ, SILENT);
        for phone in [talk.room.chair.phone(), talk.second.phone()] {
            phone.hears(GUEST_HZ, SILENT);
            phone.hears(MUSIC_HZ, SILENT);
        }
        // The file is a fifth of a second long: it is played again and again.
        talk.guest.phone.endpoint.forget();
        talk.guest.phone.endpoint.until("two seconds of music", |_| {
            let samples = talk.guest.phone.endpoint.stream(Codec::Pcmu)?.samples;
            let music = samples.chunks_exact(1600).filter(|chunk| share(chunk, MUSIC_HZ) > 0.4).count();
            (music >= 10).then_some(())
        });
        desk.ok(&talk.room.chair, "unholdparticipant", talk.guest.address.clone());
        talk.guest.phone.hears(MUSIC_HZ, SILENT);
        talk.guest.phone.hears(CHAIR_HZ, LOUD);
        talk.room.chair.phone().hears(GUEST_HZ, LOUD);
    }),
    ("on_hold_an_announcement_to_all_is_not_heard", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "holdparticipant", with(&talk.guest.address, voice("music.wav")));
        desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
        talk.second.phone().hears(LONG_HZ, LOUD);
        talk.guest.phone.hears(LONG_HZ, SILENT);
        desk.ok(&talk.room.chair, "stopvoicetoconf", Value::Null);
        talk.guest.phone.hears(MUSIC_HZ, 0.4..1.6);
    }),
    ("a_hold_keeps_a_mode_for_later", |desk| {
        let talk = Talk::open(desk);
        talk.mode(desk, 1);
        desk.ok(&talk.room.chair, "holdparticipant", with(&talk.guest.address, voice("music.wav")));
        talk.guest.phone.hears(CHAIR_HZ, SILENT);
        desk.ok(&talk.room.chair, "unholdparticipant", talk.guest.address.clone());
        talk.is_in_mode(1);
    }),
    ("a_mode_set_on_hold_counts_afterwards", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "holdparticipant", with(&talk.guest.address, voice("music.wav")));
        talk.mode(desk, 2);
        talk.room.chair.phone().hears(GUEST_HZ, SILENT);
        desk.ok(&talk.room.chair, "unholdparticipant", talk.guest.address.clone());
        talk.is_in_mode(2);
    }),
    ("two_on_hold_each_with_its_music", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "holdparticipant", with(&talk.guest.address, voice("music.wav")));
        desk.ok(&talk.room.chair, "holdparticipant", with(&talk.second.address(), voice("alone.wav")));
        talk.guest.phone.hears(MUSIC_HZ, 0.4..1.6);
        talk.second.phone().hears(ALONE_HZ, LOUD);
        talk.room.chair.phone().hears(SECOND_HZ, SILENT);
        talk.room.chair.phone().hears(GUEST_HZ, SILENT);
    }),
    ("a_mute_is_silent_from_the_stamp_on", |desk| {
        let talk = Talk::open(desk);
        talk.second.phone().hears(GUEST_HZ, LOUD);
        let body = with(&talk.guest.address, json!({"attribute": 1}));
        let effect = desk.effect(&talk.room.chair, "changeparticipantmode", body);
        delay_ms(&effect);
        talk.second.phone().hears(GUEST_HZ, SILENT);
    }),
    ("who_is_removed_is_heard_no_more_and_hears_no_more", |desk| {
        let talk = Talk::open(desk);
        talk.room.chair.phone().hears(GUEST_HZ, LOUD);
        let list = json!({"addresses": [talk.guest.address]});
        let effect = desk.effect(&talk.room.chair, "batchremoveparticipant", list);
        talk.room.chair.phone().hears(GUEST_HZ, SILENT);
        assert!(effect["streams"].as_array().is_some_and(|streams| !streams.is_empty()), "{effect}");
        // Its stream has ended: what follows goes to the others only.
        let heard = talk.guest.phone.endpoint.heard_packets();
        talk.room.chair.phone().listen(8000);
        assert_eq!(talk.guest.phone.endpoint.heard_packets(), heard);
    }),
    ("after_the_release_nothing_is_sent", |desk| {
        let talk = Talk::open(desk);
        desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
        talk.guest.phone.hears(LONG_HZ, LOUD);
        let effect = desk.effect(&talk.room.chair, "releaseagentconf", Value::Null);
        assert!(effect["streams"].as_array().is_some_and(|streams| streams.len() >= 3), "{effect}");
        let heard = || talk.phones().map(|phone| phone.endpoint.heard_packets());
        // What was on its way has arrived when two looks in a row see the same.
        let mut before = heard();
        until("the streams have ended", || {
            std::thread::sleep(Duration::from_millis(60));
            let now = heard();
            let same = now == before;
            before = now;
            same.then_some(())
        });
    }),
    ("a_beep_to_all_when_somebody_joins_or_leaves", |desk| {
        let room = desk.room_with(json!({"memberNum": 6, "beepTone": true, "voicePath": "D:/conf/1/beep.wav"}));
        let chair = room.chair.phone();
        let guest = desk.guest(&room);
        chair.endpoint.until("the beep of the join", |_| heard_once(chair, BEEP_HZ));
        guest.phone.endpoint.until("the beep of the join", |_| heard_once(&guest.phone, BEEP_HZ));
        chair.hears(BEEP_HZ, SILENT);
        chair.endpoint.forget();
        desk.ok(&room.chair, "batchremoveparticipant", json!({"addresses": [guest.address]}));
        chair.endpoint.until("the beep of the leaving", |_| heard_once(chair, BEEP_HZ));
        // It is no announcement.
        assert_eq!(desk.info(&room.chair, room.id)["confState"], 0);
        desk.fails_below(&room.chair, "stopvoicetoconf", Value::Null, 90_001);
    }),
    ("a_beep_does_not_disturb_an_announcement", |desk| {
        let room = desk.room_with(json!({"memberNum": 6, "beepTone": true, "voicePath": "D:/conf/1/beep.wav"}));
        let chair = room.chair.phone();
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        chair.hears(LONG_HZ, LOUD);
        chair.endpoint.forget();
        desk.guest(&room);
        chair.endpoint.until("the beep of the join", |_| heard_once(chair, BEEP_HZ));
        chair.hears(LONG_HZ, LOUD);
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        assert_eq!(desk.drain(&room), Vec::<Value>::new(), "neither is told");
    }),
    ("a_welcome_to_the_one_who_joins", |desk| {
        let room = desk.room();
        let phone = desk.phone();
        let list = json!({
            "addresses": [phone_address(&phone.number)], "beepTone": true, "voicePath": "D:/conf/1/beep.wav",
        });
        desk.ok(&room.chair, "batchaddparticipant", list);
        phone.answer(&desk.world);
        phone.endpoint.until("the welcome", |_| heard_once(&phone, BEEP_HZ));
        let heard = room.chair.phone().endpoint.stream(Codec::Pcmu).expect("a stream").samples;
        assert!(heard.chunks_exact(800).all(|chunk| share(chunk, BEEP_HZ) < 0.02), "nobody else hears it");
    }),
    ("a_second_announcement_after_the_first", |desk| {
        let talk = Talk::open(desk);
        for _ in 0..3 {
            desk.ok(&talk.room.chair, "playvoicetoconf", voice("long.wav"));
            talk.guest.phone.hears(LONG_HZ, LOUD);
            desk.ok(&talk.room.chair, "stopvoicetoconf", Value::Null);
            talk.guest.phone.hears(LONG_HZ, SILENT);
        }
    }),
    ("an_announcement_after_a_background_is_at_its_own_level", |desk| {
        let room = desk.room();
        desk.ok(&room.chair, "playvoicetoconf", with(&voice("long.wav"), json!({"playType": 1})));
        room.chair.phone().hears(LONG_HZ, 0.1..0.25);
        desk.ok(&room.chair, "stopvoicetoconf", Value::Null);
        desk.ok(&room.chair, "playvoicetoconf", voice("long.wav"));
        room.chair.phone().hears(LONG_HZ, LOUD);
    }),
];

/// Whether a tone was heard somewhere in what came.
fn heard_once(phone: &Phone, hz: u32) -> Option<()> {
    let samples = phone.endpoint.stream(Codec::Pcmu)?.samples;
    samples.chunks_exact(800).any(|chunk| share(chunk, hz) > 0.5).then_some(())
}
