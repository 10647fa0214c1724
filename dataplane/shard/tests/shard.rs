//! Real shards on loopback, driven through their mailboxes: relay, mix, moves, parking, panic and restart.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant as WallClock};

use ringbridge_media::command::{
    CodecKind, Command, ConnectionSpec, Direction, ParticipantSpec, Request,
};
use ringbridge_media::event::{Answer, CommandError, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_shard::clock;
use ringbridge_shard::executor::{self, ShardConfig, ShardHandle};
use ringbridge_shard::mailbox::{Doorbell, Lane, Peers, ShardMessage, ShardReport};

/// A condition that has not come true by then never will.
const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    shards: Vec<ShardHandle>,
    peers: Arc<Peers>,
    doorbell: Arc<Doorbell>,
    seen: Vec<ShardReport>,
    token: u64,
}

struct Leg {
    id: ConnectionId,
    server: SocketAddr,
    endpoint: UdpSocket,
    sequence: u16,
}

impl Rig {
    fn start(count: u8) -> Self {
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let peers = Peers::new(count).unwrap();
        let shards = (0..count).map(|n| start_shard(n, &peers, &doorbell)).collect();
        Self { shards, peers, doorbell, seen: Vec::new(), token: 0 }
    }

    fn send(&mut self, shard: u8, message: ShardMessage) {
        self.shards[usize::from(shard)].mailbox.send(Lane::Ordinary, message).expect("the mailbox has room");
    }

    fn post(&mut self, shard: u8, command: Command) -> u64 {
        self.token += 1;
        let request = Request { token: self.token, received: clock::now(), command };
        self.send(shard, ShardMessage::Command(request));
        self.token
    }

    fn ask(&mut self, shard: u8, command: Command) -> Result<Answer, CommandError> {
        let token = self.post(shard, command);
        self.answer(token)
    }

    fn answer(&mut self, token: u64) -> Result<Answer, CommandError> {
        let report = self.wait_for(|report| matches!(report, ShardReport::Event(Event::Answer { token: t, .. }) if *t == token));
        let ShardReport::Event(Event::Answer { result, .. }) = report else { unreachable!() };
        result
    }

    fn wait_for(&mut self, wanted: impl Fn(&ShardReport) -> bool) -> ShardReport {
        let began = WallClock::now();
        loop {
            for shard in &self.shards {
                while let Some(report) = shard.outbox.pop() {
                    self.seen.push(report);
                }
            }
            if let Some(index) = self.seen.iter().position(&wanted) {
                return self.seen.remove(index);
            }
            assert!(began.elapsed() < PATIENCE, "never came; seen: {:?}", self.seen);
            std::thread::yield_now();
        }
    }

    fn connect(&mut self, shard: u8, slot: u32, generation: u32) -> Leg {
        let endpoint = UdpSocket::bind("127.0.0.1:0").unwrap();
        endpoint.set_read_timeout(Some(PATIENCE)).unwrap();
        let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let rtcp = UdpSocket::bind("127.0.0.1:0").unwrap();
        rtp.set_nonblocking(true).unwrap();
        rtcp.set_nonblocking(true).unwrap();
        let server = rtp.local_addr().unwrap();
        let id = ConnectionId::new(ShardId(shard), slot, generation);
        let spec = Box::new(spec(endpoint.local_addr().unwrap()));
        self.token += 1;
        let request = Request { token: self.token, received: clock::now(), command: Command::CreateConnection { id, spec } };
        self.send(shard, ShardMessage::Open { request, rtp, rtcp });
        let token = self.token;
        assert!(matches!(self.answer(token), Ok(Answer::Done)));
        Leg { id, server, endpoint, sequence: 0 }
    }

    fn stop(mut self) {
        for shard in 0..self.shards.len() {
            self.send(shard as u8, ShardMessage::Stop);
        }
        for shard in self.shards.drain(..) {
            shard.thread.join().expect("a shard ends without a panic");
        }
    }
}

fn start_shard(n: u8, peers: &Arc<Peers>, doorbell: &Arc<Doorbell>) -> ShardHandle {
    let config = ShardConfig { id: ShardId(n), cpu: None, batch_wait: Duration::from_micros(500), connections_max: 64, seed: u64::from(n) };
    executor::start(config, Arc::clone(peers), Arc::clone(doorbell)).expect("this machine can run a shard")
}

fn spec(remote: SocketAddr) -> ConnectionSpec {
    ConnectionSpec {
        remote: Some(remote),
        remote_rtcp: None,
        rx_codec: CodecKind::Pcmu,
        rx_payload_type: 0,
        tx_codec: CodecKind::Pcmu,
        tx_payload_type: 0,
        telephone_event_payload_type: 101,
        payload_types: [None; 8],
        ptime_ms: 20,
        direction: Direction::SendRecv,
        rtp_timeout_ms: None,
        barred: None,
        handover: false,
    }
}

impl Leg {
    fn send(&mut self, fill: u8) -> Vec<u8> {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend([fill; 160]);
        self.sequence = self.sequence.wrapping_add(1);
        self.endpoint.send_to(&packet, self.server).unwrap();
        packet
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let (len, source) = self.endpoint.recv_from(&mut buffer).expect("a packet comes");
        assert_eq!(source, self.server);
        buffer[..len].to_vec()
    }
}

#[test]
fn relays_both_ways_untouched_and_parks_in_between() {
    let mut rig = Rig::start(1);
    let (mut a, mut b) = (rig.connect(0, 0, 1), rig.connect(0, 1, 1));
    assert!(matches!(rig.ask(0, Command::StartRelay { a: a.id, b: b.id }), Ok(Answer::Effect(_))));
    for round in 0..300u32 {
        if round % 100 == 50 {
            // Long enough for the shard to park; what comes next has to wake it.
            let parked = WallClock::now();
            while parked.elapsed() < Duration::from_millis(250) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        let sent = a.send(round as u8);
        assert_eq!(b.receive(), sent);
        let sent = b.send(!(round as u8));
        assert_eq!(a.receive(), sent);
    }
    rig.stop();
}

#[test]
fn mixes_three_and_nobody_hears_himself() {
    let mut rig = Rig::start(1);
    let room = ConferenceId::new(ShardId(0), 5, 1);
    assert!(matches!(rig.ask(0, Command::CreateConference { id: room, participants_max: 10 }), Ok(Answer::Done)));
    let mut legs: Vec<_> = (0..3).map(|slot| rig.connect(0, slot, 1)).collect();
    for leg in &legs {
        let join = Command::JoinConference { conference: room, connection: leg.id, participant: ParticipantSpec::default() };
        assert!(matches!(rig.ask(0, join), Ok(Answer::Effect(_))));
    }
    // Constant levels 0x90, 0xa0, 0xb0 in µ-law; each hears the sum of the two others.
    let mut levels = [0i16; 3];
    ringbridge_codec::g711::decode_ulaw(&[0x90, 0xa0, 0xb0], &mut levels);
    let expected: Vec<i16> = (0..3).map(|own| (0..3).filter(|n| *n != own).map(|n| levels[n]).sum()).collect();
    let mut heard = [false; 3];
    for _ in 0..500 {
        for (leg, fill) in legs.iter_mut().zip([0x90, 0xa0, 0xb0]) {
            leg.send(fill);
        }
        for (n, leg) in legs.iter().enumerate() {
            let packet = leg.receive();
            let mut samples = [0i16; 160];
            ringbridge_codec::g711::decode_ulaw(&packet[12..], &mut samples);
            assert!(samples.iter().all(|sample| sample.unsigned_abs() < levels.iter().map(|l| l.unsigned_abs()).sum()));
            heard[n] |= samples.iter().all(|sample| (sample - expected[n]).abs() < 1000);
        }
        if heard == [true; 3] {
            rig.stop();
            return;
        }
    }
    panic!("the full mix was never heard: {heard:?}");
}

#[test]
fn a_connection_moves_under_traffic_without_losing_a_packet() {
    let mut rig = Rig::start(2);
    let (mut a, mut b) = (rig.connect(0, 0, 1), rig.connect(1, 0, 1));
    // Both are learned, so that the sockets are connected before the move.
    for leg in [&mut a, &mut b] {
        leg.send(1);
        leg.send(2);
    }
    for id in [a.id, b.id] {
        rig.wait_for(|report| matches!(report, ShardReport::Event(Event::ConnectionLearned { id: learned, .. }) if *learned == id));
    }
    rig.send(1, ShardMessage::Move { connection: b.id, to: ShardId(0), slot: 9 });
    // Right behind the move, to the old shard: it is forwarded.
    let token = rig.post(1, Command::StartRelay { a: b.id, b: a.id });
    rig.wait_for(|report| matches!(report, ShardReport::Moved { connection, shard: ShardId(0) } if *connection == b.id));
    assert!(matches!(rig.answer(token), Ok(Answer::Effect(_))));
    for round in 0..200 {
        let sent = a.send(round);
        assert_eq!(b.receive(), sent);
        let sent = b.send(round);
        assert_eq!(a.receive(), sent);
    }
    let token = rig.post(1, Command::DeleteConnection { id: b.id });
    assert!(matches!(rig.answer(token), Ok(Answer::Deleted { .. })));
    rig.stop();
}

#[test]
fn a_panic_ends_one_shard_and_it_starts_again_on_the_same_ports() {
    let mut rig = Rig::start(2);
    let (mut a, mut b) = (rig.connect(1, 0, 1), rig.connect(1, 1, 1));
    assert!(matches!(rig.ask(1, Command::StartRelay { a: a.id, b: b.id }), Ok(Answer::Effect(_))));
    let doomed = rig.connect(0, 0, 1);
    rig.send(0, ShardMessage::Panic);
    let ShardReport::Failed { reason } = rig.wait_for(|report| matches!(report, ShardReport::Failed { .. })) else { unreachable!() };
    assert!(reason.contains("told to panic"), "{reason}");
    // Its port is free again, and the other shard has not noticed.
    UdpSocket::bind(doomed.server).expect("the failed shard let go of its sockets");
    for round in 0..50 {
        let sent = a.send(round);
        assert_eq!(b.receive(), sent);
        b.send(round);
        a.receive();
    }
    let (peers, doorbell) = (Arc::clone(&rig.peers), Arc::clone(&rig.doorbell));
    let failed = std::mem::replace(&mut rig.shards[0], start_shard(0, &peers, &doorbell));
    failed.thread.join().expect("the panic was caught");
    let again = rig.connect(0, 0, 2);
    assert!(matches!(rig.ask(0, Command::InspectConnection { id: doomed.id }), Err(CommandError::UnknownConnection(_))));
    assert!(matches!(rig.ask(0, Command::InspectConnection { id: again.id }), Ok(Answer::Connection(_))));
    rig.stop();
}
