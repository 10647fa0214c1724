//! A telephone on the simulated network: says what it is told to, presses digits, hears all that is sent to it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_media::time::Instant;
use ringbridge_shard::sim::SimNet;
use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader, RtpPacket};
use ringbridge_wire::telephone_event::{TELEPHONE_EVENT_BYTES, TelephoneEvent, event_of_digit};
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};

use crate::audio::{self, Codec};

/// What a phone says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Voice {
    /// Sends nothing.
    Nothing,
    /// Sends silence.
    Silence,
    /// Sends a tone of so many hertz.
    Tone(u32),
    /// Sends a DTMF digit as two tones.
    Dtmf(char),
}

/// One packet as it was heard.
#[derive(Clone, PartialEq, Debug)]
pub struct Heard {
    /// When, in milliseconds since the start.
    pub ms: u64,
    /// Its payload type.
    pub payload_type: u8,
    /// Its stream.
    pub ssrc: u32,
    /// Its number.
    pub sequence: u16,
    /// What was in it.
    pub payload: Vec<u8>,
}

/// A telephone.
#[derive(Debug)]
pub struct Phone {
    address: SocketAddr,
    target: Option<SocketAddr>,
    codec: Codec,
    voice: Voice,
    next_at: Instant,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    samples: usize,
    /// Packets of digits to be sent instead of the voice, one each packet time; `None`: the voice.
    presses: VecDeque<Option<Press>>,
    event_timestamp: u32,
    heard: Vec<Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Press {
    event: TelephoneEvent,
    first: bool,
}

impl Phone {
    pub(super) fn new(number: usize, net: &SimNet) -> Self {
        let number = u16::try_from(number).expect("few");
        let address = SocketAddr::from(([10, 1, 0, 1], 20_000 + 2 * number));
        net.listen(address);
        Self {
            address,
            target: None,
            codec: Codec::Pcmu,
            voice: Voice::Nothing,
            next_at: Instant::ZERO,
            sequence: 65_500,
            timestamp: u32::MAX - 8_000,
            ssrc: 0x1000 + u32::from(number),
            samples: 0,
            presses: VecDeque::new(),
            event_timestamp: 0,
            heard: Vec::new(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes its codec.
    pub fn set_codec(&mut self, codec: Codec) {
        self.codec = codec;
    }

    /// Changes what it says, at the next packet.
    pub fn say(&mut self, voice: Voice) {
        self.voice = voice;
    }

    /// Everything it has heard.
    pub fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// Forgets what it has heard.
    pub fn forget(&mut self) {
        self.heard.clear();
    }

    /// What it heard between two moments, in milliseconds since the start, decoded and in order.
    pub fn samples(&self, from_ms: u64, to_ms: u64) -> Vec<i16> {
        let voice = self.codec.payload_type();
        let packets = self.heard.iter().filter(|heard| (from_ms..to_ms).contains(&heard.ms));
        packets
            .filter(|heard| heard.payload_type == voice)
            .flat_map(|heard| self.codec.decode(&heard.payload))
            .collect()
    }

    /// How loud a tone was between two moments, as a share of what a phone's own tone has.
    pub fn share(&self, hz: u32, from_ms: u64, to_ms: u64) -> f64 {
        let samples = self.samples(from_ms, to_ms);
        if samples.is_empty() { 0.0 } else { audio::share(&samples, hz) }
    }

    pub(super) fn talk(&mut self, target: SocketAddr, voice: Voice, now: Instant) {
        (self.target, self.voice) = (Some(target), voice);
        self.next_at = now + PACKET;
    }

    /// Queues digits; the milliseconds after which each of them is over.
    pub(super) fn press(&mut self, digits: &str, now: Instant) -> Vec<u64> {
        if self.next_at <= now {
            self.next_at = now + Duration::from_millis(1);
        }
        let first = u64::try_from(self.next_at.saturating_since(now).as_millis()).expect("soon");
        let mut over = Vec::new();
        for digit in digits.bytes() {
            let event = event_of_digit(digit).expect("a digit");
            for packet in 0..UPDATES + ENDS {
                let end = packet >= UPDATES;
                if packet == UPDATES {
                    over.push(first + self.presses.len() as u64 * PACKET_MS);
                }
                let duration = 160 * u16::try_from(packet.min(UPDATES)).expect("short");
                let event = TelephoneEvent { event, end, volume: 10, duration };
                self.presses.push_back(Some(Press { event, first: packet == 0 }));
            }
            self.presses.push_back(None);
        }
        over
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        (self.target.is_some() && (self.voice != Voice::Nothing || !self.presses.is_empty())).then_some(self.next_at)
    }

    /// Sends what is due.
    pub(super) fn speak(&mut self, net: &SimNet, now: Instant) {
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(target) = self.target else { return };
            let at = self.next_at;
            if let Some(packet) = self.packet() {
                net.send(at.max(net.now()), self.address, target, &packet);
            }
            self.timestamp = self.timestamp.wrapping_add(160);
            self.samples += SAMPLES;
            self.next_at = at + PACKET;
        }
    }

    pub(super) fn listen(&mut self, net: &SimNet, now: Instant, ms: u64) {
        while let Some((_, _, bytes)) = net.poll_receive(now, self.address) {
            let packet = RtpPacket::parse(&bytes).expect("the server sends RTP");
            self.heard.push(Heard {
                ms,
                payload_type: packet.payload_type(),
                ssrc: packet.ssrc().0,
                sequence: packet.sequence_number().0,
                payload: packet.payload().to_vec(),
            });
        }
    }

    fn packet(&mut self) -> Option<Vec<u8>> {
        match self.presses.pop_front().flatten() {
            Some(Press { event, first }) => {
                if first {
                    self.event_timestamp = self.timestamp;
                }
                let mut payload = [0; TELEPHONE_EVENT_BYTES];
                event.emit(&mut payload);
                Some(self.wrap(TELEPHONE_EVENT_PT, first, self.event_timestamp, &payload))
            }
            None => {
                let range = self.samples..self.samples + SAMPLES;
                let voice: Vec<i16> = match self.voice {
                    Voice::Nothing => return None,
                    Voice::Silence => vec![0; SAMPLES],
                    Voice::Tone(hz) => range.map(|index| audio::tone(hz, 8000, index)).collect(),
                    Voice::Dtmf(digit) => {
                        let (low, high) = frequencies(digit);
                        let both = |index| audio::tone(low, 8000, index) / 2 + audio::tone(high, 8000, index) / 2;
                        range.map(both).collect()
                    }
                };
                let payload = self.codec.encode(&voice);
                Some(self.wrap(self.codec.payload_type(), self.samples == 0, self.timestamp, &payload))
            }
        }
    }

    fn wrap(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut head = [0; RTP_HEADER_BYTES];
        let header = RtpHeader {
            marker,
            payload_type,
            sequence_number: SeqNumber(self.sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(self.ssrc),
        };
        header.emit(&mut head);
        self.sequence = self.sequence.wrapping_add(1);
        [&head, payload].concat()
    }
}

/// The two frequencies of a DTMF digit in Hz (ITU-T Q.23).
fn frequencies(digit: char) -> (u32, u32) {
    let place = "123A456B789C*0#D".find(digit).expect("a digit");
    ([697, 770, 852, 941][place / 4], [1209, 1336, 1477, 1633][place % 4])
}

/// Packet time.
const PACKET: Duration = Duration::from_millis(PACKET_MS);
const PACKET_MS: u64 = 20;
const SAMPLES: usize = 160;
/// Payload type of telephone-events, by default.
const TELEPHONE_EVENT_PT: u8 = 101;
/// Packets that say a digit is being pressed: start and updates.
const UPDATES: usize = 3;
/// Packets that say it is over.
const ENDS: usize = 3;
