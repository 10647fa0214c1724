//! A conference: everybody hears the sum of all others.
//!
//! The mix runs in frames of 10 ms on the conference's own clock. Each frame: pull every participant's samples, sum
//! them in i32, then give each listener the sum less his own share, narrowed once with saturation. Listeners whose own
//! share is nothing hear the same samples; they share one encode per codec.

use core::time::Duration;

use ringbridge_codec::mix;

use crate::adjust::Adjustment;
use crate::command::{CodecKind, Target};
use crate::connection::{Connection, Media};
use crate::digits::DigitBuffer;
use crate::event::{ConnectionCounters, Event};
use crate::id::ConferenceId;
use crate::limits::{CONFERENCE_OPERATIONS_MAX, FRAME_MS, FRAME_SAMPLES, PHASES};
use crate::op::{Operation, run_each};
use crate::outputs::Outputs;
use crate::sender::{encode, silence};
use crate::talk::{SILENCE_DBOV, TalkChange, is_loud};
use crate::time::Instant;

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
    pub(crate) operations: [Option<Box<Operation>>; CONFERENCE_OPERATIONS_MAX],
    /// Volume and speed of what is played to it.
    pub(crate) adjustment: Adjustment,
}

impl Conference {
    /// A new conference. `phase` spreads the clocks of many over a frame.
    pub(crate) fn new(now: Instant, id: ConferenceId, participants_max: u32, phase: u32) -> Self {
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
            participants_max,
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

    /// Slot and connection of each participant.
    pub(crate) fn members<'a>(
        &'a self,
        connections: &'a [Option<Connection>],
    ) -> impl Iterator<Item = (u32, &'a Connection)> + 'a {
        self.participants.iter().filter_map(|&slot| Some((slot, connections.get(slot as usize)?.as_ref()?)))
    }

    /// Mixes the frame that is due and moves on to the next.
    pub(crate) fn mix(&mut self, connections: &mut [Option<Connection>], out: &mut Outputs) {
        let due = self.next_due();
        self.frame += 1;
        let mut sum = [0i32; FRAME_SAMPLES];
        for &slot in &self.participants {
            if let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) {
                collect(connection, due, self.id, &mut sum, out);
            }
        }
        self.run_operations(&mut sum, out);
        let mut shared = SharedEncodes::new(&sum);
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

/// Takes one participant's share of a frame: pulls it, records it, judges it, and adds it to the sum.
fn collect(
    connection: &mut Connection,
    due: Instant,
    conference: ConferenceId,
    sum: &mut [i32; FRAME_SAMPLES],
    out: &mut Outputs,
) {
    let target = connection.target();
    let heard = connection.hear(due, out);
    let keeps_tones_out = connection.wants_digits();
    let Connection { id, participant, digits, media: Some(media), .. } = connection else { return };
    let change = participant.talk.look(heard.then_some(&media.frame));
    let Media { operations, frame, .. } = media.as_mut();
    let loud = participant.talk.is_loud();
    run_each(operations, false, target, digits, out, |operation| operation.listen(loud, frame));
    if let Some(change) = change {
        let (conference, connection) = (conference, *id);
        out.push_event(match change {
            TalkChange::Started => Event::TalkStarted { conference, connection },
            TalkChange::Stopped => Event::TalkStopped { conference, connection },
        });
    }
    // Digital silence adds nothing: its sender hears what the silent ones hear.
    media.in_mix = heard
        && !participant.muted
        && participant.talk.level_dbov() > SILENCE_DBOV
        && !media.is_kept_out(keeps_tones_out);
    if media.in_mix {
        mix::apply_gain(&mut media.frame, participant.gain_q12);
        mix::accumulate(sum, &media.frame);
    }
}

/// Gives one listener his frame.
fn deliver(connection: &mut Connection, slot: u32, due: Instant, shared: &mut SharedEncodes<'_>, out: &mut Outputs) {
    let target = connection.target();
    let Connection { spec, participant, digits, media: Some(media), .. } = connection else { return };
    let codec = spec.tx_codec;
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
        encode(codec, &frame, &mut payload);
    } else if participant.deaf {
        payload = silence(codec);
    } else if media.in_mix {
        mix::subtract_narrow(shared.sum, &media.frame, &mut frame);
        encode(codec, &frame, &mut payload);
    } else {
        payload = *shared.get(codec);
    }
    out.send_frame(media, slot, due, &payload, spec);
}

/// Moves one frame out of the jitter buffer into `media.frame`; whether anything of it was heard.
pub(crate) fn pull(media: &mut Media, due: Instant, counters: &mut ConnectionCounters) -> bool {
    let pulled = media.jitter.pull(due, &mut media.frame);
    counters.concealed_samples += u64::from(pulled.missing);
    pulled.heard
}

/// What everybody hears who is not in the mix himself, encoded at most once per codec.
struct SharedEncodes<'a> {
    sum: &'a [i32; FRAME_SAMPLES],
    pcmu: Option<[u8; FRAME_SAMPLES]>,
    pcma: Option<[u8; FRAME_SAMPLES]>,
}

impl<'a> SharedEncodes<'a> {
    const fn new(sum: &'a [i32; FRAME_SAMPLES]) -> Self {
        Self { sum, pcmu: None, pcma: None }
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
