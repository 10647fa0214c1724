//! The far side of a connection: sockets on loopback, a thread that listens, threads that speak.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader, RtpPacket};
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};

use crate::audio::{Codec, Stream};
use crate::{until, until_every};

/// An endpoint that hears all that is sent to it. Silent until told to speak.
#[derive(Debug)]
pub struct Endpoint {
    rtp: Arc<UdpSocket>,
    rtcp: UdpSocket,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    closing: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// What an endpoint says.
#[derive(Clone, Copy, Debug)]
pub struct Speech {
    /// Encoding.
    pub codec: Codec,
    /// Packet time in milliseconds.
    pub ptime_ms: u32,
    /// Its stream.
    pub ssrc: u32,
    /// Number of the first packet.
    pub sequence: u16,
    /// Timestamp of the first packet.
    pub timestamp: u32,
}

impl Speech {
    /// Packets of 20 ms in G.711 µ-law whose counters soon wrap.
    pub const fn new(ssrc: u32) -> Self {
        Self { codec: Codec::Pcmu, ptime_ms: 20, ssrc, sequence: 65_500, timestamp: u32::MAX - 8_000 }
    }

    /// One packet of it: the `number`th.
    #[expect(clippy::cast_possible_truncation, reason = "counters wrap")]
    pub fn packet(&self, number: usize, voice: impl Fn(usize) -> i16) -> Vec<u8> {
        let length = self.ptime_ms as usize * 8;
        let samples: Vec<i16> = (number * length..(number + 1) * length).map(voice).collect();
        self.packet_of(number, &self.codec.encode(&samples), (number * length) as u32)
    }

    #[expect(clippy::cast_possible_truncation, reason = "counters wrap")]
    fn packet_of(&self, number: usize, payload: &[u8], offset: u32) -> Vec<u8> {
        let header = RtpHeader {
            marker: number == 0,
            payload_type: self.codec.payload_type(),
            sequence_number: SeqNumber(self.sequence.wrapping_add(number as u16)),
            timestamp: RtpTimestamp(self.timestamp.wrapping_add(offset)),
            ssrc: Ssrc(self.ssrc),
        };
        let mut head = [0; RTP_HEADER_BYTES];
        header.emit(&mut head);
        [&head, payload].concat()
    }
}

impl Endpoint {
    /// Opens an endpoint.
    ///
    /// # Panics
    /// If no pair of ports is free.
    pub fn open() -> Self {
        let (rtp, rtcp) = until("a free pair of ports", || {
            let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            let port = rtp.local_addr().ok()?.port();
            let rtcp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port.checked_add(1)?)).ok()?;
            port.is_multiple_of(2).then_some((rtp, rtcp))
        });
        rtp.set_read_timeout(Some(LISTEN)).expect("a timeout");
        rtcp.set_read_timeout(Some(crate::PATIENCE)).expect("a timeout");
        let (rtp, heard, closing) = (Arc::new(rtp), Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let listener = std::thread::spawn({
            let (rtp, heard, closing) = (rtp.clone(), heard.clone(), closing.clone());
            move || {
                let mut buffer = [0; 4096];
                while !closing.load(Ordering::Acquire) {
                    // Nothing in time, or an ICMP error for what was sent: both are no news.
                    let Ok(length) = rtp.recv(&mut buffer) else { continue };
                    lock(&heard).push(buffer[..length].to_vec());
                }
            }
        });
        Self { rtp, rtcp, heard, closing, listener: Some(listener) }
    }

    /// Where it sends RTP from and listens.
    ///
    /// # Panics
    /// Never: the socket is bound.
    pub fn address(&self) -> SocketAddr {
        self.rtp.local_addr().expect("bound")
    }

    /// Where it sends RTCP from and listens.
    ///
    /// # Panics
    /// Never: the socket is bound.
    pub fn rtcp_address(&self) -> SocketAddr {
        self.rtcp.local_addr().expect("bound")
    }

    /// Sends one datagram. What nobody takes is lost, as it is in a network.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        // An ICMP error for an earlier datagram comes back here.
        let _ = self.rtp.send_to(bytes, to);
    }

    /// Sends one datagram from the RTCP port.
    pub fn send_rtcp(&self, to: SocketAddr, bytes: &[u8]) {
        let _ = self.rtcp.send_to(bytes, to);
    }

    /// The next datagram on the RTCP port.
    ///
    /// # Panics
    /// If none comes.
    pub fn receive_rtcp(&self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let length = self.rtcp.recv(&mut buffer).expect("a packet comes");
        buffer[..length].to_vec()
    }

    /// Speaks to `target` from now on by an absolute schedule, until the speaker is told to stop.
    pub fn speak(&self, target: SocketAddr, speech: Speech, voice: impl Fn(usize) -> i16 + Send + 'static) -> Speaker {
        self.speak_to(target, speech, usize::MAX, voice)
    }

    /// Speaks so many packets.
    pub fn speak_to(
        &self,
        target: SocketAddr,
        speech: Speech,
        packets: usize,
        voice: impl Fn(usize) -> i16 + Send + 'static,
    ) -> Speaker {
        let step = Duration::from_millis(u64::from(speech.ptime_ms));
        self.send_each(target, step, packets, move |number| Some(speech.packet(number, &voice)))
    }

    /// Sends up to so many packets by an absolute schedule, one for each step of time that `packet` has one for.
    pub fn send_each(
        &self,
        target: SocketAddr,
        step: Duration,
        steps: usize,
        mut packet: impl FnMut(usize) -> Option<Vec<u8>> + Send + 'static,
    ) -> Speaker {
        let (socket, stop) = (self.rtp.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut sent = Vec::new();
            let begin = Instant::now();
            let mut number = 0;
            while !stopped.load(Ordering::Acquire) && number < steps {
                let due = begin + step * u32::try_from(number).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if let Some(packet) = packet(number) {
                    // A port that is closed already is no reason to stop: a real endpoint does not notice either.
                    let _ = socket.send_to(&packet, target);
                    sent.push(packet);
                }
                number += 1;
            }
            sent
        });
        Speaker { stop, thread }
    }

    /// Everything heard so far, in order of arrival.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        lock(&self.heard).clone()
    }

    /// How many packets were heard.
    pub fn heard_packets(&self) -> usize {
        lock(&self.heard).len()
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        lock(&self.heard).clear();
    }

    /// The stream heard last, if there is any.
    pub fn stream(&self, codec: Codec) -> Option<Stream> {
        let heard = self.heard();
        let last = heard.iter().rev().find_map(|packet| RtpPacket::parse(packet).ok())?;
        Stream::of(last.ssrc().0, codec, &heard)
    }

    /// One stream.
    pub fn stream_of(&self, ssrc: u32, codec: Codec) -> Option<Stream> {
        Stream::of(ssrc, codec, &self.heard())
    }

    /// Waits until something holds of all that was heard.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut condition: impl FnMut(&[Vec<u8>]) -> Option<T>) -> T {
        until_every(Duration::from_millis(10), what, || condition(&self.heard()))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(listener) = self.listener.take() {
            // If it panicked, nothing more was heard.
            let _ = listener.join();
        }
    }
}

/// Speech that goes on.
#[derive(Debug)]
pub struct Speaker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Speaker {
    /// Falls silent; every packet that was sent.
    ///
    /// # Panics
    /// If the speaker did.
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("it spoke")
    }

    /// Waits for the end of a speech of so many packets; every packet that was sent.
    ///
    /// # Panics
    /// If the speaker did.
    pub fn join(self) -> Vec<Vec<u8>> {
        self.thread.join().expect("it spoke")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a listener looks whether it is to stop.
const LISTEN: Duration = Duration::from_millis(50);
