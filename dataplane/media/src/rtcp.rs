//! RTCP in the engine: what is received, when to report, and the packets that say so.

use ringbridge_wire::rtcp::{NtpTimestamp, parse_compound};

use crate::connection::Connection;
use crate::engine::{Engine, TimerKey};
use crate::event::DropReason;
use crate::limits::{COLLISION_PERIOD, REPORTING_MAX};
use crate::port::{Disposition, Transmit};
use crate::reports::{Due, Known, Ours};
use crate::rng::SplitMix64;
use crate::time::Instant;

/// Bytes of our canonical name.
pub(crate) const CNAME_BYTES: usize = 24;

/// 96 random bits as text.
pub(crate) fn draw_cname(rng: &mut SplitMix64) -> [u8; CNAME_BYTES] {
    let bits = [rng.next_u32(), rng.next_u32(), rng.next_u32()];
    core::array::from_fn(|at| {
        let digit = (bits[at / 8] >> (4 * (at % 8))) & 0xf;
        b"0123456789abcdef"[digit as usize]
    })
}

impl Engine {
    /// Wallclock time at `now`.
    fn ntp(&self, now: Instant) -> NtpTimestamp {
        let (seconds, nanos) = (now.as_nanos() / 1_000_000_000, now.as_nanos() % 1_000_000_000);
        NtpTimestamp(self.wall_at_epoch.0.wrapping_add((seconds << 32) | ((nanos << 32) / 1_000_000_000)))
    }

    /// Takes in the endpoint's reports.
    pub(crate) fn take_reports(&mut self, slot: u32, datagram: &[u8]) -> Result<Disposition, DropReason> {
        let (now, ntp) = (self.now, self.ntp(self.now));
        let packets = parse_compound(datagram).map_err(|_| DropReason::NotRtcp)?;
        let Some(connection) = self.connections[slot as usize].as_mut() else { return Err(DropReason::ClosedPort) };
        let reporter = connection.media.as_ref().map(|media| media.sender.ssrc());
        let own = reporter.filter(|_| connection.media.as_ref().is_some_and(|media| media.owns_stream));
        let (heard, clock_rate_hz) = (connection.receiver.ssrc(), connection.spec.tx_codec.clock_rate_hz());
        let known = Known { own, reporter, heard, clock_rate_hz };
        if let Some(due) = connection.reports.take(now, ntp, packets, datagram.len(), &known) {
            self.wheel.arm(due, TimerKey::Report(slot));
        }
        Ok(Disposition::Consumed)
    }

    /// Somebody sends: from now on reports are due.
    #[cold]
    pub(crate) fn begin_reports(&mut self, slot: u32) {
        if self.relayed_to(slot).is_some() {
            return;
        }
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        let due = connection.reports.begin(self.now, &mut self.rng);
        self.wheel.arm(due, TimerKey::Report(slot));
    }

    /// A report may be due.
    pub(crate) fn check_report(&mut self, due: Instant, slot: u32) {
        let passes_on = self.passes_rtcp_to(slot).is_some();
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        if connection.reports.due != Some(due) {
            return;
        }
        let sends = connection.media.as_ref().is_some_and(|media| media.sender.sent_since(self.now, REPORTING_MAX));
        let hears = self.now.saturating_since(connection.last_heard) < REPORTING_MAX;
        if passes_on || !(sends || hears) {
            connection.reports.pause();
            return;
        }
        let members = connection.members();
        let next = match connection.reports.expire(self.now, members, &mut self.rng) {
            Due::Later(next) => next,
            Due::Send(next) => {
                self.out.reports.push_back(slot);
                next
            }
        };
        self.wheel.arm(next, TimerKey::Report(slot));
    }

    /// Writes the next report, or the next last packet of a stream.
    pub(crate) fn poll_rtcp(&mut self, out: &mut [u8]) -> Option<Transmit> {
        if let Some(farewell) = self.out.farewells.pop_front() {
            let bytes = &farewell.bytes[..farewell.transmit.len];
            out.get_mut(..bytes.len())?.copy_from_slice(bytes);
            self.out.totals.packets_out += 1;
            return Some(farewell.transmit);
        }
        while let Some(slot) = self.out.reports.pop_front() {
            let (now, ntp) = (self.now, self.ntp(self.now));
            let Some(connection) = self.connections[slot as usize].as_mut() else { continue };
            // Nobody has told where to.
            let Some((port, target)) = connection.rtcp_way(slot) else { continue };
            let quality = connection.quality();
            let Connection { reports, receiver, counters, media, spec, .. } = connection;
            // Without media nothing was ever sent: any SSRC will do that is the same next time.
            let (ssrc, sent) = match media {
                Some(media) => {
                    let info = media.sender.info(now, ntp).filter(|_| media.owns_stream);
                    (media.sender.ssrc(), info.filter(|info| reports.counts_as_sender(info.packet_count)))
                }
                None => continue,
            };
            let ours = Ours { ssrc, sent, ntp, cname: &self.cname, ptime_ms: spec.ptime_ms };
            let Ok(len) = reports.write(now, &ours, receiver, &quality, out) else { continue };
            counters.rtcp_out += 1;
            self.out.totals.packets_out += 1;
            return Some(Transmit { port, target, len });
        }
        None
    }

    /// Tells an endpoint that our stream ends here.
    pub(crate) fn say_bye(&mut self, slot: u32) {
        let connection = self.connections[slot as usize].as_ref().filter(|connection| connection.spec.rtcp_reports);
        let Some(connection) = connection else { return };
        let Some(media) = connection.media.as_ref().filter(|media| media.owns_stream && media.sender.has_sent()) else {
            return;
        };
        if let Some(way) = connection.rtcp_way(slot) {
            self.out.say_bye(media.sender.ssrc(), &self.cname, way);
        }
    }

    /// An endpoint sends with the SSRC we send with: ours is given up, with a BYE (RFC 3550 section 8.2). If that comes to
    /// pass again at once, it is our own packets that come back, and they are taken for what they are: somebody's audio.
    #[cold]
    pub(crate) fn resolve_collision(&mut self, slot: u32) {
        let now = self.now;
        let Some(connection) = self.connections[slot as usize].as_ref() else { return };
        if connection.reports.collided.is_some_and(|at| now.saturating_since(at) < COLLISION_PERIOD) {
            return;
        }
        self.say_bye(slot);
        let Some(connection) = self.connections[slot as usize].as_mut() else { return };
        connection.reports.collided = Some(now);
        connection.counters.ssrc_collisions += 1;
        if let Some(media) = &mut connection.media {
            media.sender.change_ssrc(&mut self.rng);
        }
    }
}
