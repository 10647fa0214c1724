//! Judges a session: every claim of the demo, and how long things took.

use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringbridge_codec::g711;
use serde_json::Value;

use super::checks::{self, Verdict};
use super::clips;
use super::session::{Change, Effect, Member, Session};
use super::signal::{Aligned, Track, Voice};
use super::stream::Heard;

/// What is looked at before and after something stops, in samples: about a second.
const BEFORE: usize = 8000;
const AFTER: usize = 9600;

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

/// One thing the server was asked to do, and what came of it.
#[derive(Debug)]
pub(super) struct Row {
    /// In a few words.
    pub(super) what: &'static str,
    /// When it took effect, if that can be said.
    pub(super) effect: Option<Effect>,
    /// From which timestamp on, stream by stream: whose ears, and the timestamp.
    pub(super) stamps: Vec<(String, u32)>,
    /// What was looked at.
    pub(super) checks: Vec<Check>,
}

/// One claim and its verdict.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) claim: String,
    pub(super) verdict: Verdict,
}

/// All verdicts, and the delays in microseconds.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) rows: Vec<Row>,
    pub(super) relay_us: Histogram<u64>,
    pub(super) mix_us: Histogram<u64>,
}

impl Judgement {
    /// The claims that do not hold, with the reason.
    pub(super) fn failures(&self) -> Vec<String> {
        let checks = self.rows.iter().flat_map(|row| &row.checks);
        checks.filter_map(|check| check.verdict.as_ref().err().map(|why| format!("{}: {why}", check.claim))).collect()
    }
}

/// Looks at everything.
pub(super) fn judge(session: &Session) -> Judgement {
    let mut judgement = Judgement { rows: vec![relay_row(session)], relay_us: histogram(), mix_us: histogram() };
    relay_delays(session, &mut judgement.relay_us);
    let mut continuity = row("three join a conference", Some(&session.joined), &session.members);
    for member in &session.members {
        let claim = format!("{} is sent one continuous stream", member.name);
        continuity.checks.push(Check { claim, verdict: checks::continuous(&member.name, &member.heard) });
    }
    match Room::new(session) {
        Ok(room) => {
            continuity.checks.extend(room.conference());
            judgement.rows.extend([
                continuity,
                room.recording(),
                room.announcement(),
                room.mute(),
                room.unmute(),
                room.deletion(),
            ]);
            room.delays(&mut judgement.mix_us);
        }
        Err(why) => {
            continuity.checks.push(Check { claim: "all three hear the conference".to_owned(), verdict: Err(why) });
            judgement.rows.push(continuity);
        }
    }
    let mut end = row("the last two leave", Some(&session.left), &session.members[..=BOB]);
    end.checks.push(Check {
        claim: "conference.ended arrives exactly once".to_owned(),
        verdict: checks::exactly_one(&session.events, "conference.ended", "conference_id", &session.conference_id)
            .map(|event| format!("reason {}", event["reason"])),
    });
    judgement.rows.push(end);
    judgement
}

fn relay_row(session: &Session) -> Row {
    let [a, b] = &session.relay;
    let mut relay = row("two endpoints relayed", Some(&session.relayed), &session.relay);
    for (listener, speaker) in [(a, b), (b, a)] {
        let claim = format!("{} hears {} to the bit", listener.name, speaker.name);
        relay.checks.push(Check { claim, verdict: checks::relay(&listener.name, &speaker.sent, &listener.heard) });
    }
    relay
}

/// From one endpoint's socket to the other's, packet by packet.
fn relay_delays(session: &Session, delays: &mut Histogram<u64>) {
    let [a, b] = &session.relay;
    for (listener, speaker) in [(a, b), (b, a)] {
        // What arrived is the end of what was sent, unless the check says otherwise.
        for (heard, sent) in listener.heard.iter().rev().zip(speaker.sent.packets.iter().rev()) {
            delays.saturating_record(micros(heard.at.saturating_sub(sent.at)));
        }
    }
}

/// The conference with everybody's voice aligned to everybody's ears.
struct Room<'a> {
    session: &'a Session,
    voices: [Voice; 3],
    announcement: Voice,
    ears: Vec<Ears>,
}

/// What one member heard, and where each voice lies in it.
struct Ears {
    heard: Heard,
    tracks: Vec<Track>,
    announcement: Track,
}

impl<'a> Room<'a> {
    fn new(session: &'a Session) -> Result<Self, String> {
        let voices = session.members.each_ref().map(|member| member.sent.voice(&member.name));
        let words = clips::words(clips::ANNOUNCEMENT);
        let mut linear = vec![0; words.len()];
        g711::decode_ulaw(words, &mut linear);
        let announcement = Voice::new("the announcement", &linear);
        let ears = session
            .members
            .iter()
            .map(|member| Ears::new(session, member, &voices, &announcement))
            .collect::<Result<_, _>>()?;
        Ok(Self { session, voices, announcement, ears })
    }

    /// Everybody hears the two others and not herself.
    fn conference(&self) -> Vec<Check> {
        let check = |listener: usize| {
            let heard = &self.ears[listener].heard;
            let range = heard.index_at(self.session.talking)..heard.index_at(self.session.announced);
            let others = self.others(listener, &[]);
            let verdict = checks::hears(heard, range, &others, &[self.voice(listener, listener)]);
            Check { claim: format!("{} hears the two others and not herself or himself", heard.name), verdict }
        };
        [ALICE, BOB, CAROL].map(check).into()
    }

    /// The recording holds all three.
    fn recording(&self) -> Row {
        let recorded = &self.session.recorded;
        let mut recording = row("the conference is recorded", Some(&self.session.recording_stopped), &[]);
        let ended =
            checks::exactly_one(&self.session.events, "operation.ended", "operation_id", &recorded.operation_id);
        let heard = Heard::from_file("the recording", &recorded.samples, recorded.started);
        let range = 0..recorded.samples.len();
        let members = self.session.members.iter();
        let tracks: Vec<Track> = self
            .voices
            .iter()
            .zip(members)
            .map(|(voice, member)| {
                let sent = |at| member.sent.sample_at(heard.arrived(at));
                Track::find(&heard.samples, voice, range.clone(), sent)
            })
            .collect();
        let all: Vec<Aligned<'_>> =
            self.voices.iter().zip(&tracks).map(|(voice, track)| Aligned { voice, track }).collect();
        let length = ended.and_then(|event| {
            let elapsed_ms = event["elapsed_ms"].as_u64().ok_or("operation.ended does not say elapsed_ms")?;
            let ms = recorded.samples.len() as u64 / 8;
            if ms.abs_diff(elapsed_ms) > 40 {
                return Err(format!("the file holds {ms} ms, operation.ended says {elapsed_ms} ms"));
            }
            Ok(format!("{ms} ms"))
        });
        let manifest = &recorded.manifest;
        let complete = manifest["state"] == "complete"
            && manifest["samples"] == recorded.samples.len()
            && manifest["gaps"] == Value::Array(Vec::new());
        recording.checks = vec![
            Check {
                claim: "the recording holds all three".to_owned(),
                verdict: checks::hears(&heard, range, &all, &[]),
            },
            Check { claim: "the recording is as long as the operation ran".to_owned(), verdict: length },
            Check {
                claim: "the manifest tells of a complete recording without gaps".to_owned(),
                verdict: if complete {
                    Ok(format!("{} samples", manifest["samples"]))
                } else {
                    Err(manifest.to_string())
                },
            },
        ];
        recording
    }

    /// The announcement is heard by all, and gone from the stamp on.
    fn announcement(&self) -> Row {
        let change = &self.session.announcement_stopped;
        let mut announcement = row("the announcement is stopped", Some(change), &self.session.members);
        for listener in [ALICE, BOB, CAROL] {
            let ears = &self.ears[listener];
            let heard = &ears.heard;
            let gone = Aligned { voice: &self.announcement, track: &ears.announcement };
            let verdict = self.stamp(change, listener).and_then(|stamp| {
                let end = (stamp + AFTER).min(heard.index_at(self.session.muted.sent));
                checks::stops(heard, stamp.saturating_sub(BEFORE)..stamp, stamp..end, gone, &self.others(listener, &[]))
            });
            let claim = format!("{} hears the announcement up to its stamp and not after", heard.name);
            announcement.checks.push(Check { claim, verdict });
        }
        let id = &self.session.announcement_id;
        let ended = checks::exactly_one(&self.session.events, "operation.ended", "operation_id", id);
        announcement.checks.push(Check {
            claim: "operation.ended arrives exactly once, with userstop".to_owned(),
            verdict: ended.and_then(|event| match event["condition"].as_str() {
                Some("userstop") => Ok(format!("after {} ms", event["elapsed_ms"])),
                _ => Err(format!("condition {}", event["condition"])),
            }),
        });
        announcement
    }

    /// Bob is gone from the others' ears from the stamp on.
    fn mute(&self) -> Row {
        let (change, unmuted) = (&self.session.muted, &self.session.unmuted);
        let mut mute = row("Bob is muted", Some(change), &self.session.members);
        for listener in [ALICE, CAROL] {
            let heard = &self.ears[listener].heard;
            let verdict = self.stamp(change, listener).and_then(|stamp| {
                let end = (stamp + AFTER).min(self.stamp(unmuted, listener)?);
                // No part of the announcement.
                let start = stamp.saturating_sub(BEFORE).max(self.stamp(&self.session.announcement_stopped, listener)?);
                let staying = self.others(listener, &[BOB]);
                checks::stops(heard, start..stamp, stamp..end, self.voice(listener, BOB), &staying)
            });
            let claim =
                format!("{} hears bob up to the stamp, silence from him after, the other all along", heard.name);
            mute.checks.push(Check { claim, verdict });
        }
        mute
    }

    /// Bob is back.
    fn unmute(&self) -> Row {
        let change = &self.session.unmuted;
        let mut unmute = row("Bob is unmuted", Some(change), &self.session.members);
        for listener in [ALICE, CAROL] {
            let heard = &self.ears[listener].heard;
            let verdict = self.stamp(change, listener).and_then(|stamp| {
                let end = (stamp + AFTER).min(heard.index_at(self.session.deleted.sent));
                checks::hears(heard, stamp..end, &self.others(listener, &[]), &[self.voice(listener, listener)])
            });
            unmute.checks.push(Check { claim: format!("{} hears bob again from the stamp on", heard.name), verdict });
        }
        unmute
    }

    /// Carol's stream ends at its stamp; the two others hear each other and no longer her.
    fn deletion(&self) -> Row {
        let change = &self.session.deleted;
        let mut deletion = row("Carol is deleted", Some(change), &self.session.members);
        let carol = &self.session.members[CAROL];
        let stamp = change.effect.outgoing(&carol.connection_id);
        deletion.checks.push(Check {
            claim: "carol is sent nothing at or past the stamp".to_owned(),
            verdict: stamp
                .ok_or_else(|| "the answer holds no stamp of her stream".to_owned())
                .and_then(|stamp| checks::ends(&self.ears[CAROL].heard, stamp)),
        });
        for (listener, other) in [(ALICE, BOB), (BOB, ALICE)] {
            let heard = &self.ears[listener].heard;
            let left = heard.index_at(self.session.left.sent);
            let (gone, staying) = (self.voice(listener, CAROL), [self.voice(listener, other)]);
            let verdict = match change.effect.outgoing(&self.session.members[listener].connection_id) {
                Some(stamp) => {
                    let stamp = heard.index(stamp);
                    let before = stamp.saturating_sub(BEFORE)..stamp;
                    checks::stops(heard, before, stamp..(stamp + AFTER).min(left), gone, &staying)
                }
                // The answer speaks of her stream alone: then what arrived after it counts.
                None => checks::hears(heard, heard.index_at(change.answered)..left, &staying, &[gone]),
            };
            let claim = format!("{} still hears {}, and no longer carol", heard.name, self.voices[other].name);
            deletion.checks.push(Check { claim, verdict });
        }
        deletion
    }

    /// From one endpoint's socket through the mix to another's, for each packet heard while all three talk.
    fn delays(&self, delays: &mut Histogram<u64>) {
        for (listener, ears) in self.ears.iter().enumerate() {
            let range = ears.heard.index_at(self.session.talking)..ears.heard.index_at(self.session.announced);
            for (offset, at) in ears.heard.arrivals().iter().filter(|(offset, _)| range.contains(offset)) {
                for speaker in [ALICE, BOB, CAROL].into_iter().filter(|speaker| *speaker != listener) {
                    let sample = ears.tracks[speaker].sample(*offset);
                    if let Some(sent) = self.session.members[speaker].sent.sent_at(sample) {
                        delays.saturating_record(micros(at.saturating_sub(sent)));
                    }
                }
            }
        }
    }

    fn voice(&self, listener: usize, speaker: usize) -> Aligned<'_> {
        Aligned { voice: &self.voices[speaker], track: &self.ears[listener].tracks[speaker] }
    }

    fn others(&self, listener: usize, without: &[usize]) -> Vec<Aligned<'_>> {
        let others = [ALICE, BOB, CAROL].into_iter();
        let others = others.filter(|speaker| *speaker != listener && !without.contains(speaker));
        others.map(|speaker| self.voice(listener, speaker)).collect()
    }

    /// Where a change begins in what a member hears.
    fn stamp(&self, change: &Change, listener: usize) -> Result<usize, String> {
        let member = &self.session.members[listener];
        let stamp = change.effect.outgoing(&member.connection_id);
        let stamp = stamp.ok_or_else(|| format!("the answer holds no stamp of what {} hears", member.name))?;
        Ok(self.ears[listener].heard.index(stamp))
    }
}

impl Ears {
    fn new(session: &Session, member: &Member, voices: &[Voice], announcement: &Voice) -> Result<Self, String> {
        let heard = Heard::new(&member.name, &member.heard)?;
        let from = heard.index_at(session.talking);
        let tracks = voices
            .iter()
            .zip(&session.members)
            .map(|(voice, speaker)| {
                let to =
                    if speaker.name == session.members[CAROL].name { session.deleted.sent } else { session.left.sent };
                let range: Range<usize> = from..heard.index_at(to);
                Track::find(&heard.samples, voice, range, |at| speaker.sent.sample_at(heard.arrived(at)))
            })
            .collect();
        let range = heard.index_at(session.announced)..heard.index_at(session.announcement_stopped.sent);
        let announcement = Track::find(&heard.samples, announcement, range, |at| {
            let late = heard.arrived(at).as_micros().cast_signed() - session.announced.as_micros().cast_signed();
            i64::try_from(late / 125).unwrap_or(i64::MAX)
        });
        Ok(Self { heard, tracks, announcement })
    }
}

fn row(what: &'static str, change: Option<&Change>, members: &[Member]) -> Row {
    let effect = change.map(|change| change.effect.clone());
    let stamp = |member: &Member| Some((member.name.clone(), effect.as_ref()?.outgoing(&member.connection_id)?));
    Row { what, stamps: members.iter().filter_map(stamp).collect(), effect, checks: Vec::new() }
}

/// From a microsecond to a minute, three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are constant and valid")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
