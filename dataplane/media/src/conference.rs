//! A conference: everybody hears the sum of all others, and some hear or are heard as their role says.
//!
//! The mix runs in frames of 10 ms on the conference's own clock. Each frame: pull every participant's samples, sum
//! them in i32, then give each listener the sum less his own share, narrowed once. Listeners whose own share is nothing
//! hear the same samples; they share one encode for each codec, packet time and encoder setting.
//!
//! ```text
//!              in the sum          hears
//!  party       unless muted        the sum less its own share
//!  pupil       always              the sum less its own share, and the coach
//!  coach       no                  the sum
//!  monitor     no, not decoded     the sum
//! ```

use core::time::Duration;

use ringbridge_codec::kind::FRAME_SAMPLES_MAX;
use ringbridge_codec::limit::Limiter;
use ringbridge_codec::{Rate, mix};

use crate::adjust::Adjustment;
use crate::command::{ConferenceSpec, ConnectionSpec, Role, Target};
use crate::connection::{Connection, Media, Narrow, Participant, law_of, prefetch, prefetch_listeners};
use crate::digits::DigitBuffer;
use crate::direct::Shortcut;
use crate::event::{CommandError, ConnectionCounters, Event};
use crate::id::ConferenceId;
use crate::levels::{ActiveSpeaker, Candidates, Contributors};
use crate::limits::{CONFERENCE_OPERATIONS_MAX, FRAME_MS, FRAME_SAMPLES, PHASES};
use crate::op::{Operation, run_each};
use crate::outlet::{Format, History, Outlet, SharedOutlet};
use crate::outputs::Outputs;
use crate::parts::Part;
use crate::sender::{Law, encode, silence};
use crate::talk::TalkDetector;
use crate::time::Instant;
use crate::tones::{Notice, Tones};

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
    pub(crate) frame: u64,
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
    pub(crate) notice: Option<(Notice, u64)>,
    pub(crate) operations: [Option<Box<Operation>>; CONFERENCE_OPERATIONS_MAX],
    /// Volume and speed of what is played to it.
    pub(crate) adjustment: Adjustment,
    /// Rate of the mix.
    pub(crate) rate: Rate,
    /// What it takes to serve more than G.711 at 8 kHz.
    pub(crate) wide: Option<Box<WideRoom>>,
    /// What it takes if this is one part of several.
    pub(crate) part: Option<Box<Part>>,
    /// Of the whole mix.
    limiter: Limiter,
    /// Whether the sum is voice, while an operation asks.
    sum_talk: Option<TalkDetector>,
    /// So many of the loudest are mixed; `None`: all.
    pub(crate) loudest: Option<u16>,
    pub(crate) active_speaker: ActiveSpeaker,
    /// Quiet frames that stop talk; `None`: talk is not told.
    talk_stop_frames: Option<u16>,
    /// Somebody is told who is in the mix.
    pub(crate) names: bool,
    /// Past the mix, if there are two.
    pub(crate) shortcut: Shortcut,
}

/// What a conference has whose mix is not at 8 kHz, or some of whose members are sent more than G.711.
#[derive(Debug)]
pub(crate) struct WideRoom {
    /// One for each format that members have in common.
    outlets: Vec<SharedOutlet>,
    /// What they were fed.
    history: History,
}

impl WideRoom {
    fn new(rate: Rate) -> Box<Self> {
        Box::new(Self { outlets: Vec::new(), history: History::new(rate) })
    }
}

/// Room for frames that are worked on, so that none is cleared for nothing.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Scratch {
    pub(crate) sum: [i32; FRAME_SAMPLES_MAX],
    /// The whole mix.
    mix: [i16; FRAME_SAMPLES_MAX],
    /// What one listener hears.
    frame: [i16; FRAME_SAMPLES_MAX],
    pub(crate) coach: [i16; FRAME_SAMPLES_MAX],
    /// A frame before it is resampled.
    pub(crate) raw: [i16; FRAME_SAMPLES_MAX],
    /// What one says, at 8 kHz.
    pub(crate) narrow: Narrow,
    pub(crate) candidates: Candidates,
    /// Who is in the mix.
    pub(crate) contributors: Contributors,
}

impl Scratch {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            sum: [0; FRAME_SAMPLES_MAX],
            mix: [0; FRAME_SAMPLES_MAX],
            frame: [0; FRAME_SAMPLES_MAX],
            coach: [0; FRAME_SAMPLES_MAX],
            raw: [0; FRAME_SAMPLES_MAX],
            narrow: [0; FRAME_SAMPLES],
            candidates: Candidates::default(),
            contributors: Contributors::new(),
        })
    }
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
            rate: spec.rate,
            wide: (spec.rate != Rate::Narrow).then(|| WideRoom::new(spec.rate)),
            part: None,
            limiter: Limiter::new(),
            sum_talk: None,
            loudest: spec.loudest,
            active_speaker: ActiveSpeaker::default(),
            talk_stop_frames: spec.talk.told.then(|| u32::from(spec.talk.stop_ms) / FRAME_MS).map(frames_u16),
            names: false,
            shortcut: Shortcut::new(),
        }
    }

    /// When the next frame is due.
    pub(crate) fn next_due(&self) -> Instant {
        self.due_of(self.frame)
    }

    /// When a frame is due.
    pub(crate) fn due_of(&self, frame: u64) -> Instant {
        self.epoch + Duration::from_millis(frame.saturating_mul(u64::from(FRAME_MS)))
    }

    /// The frame after `now`.
    pub(crate) fn frame_after(&self, now: Instant) -> u64 {
        let passed = now.saturating_since(self.epoch).as_millis() / u128::from(FRAME_MS) + 1;
        self.frame.max(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Whether talk is told.
    pub(crate) const fn tells_talk(&self) -> bool {
        self.talk_stop_frames.is_some()
    }

    /// Quiet frames that stop talk.
    pub(crate) fn talk_stop_frames(&self) -> u16 {
        self.talk_stop_frames.unwrap_or(u16::MAX)
    }

    /// Puts the next frame after `now`: frames that nobody was there to hear are not made up for.
    pub(crate) fn skip_to(&mut self, now: Instant) {
        self.frame = self.frame_after(now);
        if let Some(wide) = &mut self.wide {
            wide.history.clear();
            wide.outlets.iter_mut().for_each(SharedOutlet::rest);
        }
    }

    /// Whether there is anything to mix.
    pub(crate) fn wants_to_run(&self, connections: &[Option<Connection>]) -> bool {
        if self.passes_on {
            return false;
        }
        if let Some(part) = &self.part {
            return self.part_wants_to_run(part, connections);
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
    pub(crate) fn announce(&mut self, now: Instant, notice: Notice) {
        if self.announces() && (self.running || self.runs_elsewhere()) {
            let first = if self.running { self.frame } else { self.frame_after(now) };
            self.notice = Some((notice, first));
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

    /// Sees that there is what a member with this format needs besides.
    pub(crate) fn provide_for(&mut self, spec: &ConnectionSpec) -> Result<(), CommandError> {
        self.names |= spec.mixer_level_extension.is_some();
        if self.rate == Rate::Narrow && law_of(spec.tx_codec).is_some() {
            return Ok(());
        }
        let (format, rate) = (Format::of(spec), self.rate);
        let wide = self.wide.get_or_insert_with(|| WideRoom::new(rate));
        if !wide.outlets.iter().any(|shared| shared.format() == format) {
            let outlet = Outlet::new(rate, format).map_err(|_| CommandError::UnsupportedCodec)?;
            wide.outlets.push(SharedOutlet::new(outlet));
        }
        Ok(())
    }

    /// Lets go of what no member needs any more.
    pub(crate) fn forget_formats(&mut self, connections: &[Option<Connection>]) {
        let names = self.members(connections).any(|(_, member)| member.spec.mixer_level_extension.is_some());
        self.names = names;
        let Some(mut wide) = self.wide.take() else { return };
        let in_use = |format| self.members(connections).any(|(_, member)| Format::of(&member.spec) == format);
        wide.outlets.retain(|shared| in_use(shared.format()));
        if self.rate != Rate::Narrow || !wide.outlets.is_empty() {
            self.wide = Some(wide);
        }
    }

    /// Mixes the frame that is due and moves on to the next.
    pub(crate) fn mix(
        &mut self,
        connections: &mut [Option<Connection>],
        tones: &Tones,
        scratch: &mut Scratch,
        out: &mut Outputs,
    ) {
        let (due, index) = (self.next_due(), self.frame);
        self.frame += 1;
        let coached = self.collect(due, None, connections, scratch, out);
        if let Some(loudest) = self.loudest {
            self.sum_loudest(loudest, connections, scratch);
        }
        self.tell_speaker(out);
        self.add_notice(index, tones, scratch);
        self.run_operations(scratch, out);
        self.deliver((due, index), coached, connections, tones, scratch, out);
    }

    /// Sums what the members say in a frame, or those of them who were chosen before, if it is a part of several. If only
    /// the loudest are mixed the candidates are left in `scratch`. Whether a coach says anything, which is kept for the
    /// pupil.
    pub(crate) fn collect(
        &mut self,
        due: Instant,
        part: Option<&Part>,
        connections: &mut [Option<Connection>],
        scratch: &mut Scratch,
        out: &mut Outputs,
    ) -> bool {
        let samples = self.rate.frame_samples();
        scratch.sum[..samples].fill(0);
        scratch.candidates.clear();
        scratch.contributors.len = 0;
        let mut coached = false;
        let names = self.names || part.is_some_and(Part::names_elsewhere);
        let sums = match (self.loudest, part) {
            (None, _) => Sums::All,
            (Some(_), None) => Sums::None,
            (Some(_), Some(_)) => Sums::Chosen,
        };
        let room = Collecting { id: self.id, due, talk_stop_frames: self.talk_stop_frames, sums };
        for (n, &slot) in self.participants.iter().enumerate() {
            look_ahead(n, &self.participants, connections);
            let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            coached |= collect(connection, &room, scratch, out);
            let Connection { id, participant, receiver, media: Some(media), .. } = connection else { continue };
            if media.failed {
                out.broken.push(slot);
            }
            if participant.talk.is_talking() && media.in_mix {
                self.active_speaker.hear(*id, participant.talk.loudness());
            }
            if !media.in_mix {
                participant.is_chosen = false;
                continue;
            }
            if sums != Sums::All {
                scratch.candidates.add(slot, participant.talk.loudness(), participant.is_chosen);
                media.in_mix = participant.is_chosen;
                if sums == Sums::None || !media.in_mix {
                    continue;
                }
            }
            if names && let Some(ssrc) = receiver.ssrc() {
                scratch.contributors.add(ssrc, participant.talk.level_dbov());
            }
        }
        coached
    }

    /// Has it known who leads the talk, once all who talk in a frame have been heard.
    pub(crate) fn tell_speaker(&mut self, out: &mut Outputs) {
        if let Some(connection) = self.active_speaker.decide()
            && self.talk_stop_frames.is_some()
        {
            out.push_event(Event::ActiveSpeaker { conference: self.id, connection });
        }
    }

    /// Sums what the loudest say; the others are not in the mix.
    fn sum_loudest(&self, loudest: u16, connections: &mut [Option<Connection>], scratch: &mut Scratch) {
        let Scratch { sum, candidates, contributors, .. } = scratch;
        let (chosen, others) = candidates.split(loudest);
        let rows = chosen.iter().map(|&(_, slot)| (slot, true)).chain(others.iter().map(|&(_, slot)| (slot, false)));
        for (slot, is_chosen) in rows {
            let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            let Connection { participant, receiver, media: Some(media), .. } = connection else { continue };
            (participant.is_chosen, media.in_mix) = (is_chosen, is_chosen);
            if is_chosen {
                mix::accumulate(&mut sum[..self.rate.frame_samples()], media.samples());
                if self.names
                    && let Some(ssrc) = receiver.ssrc()
                {
                    contributors.add(ssrc, participant.talk.level_dbov());
                }
            }
        }
    }

    /// Adds the tone that sounds.
    pub(crate) fn add_notice(&mut self, index: u64, tones: &Tones, scratch: &mut Scratch) {
        let Some((notice, first)) = self.notice else { return };
        let Some(frame) = index.checked_sub(first) else { return };
        match tones.notice(self.rate, notice, frame) {
            Some(tone) => mix::accumulate(&mut scratch.sum[..self.rate.frame_samples()], tone),
            None => self.notice = None,
        }
    }

    /// Gives every member his part of the sum.
    pub(crate) fn deliver(
        &mut self,
        (due, index): (Instant, u64),
        coached: bool,
        connections: &mut [Option<Connection>],
        tones: &Tones,
        scratch: &mut Scratch,
        out: &mut Outputs,
    ) {
        let rate = self.rate;
        let samples = rate.frame_samples();
        // Sounds that cancel each other are no less silent.
        let silent = scratch.sum[..samples].iter().all(|&sample| sample == 0);
        let Scratch { sum, mix, frame, coach, contributors, .. } = scratch;
        if let Some(wide) = self.wide.as_deref_mut() {
            self.limiter.process(&sum[..samples], &mut mix[..samples]);
            wide.history.push(&mix[..samples]);
            for shared in &mut wide.outlets {
                shared.feed(&mix[..samples], position_of(index, shared.format()));
            }
        }
        let mut delivery = Delivery {
            due,
            index,
            rate,
            sum: &sum[..samples],
            coach: coached.then_some(&coach[..samples]),
            tones: (!self.hairpin).then_some(tones),
            frame: &mut frame[..samples],
            silent,
            limited: self.wide.is_some(),
            contributors: self.names.then_some(&*contributors),
            mix: &mut mix[..samples],
            shared: [None; 2],
            limiter: &mut self.limiter,
            wide: self.wide.as_deref_mut(),
            waiting: false,
        };
        for (n, &slot) in self.participants.iter().enumerate() {
            // Of few all is still at hand.
            if self.participants.len() > 4 * AHEAD && n.is_multiple_of(AHEAD) {
                prefetch_listeners(next_of(n, &self.participants), connections);
            }
            if let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) {
                delivery.deliver(connection, slot, out);
            }
        }
        if !delivery.waiting {
            return;
        }
        for &slot in &self.participants {
            if let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) {
                delivery.send_waiting(connection, slot, out);
            }
        }
    }

    fn run_operations(&mut self, scratch: &mut Scratch, out: &mut Outputs) {
        if self.operations.iter().all(Option::is_none) {
            return;
        }
        // What the members say, without what is played to them.
        let loud = self.is_loud(scratch);
        // Prompts first, so that recordings hold the full mix.
        self.play(loud, scratch, out);
        self.listen(loud, scratch, out);
    }

    /// Whether the sum is voice, if an operation asks.
    pub(crate) fn is_loud(&mut self, scratch: &mut Scratch) -> bool {
        if !self.operations.iter().flatten().any(|operation| operation.needs_level()) {
            self.sum_talk = None;
            return false;
        }
        let samples = self.rate.frame_samples();
        let Scratch { sum, mix, .. } = scratch;
        mix::narrow(&sum[..samples], &mut mix[..samples]);
        let talk = self.sum_talk.get_or_insert_with(TalkDetector::new);
        talk.measure(Some(&mix[..samples]));
        talk.is_loud()
    }

    /// Runs the operations that are heard, and adds them to the sum. Whether there is anything to hear.
    pub(crate) fn play(&mut self, loud: bool, scratch: &mut Scratch, out: &mut Outputs) -> bool {
        let samples = self.rate.frame_samples();
        let Scratch { sum, frame, .. } = scratch;
        let (sum, frame) = (&mut sum[..samples], &mut frame[..samples]);
        let target = Target::Conference(self.id);
        let mut played = false;
        // Nobody gathers digits on a conference.
        run_each(&mut self.operations, true, target, &mut DigitBuffer::default(), out, |operation| {
            if operation.play(loud, frame)? {
                mix::accumulate(sum, frame);
                played = true;
            }
            Ok(())
        });
        played
    }

    /// Runs the operations that listen to the sum.
    pub(crate) fn listen(&mut self, loud: bool, scratch: &mut Scratch, out: &mut Outputs) {
        if !self.operations.iter().flatten().any(|operation| !operation.kind().is_heard()) {
            return;
        }
        let samples = self.rate.frame_samples();
        let Scratch { sum, mix, .. } = scratch;
        let mix = &mut mix[..samples];
        mix::narrow(&sum[..samples], mix);
        let target = Target::Conference(self.id);
        run_each(&mut self.operations, false, target, &mut DigitBuffer::default(), out, |operation| {
            operation.listen(loud, mix)
        });
    }
}

/// Members whose memory is asked for at once.
const AHEAD: usize = 8;

/// Every so many members, asks for the memory of the next.
fn look_ahead(n: usize, participants: &[u32], connections: &[Option<Connection>]) {
    if n.is_multiple_of(AHEAD) {
        prefetch(next_of(n, participants), connections);
    }
}

fn next_of(n: usize, participants: &[u32]) -> &[u32] {
    &participants[n..participants.len().min(n + AHEAD)]
}

fn frames_u16(frames: u32) -> u16 {
    u16::try_from(frames.max(1)).unwrap_or(u16::MAX)
}

/// Which frame of a packet of that format a frame of the conference is.
fn position_of(index: u64, format: Format) -> u32 {
    // Less than the frames of a packet.
    u32::try_from(index % u64::from(format.frames())).unwrap_or(0)
}

/// A frame at any rate of who says nothing.
pub(crate) static SILENCE: [i16; FRAME_SAMPLES_MAX] = [0; FRAME_SAMPLES_MAX];

/// What is common to the shares of a frame.
struct Collecting {
    id: ConferenceId,
    due: Instant,
    talk_stop_frames: Option<u16>,
    sums: Sums,
}

/// Whose shares are added to the sum at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sums {
    All,
    /// Nobody's: the loudest are chosen first.
    None,
    /// Of those who were chosen with the frame before.
    Chosen,
}

/// Takes one participant's share of a frame: pulls it, records it, judges it, and adds it to the sum; that of the coach
/// is kept for the pupil. Whether the coach says anything.
fn collect(connection: &mut Connection, room: &Collecting, scratch: &mut Scratch, out: &mut Outputs) -> bool {
    let due = room.due;
    let listened_to = connection.is_listened_to();
    let target = connection.target();
    if !listened_to {
        if let Connection { digits, media: Some(media), .. } = connection {
            // What is left of the last recording.
            if media.playout.next_timestamp().is_some() {
                media.playout.reset();
            }
            // What waits for digits or for its time alone.
            if media.runs_any() {
                let silence = &SILENCE[..media.rate.frame_samples()];
                run_each(&mut media.operations, false, target, digits, out, |operation| {
                    operation.listen(false, silence)
                });
            }
        }
        return false;
    }
    let heard = connection.hear(due, scratch, out);
    let keeps_tones_out = connection.wants_digits();
    let Connection { id, participant, digits, media: Some(media), .. } = connection else { return false };
    let samples = media.rate.frame_samples();
    let (runs_any, raw) = (media.runs_any(), &mut scratch.raw[..samples]);
    if let Some(care) = media.care.as_mut().filter(|_| heard) {
        if runs_any {
            // Recordings hold what came.
            raw.copy_from_slice(&media.frame[..samples]);
        }
        care.take(&mut media.frame[..samples]);
    }
    let frame = heard.then_some(media.samples());
    let change = if participant.role == Role::Monitor {
        participant.talk.measure(frame);
        None
    } else {
        participant.talk.look(frame, room.talk_stop_frames.unwrap_or(u16::MAX))
    };
    if media.noise {
        participant.talk.note_comfort_noise(media.samples());
    }
    if runs_any {
        let loud = participant.talk.is_loud();
        let Media { operations, care, frame, .. } = &mut **media;
        let frame = if care.is_some() && heard { &*raw } else { &frame[..samples] };
        run_each(operations, false, target, digits, out, |operation| operation.listen(loud, frame));
    }
    if participant.role == Role::Monitor {
        return false;
    }
    if let Some(change) = change.filter(|_| room.talk_stop_frames.is_some()) {
        out.tell_talk(change, room.id, *id);
    }
    // Digital silence adds nothing: its sender hears what the silent ones hear.
    let sounds = if heard { participant.talk.sounds() } else { media.concealed };
    let speaks = sounds && !participant.muted && !media.is_kept_out(keeps_tones_out);
    media.in_mix = speaks && participant.role != Role::Coach;
    if !speaks {
        return false;
    }
    mix::apply_gain(&mut media.frame[..samples], participant.gain_q12);
    if media.in_mix {
        if room.sums == Sums::All || (room.sums == Sums::Chosen && participant.is_chosen) {
            mix::accumulate(&mut scratch.sum[..samples], &media.frame[..samples]);
        }
        return false;
    }
    scratch.coach[..samples].copy_from_slice(&media.frame[..samples]);
    true
}

/// What a listener hears in a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The mix, as others do.
    Shared,
    /// What lies in the delivery's own frame.
    Own,
    /// Nothing.
    Silence,
}

/// Gives listeners their frames. What several hear is encoded at most once for each format.
struct Delivery<'a> {
    due: Instant,
    /// Which frame of the conference it is.
    index: u64,
    rate: Rate,
    sum: &'a [i32],
    /// What the coach says to the pupil.
    coach: Option<&'a [i16]>,
    /// The tariff tone, to those who get one; none between two.
    tones: Option<&'a Tones>,
    /// What the present listener alone hears.
    frame: &'a mut [i16],
    /// Who is in the mix, if anybody is told.
    contributors: Option<&'a Contributors>,
    /// Whether nothing is in the mix.
    silent: bool,
    /// The whole mix, once it is [limited](Self::limited).
    mix: &'a mut [i16],
    limited: bool,
    /// The whole mix in G.711, if it is at 8 kHz.
    shared: [Option<[u8; FRAME_SAMPLES]>; 2],
    /// Of the whole mix.
    limiter: &'a mut Limiter,
    wide: Option<&'a mut WideRoom>,
    /// Somebody's packet waits.
    waiting: bool,
}

impl<'a> Delivery<'a> {
    /// Gives one listener his frame.
    fn deliver(&mut self, connection: &mut Connection, slot: u32, out: &mut Outputs) {
        let content = self.content(connection, out);
        let Connection { spec, receiver, media: Some(media), .. } = connection else { return };
        if let Some(id) = spec.mixer_level_extension {
            let named = self.contributors.filter(|_| content != Content::Silence);
            media.sender.name(id, named, receiver.ssrc());
        }
        // A prompt goes on even if it is unheard: it has to end.
        if !spec.direction.sends() {
            return;
        }
        let is_silent = match content {
            Content::Shared => self.silent,
            Content::Silence => true,
            Content::Own => false,
        };
        if let Some(payload_type) = spec.comfort_noise_payload_type
            && out.send_noise(media, slot, self.due, is_silent, payload_type, spec)
        {
            return;
        }
        if media.wide.is_some() {
            self.send_wide(media, slot, content, spec, out);
        } else if let Some(law) = law_of(spec.tx_codec) {
            let mut payload = [0; FRAME_SAMPLES];
            let due = self.due;
            let bytes = match content {
                Content::Shared => self.shared(law, out),
                Content::Silence => {
                    payload = silence(law);
                    &payload
                }
                Content::Own => {
                    out.totals.encodes += 1;
                    encode(law, self.frame, &mut payload);
                    &payload
                }
            };
            out.send_frame(media, slot, due, bytes, spec);
        }
    }

    fn content(&mut self, connection: &mut Connection, out: &mut Outputs) -> Content {
        let target = connection.target();
        let Connection { participant, digits, media: Some(media), .. } = connection else { return Content::Silence };
        let beep = if participant.tariff_tone { self.beep_for(participant) } else { None };
        let mut prompted = false;
        if media.is_played_to() {
            // A prompt to one participant takes the place of the mix for him alone.
            let loud = participant.talk.is_loud();
            run_each(&mut media.operations, true, target, digits, out, |operation| {
                prompted = operation.play(loud, self.frame)?;
                Ok(())
            });
        }
        if prompted {
            if let Some(beep) = beep {
                let mut sum = [0; FRAME_SAMPLES_MAX];
                let sum = &mut sum[..self.frame.len()];
                mix::accumulate(sum, self.frame);
                mix::accumulate(sum, beep);
                mix::narrow(sum, self.frame);
            }
            return Content::Own;
        }
        if participant.deaf {
            return Content::Silence;
        }
        let coach = self.coach.filter(|_| participant.role == Role::Pupil);
        if beep.is_some() || coach.is_some() {
            let mut sum = [0; FRAME_SAMPLES_MAX];
            let sum = &mut sum[..self.frame.len()];
            sum.copy_from_slice(self.sum);
            for samples in [beep, coach].into_iter().flatten() {
                mix::accumulate(sum, samples);
            }
            narrow_for(media, sum, self.frame);
            mix::apply_gain(self.frame, participant.output_gain_q12);
            return Content::Own;
        }
        if media.in_mix || participant.output_gain_q12 != mix::GAIN_Q12_UNITY {
            narrow_for(media, self.sum, self.frame);
            mix::apply_gain(self.frame, participant.output_gain_q12);
            return Content::Own;
        }
        Content::Shared
    }

    /// Sends what is collected into packets on the grid of the conference's frames.
    fn send_wide(&mut self, media: &mut Media, slot: u32, content: Content, spec: &ConnectionSpec, out: &mut Outputs) {
        let Media { sender, wide, owns_stream, relay_map, .. } = media;
        let (Some(room), Some(wide)) = (self.wide.as_deref_mut(), wide.as_deref_mut()) else { return };
        let format = wide.outlet.format();
        let position = position_of(self.index, format);
        if sender.frames_before(self.due) != position || !wide.is_at(position) {
            // It has just joined, was held, or the clock stood still: its next packet begins with the others'.
            sender.discard_partial();
            wide.interrupt();
            if position != 0 {
                return;
            }
        }
        let is_last = position + 1 == format.frames();
        let own = match content {
            Content::Shared => {
                wide.feed_shared(self.mix);
                // Who leaves the shared outlet takes its state before it goes on.
                wide.waits = is_last;
                self.waiting |= is_last;
                if !is_last {
                    (*owns_stream, *relay_map) = (true, None);
                    out.push_frame(sender, slot, self.due, &[], spec);
                }
                return;
            }
            Content::Own => &*self.frame,
            Content::Silence => {
                self.frame.fill(0);
                &*self.frame
            }
        };
        let shared = room.outlets.iter().find(|shared| shared.format() == format);
        let fed = wide.feed_own(own, position, shared, &room.history);
        out.totals.encodes += u64::from(is_last);
        match fed.and_then(|()| if is_last { wide.finish_own() } else { Ok(&[][..]) }) {
            // A codec may find that there is nothing to send.
            Ok(bytes) if is_last && bytes.is_empty() => sender.discard_partial(),
            Ok(bytes) => {
                (*owns_stream, *relay_map) = (true, None);
                out.push_frame(sender, slot, self.due, bytes, spec);
            }
            Err(_) => out.broken.push(slot),
        }
    }

    /// Sends the packet that waits, if one does.
    fn send_waiting(&mut self, connection: &mut Connection, slot: u32, out: &mut Outputs) {
        let Connection { spec, media: Some(media), .. } = connection else { return };
        let Media { sender, wide: Some(wide), owns_stream, relay_map, .. } = &mut **media else { return };
        if !core::mem::take(&mut wide.waits) {
            return;
        }
        let Some(WideRoom { outlets, history, .. }) = self.wide.as_deref_mut() else { return };
        let format = wide.outlet.format();
        let Some(shared) = outlets.iter_mut().find(|shared| shared.format() == format) else { return };
        match wide.finish_shared(shared, history, self.rate) {
            Ok((bytes, encodes)) => {
                out.totals.encodes += encodes;
                if bytes.is_empty() {
                    sender.discard_partial();
                } else {
                    (*owns_stream, *relay_map) = (true, None);
                    out.push_frame(sender, slot, self.due, bytes, spec);
                }
            }
            Err(_) => out.broken.push(slot),
        }
    }

    /// What is due of a participant's tariff tone.
    fn beep_for(&self, participant: &mut Participant) -> Option<&'a [i16]> {
        self.tones?.tariff(self.rate, participant.next_tariff_frame()?)
    }

    /// The whole mix in G.711, encoded once.
    fn shared(&mut self, law: Law, out: &mut Outputs) -> &[u8; FRAME_SAMPLES] {
        let Self { sum, mix, shared, limiter, limited, .. } = self;
        shared[law as usize].get_or_insert_with(|| {
            let mut payload = [0; FRAME_SAMPLES];
            if !*limited {
                limiter.process(sum, mix);
                *limited = true;
            }
            encode(law, mix, &mut payload);
            out.totals.encodes += 1;
            payload
        })
    }
}

/// Writes what is left of `sum` without the listener's own share.
fn narrow_for(media: &mut Media, sum: &[i32], frame: &mut [i16]) {
    if media.in_mix {
        media.limiter.process_less(sum, &media.frame[..frame.len()], frame);
    } else {
        media.limiter.process(sum, frame);
    }
}

/// Moves one frame out of the jitter buffer into `media.frame`, at the rate of its clock; whether anything of it was
/// heard.
pub(crate) fn pull(
    media: &mut Media,
    due: Instant,
    raw: &mut [i16; FRAME_SAMPLES_MAX],
    counters: &mut ConnectionCounters,
) -> bool {
    let samples = media.rate.frame_samples();
    let rx_samples = media.playout.codec().rate().frame_samples();
    let resampled = media.wide.as_mut().filter(|_| rx_samples != samples);
    let pulled = match resampled {
        None => media.playout.pull(due, &mut media.frame[..samples]),
        Some(wide) => {
            let pulled = media.playout.pull(due, &mut raw[..rx_samples]);
            // The resampler still holds the end of what sounded.
            wide.quiet =
                if pulled.heard || pulled.concealed || pulled.noise { 0 } else { wide.quiet.saturating_add(1) };
            if wide.quiet <= 2 {
                wide.inward.process(&raw[..rx_samples], &mut media.frame[..samples]);
            } else {
                media.frame[..samples].fill(0);
            }
            pulled
        }
    };
    counters.concealed_samples += u64::from(pulled.missing);
    media.concealed = pulled.concealed;
    media.gap = !pulled.heard && !pulled.concealed && !pulled.noise;
    media.noise = pulled.noise;
    media.failed |= pulled.failed;
    pulled.heard
}
