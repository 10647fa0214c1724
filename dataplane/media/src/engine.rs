//! The one machine a shard drives.
//!
//! After any `handle_*`, drain every `poll_*` before the next; then wait until
//! [`poll_timeout`](Engine::poll_timeout), a datagram or a command, whichever is first. One turn of a shard handles
//! datagrams first, then timeouts, then commands: a frame that is due is mixed before a command changes the room.

use std::collections::BTreeMap;

use crate::command::{ConnectionSpec, Rate, Request};
use crate::conference::{Conference, SILENCE, Scratch};
use crate::connection::{Connection, Link, Media, Taped, law_of};
use crate::event::{DropReason, EndReason, Event};
use crate::id::{ConferenceId, ConnectionId, ShardId};
use crate::levels::Care;
use crate::limits::{CONFERENCES_MAX, CONNECTIONS_MAX, FRAME_MS, FRAME_SAMPLES, TALK_STOP_MS_DEFAULT};
use crate::op::{Said, run_each};
use crate::outlet::Wide;
use crate::outputs::Outputs;
pub use crate::outputs::Totals;
use crate::port::{DatagramMeta, Disposition, Port, PortAction, Transmit};
use crate::rng::SplitMix64;
use crate::rtcp::{CNAME_BYTES, draw_cname};
use crate::sender::{encode, frames_of, silence};
use crate::talk::TalkDetector;
use crate::time::Instant;
use crate::tones::Tones;
use crate::wheel::{Key, Wheel};
use core::time::Duration;
use ringbridge_wire::rtcp::NtpTimestamp;

const FRAME: Duration = Duration::from_millis(FRAME_MS as u64);
/// Quiet frames after which nobody talks, outside a conference.
#[expect(clippy::cast_possible_truncation, reason = "10")]
const SOLO_STOP_FRAMES: u16 = TALK_STOP_MS_DEFAULT / FRAME_MS as u16;
/// A clock that is further behind than this goes on from now instead of catching up frame by frame.
const CATCH_UP_MAX: Duration = Duration::from_millis(500);

#[expect(clippy::cast_possible_truncation, reason = "below 2^24")]
const CONNECTION_SLOTS: u32 = CONNECTIONS_MAX as u32;
/// Deadlines of a connection and of a conference with the same slot: four and three.
const DEADLINES_EACH: u32 = 8;

/// Whose deadline it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerKey {
    /// The next frame of a conference.
    Conference(u32),
    /// What a part of a conference waits for is late.
    Part(u32),
    /// A part of a conference has to be heard of.
    Reminder(u32),
    /// The next frame of a connection that has a clock of its own.
    Solo(u32),
    /// Whether a connection has been silent for too long.
    Silence(u32),
    /// Whether a connection is still reserved only.
    Reservation(u32),
    /// The next RTCP report of a connection.
    Report(u32),
}

impl Key for TimerKey {
    fn place(self) -> u32 {
        let (slot, number) = match self {
            Self::Solo(slot) => (slot, 0),
            Self::Silence(slot) => (slot, 1),
            Self::Reservation(slot) => (slot, 2),
            Self::Report(slot) => (slot, 3),
            Self::Conference(slot) => (slot, 4),
            Self::Part(slot) => (slot, 5),
            Self::Reminder(slot) => (slot, 6),
        };
        slot * DEADLINES_EACH + number
    }

    fn at(place: u32) -> Self {
        let slot = place / DEADLINES_EACH;
        match place % DEADLINES_EACH {
            0 => Self::Solo(slot),
            1 => Self::Silence(slot),
            2 => Self::Reservation(slot),
            3 => Self::Report(slot),
            4 => Self::Conference(slot),
            5 => Self::Part(slot),
            _ => Self::Reminder(slot),
        }
    }
}

/// Connections, relays, conferences and operations of one shard, without any I/O.
#[derive(Debug)]
pub struct Engine {
    pub(crate) shard: ShardId,
    pub(crate) now: Instant,
    pub(crate) rng: SplitMix64,
    /// Wallclock time at the epoch of the clock.
    pub(crate) wall_at_epoch: NtpTimestamp,
    /// Our canonical name in RTCP (RFC 7022 section 4.2: drawn at random, and as long as it says).
    pub(crate) cname: [u8; CNAME_BYTES],
    pub(crate) connections: Vec<Option<Connection>>,
    pub(crate) conferences: Vec<Option<Conference>>,
    /// Where the connections live here that were created on another shard.
    pub(crate) adopted: BTreeMap<ConnectionId, u32>,
    /// Where the conferences live here that were opened on another shard.
    pub(crate) adopted_rooms: BTreeMap<ConferenceId, u32>,
    pub(crate) wheel: Wheel<TimerKey>,
    pub(crate) out: Outputs,
    /// Media of connections that are gone, to be used again.
    #[expect(clippy::vec_box, reason = "a connection takes the box as it is")]
    pub(crate) media_pool: Vec<Box<Media>>,
    pub(crate) phase_next: u32,
    pub(crate) tones: Box<Tones>,
    pub(crate) scratch: Box<Scratch>,
    fired: Vec<(Instant, TimerKey)>,
}

impl Engine {
    /// An engine for `shard`. `seed` decides every SSRC and first sequence number.
    ///
    /// Tables are sized here (see [`crate::limits`]); about 25 MiB.
    pub fn new(shard: ShardId, seed: u64, now: Instant) -> Self {
        Self::with_slots(shard, seed, now, CONNECTIONS_MAX, CONFERENCES_MAX)
    }

    /// An engine with fewer slots than [`crate::limits`] allows, for who makes engines by the thousand: tests.
    pub fn with_slots(shard: ShardId, seed: u64, now: Instant, connections: usize, conferences: usize) -> Self {
        let (connections, conferences) = (connections.min(CONNECTIONS_MAX), conferences.min(CONFERENCES_MAX));
        let deadlines = DEADLINES_EACH as usize * connections.max(conferences);
        let mut rng = SplitMix64::new(seed);
        let cname = draw_cname(&mut rng);
        Self {
            shard,
            now,
            rng,
            wall_at_epoch: NtpTimestamp(0),
            cname,
            connections: (0..connections).map(|_| None).collect(),
            conferences: (0..conferences).map(|_| None).collect(),
            adopted: BTreeMap::new(),
            adopted_rooms: BTreeMap::new(),
            wheel: Wheel::new(now, deadlines),
            out: Outputs::new(),
            media_pool: Vec::new(),
            phase_next: 0,
            tones: Tones::new(),
            scratch: Scratch::new(),
            fired: Vec::with_capacity(deadlines),
        }
    }

    /// Sets the wallclock time that sender reports carry: what it was at [`Instant::ZERO`]. Without it they count from
    /// there, which RFC 3550 section 4 allows.
    pub const fn set_wall_clock(&mut self, at_epoch: NtpTimestamp) {
        self.wall_at_epoch = at_epoch;
    }

    /// Takes in one datagram. What is to be relayed is changed in place, if at all, and leaves from where it lies.
    ///
    /// Constant time, no allocation.
    pub fn handle_datagram(&mut self, now: Instant, meta: &DatagramMeta, datagram: &mut [u8]) -> Disposition {
        self.now = now;
        self.take_datagram(now, meta, datagram).unwrap_or_else(|reason| {
            self.count_drop(meta.port, reason, 1);
            Disposition::Consumed
        })
    }

    /// Carries out one command; the answer comes by [`poll_event`](Self::poll_event).
    pub fn handle_command(&mut self, now: Instant, request: Request) {
        self.now = now;
        let Request { token, received, command } = request;
        self.settle_rooms(&command);
        let result = self.execute(received, command);
        self.out.push_event(Event::Answer { token, result });
        self.release_broken();
    }

    /// Does what is due by `now`: at most one frame of each clock, so call again while
    /// [`poll_timeout`](Self::poll_timeout) is not later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let mut fired = core::mem::take(&mut self.fired);
        self.wheel.expire(now, &mut fired);
        for (due, key) in fired.drain(..) {
            match key {
                TimerKey::Conference(slot) => self.tick_conference(due, slot),
                TimerKey::Part(slot) | TimerKey::Reminder(slot) => self.check_part(due, slot),
                TimerKey::Solo(slot) => self.tick_solo(due, slot),
                TimerKey::Silence(slot) => self.check_silence(due, slot),
                TimerKey::Reservation(slot) => self.check_reservation(due, slot),
                TimerKey::Report(slot) => self.check_report(due, slot),
            }
        }
        self.fired = fired;
        self.release_broken();
    }

    /// Writes the next packet of our own into `slot` (at least [`crate::limits::DATAGRAM_BYTES_MAX`] bytes).
    pub fn poll_transmit(&mut self, slot: &mut [u8]) -> Option<Transmit> {
        while let Some(index) = self.out.ready.pop_front() {
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            let Connection { latch, counters, connected, reports, spec, media: Some(media), .. } = connection else {
                continue;
            };
            if !media.sender.is_partial() {
                if media.catches_up
                    && let Some(transmit) = self.catch_up(index, slot)
                {
                    self.out.ready.push_front(index);
                    return Some(transmit);
                }
                continue;
            }
            let Some(target) = latch.target() else {
                media.sender.skip();
                self.count_drop(Port::rtp(index), DropReason::NoTarget, 1);
                continue;
            };
            let len = media.sender.emit(slot);
            if media.catches_up {
                self.out.ready.push_front(index);
            }
            counters.packets_out += 1;
            counters.bytes_out += len as u64;
            self.out.totals.packets_out += 1;
            let target = (!*connected).then_some(target);
            if reports.due.is_none() && spec.rtcp_reports {
                self.begin_reports(index);
            }
            return Some(Transmit { port: Port::rtp(index), target, len });
        }
        self.poll_rtcp(slot)
    }

    /// The next answer or event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// How many answers and events wait.
    pub fn events_waiting(&self) -> usize {
        self.out.events.len()
    }

    /// The next wish concerning a socket.
    pub fn poll_port_action(&mut self) -> Option<PortAction> {
        self.out.port_actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// Says that a [`PortAction::Connect`] succeeded: packets now leave without an address, and come without a source.
    pub fn port_connected(&mut self, port: Port) {
        let connection = self.connections.get_mut(port.slot as usize).and_then(Option::as_mut);
        if let Some(connection) = connection.filter(|_| !port.rtcp) {
            connection.connected = true;
        }
    }

    /// Counts packets that the I/O lost, under the connection and in the totals.
    pub fn count_drop(&mut self, port: Port, reason: DropReason, packets: u64) {
        self.out.drop_packets(reason, packets);
        // They had been counted as sent when they were queued.
        let unsent = matches!(reason, DropReason::SendBufferFull | DropReason::SendFailed);
        if unsent {
            self.out.totals.packets_out = self.out.totals.packets_out.saturating_sub(packets);
        }
        let Some(connection) = self.connections.get_mut(port.slot as usize).and_then(Option::as_mut) else { return };
        connection.counters.drops += packets;
        if unsent {
            let sent = if port.rtcp { &mut connection.counters.rtcp_out } else { &mut connection.counters.packets_out };
            *sent = sent.saturating_sub(packets);
        }
    }

    /// What was counted since the start.
    pub const fn totals(&self) -> &Totals {
        &self.out.totals
    }

    /// Ends a connection whose sockets are lost.
    pub fn fail_connection(&mut self, now: Instant, id: ConnectionId) {
        self.now = now;
        if let Some(slot) = self.slot_of(id) {
            self.release_wherever(slot, EndReason::ShardFailed);
        }
    }

    /// Whether a connection lives here.
    pub fn has_connection(&self, id: ConnectionId) -> bool {
        self.slot_of(id).is_some()
    }

    /// The first slot in use among the `look` slots from `from`, wrapping at the end of the table.
    pub fn slot_in_use(&self, from: u32, look: u32) -> Option<u32> {
        let in_use = |slot: &u32| self.connections.get(*slot as usize).is_some_and(Option::is_some);
        (from..from + look).map(|slot| slot % CONNECTION_SLOTS).find(in_use)
    }

    /// Adds what has happened in the jitter buffer of a connection since this was called last to the [totals](Self::totals);
    /// when the connection ends that is done anyway. The delay in milliseconds of what is played, if anything is.
    pub fn gather_playout(&mut self, slot: u32) -> Option<u32> {
        let connection = self.connections.get_mut(slot as usize)?.as_mut()?;
        let rooms = &self.conferences;
        let is_direct = matches!(connection.link, Link::Conference(room)
            if rooms[room as usize].as_ref().is_some_and(|room| room.shortcut.is_open));
        let playout = &mut connection.media.as_mut()?.playout;
        self.out.totals.playout.add(playout.take_news());
        // What is passed on waits nowhere.
        (playout.is_playing() && !is_direct).then(|| playout.delay().current_ms)
    }

    /// Where a connection lives on this shard, if it does.
    pub(crate) fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        let home = if id.shard() == self.shard { u32::try_from(id.slot()).ok() } else { None };
        let here = |slot: &u32| {
            self.connections.get(*slot as usize).and_then(Option::as_ref).is_some_and(|connection| connection.id == id)
        };
        home.filter(here).or_else(|| self.adopted.get(&id).copied().filter(here))
    }

    /// Starts or stops a conference's clock, as it has something to mix or not.
    pub(crate) fn review_conference(&mut self, slot: u32) {
        self.close_direct(slot);
        let Some(conference) = self.conferences[slot as usize].as_mut() else { return };
        let wants = conference.wants_to_run(&self.connections);
        if wants == conference.running {
            if conference.part.is_some() {
                self.tell_change(slot);
            }
            return;
        }
        if conference.is_waiting() {
            // It comes back here.
            self.deliver_part(slot);
            return;
        }
        conference.running = wants;
        if wants {
            conference.skip_to(self.now);
            if let Some(part) = &mut conference.part {
                part.since = conference.frame;
            }
            self.wheel.arm(conference.next_due(), TimerKey::Conference(slot));
            self.tell_change(slot);
            return;
        }
        for &member in &conference.participants {
            let Some(connection) = self.connections[member as usize].as_mut() else { continue };
            fall_silent(connection, conference.id, &mut self.out);
            if let Some(media) = &mut connection.media {
                media.playout.reset();
            }
            finish_packet(connection, member, &mut self.out);
        }
        self.tell_change(slot);
    }

    /// Starts or stops a connection's own clock, as it has operations outside a conference, or digits to listen for, or
    /// not.
    pub(crate) fn review_solo(&mut self, slot: u32, first_due: Option<Instant>) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        let in_conference = matches!(connection.link, Link::Conference(_));
        let wants = (connection.runs_any() || connection.wants_digits() || connection.transcodes) && !in_conference;
        if !in_conference && !connection.is_played_to() && !connection.transcodes {
            finish_packet(connection, slot, &mut self.out);
        }
        match connection.taped {
            Taped::Not => {}
            // The other party's clock drives it.
            Taped::By => return,
            Taped::With(_) if connection.records_call() => {}
            Taped::With(peer) => {
                connection.taped = Taped::Not;
                self.untape(peer);
                self.review_solo(slot, first_due);
                return;
            }
        }
        match (wants, connection.solo_due) {
            (true, None) => {
                let due = first_due.unwrap_or_else(|| Connection::first_tick(self.now, slot));
                connection.solo_due = Some(due);
                self.wheel.arm(due, TimerKey::Solo(slot));
            }
            (false, Some(_)) => {
                connection.solo_due = None;
                if let Some(media) = connection.media.as_mut().filter(|_| !in_conference) {
                    media.playout.reset();
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A recording of the call has ended that ran on the other party: from now on its clock is its own.
    #[cold]
    fn untape(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        connection.taped = Taped::Not;
        if let Some(due) = connection.solo_due {
            self.wheel.arm(due, TimerKey::Solo(slot));
        }
        self.review_solo(slot, None);
    }

    fn tick_conference(&mut self, due: Instant, slot: u32) {
        let Some(conference) = self.conferences[slot as usize].as_mut() else { return };
        if !conference.running || conference.next_due() != due {
            return;
        }
        if conference.shortcut.is_open {
            self.check_direct(slot);
            return;
        }
        let late = self.now.saturating_since(due);
        self.out.totals.ticks_late += u64::from(late > FRAME);
        if conference.is_waiting() || (conference.part.is_some() && late <= CATCH_UP_MAX) {
            self.tick_part(slot);
            return;
        }
        if late > CATCH_UP_MAX {
            conference.skip_to(self.now);
        } else {
            conference.mix(&mut self.connections, &self.tones, &mut self.scratch, &mut self.out);
        }
        self.wheel.arm(conference.next_due(), TimerKey::Conference(slot));
        // Operations may have ended.
        self.review_conference(slot);
        self.consider_direct(slot);
    }

    fn tick_solo(&mut self, due: Instant, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if connection.solo_due != Some(due) || connection.taped == Taped::By {
            return;
        }
        let late = self.now.saturating_since(due);
        self.out.totals.ticks_late += u64::from(late > FRAME);
        let next = if late > CATCH_UP_MAX { Connection::first_tick(self.now, slot) } else { due + FRAME };
        connection.solo_due = Some(next);
        self.wheel.arm(next, TimerKey::Solo(slot));
        let Taped::With(peer) = connection.taped else {
            let hears = self.hear_solo(due, slot);
            self.carry(due, slot);
            self.run_solo(due, slot, hears, None);
            self.review_solo(slot, None);
            return;
        };
        if let Some(peer) = self.connections[peer as usize].as_mut() {
            peer.solo_due = Some(next);
        }
        let hears = self.hear_solo(due, slot);
        let own = self.said(slot).filter(|_| hears);
        self.carry(due, slot);
        let peer_hears = self.hear_solo(due, peer);
        let other = self.said(peer).filter(|_| peer_hears);
        self.carry(due, peer);
        self.run_solo(due, slot, hears, own.zip(other).as_ref());
        self.run_solo(due, peer, peer_hears, None);
        self.skip_frames(slot, next.saturating_since(due + FRAME));
        self.review_solo(slot, None);
        self.review_solo(peer, None);
    }

    /// A recording of a call keeps step with time if its clock has stood still.
    fn skip_frames(&mut self, slot: u32, passed: Duration) {
        let frames = u64::try_from(passed.as_nanos() / FRAME.as_nanos()).unwrap_or(0);
        let connection = self.connections[slot as usize].as_mut().filter(|_| frames > 0);
        let media = connection.and_then(|connection| connection.media.as_mut());
        let operations = media.into_iter().flat_map(|media| media.operations.iter_mut().flatten());
        operations.for_each(|operation| operation.skip(frames));
    }

    /// Takes the frame that is due from a connection outside a conference, if anybody needs it.
    fn hear_solo(&mut self, due: Instant, slot: u32) -> bool {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return false };
        if !connection.needs_audio() && !connection.transcodes {
            return false;
        }
        let heard = connection.hear(due, &mut self.scratch, &mut self.out);
        if connection.media.as_ref().is_some_and(|media| media.failed) {
            self.out.broken.push(slot);
        }
        let frame = connection.media.as_ref().map(|media| media.samples());
        connection.participant.talk.look(frame.filter(|_| heard), SOLO_STOP_FRAMES);
        if let Some(media) = connection.media.as_ref().filter(|media| media.noise) {
            connection.participant.talk.note_comfort_noise(media.samples());
        }
        true
    }

    /// What a party of a call that is recorded says in the frame that was just taken from it.
    fn said(&self, slot: u32) -> Option<Said> {
        self.connections[slot as usize].as_ref()?.said()
    }

    /// Encodes what a connection says in the present frame for the other side of its relay.
    fn carry(&mut self, due: Instant, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_ref().filter(|connection| connection.transcodes)
        else {
            return;
        };
        let Link::Relay(to) = connection.link else { return };
        let Ok([Some(connection), Some(peer)]) = self.connections.get_disjoint_mut([slot as usize, to as usize]) else {
            return;
        };
        let Some(media) = connection.media.as_ref() else { return };
        let begun = peer.media.as_ref().is_some_and(|media| media.sender.is_partial());
        if media.gap && !begun {
            // Where nothing comes nothing goes, but what was begun is sent.
            return;
        }
        let Connection { media: Some(peer_media), spec, .. } = peer else { return };
        // The last packet of a prompt may still wait to be sent.
        let is_full = peer_media.sender.frames() >= frames_of(spec.ptime_ms);
        if !spec.direction.sends() || peer_media.is_played_to() || is_full {
            return;
        }
        send_solo(peer_media, to, due, media.samples(), spec, &mut self.out);
    }

    /// Runs the operations of a connection outside a conference for a frame. `hears`: what it says was taken; `call`: what
    /// it and the other party of its call say, if that is recorded here.
    fn run_solo(&mut self, due: Instant, slot: u32, hears: bool, call: Option<&(Said, Said)>) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        let target = connection.target();
        let Connection { spec, participant, digits, media: Some(media), .. } = connection else { return };
        let loud = participant.talk.is_loud();
        let samples = media.rate.frame_samples();
        let Media { operations, frame, .. } = &mut **media;
        let said = if hears { &frame[..samples] } else { &SILENCE[..samples] };
        run_each(operations, false, target, digits, &mut self.out, |operation| match call {
            Some((own, other)) if operation.records_call() => operation.listen_to_call(own, other),
            Some(_) | None => operation.listen(loud, said),
        });
        if media.is_played_to() {
            let frame = &mut self.scratch.raw[..samples];
            let mut prompted = false;
            run_each(&mut media.operations, true, target, digits, &mut self.out, |operation| {
                prompted = operation.play(loud, frame)?;
                Ok(())
            });
            if prompted && spec.direction.sends() {
                send_solo(media, slot, due, frame, spec, &mut self.out);
            }
        }
    }

    /// Gives a connection what it takes to be served at the rate of the clock that drives it now. Allocates if it is more
    /// than G.711 on a clock of 8 kHz.
    pub(crate) fn fit_media(&mut self, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_ref() else { return };
        let rate = match connection.link {
            Link::Conference(room) => self.conferences[room as usize].as_ref().map_or(Rate::Narrow, |room| room.rate),
            Link::Relay(peer) if connection.transcodes => {
                let peer = self.connections[peer as usize].as_ref();
                peer.map_or(Rate::Narrow, |peer| Connection::common_rate(&connection.spec, &peer.spec))
            }
            Link::Relay(_) | Link::None => connection.own_rate(),
        };
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        let Connection { spec, link, participant, media: Some(media), .. } = connection else { return };
        let fits = media.wide.as_ref().is_some_and(|wide| wide.fits(rate, spec));
        if rate == Rate::Narrow && Connection::is_g711(spec) {
            if media.wide.take().is_some() {
                // What its own outlet held of the packet is lost.
                media.sender.discard_partial();
            }
        } else if !fits && Connection::can_mix(spec) {
            if media.wide.is_some() || media.rate != rate {
                media.sender.discard_partial();
            }
            media.wide = Wide::new(rate, spec).ok();
            if media.wide.is_none() {
                self.out.broken.push(slot);
            }
        }
        if media.rate != rate {
            media.rate = rate;
            media.operations.iter_mut().flatten().for_each(|operation| operation.tune(rate));
        }
        let wants_care = matches!(link, Link::Conference(_));
        if !media.care.as_ref().is_some_and(|care| wants_care && care.fits(rate, participant)) {
            media.care = Care::new(rate, participant).filter(|_| wants_care);
        }
        media.playout.set_codec(spec.rx_codec);
        media.playout.set_delay(spec.delay);
    }

    /// Ends connections whose codec has failed.
    pub(crate) fn release_broken(&mut self) {
        while let Some(slot) = self.out.broken.pop() {
            self.release_wherever(slot, EndReason::CodecFailed);
        }
    }

    fn check_reservation(&mut self, due: Instant, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if connection.reservation_due != Some(due) {
            return;
        }
        connection.reservation_due = None;
        match connection.reserved_until {
            None => {}
            // It was completed meanwhile, and reserved again.
            Some(until) if until > due => arm_reservation(connection, slot, &mut self.wheel),
            Some(_) => self.release_wherever(slot, EndReason::Expired),
        }
    }

    fn check_silence(&mut self, due: Instant, slot: u32) {
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if connection.silence_due != Some(due) {
            return;
        }
        connection.silence_due = None;
        let Some(deadline) = connection.silence_deadline() else { return };
        if deadline > self.now {
            arm_silence(connection, slot, &mut self.wheel);
        } else {
            // Once per silence: the next packet arms the timer again.
            connection.timed_out = true;
            self.out.push_event(Event::ConnectionTimeout { id: connection.id });
        }
    }
}

/// Sends a frame of what only one connection hears, at the rate of its clock.
fn send_solo(media: &mut Media, slot: u32, due: Instant, frame: &[i16], spec: &ConnectionSpec, out: &mut Outputs) {
    let Media { wide, sender, owns_stream, relay_map, .. } = media;
    (*owns_stream, *relay_map) = (true, None);
    let Some(wide) = wide else {
        let mut payload = [0; FRAME_SAMPLES];
        if let (Some(law), Some(frame)) = (law_of(spec.tx_codec), frame.get(..FRAME_SAMPLES)) {
            encode(law, frame, &mut payload);
            out.totals.encodes += 1;
            out.push_frame(sender, slot, due, &payload, spec);
        }
        return;
    };
    let position = sender.frames_before(due);
    if wide.outlet.frames() != position as usize {
        sender.discard_partial();
        wide.outlet.clear();
    }
    wide.outlet.feed(frame);
    if wide.outlet.frames() < wide.outlet.format().frames() as usize {
        return out.push_frame(sender, slot, due, &[], spec);
    }
    out.totals.encodes += 1;
    wide.note_own();
    match wide.outlet.finish() {
        Ok([]) => sender.discard_partial(),
        Ok(payload) => out.push_frame(sender, slot, due, payload, spec),
        Err(_) => out.broken.push(slot),
    }
}

/// Fills up and sends a packet that was begun, so that nothing of a stream's last words is lost.
pub(crate) fn finish_packet(connection: &mut Connection, slot: u32, out: &mut Outputs) {
    let Connection { spec, media: Some(media), .. } = connection else { return };
    let Media { sender, wide, .. } = media.as_mut();
    if !sender.is_partial() || out.ready.contains(&slot) {
        return;
    }
    if !spec.direction.sends() {
        sender.discard_partial();
        return;
    }
    if let Some(wide) = wide {
        // What was shared with others is theirs.
        let frames = wide.outlet.frames();
        if frames == 0 || frames != sender.frames() as usize {
            sender.discard_partial();
            return;
        }
        let missing = wide.outlet.format().frames() - sender.frames();
        for _ in 1..missing {
            sender.fill(&[], spec.ptime_ms);
        }
        wide.note_own();
        match wide.outlet.fill_up() {
            Ok([]) => sender.discard_partial(),
            Ok(payload) => {
                sender.fill(payload, spec.ptime_ms);
                out.ready.push_back(slot);
            }
            Err(_) => out.broken.push(slot),
        }
        return;
    }
    let Some(law) = law_of(spec.tx_codec) else { return };
    while !sender.fill(&silence(law), spec.ptime_ms) {}
    out.ready.push_back(slot);
}

/// Nobody listens to a participant any more: if he was talking, that is over.
pub(crate) fn fall_silent(connection: &mut Connection, conference: ConferenceId, out: &mut Outputs) {
    if connection.participant.talk.is_talking() {
        out.push_event(Event::TalkStopped { conference, connection: connection.id });
    }
    connection.participant.talk = TalkDetector::new();
}

/// Has the silence timer fire in time. One that is armed already looks again when it fires, so another is armed only
/// if the deadline has come nearer.
pub(crate) fn arm_silence(connection: &mut Connection, slot: u32, wheel: &mut Wheel<TimerKey>) {
    let Some(deadline) = connection.silence_deadline() else { return };
    if connection.silence_due.is_none_or(|due| deadline < due) {
        connection.silence_due = Some(deadline);
        wheel.arm(deadline, TimerKey::Silence(slot));
    }
}

/// Sees that a timer fires when the reservation ends, or before.
pub(crate) fn arm_reservation(connection: &mut Connection, slot: u32, wheel: &mut Wheel<TimerKey>) {
    let Some(until) = connection.reserved_until else { return };
    if connection.reservation_due.is_none_or(|due| until < due) {
        connection.reservation_due = Some(until);
        wheel.arm(until, TimerKey::Reservation(slot));
    }
}
