//! A conference that is mixed in parts, each on its own shard.
//!
//! ```text
//!        frame is due                                   all are in, or 5 ms have passed
//!  ───────────┬──────────────────────────────────────────────────┬───────────────────
//!   collect: sum the own members ─ own sum ─┐     deliver: own sum + the others' ─ mix-minus to the own members
//!                                           └──► every other part ──► its deliver
//! ```
//!
//! Every part sends its sum of a frame to every other and adds up what it gets; integers add up to the same in any
//! order, so all parts have the same mix, the one that a single shard would have. Frame n is due at the same time
//! everywhere, because all parts have the epoch in common. A part that is late is left out of that frame and counted.
//!
//! With its sum a part tells who is in it, so that each knows whether there is anything to mix; a part at rest tells it
//! alone, when it changes and now and then. The tone of who joins or leaves is told, not sent: each part adds it itself.
//! With its sum a part also tells whom its listeners' packets are to name, and who talks there how loudly; home decides who
//! leads the talk and tells it.
//!
//! Where only the loudest are mixed a part has to know whom it sums before it hears of the others: in frame n those are
//! summed who were the loudest of all in frame n - 1, as all parts told it with their sums of that frame. All choose from
//! the same rows by the same rule, each for its own members, so the choice is one shard's, a frame later. Of a part whose
//! sum is late the last row that came is used.
//!
//! Operations on the conference run at home. What is played goes into the home's sum; what listens hears the whole.

use core::mem;
use std::collections::VecDeque;

use ringbridge_codec::Rate;
use ringbridge_codec::kind::FRAME_SAMPLES_MAX;

use crate::command::Command;
use crate::conference::{Conference, Scratch};
use crate::connection::{Connection, Link};
use crate::engine::{Engine, TimerKey};
use crate::id::{ConferenceId, ConnectionId, ShardId, ShardSet};
use crate::levels::{ActiveSpeaker, Candidates, Contributors, Loudest, Talkers};
use crate::limits::{
    PART_REMINDER, PARTIAL_FRAMES_AHEAD, PARTIAL_MISSES_MAX, PARTIAL_PATIENCE, PARTIALS_POOL_MAX, PARTIALS_WAITING_MAX,
};
use crate::outputs::Outputs;
use crate::time::Instant;
use crate::tones::{Notice, TONE_FRAMES, Tones};

/// What all parts of a conference have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Where its parts are.
    pub shards: ShardSet,
    /// Media time zero; cut to a whole millisecond.
    pub epoch: Instant,
}

/// What one part of a conference tells another: what its members say in a frame, and who is in it.
#[derive(Clone, Debug)]
pub struct Partial {
    conference: ConferenceId,
    from: ShardId,
    to: ShardId,
    /// Grows with everything that `from` tells.
    serial: u64,
    state: State,
    rate: Rate,
    /// Which frame it is the sum of; none: it tells its state only.
    frame: Option<u64>,
    /// Anything is said in it; else `sum` counts as silence.
    sounds: bool,
    /// The coach says something in it.
    coached: bool,
    /// Who talks in it, and may lead.
    talkers: Talkers,
    /// How loud those are who might be mixed, if only the loudest are,
    loudest: Loudest,
    /// and who is, if anybody is told.
    contributors: Contributors,
    sum: [i32; FRAME_SAMPLES_MAX],
    coach: [i16; FRAME_SAMPLES_MAX],
}

impl Partial {
    fn new(conference: ConferenceId, from: ShardId) -> Box<Self> {
        Box::new(Self {
            conference,
            from,
            to: from,
            serial: 0,
            state: State::default(),
            rate: Rate::Narrow,
            frame: None,
            sounds: false,
            coached: false,
            talkers: Talkers::default(),
            loudest: Loudest::NONE,
            contributors: Contributors::new(),
            sum: [0; FRAME_SAMPLES_MAX],
            coach: [0; FRAME_SAMPLES_MAX],
        })
    }

    /// Which conference it is about.
    pub const fn conference(&self) -> ConferenceId {
        self.conference
    }

    /// Where it comes from.
    pub const fn from(&self) -> ShardId {
        self.from
    }

    /// Where it goes.
    pub const fn to(&self) -> ShardId {
        self.to
    }

    /// Which frame of the conference it is the sum of, if it is one.
    pub const fn frame(&self) -> Option<u64> {
        self.frame
    }

    /// Says that it is the sum of another frame.
    #[doc(hidden)]
    pub const fn set_frame(&mut self, frame: Option<u64>) {
        self.frame = frame;
    }
}

/// What a part is up to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct State {
    participants: u32,
    /// Operations on the conference run there.
    operates: bool,
    /// The first frame it mixed since it was at rest; none: it is at rest.
    since: Option<u64>,
    /// The tone that sounds, and its first frame.
    notice: Option<(Notice, u64)>,
    /// Somebody in it is told who is in the mix.
    names: bool,
    /// Who leads the talk, as home says,
    leader: Option<ConnectionId>,
    /// and who led it, as another part says that he has left.
    left: Option<ConnectionId>,
}

/// What a part needs besides what a conference has.
#[derive(Debug)]
pub(crate) struct Part {
    here: ShardId,
    /// Operations on the conference run here.
    pub(crate) is_home: bool,
    home: ShardId,
    others: Vec<Other>,
    serial: u64,
    /// The first frame since it was at rest.
    pub(crate) since: u64,
    /// Who led the talk and has left here, until home knows it.
    left: Option<ConnectionId>,
    /// What the others were told last.
    told: State,
    /// When they are told next, if this part is at rest.
    reminder: Option<Instant>,
    /// The frame that was collected and is not delivered.
    pending: Option<Pending>,
    /// Its members' sum of that frame,
    own: [i32; FRAME_SAMPLES_MAX],
    /// what is played in it,
    played: Option<Box<[i32; FRAME_SAMPLES_MAX]>>,
    prompted: bool,
    /// and what the coach says.
    coach: [i16; FRAME_SAMPLES_MAX],
    coached: bool,
    /// The members' sum of the frame before was sound.
    loud: bool,
    /// Who might be mixed, if only the loudest are,
    candidates: Candidates,
    /// what was told of them,
    loudest: Loudest,
    /// and who is.
    contributors: Contributors,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    index: u64,
    due: Instant,
    /// Nothing is waited for any longer.
    until: Instant,
}

/// Another part, as it is known here.
#[derive(Debug)]
struct Other {
    shard: ShardId,
    serial: u64,
    state: State,
    /// Frames in a row that it was not in time for.
    misses: u8,
    /// What it told last of those who might be mixed.
    loudest: Loudest,
    /// Its sums of this frame and the next ones, each at its number modulo the length.
    sums: [Option<Box<Partial>>; PARTIAL_FRAMES_AHEAD],
}

impl Other {
    const fn new(shard: ShardId) -> Self {
        let (names, leader, left) = (false, None, None);
        let state = State { participants: 0, operates: false, since: None, notice: None, names, leader, left };
        let loudest = Loudest::NONE;
        Self { shard, serial: 0, state, misses: 0, loudest, sums: [const { None }; PARTIAL_FRAMES_AHEAD] }
    }

    /// Whether a sum of that frame is to be expected from it.
    fn mixes(&self, frame: u64) -> bool {
        self.state.since.is_some_and(|since| since <= frame) || self.has(frame)
    }

    fn has(&self, frame: u64) -> bool {
        self.sums[place_of(frame)].as_ref().is_some_and(|sum| sum.frame == Some(frame))
    }

    /// Whether nothing is to be waited for: its sum is here, or it is not known to be in time.
    fn is_settled(&self, frame: u64) -> bool {
        self.has(frame) || !self.mixes(frame) || self.misses >= PARTIAL_MISSES_MAX
    }

    /// Whether it has a use for the sums of others.
    const fn listens(&self) -> bool {
        self.state.participants > 0 || self.state.operates || self.state.since.is_some()
    }
}

fn place_of(frame: u64) -> usize {
    // Less than the length of the table.
    usize::try_from(frame % PARTIAL_FRAMES_AHEAD as u64).unwrap_or(0)
}

/// Partial sums that wait to be polled, and those that are not in use.
#[derive(Debug)]
pub(crate) struct Exchange {
    waiting: VecDeque<Box<Partial>>,
    #[expect(clippy::vec_box, reason = "they travel as boxes")]
    pool: Vec<Box<Partial>>,
}

impl Exchange {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(PARTIALS_WAITING_MAX), pool: Vec::with_capacity(PARTIALS_POOL_MAX) }
    }

    fn claim(&mut self, conference: ConferenceId, from: ShardId) -> Box<Partial> {
        let mut partial = self.pool.pop().unwrap_or_else(|| Partial::new(conference, from));
        (partial.conference, partial.from) = (conference, from);
        (partial.frame, partial.sounds, partial.coached) = (None, false, false);
        (partial.talkers, partial.contributors.len) = (Talkers::default(), 0);
        partial.loudest.clear();
        partial
    }

    fn recycle(&mut self, partial: Box<Partial>) {
        if self.pool.len() < PARTIALS_POOL_MAX {
            self.pool.push(partial);
        }
    }
}

impl Outputs {
    fn send_partial(&mut self, partial: Box<Partial>) {
        if self.exchange.waiting.len() < PARTIALS_WAITING_MAX {
            self.exchange.waiting.push_back(partial);
        } else {
            self.drop_partial(partial);
        }
    }

    fn drop_partial(&mut self, partial: Box<Partial>) {
        self.totals.partials_dropped += 1;
        self.exchange.recycle(partial);
    }
}

impl Part {
    /// The part on shard `here` of a conference whose home is `home`.
    pub(crate) fn new(here: ShardId, home: ShardId, shards: ShardSet) -> Box<Self> {
        let others = shards.iter().filter(|&shard| shard != here).map(Other::new).collect();
        Box::new(Self {
            here,
            is_home: here == home,
            home,
            others,
            serial: 0,
            since: 0,
            left: None,
            told: State::default(),
            reminder: None,
            pending: None,
            own: [0; FRAME_SAMPLES_MAX],
            played: None,
            prompted: false,
            coach: [0; FRAME_SAMPLES_MAX],
            coached: false,
            loud: false,
            candidates: Candidates::default(),
            loudest: Loudest::NONE,
            contributors: Contributors::new(),
        })
    }

    /// Whether somebody in another part is told who is in the mix.
    pub(crate) fn names_elsewhere(&self) -> bool {
        self.others.iter().any(|other| other.state.names)
    }

    /// Who leads the talk has left here.
    pub(crate) fn note_left(&mut self, leader: ConnectionId) {
        self.left = Some(leader).filter(|_| !self.is_home);
    }

    /// How many are in the other parts.
    pub(crate) fn participants_elsewhere(&self) -> usize {
        self.others.iter().map(|other| other.state.participants as usize).sum()
    }

    /// Whether a frame has been collected and waits for other parts.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Forgets a part that is gone.
    pub(crate) fn drop_other(&mut self, shard: ShardId, out: &mut Outputs) {
        for other in self.others.extract_if(.., |other| other.shard == shard) {
            other.sums.into_iter().flatten().for_each(|sum| out.exchange.recycle(sum));
        }
    }

    /// Gives back what it holds.
    pub(crate) fn dissolve(self, out: &mut Outputs) {
        let sums = self.others.into_iter().flat_map(|other| other.sums).flatten();
        sums.for_each(|sum| out.exchange.recycle(sum));
    }

    fn is_complete(&self) -> bool {
        self.pending.is_some_and(|pending| self.others.iter().all(|other| other.is_settled(pending.index)))
    }

    /// Tells the other parts the state, and with it the sum in `scratch` if it is one of a frame.
    fn tell(
        &mut self,
        (id, rate): (ConferenceId, Rate),
        (state, talkers): (State, Talkers),
        frame: Option<u64>,
        scratch: &Scratch,
        out: &mut Outputs,
    ) {
        self.serial += 1;
        if frame.is_none() {
            // Sums don't go to all.
            self.told = state;
        }
        let samples = rate.frame_samples();
        let sum = &scratch.sum[..samples];
        let sounds = frame.is_some() && sum.iter().any(|&sample| sample != 0);
        for other in &self.others {
            if frame.is_some() && !other.listens() {
                continue;
            }
            let mut partial = out.exchange.claim(id, self.here);
            (partial.to, partial.serial, partial.state) = (other.shard, self.serial, state);
            (partial.rate, partial.frame, partial.sounds) = (rate, frame, sounds);
            if sounds {
                partial.sum[..samples].copy_from_slice(sum);
            }
            if frame.is_some() {
                partial.talkers = talkers;
                partial.loudest.copy_from(&self.loudest);
                partial.contributors.copy_from(&self.contributors);
            }
            partial.coached = frame.is_some() && self.coached;
            if partial.coached {
                partial.coach[..samples].copy_from_slice(&self.coach[..samples]);
            }
            out.send_partial(partial);
        }
    }

    /// Adds up what the other parts say in a frame. Whether a coach among them says anything, if none has before.
    fn add_others(
        &mut self,
        index: u64,
        rate: Rate,
        speaker: &mut ActiveSpeaker,
        scratch: &mut Scratch,
        out: &mut Outputs,
    ) -> bool {
        let samples = rate.frame_samples();
        let (mut heard, mut own_named) = (self.coached, false);
        scratch.contributors.len = 0;
        for other in &mut self.others {
            if !other.has(index) {
                if !other.mixes(index) || other.misses >= PARTIAL_MISSES_MAX {
                    other.loudest.clear();
                }
                if other.mixes(index) {
                    out.totals.partials_late += 1;
                    other.misses = other.misses.saturating_add(1);
                }
                continue;
            }
            let Some(sum) = other.sums[place_of(index)].take() else { continue };
            other.misses = 0;
            other.loudest.copy_from(&sum.loudest);
            if self.is_home {
                speaker.hear_all(sum.talkers);
            }
            if !own_named && self.here < other.shard {
                // In the order of parts, so that all name the same.
                scratch.contributors.add_all(&self.contributors, None);
                own_named = true;
            }
            scratch.contributors.add_all(&sum.contributors, None);
            if sum.sounds {
                for (total, sample) in scratch.sum[..samples].iter_mut().zip(&sum.sum) {
                    // A part adds up no more members than a conference has.
                    *total = total.wrapping_add(*sample);
                }
            }
            if sum.coached && !heard {
                scratch.coach[..samples].copy_from_slice(&sum.coach[..samples]);
                heard = true;
            }
            out.exchange.recycle(sum);
        }
        if !own_named {
            scratch.contributors.add_all(&self.contributors, None);
        }
        heard
    }

    /// Chooses who of its members is mixed in the next frame, of all who might have been in this one.
    fn choose(&mut self, loudest: u16, connections: &mut [Option<Connection>], scratch: &mut Scratch) {
        let others = self.others.iter().map(|other| (u32::from(other.shard.0), &other.loudest));
        let among = scratch.candidates.own_among(loudest, (u32::from(self.here.0), &self.loudest), others);
        let (chosen, others) = self.candidates.split(among);
        let rows = chosen.iter().map(|&(_, slot)| (slot, true)).chain(others.iter().map(|&(_, slot)| (slot, false)));
        for (slot, is_chosen) in rows {
            if let Some(connection) = connections.get_mut(slot as usize).and_then(Option::as_mut) {
                connection.participant.is_chosen = is_chosen;
            }
        }
    }

    /// Who leads the talk, as home has told.
    fn leader(&self) -> Option<ConnectionId> {
        self.others.iter().find(|other| other.shard == self.home)?.state.leader
    }
}

impl Conference {
    /// Whether a part has anything to mix: as a conference of one part, and none without a member or operation of its
    /// own.
    pub(crate) fn part_wants_to_run(&self, part: &Part, connections: &[Option<Connection>]) -> bool {
        let (own, elsewhere) = (self.participants.len(), part.participants_elsewhere());
        let operates = self.operations.iter().any(Option::is_some);
        match (own, elsewhere) {
            (0, 0) => self.operations.iter().flatten().any(|operation| operation.ends_unheard()),
            (0, _) => operates,
            (1, 0) => {
                operates
                    || part.others.iter().any(|other| other.state.operates)
                    || self
                        .members(connections)
                        .any(|(_, connection)| connection.runs_any() || connection.wants_digits())
            }
            (_, _) => true,
        }
    }

    /// Whether frames are mixed although none are here.
    pub(crate) fn runs_elsewhere(&self) -> bool {
        let Some(part) = &self.part else { return false };
        let elsewhere = part.participants_elsewhere();
        elsewhere > 0 && elsewhere + self.participants.len() > 1
    }

    /// How many are in it, in all parts.
    pub(crate) fn participants_everywhere(&self) -> usize {
        let elsewhere = self.part.as_ref().map_or(0, |part| part.participants_elsewhere());
        self.participants.len() + elsewhere
    }

    /// Whether a frame has been collected and waits for other parts.
    pub(crate) fn is_waiting(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.is_waiting())
    }

    fn state(&self, part: &Part) -> State {
        State {
            participants: u32::try_from(self.participants.len()).unwrap_or(u32::MAX),
            operates: self.operations.iter().any(Option::is_some),
            since: self.running.then_some(part.since),
            notice: self.notice,
            names: self.names,
            leader: self.active_speaker.current().filter(|_| part.is_home),
            left: part.left,
        }
    }

    /// Collects the frame that is due, and sends its sum to the other parts.
    fn collect_part(
        &mut self,
        part: &mut Part,
        connections: &mut [Option<Connection>],
        scratch: &mut Scratch,
        out: &mut Outputs,
    ) {
        let (due, index, samples) = (self.next_due(), self.frame, self.rate.frame_samples());
        self.frame += 1;
        part.coached = self.collect(due, Some(part), connections, scratch, out);
        part.contributors.copy_from(&scratch.contributors);
        if self.loudest.is_some() {
            mem::swap(&mut part.candidates, &mut scratch.candidates);
            part.candidates.told(&mut part.loudest);
        }
        part.own[..samples].copy_from_slice(&scratch.sum[..samples]);
        if part.coached {
            part.coach[..samples].copy_from_slice(&scratch.coach[..samples]);
        }
        part.prompted = false;
        if self.operations.iter().flatten().any(|operation| operation.kind().is_heard()) {
            scratch.sum[..samples].fill(0);
            // What all members say in this frame is not known yet.
            part.prompted = self.play(part.loud, scratch, out);
            let played = part.played.get_or_insert_with(|| Box::new([0; FRAME_SAMPLES_MAX]));
            played[..samples].copy_from_slice(&scratch.sum[..samples]);
            for (sum, own) in scratch.sum.iter_mut().zip(&part.own[..samples]) {
                *sum += own;
            }
        }
        part.pending = Some(Pending { index, due, until: due + PARTIAL_PATIENCE });
        let state = self.state(part);
        part.tell((self.id, self.rate), (state, self.active_speaker.talkers()), Some(index), scratch, out);
    }

    /// Delivers the frame that was collected, with what is here of the other parts.
    fn deliver_part(
        &mut self,
        part: &mut Part,
        connections: &mut [Option<Connection>],
        tones: &Tones,
        scratch: &mut Scratch,
        out: &mut Outputs,
    ) {
        let Some(Pending { index, due, .. }) = part.pending.take() else { return };
        let samples = self.rate.frame_samples();
        scratch.sum[..samples].copy_from_slice(&part.own[..samples]);
        if part.coached {
            scratch.coach[..samples].copy_from_slice(&part.coach[..samples]);
        }
        // The home's sum holds what it plays; whether the members say anything is asked of the home alone.
        let coached = part.add_others(index, self.rate, &mut self.active_speaker, scratch, out);
        if part.is_home {
            self.tell_speaker(out);
        } else {
            self.active_speaker.follow(part.leader());
        }
        if let Some(loudest) = self.loudest {
            part.choose(loudest, connections, scratch);
        }
        self.add_notice(index, tones, scratch);
        part.loud = self.is_loud(scratch);
        if part.prompted
            && let Some(played) = &part.played
        {
            for (sum, played) in scratch.sum.iter_mut().zip(&played[..samples]) {
                *sum += played;
            }
        }
        self.listen(part.loud, scratch, out);
        self.deliver((due, index), coached, connections, tones, scratch, out);
    }

    /// Takes in what another part tells. Whether something has changed that may start or stop the mix.
    fn hear_part(&mut self, now: Instant, partial: Box<Partial>, out: &mut Outputs) -> bool {
        let (rate, running, own_frame, own_notice) = (self.rate, self.running, self.frame, self.notice);
        let (present, announces) = (self.frame_after(now), self.announces());
        let due = partial.frame.map(|frame| self.due_of(frame));
        let Some(part) = self.part.as_deref_mut() else {
            out.drop_partial(partial);
            return false;
        };
        let undelivered = part.pending.map_or(own_frame, |pending| pending.index);
        let Some(other) = part.others.iter_mut().find(|other| other.shard == partial.from) else {
            out.drop_partial(partial);
            return false;
        };
        let mut changed = false;
        if partial.serial > other.serial {
            changed = partial.state != other.state;
            other.serial = partial.serial;
            other.state = partial.state;
            if other.shard == part.home {
                // He who has left leads no more.
                part.left = part.left.filter(|&left| other.state.leader == Some(left));
            } else if part.is_home
                && let Some(left) = other.state.left
            {
                self.active_speaker.leave(left);
            }
            let sounds_at = |first: u64| first.abs_diff(present) <= (TONE_FRAMES + PARTIAL_FRAMES_AHEAD) as u64;
            if let Some(theirs) = partial.state.notice.filter(|&(_, first)| announces && sounds_at(first))
                && own_notice.is_none_or(|ours| order_of(ours) < order_of(theirs))
            {
                self.notice = Some(theirs);
            }
        }
        let Some(frame) = partial.frame else {
            out.exchange.recycle(partial);
            return changed;
        };
        if due.is_some_and(|due| now <= due + PARTIAL_PATIENCE) {
            // Whoever was not waited for is in time again.
            other.misses = 0;
        }
        let fits = partial.rate == rate && frame >= undelivered && frame - undelivered < PARTIAL_FRAMES_AHEAD as u64;
        if !fits || other.has(frame) {
            // What comes after its frame was delivered has been counted then.
            if frame >= undelivered {
                out.totals.partials_dropped += 1;
            }
            out.exchange.recycle(partial);
        } else if !running {
            out.exchange.recycle(partial);
        } else if let Some(passed) = other.sums[place_of(frame)].replace(partial) {
            out.exchange.recycle(passed);
        }
        changed
    }
}

/// Which of two tones sounds: the one that began last.
fn order_of((notice, first): (Notice, u64)) -> (u64, u8) {
    (first, notice as u8)
}

impl Engine {
    /// The next partial sum for another shard.
    pub fn poll_partial(&mut self) -> Option<Box<Partial>> {
        self.out.exchange.waiting.pop_front()
    }

    /// Takes in what another part of a conference tells.
    pub fn handle_partial(&mut self, now: Instant, partial: Box<Partial>) {
        self.now = now;
        let room = self.room_of(partial.conference);
        let Some((slot, conference)) =
            room.and_then(|slot| self.conferences[slot as usize].as_mut().map(|conference| (slot, conference)))
        else {
            self.out.drop_partial(partial);
            return;
        };
        let changed = conference.hear_part(now, partial, &mut self.out);
        if conference.part.as_ref().is_some_and(|part| part.is_complete()) {
            self.deliver_part(slot);
        } else if changed {
            self.review_conference(slot);
        }
        self.release_broken();
    }

    /// Takes back a partial sum that found no room on its way.
    pub fn drop_partial(&mut self, partial: Box<Partial>) {
        self.out.drop_partial(partial);
    }

    /// Whether a command concerns a conference that has collected a frame and waits for other parts, [`PARTIAL_PATIENCE`]
    /// at most. If it is not kept until then that frame is delivered without them, because what is told about a change
    /// is told from the next one on.
    pub fn is_awaited(&self, command: &Command) -> bool {
        self.rooms_of(command).into_iter().flatten().any(|room| self.is_room_waiting(room))
    }

    /// Delivers what waits of the conferences that a command concerns.
    pub(crate) fn settle_rooms(&mut self, command: &Command) {
        let rooms = self.rooms_of(command);
        self.close_direct_for(command, rooms);
        for room in rooms.into_iter().flatten() {
            if self.is_room_waiting(room) {
                self.deliver_part(room);
            }
        }
    }

    fn is_room_waiting(&self, room: u32) -> bool {
        self.conferences[room as usize].as_ref().is_some_and(Conference::is_waiting)
    }

    fn rooms_of(&self, command: &Command) -> [Option<u32>; 3] {
        let room_with = |id| match self.link_of(self.slot_of(id)?)? {
            Link::Conference(room) => Some(room),
            Link::Relay(_) | Link::None => None,
        };
        [
            command.connection().and_then(room_with),
            command.peer().and_then(room_with),
            command.conference().and_then(|id| self.room_of(id)),
        ]
    }

    /// The clock of a part ticks.
    pub(crate) fn tick_part(&mut self, slot: u32) {
        let Some(conference) = self.conferences[slot as usize].as_mut() else { return };
        if conference.is_waiting() {
            // We are late ourselves. One frame at a time: what it sends has to leave before the next one.
            self.wheel.arm(conference.next_due(), TimerKey::Conference(slot));
            self.deliver_part(slot);
            return;
        }
        let Some(mut part) = conference.part.take() else { return };
        conference.collect_part(&mut part, &mut self.connections, &mut self.scratch, &mut self.out);
        self.wheel.arm(conference.next_due(), TimerKey::Conference(slot));
        let until = part.pending.map(|pending| pending.until).filter(|&until| until > self.now && !part.is_complete());
        conference.part = Some(part);
        match until {
            Some(until) => self.wheel.arm(until, TimerKey::Part(slot)),
            None => self.deliver_part(slot),
        }
    }

    /// A part that was waited for is late, or the others have to be reminded of who is here.
    pub(crate) fn check_part(&mut self, due: Instant, slot: u32) {
        let Some(conference) = self.conferences[slot as usize].as_mut() else { return };
        let next_due = conference.next_due();
        let Some(part) = conference.part.as_deref_mut() else { return };
        // If the next frame is due as well, its tick comes first to this.
        if part.pending.is_some_and(|pending| pending.until == due) && next_due > self.now {
            self.deliver_part(slot);
        } else if part.reminder == Some(due) {
            part.reminder = None;
            if !conference.running {
                self.tell_state(slot);
            }
        }
    }

    /// Delivers the frame of a part that was collected.
    pub(crate) fn deliver_part(&mut self, slot: u32) {
        let Some(conference) = self.conferences[slot as usize].as_mut() else { return };
        let Some(mut part) = conference.part.take() else { return };
        conference.deliver_part(&mut part, &mut self.connections, &self.tones, &mut self.scratch, &mut self.out);
        conference.part = Some(part);
        // Operations may have ended.
        self.review_conference(slot);
    }

    /// Tells the other parts what has changed in this one.
    pub(crate) fn tell_change(&mut self, slot: u32) {
        let Some(conference) = self.conferences[slot as usize].as_ref() else { return };
        let news = |part: &Part| conference.state(part) != part.told;
        if conference.part.as_deref().is_some_and(news) {
            self.tell_state(slot);
        }
    }

    #[cold]
    fn tell_state(&mut self, slot: u32) {
        let Some(conference) = self.conferences[slot as usize].as_mut() else { return };
        let about = (conference.id, conference.rate);
        let everybody = conference.participants_everywhere();
        let Some(state) = conference.part.as_deref().map(|part| conference.state(part)) else { return };
        let Some(part) = conference.part.as_deref_mut() else { return };
        part.tell(about, (state, Talkers::default()), None, &self.scratch, &mut self.out);
        // The sums of one that mixes tell it every frame.
        if state.since.is_none() && everybody > 0 && part.reminder.is_none() {
            let due = (self.now + PART_REMINDER).ceil_to_millis();
            part.reminder = Some(due);
            self.wheel.arm(due, TimerKey::Reminder(slot));
        }
    }

    /// A part is gone with its shard.
    pub(crate) fn drop_part(&mut self, room: u32, shard: ShardId) {
        let Some(conference) = self.conferences[room as usize].as_mut() else { return };
        let leader = conference.active_speaker.current();
        let is_here = conference.members(&self.connections).any(|(_, member)| leader == Some(member.id));
        if let Some(part) = conference.part.as_deref_mut() {
            part.drop_other(shard, &mut self.out);
            if !is_here {
                // He may have been there; if not he is told again.
                conference.active_speaker.follow(None);
            }
        }
        self.review_conference(room);
    }

    /// Gives up what a part holds.
    pub(crate) fn dissolve_part(&mut self, conference: &mut Conference) {
        self.adopted_rooms.remove(&conference.id);
        if let Some(part) = mem::take(&mut conference.part) {
            part.dissolve(&mut self.out);
        }
    }
}
