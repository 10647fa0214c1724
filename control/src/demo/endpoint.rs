//! One endpoint: a pair of UDP sockets, a thread that speaks by an absolute schedule and one that listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringbridge_wire::rtp::{RTP_HEADER_BYTES, RtpHeader};
use ringbridge_wire::{RtpTimestamp, SeqNumber, Ssrc};

use super::clips::Payload;
use super::stream::{Packet, Sent};

/// Packet time.
const PACKET_TIME: Duration = Duration::from_millis(20);
/// How often a listener looks whether it is to stop.
const LISTEN: Duration = Duration::from_millis(50);
/// Packets an endpoint hears at most: an hour.
const PACKETS_MAX: usize = 180_000;
/// Attempts to find a pair of ports.
const PAIRS_MAX: usize = 200;

/// An endpoint on the loopback interface.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) name: String,
    socket: Arc<UdpSocket>,
    /// Takes RTCP, which would else reach whoever has the next port.
    _rtcp: UdpSocket,
    epoch: Instant,
    number: u8,
    closing: Arc<AtomicBool>,
    heard_packets: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<Packet>>>,
    listener: Option<JoinHandle<()>>,
    silent: Arc<AtomicBool>,
    speaker: Option<JoinHandle<Sent>>,
}

impl Endpoint {
    /// Opens an endpoint that listens. `number` tells its stream from those of others.
    pub(super) fn open(name: &str, number: u8, epoch: Instant) -> io::Result<Self> {
        let (socket, rtcp) = bind_pair()?;
        socket.set_read_timeout(Some(LISTEN))?;
        let socket = Arc::new(socket);
        let closing = Arc::new(AtomicBool::new(false));
        let heard_packets = Arc::new(AtomicUsize::new(0));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = std::thread::Builder::new().name(format!("{name}-hears")).spawn({
            let (socket, closing, heard, count) =
                (socket.clone(), closing.clone(), heard.clone(), heard_packets.clone());
            move || listen(&socket, epoch, &closing, &heard, &count)
        })?;
        Ok(Self {
            name: name.to_owned(),
            socket,
            _rtcp: rtcp,
            epoch,
            number,
            closing,
            heard_packets,
            heard,
            listener: Some(listener),
            silent: Arc::new(AtomicBool::new(false)),
            speaker: None,
        })
    }

    /// Speaks to `target` from now on, a payload every 20 ms, until there are no more or [`Self::fall_silent`].
    pub(super) fn speak(
        &mut self,
        target: SocketAddr,
        payloads: impl Iterator<Item = Payload> + Send + 'static,
    ) -> io::Result<()> {
        let (socket, epoch, silent) = (self.socket.clone(), self.epoch, self.silent.clone());
        // Both counters wrap while the demo runs, in sight of every check.
        let mut header = RtpHeader {
            marker: true,
            payload_type: 0,
            sequence_number: SeqNumber(65_500 + u16::from(self.number)),
            timestamp: RtpTimestamp(u32::MAX - 8000 - 1000 * u32::from(self.number)),
            ssrc: Ssrc(0x5EED_0000 | u32::from(self.number)),
        };
        let speaker = std::thread::Builder::new().name(format!("{}-speaks", self.name)).spawn(move || {
            let mut sent = Sent::default();
            let mut due = Instant::now();
            for payload in payloads.take_while(|_| !silent.load(Ordering::Acquire)) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due += PACKET_TIME;
                let mut head = [0; RTP_HEADER_BYTES];
                header.emit(&mut head);
                let bytes = [head.as_slice(), &payload].concat();
                let at = epoch.elapsed();
                // A port that is closed already is no reason to stop: a real endpoint does not notice either.
                let _ = socket.send_to(&bytes, target);
                sent.packets.push(Packet { at, bytes });
                header.marker = false;
                header.sequence_number = header.sequence_number.next();
                header.timestamp = header.timestamp.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
            }
            sent
        })?;
        self.speaker = Some(speaker);
        Ok(())
    }

    /// Where it sends from and listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Packets heard so far.
    pub(super) fn heard_packets(&self) -> usize {
        self.heard_packets.load(Ordering::Acquire)
    }

    /// Whether it has said all it had to say.
    pub(super) fn has_spoken(&self) -> bool {
        self.speaker.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops speaking with the next packet.
    pub(super) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Release);
    }

    /// Hangs up: what was sent, and what was heard.
    pub(super) fn close(mut self) -> (Sent, Vec<Packet>) {
        self.fall_silent();
        self.closing.store(true, Ordering::Release);
        let sent = self.speaker.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if let Some(thread) = self.listener.take() {
            // A listener that panicked has heard nothing more.
            let _ = thread.join();
        }
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        (sent, heard)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.fall_silent();
        self.closing.store(true, Ordering::Release);
    }
}

fn listen(socket: &UdpSocket, epoch: Instant, closing: &AtomicBool, heard: &Mutex<Vec<Packet>>, count: &AtomicUsize) {
    let mut buffer = [0; 2048];
    while !closing.load(Ordering::Acquire) {
        // Nothing in time, or an ICMP error for what was sent: both are no news.
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        let packet = Packet { at: epoch.elapsed(), bytes: buffer[..length].to_vec() };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < PACKETS_MAX {
            heard.push(packet);
            count.store(heard.len(), Ordering::Release);
        }
    }
}

/// An even port and the odd one after it.
fn bind_pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let loopback = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    for _ in 0..PAIRS_MAX {
        let rtp = loopback(0)?;
        let port = rtp.local_addr()?.port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = loopback(port + 1)
        {
            return Ok((rtp, rtcp));
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no pair of UDP ports is free on 127.0.0.1"))
}
