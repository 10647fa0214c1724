//! All parts of a conference know the same of who is loud.

use std::time::Duration;

use ringbridge_codec::CodecKind::Pcmu;
use ringbridge_media::command::{Command, ConferenceSpec};
use ringbridge_media::event::Answer;
use ringbridge_media::id::ShardId;
use ringbridge_media::limits::CONTRIBUTORS_MAX;
use ringbridge_media::time::Instant;

use super::rig::{Dice, Fate, ROOM, Rig};
use super::{PARTY, SETTLED};

/// A room of so many members in packets of a frame each, of whom the first ones are told who is in the mix.
fn room(engines: u8, loudest: Option<u16>, members: usize, told: usize) -> Rig {
    let mut rig = Rig::of(engines, ConferenceSpec { loudest, ..ConferenceSpec::default() }, 5);
    for index in 0..members {
        if index < told {
            rig.phone_that_is_told(Pcmu, 10)
        } else {
            rig.phone(Pcmu, 10)
        };
    }
    rig.run_to(Instant::from_millis(1_005));
    for index in 0..members {
        assert!(rig.join(index, PARTY).is_ok());
    }
    rig.run_to(SETTLED);
    rig
}

/// What makes a tone so many decibels softer than the loudest.
fn down(db: f64) -> Option<f64> {
    Some(3_000.0 * 10f64.powf(-db / 20.0))
}

fn leader(rig: &mut Rig, engine: usize) -> Option<u32> {
    let Ok(Answer::Conference(status)) = rig.call(engine, Command::InspectConference { id: ROOM }) else { panic!() };
    status.active_speaker.map(|id| id.slot_number())
}

#[test]
fn packets_name_the_loudest_of_all_parts() {
    let live = |engines, delay_ms: u64| {
        // More talk than there is place for, and in some parts nobody is told.
        let mut rig = room(engines, None, 20, 1);
        rig.road = Box::new(move |dice: &mut Dice, _| Fate::After(dice.below(delay_ms + 1)));
        for index in 0..20 {
            rig.phones[index].says = down(1.5 * ((index * 7) % 20) as f64);
        }
        rig.run(500);
        rig.phones[3].says = None;
        rig.run(500);
        rig
    };
    let one = live(1, 0);
    assert_eq!(one.phones[0].heard.last().unwrap().named.len(), CONTRIBUTORS_MAX - 1, "it is among them itself");
    for (engines, delay_ms) in [(2, 0), (3, 0), (3, 4)] {
        let many = live(engines, delay_ms);
        let (one, many) = (&one.phones[0].heard, &many.phones[0].heard);
        assert_eq!(one.len(), many.len());
        for (one, many) in one.iter().zip(many).filter(|(one, _)| one.at > SETTLED) {
            assert_eq!(one.named, many.named, "{engines} parts at {:?}", many.at);
        }
    }
}

#[test]
fn all_parts_hear_one_speaker_lead_and_home_tells_it_once() {
    for engines in [1, 2, 3] {
        let mut rig = room(engines, None, 6, 0);
        let every = usize::from(engines);
        // One leads who is at home, one who is not, and one who is as loud does not.
        for (says, leads) in [
            ([Some(1_700.0), None, None], 0),
            ([Some(1_700.0), Some(3_000.0), None], 1),
            ([None, Some(3_000.0), Some(3_100.0)], 1),
        ] {
            for (phone, says) in rig.phones.iter_mut().zip(says) {
                phone.says = says;
            }
            rig.run(1_000);
            for engine in 0..every {
                assert_eq!(leader(&mut rig, engine), Some(leads), "{engines} parts, in part {engine}");
            }
        }
        assert_eq!(rig.leaders(), [(0, 0), (0, 1)]);
        // He leaves, and is forgotten where he was not as well.
        rig.phones[1].says = None;
        rig.phones[2].says = None;
        rig.run(200);
        assert!(rig.leave(1).is_ok());
        rig.run(1_100);
        for engine in 0..every {
            assert_eq!(leader(&mut rig, engine), None, "{engines} parts, in part {engine}");
        }
        assert!(rig.join(1, PARTY).is_ok());
        rig.phones[1].says = Some(3_000.0);
        rig.run(1_000);
        assert_eq!(rig.leaders(), [(0, 0), (0, 1), (0, 1)]);
        // Nor does he lead any longer whose part is gone.
        if engines == 3 {
            rig.asleep[1] = Some(Instant::from_millis(1_000_000));
            for engine in [0, 2] {
                assert!(rig.call(engine, Command::DropPart { conference: ROOM, shard: ShardId(1) }).is_ok());
                rig.run(100);
            }
            assert_eq!((leader(&mut rig, 0), leader(&mut rig, 2)), (None, None));
        }
    }
}

#[test]
fn the_loudest_of_the_whole_room_are_mixed_and_a_change_is_a_frame_later() {
    const STEPS_MS: u64 = 700;
    let live = |engines| {
        let mut rig = room(engines, Some(3), 9, 1);
        for index in 0..9 {
            rig.phones[index].says = down(2.0 * ((index * 4) % 9) as f64);
        }
        rig.run(STEPS_MS);
        // 6 dB louder than the third, from another part; and one who ceases.
        rig.phones[4].says = down(-4.0);
        rig.run(STEPS_MS);
        rig.phones[0].says = None;
        rig.run(STEPS_MS);
        rig
    };
    let one = live(1);
    for engines in [2, 3] {
        let many = live(engines);
        assert_eq!(many.totals(), (0, 0));
        for step in 0..3 {
            let begin = SETTLED + Duration::from_millis(step * STEPS_MS);
            // As loudness rises and falls everybody's place may change, one frame after another.
            let (steady, end) = (begin + Duration::from_millis(450), begin + Duration::from_millis(STEPS_MS));
            for (member, (one, many)) in one.phones.iter().zip(&many.phones).enumerate() {
                let packets =
                    one.heard.iter().zip(&many.heard).filter(|(heard, _)| heard.at > begin && heard.at <= end);
                let mut others = 0;
                let mut told: Vec<(usize, Vec<u32>)> = Vec::new();
                for (n, (one, many)) in packets.enumerate() {
                    let is_same = one.content() == many.content() && one.named == many.named;
                    others += usize::from(!is_same);
                    assert!(is_same || one.at < steady, "{engines} parts: what {member} hears at {:?}", one.at);
                    let names: Vec<u32> = one.named.iter().map(|named| named.0).collect();
                    if member == 0 && told.last().is_none_or(|(_, last)| *last != names) {
                        told.push((n, names));
                    }
                }
                // A frame for each change of who is mixed, and there are few.
                assert!(others <= 4, "{engines} parts: {others} frames of member {member} in step {step}, {told:?}");
                if member == 0 && step == 1 {
                    assert!(told.last().unwrap().1.contains(&0x104), "{told:?}");
                }
            }
        }
    }
}

#[test]
fn the_loudest_stay_so_many_while_sums_are_late() {
    let mut rig = room(3, Some(2), 9, 1);
    for index in 0..9 {
        rig.phones[index].says = down(3.0 * index as f64);
    }
    rig.run(500);
    let mut n = 0;
    rig.road = Box::new(move |_, _| {
        n += 1;
        Fate::After(if n % 5 == 0 { 7 } else { 0 })
    });
    rig.run(1_000);
    assert!(rig.totals().0 > 20);
    let since = SETTLED + Duration::from_millis(500);
    // 0 hears 1 of another part, or nobody while that is late, and never the third.
    let late: Vec<_> = rig.phones[0].heard.iter().filter(|heard| heard.at > since).collect();
    assert!(late.iter().all(|heard| heard.named.iter().all(|named| named.0 == 0x101)), "{late:?}");
    assert!(late.iter().filter(|heard| heard.named.len() == 1).count() > 60);
}
