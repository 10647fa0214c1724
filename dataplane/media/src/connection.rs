//! One connection: an RTP session with one endpoint, and what it is wired to.

use core::mem::offset_of;
use core::net::SocketAddr;
use core::time::Duration;

use ringbridge_codec::kind::FRAME_SAMPLES_MAX;
use ringbridge_codec::limit::Limiter;
use ringbridge_codec::{Rate, mix, prefetch};
use ringbridge_wire::seq::{RtpTimestamp, SeqNumber};

use crate::adjust::Adjustment;
use crate::bucket::TokenBucket;
use crate::command::{CodecKind, ConnectionSpec, OperationKind, ParticipantChange, ParticipantSpec, Role, Target};
use crate::digits::DigitBuffer;
use crate::event::{ConnectionCounters, ConnectionState, ConnectionStatus, StreamStamp};
use crate::id::{ConnectionId, OperationId};
use crate::latch::Latch;
use crate::levels::{Care, Claims};
use crate::limits::{
    CONNECTION_OPERATIONS_MAX, FRAME_MS, FRAME_SAMPLES, PTIME_MS_MAX, RELAY_PTIME_MS_MAX, TARIFF_PERIOD,
};
use crate::listen::InBand;
use crate::op::{Operation, Said};
use crate::outlet::Wide;
use crate::playout::Playout;
use crate::port::Port;
use crate::receiver::Receiver;
use crate::reports::{Quality, Reports};
use crate::rng::SplitMix64;
use crate::sender::{Law, Sender};
use crate::talk::TalkDetector;
use crate::time::Instant;
use crate::tones::TONE_FRAMES;

/// Frames from one tariff tone to the next.
#[expect(clippy::cast_possible_truncation, reason = "at most a minute")]
const TARIFF_FRAMES: u16 = (TARIFF_PERIOD.as_millis() / FRAME_MS as u128) as u16;

/// What a connection is wired to, by slots of this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    None,
    Relay(u32),
    Conference(u32),
}

/// A connection's part in a recording of the call it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taped {
    /// None.
    Not,
    /// The recording runs on it; the other party is this one.
    With(u32),
    /// The recording runs on the other party, whose clock drives this one too.
    By,
}

/// The law of a codec that is G.711.
pub(crate) const fn law_of(codec: CodecKind) -> Option<Law> {
    match codec {
        CodecKind::Pcmu => Some(Law::Mu),
        CodecKind::Pcma => Some(Law::A),
        CodecKind::G722 | CodecKind::L16(_) | CodecKind::Gsm | CodecKind::G723 | CodecKind::G729 | CodecKind::Opus => {
            None
        }
    }
}

/// Maps a relayed stream onto our own. Numbers are those of its packets, or those its jitter buffer gave them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayMap {
    pub(crate) source_ssrc: u32,
    /// The earliest of our own numbers that a relayed packet may take: those before belong to something else.
    pub(crate) floor: SeqNumber,
    pub(crate) sequence_offset: u16,
    pub(crate) timestamp_offset: u32,
}

impl RelayMap {
    /// The number that a packet of the source gets in our stream; `None`: it is taken by something else.
    pub(crate) fn take(&mut self, number: SeqNumber) -> Option<SeqNumber> {
        let own = number.wrapping_add(self.sequence_offset);
        if self.floor.is_newer_than(own) {
            return None;
        }
        // The floor follows at a distance, so that it never seems to lie ahead when the numbers wrap.
        let trail = own.wrapping_add(RELAY_FLOOR_DISTANCE.wrapping_neg());
        if trail.is_newer_than(self.floor) {
            self.floor = trail;
        }
        Some(own)
    }
}

/// Packets by which the earliest relayed number trails the latest, a quarter of all numbers.
const RELAY_FLOOR_DISTANCE: u16 = 1 << 14;

/// A frame at 8 kHz, as detectors hear it.
pub(crate) type Narrow = [i16; FRAME_SAMPLES];

/// What a connection needs once its media is more than relayed. Its fields lie in the order in which they are used: by
/// every frame, of wideband only, seldom.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Media {
    /// Rate of the clock that drives it: of its conference, its relay, or of its own operations.
    pub(crate) rate: Rate,
    /// We send a stream of our own, and from the first time on always.
    pub(crate) owns_stream: bool,
    /// Whether `frame` is in the mix.
    pub(crate) in_mix: bool,
    /// Nothing of `frame` came, and nothing stands for it.
    pub(crate) gap: bool,
    /// `frame` is comfort noise.
    pub(crate) noise: bool,
    /// Something of `frame` was made up: it is missing, or a frame was put in to keep step.
    pub(crate) concealed: bool,
    /// The decoder has failed.
    pub(crate) failed: bool,
    /// The present silence has been described by comfort noise.
    pub(crate) describes_silence: bool,
    /// It goes the short way from now on, once it was sent what waits for it in the other party's buffer.
    pub(crate) catches_up: bool,
    /// Frames of silence in a row that were, or would have been, sent.
    pub(crate) silent_frames: u32,
    /// Of what it alone hears.
    pub(crate) limiter: Limiter,
    pub(crate) operations: [Option<Box<Operation>>; CONNECTION_OPERATIONS_MAX],
    /// What is done to its voice in a conference.
    pub(crate) care: Option<Box<Care>>,
    /// There if it is not G.711 on a clock of 8 kHz.
    pub(crate) wide: Option<Box<Wide>>,
    /// Finds digits in what it says, if they may come that way.
    pub(crate) in_band: Option<Box<InBand>>,
    pub(crate) relay_map: Option<RelayMap>,
    pub(crate) playout: Playout,
    /// What it says in the present frame at that rate, gain applied.
    pub(crate) frame: [i16; FRAME_SAMPLES_MAX],
    pub(crate) sender: Sender,
    /// What it says of its own loudness.
    pub(crate) claims: Claims,
    /// SSRC and timestamp of the telephone-event that was last passed into our own stream, and its timestamp there.
    pub(crate) event: Option<((u32, RtpTimestamp), RtpTimestamp)>,
}

/// Bytes of a connection that each frame of a mix looks at.
const MIXED_BYTES: usize = offset_of!(Connection, bucket);
/// Bytes of its media that do, up to the frame's samples at 8 kHz.
const MIXED_MEDIA_BYTES: usize = offset_of!(Media, frame) + size_of::<Narrow>();

/// Asks for the memory of those whose frames are mixed next.
pub(crate) fn prefetch(slots: &[u32], connections: &[Option<Connection>]) {
    let there = || slots.iter().filter_map(|&slot| connections.get(slot as usize));
    // Each round finds what the one before it has asked for.
    there().for_each(|connection| prefetch::head(connection, MIXED_BYTES));
    let media = || there().filter_map(|connection| connection.as_ref()?.media.as_deref());
    media().for_each(|media| {
        prefetch::head(media, MIXED_MEDIA_BYTES);
        media.sender.prefetch();
    });
    media().filter(|media| media.playout.is_playing()).for_each(|media| media.playout.prefetch());
}

/// Asks for the memory of those who are sent a frame next.
pub(crate) fn prefetch_listeners(slots: &[u32], connections: &[Option<Connection>]) {
    let there = || slots.iter().filter_map(|&slot| connections.get(slot as usize));
    there().for_each(|connection| prefetch::head(connection, MIXED_BYTES));
    for media in there().filter_map(|connection| connection.as_ref()?.media.as_deref()) {
        prefetch::head(media, offset_of!(Media, playout));
        media.sender.prefetch();
    }
}

impl Media {
    pub(crate) fn new(rng: &mut SplitMix64) -> Box<Self> {
        Box::new(Self {
            playout: Playout::new(CodecKind::Pcmu),
            sender: Sender::new(rng),
            owns_stream: false,
            relay_map: None,
            event: None,
            operations: [const { None }; CONNECTION_OPERATIONS_MAX],
            rate: Rate::Narrow,
            care: None,
            claims: Claims::default(),
            wide: None,
            frame: [0; FRAME_SAMPLES_MAX],
            gap: true,
            noise: false,
            concealed: false,
            failed: false,
            limiter: Limiter::new(),
            silent_frames: 0,
            describes_silence: false,
            catches_up: false,
            in_mix: false,
            in_band: None,
        })
    }

    /// Makes it as good as new for another connection.
    pub(crate) fn recycle(&mut self, rng: &mut SplitMix64) {
        self.playout.recycle();
        self.sender = Sender::new(rng);
        self.owns_stream = false;
        (self.relay_map, self.event) = (None, None);
        self.in_mix = false;
        self.in_band = None;
        (self.care, self.claims) = (None, Claims::default());
        self.wide = None;
        self.failed = false;
        (self.silent_frames, self.describes_silence) = (0, false);
        self.catches_up = false;
        self.limiter = Limiter::new();
    }

    /// What it says in the present frame.
    pub(crate) fn samples(&self) -> &[i16] {
        &self.frame[..self.rate.frame_samples()]
    }

    /// Writes what it says in the present frame as detectors hear it. Once a frame.
    pub(crate) fn narrow(&mut self, out: &mut Narrow) {
        let samples = self.rate.frame_samples();
        match self.wide.as_mut().filter(|_| self.rate != Rate::Narrow) {
            Some(wide) => wide.to_narrow.process(&self.frame[..samples], out),
            None => out.copy_from_slice(&self.frame[..FRAME_SAMPLES]),
        }
    }

    pub(crate) fn runs_any(&self) -> bool {
        self.operations.iter().any(Option::is_some)
    }
}

/// How it takes part in its conference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Participant {
    pub(crate) muted: bool,
    pub(crate) deaf: bool,
    /// The conference's cast says the same of coach and pupil.
    pub(crate) role: Role,
    pub(crate) tariff_tone: bool,
    /// Everybody could hear it at some time: its leave is told by a tone.
    pub(crate) was_audible: bool,
    /// Frames since the tariff tone was switched on; once it has begun, since the last one began and one period.
    tariff_frames: u16,
    pub(crate) gain_db: i16,
    pub(crate) gain_q12: i32,
    pub(crate) output_gain_db: i16,
    pub(crate) output_gain_q12: i32,
    pub(crate) agc: bool,
    pub(crate) noise_suppression: bool,
    /// Among the loudest, if only they are mixed.
    pub(crate) is_chosen: bool,
    pub(crate) talk: TalkDetector,
}

impl Participant {
    /// A party as good as any.
    pub(crate) const fn party() -> Self {
        Self {
            muted: false,
            deaf: false,
            role: Role::Party,
            tariff_tone: false,
            was_audible: false,
            tariff_frames: 0,
            gain_db: 0,
            gain_q12: mix::GAIN_Q12_UNITY,
            output_gain_db: 0,
            output_gain_q12: mix::GAIN_Q12_UNITY,
            agc: false,
            noise_suppression: false,
            is_chosen: false,
            talk: TalkDetector::new(),
        }
    }

    /// As it joins; `None`: its role does not go with the rest.
    pub(crate) fn new(spec: ParticipantSpec) -> Option<Self> {
        let ParticipantSpec { muted, deaf, gain_db, output_gain_db, agc, noise_suppression, role, tariff_tone } = spec;
        let (joined, role) =
            if role == Role::Monitor { (Self { role, ..Self::party() }, None) } else { (Self::party(), Some(role)) };
        joined.changed(ParticipantChange {
            muted: Some(muted),
            deaf: Some(deaf),
            gain_db: Some(gain_db),
            output_gain_db: Some(output_gain_db),
            agc: Some(agc),
            noise_suppression: Some(noise_suppression),
            role,
            tariff_tone: Some(tariff_tone),
        })
    }

    /// What a change makes of it, in the order mute, tariff tone, role; `None`: its role does not go with that.
    ///
    /// Who is a monitor can't be heard anyway: to mute it changes nothing.
    pub(crate) fn changed(mut self, change: ParticipantChange) -> Option<Self> {
        let ParticipantChange { muted, deaf, gain_db, output_gain_db, agc, noise_suppression, role, tariff_tone } =
            change;
        let must_be_heard = |role| matches!(role, Role::Coach | Role::Pupil);
        if let Some(muted) = muted.filter(|_| self.role != Role::Monitor) {
            if muted && must_be_heard(self.role) {
                return None;
            }
            self.muted = muted;
        }
        if let Some(tariff_tone) = tariff_tone {
            if tariff_tone && self.role == Role::Coach {
                return None;
            }
            if !self.tariff_tone {
                self.tariff_frames = 0;
            }
            self.tariff_tone = tariff_tone;
        }
        if let Some(role) = role.filter(|&role| role != self.role) {
            if [role, self.role].contains(&Role::Monitor)
                || (must_be_heard(role) && self.muted)
                || (role == Role::Coach && self.tariff_tone)
            {
                return None;
            }
            self.role = role;
        }
        self.deaf = deaf.unwrap_or(self.deaf);
        if let Some(gain_db) = gain_db {
            self.gain_db = gain_db;
            self.gain_q12 = mix::gain_q12_from_db(gain_db);
        }
        if let Some(gain_db) = output_gain_db {
            self.output_gain_db = gain_db;
            self.output_gain_q12 = mix::gain_q12_from_db(gain_db);
        }
        self.agc = agc.unwrap_or(self.agc);
        self.noise_suppression = noise_suppression.unwrap_or(self.noise_suppression);
        Some(self)
    }

    /// Whether it is a party like any other, heard and hearing as it is.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { muted, deaf, role, tariff_tone, gain_q12, output_gain_q12, agc, noise_suppression, .. } = *self;
        role == Role::Party
            && (gain_q12, output_gain_q12) == (mix::GAIN_Q12_UNITY, mix::GAIN_Q12_UNITY)
            && !(muted || deaf || tariff_tone || agc || noise_suppression)
    }

    /// Whether everybody can hear it.
    pub(crate) fn is_audible(&self) -> bool {
        !self.muted && matches!(self.role, Role::Party | Role::Pupil)
    }

    /// Moves its tariff tone on by a frame; the frame of the tone that is due, if one is.
    pub(crate) fn next_tariff_frame(&mut self) -> Option<usize> {
        let frame = self.tariff_frames.checked_sub(TARIFF_FRAMES);
        self.tariff_frames += 1;
        if usize::from(self.tariff_frames) >= usize::from(TARIFF_FRAMES) + TONE_FRAMES {
            self.tariff_frames -= TARIFF_FRAMES;
        }
        frame.map(usize::from)
    }

    /// Whether anybody can hear it.
    pub(crate) fn can_be_heard(&self) -> bool {
        !self.muted && self.role != Role::Monitor
    }
}

/// A connection. Its fields lie in the order in which they are used: by every frame of a mix, by every packet, seldom.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) link: Link,
    /// What its relay brings may be decoded, and encoded again, if the sides differ.
    pub(crate) may_transcode: bool,
    /// What its relay brings is decoded, and encoded again for the other side.
    pub(crate) transcodes: bool,
    /// The endpoint has sent a telephone-event.
    pub(crate) sends_events: bool,
    /// Audio arrives, and is listened to for digits.
    pub(crate) listens: bool,
    /// The RTP socket is connected to the learned source.
    pub(crate) connected: bool,
    /// The present silence has been told.
    pub(crate) timed_out: bool,
    pub(crate) taped: Taped,
    pub(crate) participant: Participant,
    pub(crate) media: Option<Box<Media>>,
    pub(crate) id: ConnectionId,
    pub(crate) last_heard: Instant,
    pub(crate) receiver: Receiver,
    pub(crate) spec: ConnectionSpec,
    pub(crate) bucket: TokenBucket,
    pub(crate) counters: ConnectionCounters,
    /// When the silence timer that counts fires.
    pub(crate) silence_due: Option<Instant>,
    /// When it ends, as it is reserved only: no remote address was given so far.
    pub(crate) reserved_until: Option<Instant>,
    pub(crate) latch: Latch,
    pub(crate) reports: Reports,
    pub(crate) rtcp_bucket: TokenBucket,
    pub(crate) rtcp_learned: Option<SocketAddr>,
    pub(crate) created: Instant,
    /// When the reservation timer that counts fires.
    pub(crate) reservation_due: Option<Instant>,
    /// When the connection's own media clock ticks next.
    pub(crate) solo_due: Option<Instant>,
    /// Timestamp of the last telephone-event whose beginning was seen, and of the last whose end was.
    pub(crate) event_begun: Option<RtpTimestamp>,
    pub(crate) event_ended: Option<RtpTimestamp>,
    /// Digits that wait to be gathered.
    pub(crate) digits: DigitBuffer,
    /// Volume and speed of what is played to it.
    pub(crate) adjustment: Adjustment,
}

/// When a reservation made now ends.
pub(crate) fn reserved_until(now: Instant, reserve_ms: u32) -> Instant {
    (now + Duration::from_millis(u64::from(reserve_ms))).ceil_to_millis()
}

impl Connection {
    pub(crate) fn new(now: Instant, id: ConnectionId, spec: ConnectionSpec) -> Self {
        Self {
            id,
            spec,
            created: now,
            latch: Latch::new(spec.remote, spec.barred),
            bucket: TokenBucket::default(),
            rtcp_bucket: TokenBucket::default(),
            receiver: Receiver::new(),
            reports: Reports::new(),
            rtcp_learned: None,
            connected: false,
            link: Link::None,
            may_transcode: false,
            transcodes: false,
            taped: Taped::Not,
            participant: Participant::party(),
            counters: ConnectionCounters::default(),
            last_heard: now,
            silence_due: None,
            timed_out: false,
            reserved_until: spec.reserve_ms.map(|ms| reserved_until(now, ms)),
            reservation_due: None,
            solo_due: None,
            event_begun: None,
            event_ended: None,
            sends_events: false,
            listens: false,
            digits: DigitBuffer::default(),
            adjustment: Adjustment::default(),
            media: None,
        }
    }

    /// Where RTCP goes: as learned, as given, or one above the RTP address (RFC 3550 section 11).
    pub(crate) fn rtcp_target(&self) -> Option<SocketAddr> {
        self.rtcp_learned.or(self.spec.remote_rtcp).or_else(|| {
            let mut target = self.latch.target()?;
            target.set_port(target.port().checked_add(1)?);
            Some(target)
        })
    }

    /// The socket RTCP leaves by, and where to; `None`: nowhere.
    pub(crate) fn rtcp_way(&self, slot: u32) -> Option<(Port, Option<SocketAddr>)> {
        if !self.spec.rtcp_mux {
            return Some((Port::rtcp(slot), Some(self.rtcp_target()?)));
        }
        let target = if self.connected { None } else { Some(self.latch.target()?) };
        Some((Port::rtp(slot), target))
    }

    /// Whether we send with this SSRC.
    pub(crate) fn sends_as(&self, ssrc: u32) -> bool {
        self.media.as_ref().is_some_and(|media| media.owns_stream && media.sender.ssrc() == ssrc)
    }

    /// How well it is heard.
    pub(crate) fn quality(&self) -> Quality {
        let plays = matches!(self.link, Link::Conference(_)) || self.solo_due.is_some();
        let delay = self.media.as_ref().filter(|_| plays).map(|media| media.playout.delay());
        self.reports.quality(&self.receiver, self.spec.rx_codec, self.spec.ptime_ms, delay)
    }

    /// Who there is to report to: us, and the endpoint if it sends and has not said BYE.
    pub(crate) fn members(&self) -> u8 {
        1 + u8::from(self.receiver.ssrc().is_some_and(|ssrc| !self.reports.has_left(ssrc)))
    }

    /// Whether an RTCP packet from `source` may be the endpoint's.
    pub(crate) fn accepts_rtcp_from(&self, source: SocketAddr) -> bool {
        self.spec.remote_rtcp == Some(source)
            || self.latch.pinned().is_some_and(|(endpoint, _)| endpoint.ip() == source.ip())
    }

    /// Whether its packet time is one that can be handled at all.
    pub(crate) const fn has_valid_ptime(spec: &ConnectionSpec) -> bool {
        1 <= spec.ptime_ms && spec.ptime_ms <= RELAY_PTIME_MS_MAX
    }

    /// Whether its packets can be mixed, played and recorded.
    pub(crate) fn is_mixable(&self) -> bool {
        Self::can_mix(&self.spec)
    }

    /// Whether packets of a connection like this can be mixed, played and recorded.
    pub(crate) fn can_mix(spec: &ConnectionSpec) -> bool {
        spec.rx_codec.is_decodable()
            && spec.tx_codec.is_decodable()
            && spec.ptime_ms <= PTIME_MS_MAX
            && spec.tx_codec.can_encode_ms(spec.ptime_ms)
    }

    /// Whether what goes between connections like these has to be decoded and encoded again.
    pub(crate) fn must_transcode(a: &ConnectionSpec, b: &ConnectionSpec) -> bool {
        let differ = (a.rx_codec, b.rx_codec, a.ptime_ms) != (b.tx_codec, a.tx_codec, b.ptime_ms);
        differ && Self::can_mix(a) && Self::can_mix(b)
    }

    /// The rate at which two are transcoded: what both can hear.
    pub(crate) fn common_rate(a: &ConnectionSpec, b: &ConnectionSpec) -> Rate {
        let rate = |spec: &ConnectionSpec| spec.rx_codec.rate().max(spec.tx_codec.rate());
        rate(a).min(rate(b))
    }

    /// Rate of its own clock. What runs on it when it leaves another keeps that one's: nobody hears a seam.
    pub(crate) fn own_rate(&self) -> Rate {
        match &self.media {
            Some(media) if media.runs_any() => media.rate,
            Some(_) | None => self.spec.rx_codec.rate().max(self.spec.tx_codec.rate()),
        }
    }

    /// Whether what it sends and is sent is G.711.
    pub(crate) const fn is_g711(spec: &ConnectionSpec) -> bool {
        law_of(spec.rx_codec).is_some() && law_of(spec.tx_codec).is_some()
    }

    /// Whether packets of this type are audio that is decoded here.
    pub(crate) fn is_audio(&self, payload_type: u8) -> bool {
        payload_type == self.spec.rx_payload_type || Some(payload_type) == self.spec.comfort_noise_payload_type
    }

    /// Rate of the timestamps it sends us, in Hz.
    pub(crate) const fn clock_rate_hz(&self) -> u32 {
        self.spec.rx_codec.clock_rate_hz()
    }

    /// Whether packets between connections like these can be passed on as they are.
    pub(crate) fn can_pass_on(a: &ConnectionSpec, b: &ConnectionSpec) -> bool {
        (a.rx_codec, a.rx_payload_type) == (b.tx_codec, b.tx_payload_type)
            && (b.rx_codec, b.rx_payload_type) == (a.tx_codec, a.tx_payload_type)
            && a.ptime_ms == b.ptime_ms
    }

    /// Whether its conference decodes what it sends: a monitor's audio is for its own digits and operations alone.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.participant.role != Role::Monitor || self.needs_audio()
    }

    /// Whether its endpoint is played to.
    pub(crate) fn is_played_to(&self) -> bool {
        self.media.as_ref().is_some_and(|media| media.is_played_to())
    }

    /// The kinds of its operations, or of the one that is named.
    pub(crate) fn kinds_of(&self, only: Option<OperationId>) -> impl Iterator<Item = OperationKind> + '_ {
        let operations = self.media.iter().flat_map(|media| media.operations.iter().flatten());
        operations.filter(move |operation| only.is_none_or(|id| operation.id() == id)).map(|operation| operation.kind())
    }

    pub(crate) fn runs_any(&self) -> bool {
        self.media.as_ref().is_some_and(|media| media.runs_any())
    }

    /// Whether it is wired to nothing, and nothing runs on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.link == Link::None && !self.runs_any() && self.taped == Taped::Not
    }

    /// Whether a recording of its call runs on it.
    pub(crate) fn records_call(&self) -> bool {
        let mut operations = self.media.iter().flat_map(|media| media.operations.iter().flatten());
        operations.any(|operation| operation.records_call())
    }

    pub(crate) const fn target(&self) -> Target {
        Target::Connection(self.id)
    }

    /// What it says in the present frame, as a recording of its call hears it.
    pub(crate) fn said(&self) -> Option<Said> {
        let media = self.media.as_ref()?;
        let loud = self.participant.talk.is_loud();
        let Media { frame, rate, gap, concealed, .. } = &**media;
        Some(Said { samples: *frame, rate: *rate, loud, gap: *gap, concealed: *concealed })
    }

    /// When its own clock would tick next if it started now: whole milliseconds, spread by slot.
    pub(crate) fn first_tick(now: Instant, slot: u32) -> Instant {
        let phase = u64::from(slot % FRAME_MS);
        let now_ms = now.as_nanos().div_ceil(1_000_000);
        let step = u64::from(FRAME_MS);
        Instant::from_millis(now_ms + (phase + step - now_ms % step) % step)
    }

    /// The first sample of its incoming stream that is not yet used.
    pub(crate) fn stamp_in(&self) -> Option<StreamStamp> {
        let (ssrc, expected, sequence) = self.receiver.expected()?;
        let playout = self.media.as_ref().and_then(|media| media.playout.next_timestamp());
        Some(StreamStamp {
            connection: self.id,
            ssrc,
            outgoing: false,
            rtp_timestamp: playout.unwrap_or(expected),
            // Which packet the playout point lies in is not kept; without a jitter buffer it is the next one.
            sequence: if playout.is_none() { Some(sequence) } else { None },
        })
    }

    /// The first sample of our own stream that belongs to a frame due at `due`; `None` if we send none.
    pub(crate) fn stamp_out(&self, due: Instant) -> Option<StreamStamp> {
        let media = self.own_stream()?;
        Some(self.outgoing(media.sender.stamp(due)))
    }

    /// The first timestamp that our own stream does not send if it ends now.
    pub(crate) fn stamp_unsent(&self) -> Option<StreamStamp> {
        let media = self.own_stream()?;
        Some(self.outgoing(media.sender.first_unsent()))
    }

    fn own_stream(&self) -> Option<&Media> {
        self.media.as_deref().filter(|media| media.owns_stream && self.spec.direction.sends())
    }

    const fn outgoing(&self, (ssrc, rtp_timestamp, sequence): (u32, u32, u16)) -> StreamStamp {
        StreamStamp { connection: self.id, ssrc, outgoing: true, rtp_timestamp, sequence: Some(sequence) }
    }

    pub(crate) fn status(&self, state: ConnectionState) -> ConnectionStatus {
        let decodes = self.solo_due.is_some()
            || (matches!(self.link, Link::Conference(_))
                && self.participant.role != Role::Monitor
                && self.is_mixable());
        ConnectionStatus {
            id: self.id,
            state,
            remote: self.spec.remote,
            learned: self.latch.pinned().map(|(source, _)| source),
            remote_rtcp: self.rtcp_target(),
            connected_socket: self.connected,
            rx_codec: self.spec.rx_codec,
            tx_codec: self.spec.tx_codec,
            ptime_ms: self.spec.ptime_ms,
            direction: self.spec.direction,
            ssrc_in: self.receiver.ssrc(),
            ssrc_out: self.media.as_ref().filter(|media| media.owns_stream).map(|media| media.sender.ssrc()),
            counters: self.counters,
            cumulative_lost: self.receiver.cumulative_lost(),
            jitter_ms: self.receiver.jitter_ms(),
            quality: self.quality(),
            level_db: decodes.then(|| self.participant.talk.level_dbov()),
            operations: self
                .media
                .iter()
                .flat_map(|media| media.operations.iter().flatten().map(|operation| operation.id()))
                .collect(),
            reserved: self.reserved_until.is_some(),
            digits: *self.digits.waiting(),
        }
    }

    /// When the present silence will have lasted too long, unless that has been told.
    pub(crate) fn silence_deadline(&self) -> Option<Instant> {
        let timeout = self.spec.rtp_timeout_ms.filter(|_| !self.timed_out && self.reserved_until.is_none())?;
        Some((self.last_heard + Duration::from_millis(u64::from(timeout))).ceil_to_millis())
    }
}
