//! Who is how loud: the loudest, the active speaker, whom a packet of the mix names, and what endpoints say themselves.

use core::time::Duration;

use ringbridge_codec::Rate;
use ringbridge_codec::agc::Agc;
use ringbridge_codec::denoise::Denoiser;

use crate::connection::Participant;
use crate::id::ConnectionId;
use crate::limits::{
    ACTIVE_SPEAKER_MS, CONTRIBUTORS_MAX, FRAME_MS, LEVEL_CHECK_MS, LOUDEST_ADVANTAGE_DB, LOUDEST_TOLD_MAX,
};
use crate::time::Instant;

/// Members who may be mixed, as loud as they have been, to choose the loudest from.
#[derive(Debug, Default)]
pub(crate) struct Candidates(Vec<Candidate>);

/// Loudness in sixteenths of a dBov, with the advantage of who is mixed already, and slot.
type Candidate = (i16, u32);

impl Candidates {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a member; who is mixed already has an advantage, so that two of a loudness don't take turns.
    pub(crate) fn add(&mut self, slot: u32, loudness: i16, is_mixed: bool) {
        let advantage = if is_mixed { LOUDEST_ADVANTAGE_DB * 16 } else { 0 };
        self.0.push((loudness.saturating_add(advantage), slot));
    }

    /// The loudest first, then the others: where the one ends and the other begins.
    pub(crate) fn split(&mut self, loudest: u16) -> (&[Candidate], &[Candidate]) {
        let most = usize::from(loudest).min(self.0.len());
        if most < self.0.len() {
            // Among equals who joined first: slots are in no order, but stay what they are.
            self.0.select_nth_unstable_by_key(most, |&(loudness, slot)| (core::cmp::Reverse(loudness), slot));
        }
        self.0.split_at(most)
    }

    /// What the other parts of a conference are told of them: how loud the loudest are.
    pub(crate) fn told(&mut self, told: &mut Loudest) {
        let most = u16::try_from(LOUDEST_TOLD_MAX).unwrap_or(u16::MAX);
        let (loudest, _) = self.split(most);
        told.len = loudest.len();
        for (place, &(loudness, _)) in told.loudness.iter_mut().zip(loudest) {
            *place = loudness;
        }
    }

    /// Keeps `own` and what other parts have told, to see how many of `own` are among so many of the loudest of all. Of a
    /// loudness, those of earlier parts come first: it is the same wherever it is asked.
    pub(crate) fn own_among<'a>(
        &mut self,
        loudest: u16,
        own: (u32, &'a Loudest),
        others: impl Iterator<Item = (u32, &'a Loudest)>,
    ) -> u16 {
        self.clear();
        for (part, told) in others.chain([own]) {
            self.0.extend(told.loudness[..told.len].iter().map(|&loudness| (loudness, part)));
        }
        let (chosen, _) = self.split(loudest);
        let among = chosen.iter().filter(|&&(_, part)| part == own.0).count();
        u16::try_from(among).unwrap_or(u16::MAX)
    }
}

/// How loud the loudest of a part are, each with the advantage of who is mixed already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loudest {
    loudness: [i16; LOUDEST_TOLD_MAX],
    len: usize,
}

impl Loudest {
    pub(crate) const NONE: Self = Self { loudness: [0; LOUDEST_TOLD_MAX], len: 0 };

    /// Takes over what another says.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.len = other.len;
        self.loudness[..other.len].copy_from_slice(&other.loudness[..other.len]);
    }

    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }
}

/// Who leads the talk of a conference.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ActiveSpeaker {
    current: Option<ConnectionId>,
    /// Who is louder now, and for how many frames.
    challenger: Option<(ConnectionId, u32)>,
    /// Of this frame.
    talkers: Talkers,
}

/// Who may lead the talk after a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Talkers {
    loudest: Option<(ConnectionId, i16)>,
    /// The loudness of the one who leads, if he talks.
    leads_at: Option<i16>,
}

impl ActiveSpeaker {
    pub(crate) const fn current(&self) -> Option<ConnectionId> {
        self.current
    }

    /// Somebody talks in this frame.
    pub(crate) fn hear(&mut self, id: ConnectionId, loudness: i16) {
        if self.talkers.loudest.is_none_or(|(_, most)| loudness > most) {
            self.talkers.loudest = Some((id, loudness));
        }
        if self.current == Some(id) {
            self.talkers.leads_at = Some(loudness);
        }
    }

    /// Those of another part talk as well.
    pub(crate) fn hear_all(&mut self, others: Talkers) {
        if let Some((id, loudness)) = others.loudest {
            self.hear(id, loudness);
        }
        self.talkers.leads_at = self.talkers.leads_at.or(others.leads_at);
    }

    /// Those who talk in this frame so far.
    pub(crate) const fn talkers(&self) -> Talkers {
        self.talkers
    }

    /// The frame is over, and another part decides who leads: he does.
    pub(crate) fn follow(&mut self, leader: Option<ConnectionId>) {
        *self = Self { current: leader, ..Self::default() };
    }

    /// The frame is over; who leads now, if that is somebody else.
    pub(crate) fn decide(&mut self) -> Option<ConnectionId> {
        let Talkers { loudest, leads_at } = core::mem::take(&mut self.talkers);
        let (id, loudness) = loudest?;
        let is_louder = leads_at.is_none_or(|leads_at| loudness > leads_at + LEAD_DB * 16);
        if self.current == Some(id) || !is_louder {
            self.challenger = None;
            return None;
        }
        let frames = self.challenger.filter(|&(challenger, _)| challenger == id).map_or(1, |(_, frames)| frames + 1);
        if frames < ACTIVE_SPEAKER_MS / FRAME_MS {
            self.challenger = Some((id, frames));
            return None;
        }
        (self.current, self.challenger) = (Some(id), None);
        self.current
    }

    /// Somebody has left.
    pub(crate) fn leave(&mut self, id: ConnectionId) {
        self.current = self.current.filter(|&current| current != id);
        self.challenger = self.challenger.filter(|&(challenger, _)| challenger != id);
    }
}

/// By how much somebody has to be louder than who leads, while he talks.
const LEAD_DB: i16 = 3;

/// Whom a packet of a mix names (RFC 3550 section 5.1, RFC 6465).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contributors {
    pub(crate) ssrcs: [u32; CONTRIBUTORS_MAX],
    /// In -dBov.
    pub(crate) levels: [u8; CONTRIBUTORS_MAX],
    pub(crate) len: usize,
}

impl Contributors {
    pub(crate) const fn new() -> Self {
        Self { ssrcs: [0; CONTRIBUTORS_MAX], levels: [0; CONTRIBUTORS_MAX], len: 0 }
    }

    /// Adds one who is in the mix; of more than there is place for the loudest stay.
    pub(crate) fn add(&mut self, ssrc: u32, level_dbov: i8) {
        let level = level_dbov.min(0).unsigned_abs().min(127);
        if let Some(known) = self.ssrcs[..self.len].iter().position(|&other| other == ssrc) {
            self.levels[known] = self.levels[known].min(level);
        } else if self.len < CONTRIBUTORS_MAX {
            (self.ssrcs[self.len], self.levels[self.len]) = (ssrc, level);
            self.len += 1;
        } else if let Some((softest, &most)) = self.levels.iter().enumerate().max_by_key(|(_, level)| **level)
            && level < most
        {
            (self.ssrcs[softest], self.levels[softest]) = (ssrc, level);
        }
    }

    /// Takes over what another says.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.len = other.len;
        self.ssrcs[..other.len].copy_from_slice(&other.ssrcs[..other.len]);
        self.levels[..other.len].copy_from_slice(&other.levels[..other.len]);
    }

    /// Adds those of a frame, but not the listener himself.
    pub(crate) fn add_all(&mut self, others: &Self, own: Option<u32>) {
        for (&ssrc, &level) in others.ssrcs[..others.len].iter().zip(&others.levels) {
            if own != Some(ssrc) {
                self.add(ssrc, -level.cast_signed());
            }
        }
    }

    pub(crate) fn ssrcs(&self) -> &[u32] {
        &self.ssrcs[..self.len]
    }

    pub(crate) fn levels(&self) -> &[u8] {
        &self.levels[..self.len]
    }
}

/// What an endpoint says of its own loudness (RFC 6464).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claims {
    /// When it last sent something that it did not say was silent.
    sounded: Instant,
    /// Whether it says how loud it is.
    claims: bool,
    /// It said so of what was not silent.
    lies: bool,
    checked: Instant,
}

impl Claims {
    /// Takes in what a packet says: its level in -dBov, if it says one.
    pub(crate) fn note(&mut self, now: Instant, level: Option<u8>) {
        match level {
            Some(level) if level >= SILENT => self.claims = true,
            Some(_) | None => self.sounded = now,
        }
    }

    /// Whether what is played at `due` need not be decoded: all that can be in it was said to be silent. Once in a while
    /// it is decoded all the same.
    pub(crate) fn allow_to_skip(&mut self, due: Instant, delay_ms: u32) -> bool {
        let held = Duration::from_millis(u64::from(delay_ms) + MARGIN_MS);
        if !self.claims || self.lies || due.saturating_since(self.sounded) <= held {
            return false;
        }
        let due_to_check = due.saturating_since(self.checked) >= Duration::from_millis(u64::from(LEVEL_CHECK_MS));
        if due_to_check {
            self.checked = due;
        }
        !due_to_check
    }

    /// What was decoded although it was said to be silent has this level.
    pub(crate) fn verify(&mut self, due: Instant, delay_ms: u32, level_dbov: i8) {
        let held = Duration::from_millis(u64::from(delay_ms) + MARGIN_MS);
        let said_silent = self.claims && due.saturating_since(self.sounded) > held;
        self.lies |= said_silent && level_dbov > AUDIBLE_DBOV;
    }
}

/// From this level on, in -dBov, a packet is said to be silent.
const SILENT: u8 = 90;
/// What is louder than that was not silent.
const AUDIBLE_DBOV: i8 = -70;
/// A packet may last so long, and come so much after its time.
const MARGIN_MS: u64 = 100;

/// What is done to the voice of one member before it is mixed.
#[derive(Debug)]
pub(crate) struct Care {
    rate: Rate,
    agc: Option<Agc>,
    denoiser: Option<Denoiser>,
}

impl Care {
    /// What a participant asks for; `None`: nothing. Allocates.
    pub(crate) fn new(rate: Rate, participant: &Participant) -> Option<Box<Self>> {
        (participant.agc || participant.noise_suppression).then(|| {
            Box::new(Self {
                rate,
                agc: participant.agc.then(Agc::new),
                denoiser: participant.noise_suppression.then(|| Denoiser::new(rate)),
            })
        })
    }

    /// Whether it is what a participant asks for.
    pub(crate) fn fits(&self, rate: Rate, participant: &Participant) -> bool {
        (self.rate, self.agc.is_some(), self.denoiser.is_some())
            == (rate, participant.agc, participant.noise_suppression)
    }

    pub(crate) fn take(&mut self, frame: &mut [i16]) {
        if let Some(denoiser) = &mut self.denoiser {
            denoiser.process(frame);
        }
        if let Some(agc) = &mut self.agc {
            agc.process(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ShardId;

    #[test]
    fn the_loudest_stay_until_somebody_is_clearly_louder() {
        let mut candidates = Candidates::default();
        let mut choose = |rows: &[(u32, i16, bool)]| {
            candidates.clear();
            for &(slot, db, is_mixed) in rows {
                candidates.add(slot, db * 16, is_mixed);
            }
            let mut chosen: Vec<_> = candidates.split(2).0.iter().map(|&(_, slot)| slot).collect();
            chosen.sort_unstable();
            chosen
        };
        assert_eq!(choose(&[(1, -30, false), (2, -20, false), (3, -25, false)]), [2, 3]);
        assert_eq!(choose(&[(1, -21, false), (2, -20, true), (3, -25, true)]), [2, 3], "4 dB louder is not enough");
        assert_eq!(choose(&[(1, -18, false), (2, -20, true), (3, -25, true)]), [1, 2]);
        assert_eq!(choose(&[(9, -90, false)]), [9]);
        assert!(choose(&[]).is_empty());
    }

    #[test]
    fn parts_choose_as_one_would() {
        let mut random = 1u64;
        for round in 0..500 {
            let mut one = Candidates::default();
            let mut parts = [const { Vec::new() }; 3];
            for slot in 0..40 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Few levels, so that many have the same.
                let loudness = -i16::try_from(random >> 33 & 15).unwrap();
                let part = slot as usize / 14;
                one.add(slot, loudness, false);
                parts[part].push((slot, loudness));
            }
            let loudest = round % 45;
            let mut told = [Loudest::NONE; 3];
            for (part, told) in parts.iter().zip(&mut told) {
                let mut own = Candidates::default();
                part.iter().for_each(|&(slot, loudness)| own.add(slot, loudness, false));
                own.told(told);
            }
            let told = [0, 1, 2].map(|part: u32| (part, &told[part as usize]));
            let mut chosen = Vec::new();
            for (part, (name, members)) in (0..3).zip(&parts).enumerate() {
                let others = told.iter().copied().filter(|&(other, _)| other != name);
                let among = Candidates::default().own_among(loudest, told[part], others);
                let mut own = Candidates::default();
                members.iter().for_each(|&(slot, loudness)| own.add(slot, loudness, false));
                chosen.extend(own.split(among).0.iter().map(|&(_, slot)| slot));
            }
            let mut expected: Vec<_> = one.split(loudest).0.iter().map(|&(_, slot)| slot).collect();
            chosen.sort_unstable();
            expected.sort_unstable();
            assert_eq!(chosen, expected);
        }
    }

    #[test]
    fn the_active_speaker_changes_when_another_is_louder_for_a_while() {
        let id = |slot| ConnectionId::new(ShardId(1), slot, 1);
        let mut active = ActiveSpeaker::default();
        let frames = |active: &mut ActiveSpeaker, frames: u32, rows: &[(u32, i16)]| {
            let mut changes = Vec::new();
            for _ in 0..frames {
                for &(slot, db) in rows {
                    active.hear(id(slot), db * 16);
                }
                changes.extend(active.decide());
            }
            changes
        };
        assert_eq!(frames(&mut active, 29, &[(1, -30)]), []);
        assert_eq!(frames(&mut active, 1, &[(1, -30)]), [id(1)]);
        assert_eq!(frames(&mut active, 100, &[(1, -30), (2, -28)]), [], "2 dB are no difference");
        assert_eq!(frames(&mut active, 29, &[(1, -30), (2, -20)]), []);
        assert_eq!(frames(&mut active, 1, &[(1, -30)]), [], "a cough is no talk");
        assert_eq!(frames(&mut active, 30, &[(1, -30), (2, -20)]), [id(2)]);
        assert_eq!(frames(&mut active, 100, &[]), []);
        assert_eq!(active.current(), Some(id(2)), "who spoke last");
        assert_eq!(frames(&mut active, 30, &[(1, -50)]), [id(1)]);
        active.leave(id(1));
        assert_eq!(active.current(), None);
    }

    #[test]
    fn the_loudest_contributors_are_named_once() {
        let mut contributors = Contributors::new();
        for n in 0..20u32 {
            contributors.add(n, -100 + i8::try_from(n).unwrap());
        }
        contributors.add(19, -10);
        assert_eq!(contributors.len, CONTRIBUTORS_MAX);
        let mut named: Vec<_> =
            contributors.ssrcs().iter().copied().zip(contributors.levels().iter().copied()).collect();
        named.sort_unstable();
        assert_eq!(named.first(), Some(&(5, 95)));
        assert_eq!(named.last(), Some(&(19, 10)));
        let mut others = Contributors::new();
        others.add_all(&contributors, Some(19));
        assert!(!others.ssrcs().contains(&19) && others.len == CONTRIBUTORS_MAX - 1);
    }

    #[test]
    fn who_lies_about_silence_is_decoded_from_then_on() {
        let at = Instant::from_millis;
        let mut claims = Claims::default();
        assert!(!claims.allow_to_skip(at(5_000), 20), "nothing was said");
        claims.note(at(5_000), Some(30));
        claims.note(at(5_020), Some(127));
        assert!(!claims.allow_to_skip(at(5_100), 20), "what it did not call silent may still be played");
        assert!(!claims.allow_to_skip(at(6_000), 20), "the first is looked at");
        claims.verify(at(6_000), 20, -127);
        assert!(claims.allow_to_skip(at(6_010), 20));
        assert!(!claims.allow_to_skip(at(7_000), 20));
        claims.verify(at(7_000), 20, -30);
        assert!(!claims.allow_to_skip(at(7_010), 20));
        let mut claims = Claims::default();
        claims.note(at(5_000), Some(127));
        claims.note(at(5_500), None);
        assert!(!claims.allow_to_skip(at(5_600), 20), "one that says nothing may be loud");
    }
}
