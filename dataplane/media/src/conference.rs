//! A conference: everybody hears the sum of all others, and some hear or are heard as their role says.
//!
//! The mix runs in frames of 10 ms on the conference's own clock. Each frame: pull every participant's samples, sum
//! them in i32, then give each listener the sum less his own share, narrowed once with saturation. Listeners whose own
//! share is nothing hear the same samples; they share one encode per codec.
//!
//! ```text
//!              in the sum          hears
//!  party       unless muted        the sum less its own share
//!  pupil       always              the sum less its own share, and the coach
//!  coach       no                  the sum
//!  monitor     no, not decoded     the sum
//! ```

use core::time::Duration;

use ringbridge_codec::mix;

use crate::adjust::Adjustment;
use crate::command::{CodecKind, ConferenceSpec, Role, Target};
use crate::connection::{Connection, Media, Participant};
use crate::digits::DigitBuffer;
use crate::event::{ConnectionCounters, Event};
use crate::id::ConferenceId;
use crate::limits::{CONFERENCE_OPERATIONS_MAX, FRAME_MS, FRAME_SAMPLES, PHASES};
use crate::op::{Operation, run_each};
use crate::outputs::Outputs;
use crate::sender::{encode, silence};
use crate::talk::{SILENCE_DBOV, TalkChange, is_loud};
use crate::time::Instant;
use crate::tones::{Notice, Tone, Tones};

/// Who has a role that only one can have, by slot.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cast {
    pub(crate) coach: Option<u32>,
    pub(crate) pupil: Option<u32>,
}

impl Cast {
    /// Gives `slot` a role, and takes from it the one it had. Returns who loses the role to it.
    pub(crate) fn assign(&mut self, slot: u32, role: Role) -> Option<u32> {
        self.remove(slot);
        match role {
            Role::Coach => self.coach.replace(slot),
            Role::Pupil => self.pupil.replace(slot),
            Role::Party | Role::Monitor => None,
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.coach = self.coach.filter(|&coach| coach != slot);
        self.pupil = self.pupil.filter(|&pupil| pupil != slot);
    }

    /// Whether `listener` hears `speaker`, if he can be heard at all.
    pub(crate) fn hears(self, listener: u32, speaker: u32) -> bool {
        listener != speaker && (self.coach != Some(speaker) || self.pupil == Some(listener))
    }
}

/// A conference.
#[derive(Debug)]
pub(crate) struct Conference {
    pub(crate) id: ConferenceId,
    /// Media time zero, a whole millisecond on the conference's phase.
    pub(crate) epoch: Instant,
    /// The next frame to be mixed; due at `epoch + frame * 10 ms`.
    frame: u64,
    /// Whether frames are mixed: empty and one-party rooms cost nothing.
    pub(crate) running: bool,
    /// Slots of the connections in it, in order of joining.
    pub(crate) participants: Vec<u32>,
    pub(crate) participants_max: u32,
    /// Two parties at most, without tones and operations, until it is promoted.
    pub(crate) hairpin: bool,
    /// A hairpin of parties whose codec can't be decoded: packets are passed on as in a relay, and nothing is mixed.
    pub(crate) passes_on: bool,
    pub(crate) cast: Cast,
    /// Whether joining and leaving is told by a tone.
    tones: bool,
    /// The tone that sounds, and its first frame.
    notice: Option<(Notice, u64)>,
    pub(crate) operations: [Option<Box<Operation>>; CONFERENCE_OPERATIONS_MAX],
    /// Volume and speed of what is played to it.
    pub(crate) adjustment: Adjustment,
}

impl Conference {
    /// A new conference. `phase` spreads the clocks of many over a frame.
    pub(crate) fn new(now: Instant, id: ConferenceId, spec: ConferenceSpec, phase: u32) -> Self {
        let step = u64::from(FRAME_MS);
        let now_ms = now.as_nanos() / 1_000_000;
        // In the first milliseconds of a process the phase may lie before time began.
        let epoch_ms = now_ms.saturating_sub((now_ms + step - u64::from(phase % PHASES)) % step);
        Self {
            id,
            epoch: Instant::from_millis(epoch_ms),
            frame: 0,
            running: false,
            participants: Vec::with_capacity(4),
            participants_max: spec.participants_max,
            hairpin: spec.hairpin,
            passes_on: false,
            cast: Cast::default(),
            tones: spec.tones,
            notice: None,
            operations: [const { None }; CONFERENCE_OPERATIONS_MAX],
            adjustment: Adjustment::default(),
        }
    }

    /// When the next frame is due.
    pub(crate) fn next_due(&self) -> Instant {
        self.epoch + Duration::from_millis(self.frame * u64::from(FRAME_MS))
    }

    /// Puts the next frame after `now`: frames that nobody was there to hear are not made up for.
    pub(crate) fn skip_to(&mut self, now: Instant) {
        let passed = now.saturating_since(self.epoch).as_millis() / u128::from(FRAME_MS) + 1;
        self.frame = self.frame.max(u64::try_from(passed).unwrap_or(u64::MAX));
    }

    /// Whether there is anything to mix.
    pub(crate) fn wants_to_run(&self, connections: &[Option<Connection>]) -> bool {
        if self.passes_on {
            return false;
        }
        match self.participants.len() {
            0 => self.operations.iter().flatten().any(|operation| operation.ends_unheard()),
            1 => {
                self.operations.iter().any(Option::is_some)
                    || self
                        .members(connections)
                        .any(|(_, connection)| connection.runs_any() || connection.wants_digits())
            }
            _ => true,
        }
    }

    /// Has a tone begin with the next frame, in place of one that sounds.
    pub(crate) fn announce(&mut self, notice: Notice) {
        if self.announces() && self.running {
            self.notice = Some((notice, self.frame));
        }
    }

    /// Whether joining and leaving is told by a tone now.
    pub(crate) const fn announces(&self) -> bool {
        self.tones && !self.hairpin
    }

    /// The other one of two.
    pub(crate) fn peer_of(&self, slot: u32) -> Option<u32> {
        self.participants.iter().copied().find(|&other| other != slot)
    }

    /// Slot and connection of each participant.
    pub(crate) fn members<'a>(
        &'a self,
        connections: &'a [Option<Connection>],
    ) -> impl Iterator<Item = (u32, &'a Connection)> + 'a {
        self.participants.iter().filter_map(|&slot| Some((slot, connections.get(slot as usize)?.as_ref()?)))
    }

    /// Mixes the frame that is due and moves on to the next.
    pub(crate) fn mix(&mut self, connections: &mut [Option<Connection>], tones: &Tones, out: &mut Outputs) {
        let due = self.next_due();
        self.frame += 1;
        let mut sum = [0i32; FRAME_SAMPLES];
        let mut coach = None;
        for &slot in &self.participants {
            if let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) {
                collect(connection, due, self.id, &mut sum, &mut coach, out);
            }
        }
        if let Some((notice, first)) = self.notice {
            // The frame that is mixed is the one before the next.
            match tones.notice(notice, self.frame - 1 - first) {
                Some(samples) => mix::accumulate(&mut sum, samples),
                None => self.notice = None,
            }
        }
        self.run_operations(&mut sum, out);
        let tariff_tone = if self.hairpin { None } else { Some(tones.tariff()) };
        let mut shared = SharedEncodes::new(&sum, coach.as_ref(), tariff_tone);
        for &slot in &self.participants {
            if let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) {
                deliver(connection, slot, due, &mut shared, out);
            }
        }
    }

    fn run_operations(&mut self, sum: &mut [i32; FRAME_SAMPLES], out: &mut Outputs) {
        if self.operations.iter().all(Option::is_none) {
            return;
        }
        let target = Target::Conference(self.id);
        // Nobody gathers digits on a conference.
        let mut buffer = DigitBuffer::default();
        let mut frame = [0; FRAME_SAMPLES];
        let mut loud = false;
        if self.operations.iter().flatten().any(|operation| operation.needs_level()) {
            // What the members say, without what is played to them.
            mix::narrow(sum, &mut frame);
            loud = is_loud(&frame);
        }
        // Prompts first, so that recordings hold the full mix.
        run_each(&mut self.operations, true, target, &mut buffer, out, |operation| {
            let fills = operation.play(loud, &mut frame)?;
            if fills {
                mix::accumulate(sum, &frame);
            }
            Ok(())
        });
        if self.operations.iter().flatten().any(|operation| !operation.kind().is_heard()) {
            mix::narrow(sum, &mut frame);
            run_each(&mut self.operations, false, target, &mut buffer, out, |operation| operation.listen(loud, &frame));
        }
    }
}

/// Takes one participant's share of a frame: pulls it, records it, judges it, and adds it to the sum; that of the coach
/// is kept for the pupil.
fn collect(
    connection: &mut Connection,
    due: Instant,
    conference: ConferenceId,
    sum: &mut [i32; FRAME_SAMPLES],
    coach: &mut Option<[i16; FRAME_SAMPLES]>,
    out: &mut Outputs,
) {
    let listened_to = connection.is_listened_to();
    let target = connection.target();
    if !listened_to {
        if let Some(media) = &mut connection.media {
            // What is left of the last recording.
            if media.jitter.next_timestamp().is_some() {
                media.jitter.reset();
            }
        }
        return;
    }
    let heard = connection.hear(due, out);
    let keeps_tones_out = connection.wants_digits();
    let Connection { id, participant, digits, media: Some(media), .. } = connection else { return };
    let frame = heard.then_some(&media.frame);
    let change = if participant.role == Role::Monitor {
        participant.talk.measure(frame);
        None
    } else {
        participant.talk.look(frame)
    };
    if media.runs_any() {
        let Media { operations, frame, .. } = media.as_mut();
        let loud = participant.talk.is_loud();
        run_each(operations, false, target, digits, out, |operation| operation.listen(loud, frame));
    }
    if participant.role == Role::Monitor {
        return;
    }
    if let Some(change) = change {
        let (conference, connection) = (conference, *id);
        out.push_event(match change {
            TalkChange::Started => Event::TalkStarted { conference, connection },
            TalkChange::Stopped => Event::TalkStopped { conference, connection },
        });
    }
    // Digital silence adds nothing: its sender hears what the silent ones hear.
    let sounds = if heard { participant.talk.level_dbov() > SILENCE_DBOV } else { media.concealed };
    let speaks = sounds && !participant.muted && !media.is_kept_out(keeps_tones_out);
    media.in_mix = speaks && participant.role != Role::Coach;
    if speaks {
        mix::apply_gain(&mut media.frame, participant.gain_q12);
        if media.in_mix {
            mix::accumulate(sum, &media.frame);
        } else {
            *coach = Some(media.frame);
        }
    }
}

/// Gives one listener his frame.
fn deliver(connection: &mut Connection, slot: u32, due: Instant, shared: &mut SharedEncodes<'_>, out: &mut Outputs) {
    let target = connection.target();
    let Connection { spec, participant, digits, media: Some(media), .. } = connection else { return };
    let codec = spec.tx_codec;
    let beep = if participant.tariff_tone { shared.beep_for(participant) } else { None };
    let mut payload = [0; FRAME_SAMPLES];
    let mut frame = [0; FRAME_SAMPLES];
    let mut prompted = false;
    if media.is_played_to() {
        // A prompt to one participant takes the place of the mix for him alone.
        let loud = participant.talk.is_loud();
        run_each(&mut media.operations, true, target, digits, out, |operation| {
            prompted = operation.play(loud, &mut frame)?;
            Ok(())
        });
    }
    if !spec.direction.sends() {
        // The prompt goes on, unheard: it has to end.
        return;
    }
    if prompted {
        if let Some(beep) = beep {
            let mut sum = [0; FRAME_SAMPLES];
            mix::accumulate(&mut sum, &frame);
            mix::accumulate(&mut sum, beep);
            mix::narrow(&sum, &mut frame);
        }
        encode(codec, &frame, &mut payload);
    } else if participant.deaf {
        payload = silence(codec);
    } else if beep.is_some() || (participant.role == Role::Pupil && shared.coach.is_some()) {
        let coach = shared.coach.filter(|_| participant.role == Role::Pupil);
        let mut sum = *shared.sum;
        for samples in [beep, coach].into_iter().flatten() {
            mix::accumulate(&mut sum, samples);
        }
        narrow_for(media, &sum, &mut frame);
        encode(codec, &frame, &mut payload);
    } else if media.in_mix {
        narrow_for(media, shared.sum, &mut frame);
        encode(codec, &frame, &mut payload);
    } else {
        payload = *shared.get(codec);
    }
    out.send_frame(media, slot, due, &payload, spec);
}

/// Writes what is left of `sum` without the listener's own share.
fn narrow_for(media: &Media, sum: &[i32; FRAME_SAMPLES], frame: &mut [i16; FRAME_SAMPLES]) {
    if media.in_mix {
        mix::subtract_narrow(sum, &media.frame, frame);
    } else {
        mix::narrow(sum, frame);
    }
}

/// Moves one frame out of the jitter buffer into `media.frame`; whether anything of it was heard.
pub(crate) fn pull(media: &mut Media, due: Instant, counters: &mut ConnectionCounters) -> bool {
    let pulled = media.jitter.pull(due, &mut media.frame);
    counters.concealed_samples += u64::from(pulled.missing);
    media.concealed = pulled.concealed;
    media.gap = !pulled.heard && !pulled.concealed;
    pulled.heard
}

/// What everybody hears who is not in the mix himself, encoded at most once per codec.
struct SharedEncodes<'a> {
    sum: &'a [i32; FRAME_SAMPLES],
    /// What the coach says to the pupil.
    coach: Option<&'a [i16; FRAME_SAMPLES]>,
    /// To those who get one.
    tariff_tone: Option<&'a Tone>,
    pcmu: Option<[u8; FRAME_SAMPLES]>,
    pcma: Option<[u8; FRAME_SAMPLES]>,
}

impl<'a> SharedEncodes<'a> {
    const fn new(
        sum: &'a [i32; FRAME_SAMPLES],
        coach: Option<&'a [i16; FRAME_SAMPLES]>,
        tariff_tone: Option<&'a Tone>,
    ) -> Self {
        Self { sum, coach, tariff_tone, pcmu: None, pcma: None }
    }

    /// What is due of a participant's tariff tone.
    fn beep_for(&self, participant: &mut Participant) -> Option<&'a [i16; FRAME_SAMPLES]> {
        let tone = self.tariff_tone?;
        tone.get(participant.next_tariff_frame()?)
    }

    fn get(&mut self, codec: CodecKind) -> &[u8; FRAME_SAMPLES] {
        let sum = self.sum;
        let place = match codec {
            // Whoever can't be decoded is never mixed.
            CodecKind::Pcmu | CodecKind::G723 | CodecKind::G729 => &mut self.pcmu,
            CodecKind::Pcma => &mut self.pcma,
        };
        place.get_or_insert_with(|| {
            let mut frame = [0; FRAME_SAMPLES];
            let mut payload = [0; FRAME_SAMPLES];
            mix::narrow(sum, &mut frame);
            encode(codec, &frame, &mut payload);
            payload
        })
    }
}
