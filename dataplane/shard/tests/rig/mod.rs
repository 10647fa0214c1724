//! Real shards with real endpoints, driven through their mailboxes.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each suite uses its part")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant as WallClock};

use ringbridge_media::command::{
    Command, ConferenceSpec, ConnectionSpec, OperationSpec, ParticipantSpec, Request, StopConditions, Target,
};
use ringbridge_media::event::{Answer, CommandError, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, OperationId, ShardId};
use ringbridge_media::samples::{Playlist, Prompt};
use ringbridge_shard::clock;
use ringbridge_shard::executor::{self, ShardConfig, ShardHandle};
use ringbridge_shard::mailbox::{Doorbell, Lane, MoveOrder, Moved, Peers, ShardMessage, ShardReport};

/// A condition that has not come true by then never will.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Rig {
    pub shards: Vec<ShardHandle>,
    pub peers: Arc<Peers>,
    pub doorbell: Arc<Doorbell>,
    seen: Vec<ShardReport>,
    token: u64,
}

pub struct Leg {
    pub id: ConnectionId,
    pub server: SocketAddr,
    pub endpoint: UdpSocket,
    sequence: u16,
}

impl Rig {
    pub fn start(count: u8) -> Self {
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let peers = Peers::new(count).unwrap();
        let shards = (0..count).map(|n| start_shard(n, &peers, &doorbell)).collect();
        Self { shards, peers, doorbell, seen: Vec::new(), token: 0 }
    }

    pub fn send(&mut self, shard: u8, message: ShardMessage) {
        self.shards[usize::from(shard)].mailbox.send(Lane::Ordinary, message).expect("the mailbox has room");
    }

    pub fn post(&mut self, shard: u8, command: Command) -> u64 {
        self.token += 1;
        let request = Request { token: self.token, received: clock::now(), command };
        self.send(shard, ShardMessage::Command(request));
        self.token
    }

    /// Has `target` move; the token of the report.
    pub fn order(
        &mut self,
        from: u8,
        target: Target,
        to: u8,
        slots: Vec<(ConnectionId, u32)>,
        room: Option<u32>,
    ) -> u64 {
        self.token += 1;
        let order = MoveOrder { token: self.token, received: clock::now(), target, to: ShardId(to), slots, room };
        self.send(from, ShardMessage::Move(Box::new(order)));
        self.token
    }

    /// The next report of a move, if there is one.
    pub fn poll_moved(&mut self) -> Option<Box<Moved>> {
        for shard in &self.shards {
            while let Some(report) = shard.outbox.pop() {
                self.seen.push(report);
            }
        }
        let index = self.seen.iter().position(|report| matches!(report, ShardReport::Moved(_)))?;
        let ShardReport::Moved(moved) = self.seen.remove(index) else { return None };
        Some(moved)
    }

    pub fn ask(&mut self, shard: u8, command: Command) -> Result<Answer, CommandError> {
        let token = self.post(shard, command);
        self.answer(token)
    }

    pub fn answer(&mut self, token: u64) -> Result<Answer, CommandError> {
        let report =
            self.wait_for(|report| matches!(report, ShardReport::Event(Event::Answer { token: t, .. }) if *t == token));
        let ShardReport::Event(Event::Answer { result, .. }) = report else { unreachable!() };
        result
    }

    pub fn wait_for(&mut self, wanted: impl Fn(&ShardReport) -> bool) -> ShardReport {
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

    pub fn connect(&mut self, shard: u8, slot: u32, generation: u32) -> Leg {
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
        let request =
            Request { token: self.token, received: clock::now(), command: Command::CreateConnection { id, spec } };
        self.send(shard, ShardMessage::Open { request, rtp, rtcp });
        let token = self.token;
        assert!(matches!(self.answer(token), Ok(Answer::Done)));
        Leg { id, server, endpoint, sequence: 0 }
    }

    /// Has two connections of a shard relayed to each other.
    pub fn relay(&mut self, shard: u8, a: ConnectionId, b: ConnectionId) {
        let relay = Command::StartRelay { a, b, transcode: false };
        assert!(matches!(self.ask(shard, relay), Ok(Answer::Effect(_))));
    }

    /// Two endpoints in a relay, in these slots of a shard.
    pub fn relayed(&mut self, shard: u8, slots: [u32; 2]) -> [Leg; 2] {
        let legs = slots.map(|slot| self.connect(shard, slot, 1));
        self.relay(shard, legs[0].id, legs[1].id);
        legs
    }

    /// A conference in that slot of a shard, with so many endpoints from slot `first` on in it.
    pub fn room(&mut self, shard: u8, slot: u32, first: u32, members: u32) -> (ConferenceId, Vec<Leg>) {
        let id = ConferenceId::new(ShardId(shard), slot, 1);
        let spec = ConferenceSpec::default();
        assert!(matches!(self.ask(shard, Command::CreateConference { id, spec }), Ok(Answer::Done)));
        let legs: Vec<_> = (first..first + members).map(|slot| self.connect(shard, slot, 1)).collect();
        for leg in &legs {
            let participant = ParticipantSpec::default();
            let join = Command::JoinConference { conference: id, connection: leg.id, participant };
            assert!(matches!(self.ask(shard, join), Ok(Answer::Effect(_))));
        }
        (id, legs)
    }

    /// Starts an operation, the `number`th of a shard.
    pub fn operate(&mut self, shard: u8, number: u32, target: Target, operation: OperationSpec) {
        let id = OperationId::new(ShardId(shard), number, 1);
        let start = Command::StartOperation { id, target, operation: Box::new(operation) };
        assert!(matches!(self.ask(shard, start), Ok(Answer::Done)));
    }

    /// Waits for the end of a move that was ordered.
    pub fn moved(&mut self, token: u64) -> Box<Moved> {
        let report = self.wait_for(|report| matches!(report, ShardReport::Moved(moved) if moved.token == token));
        let ShardReport::Moved(moved) = report else { unreachable!() };
        moved
    }

    /// How many reports of a kind were seen and not asked for.
    pub fn count_seen(&self, wanted: impl Fn(&ShardReport) -> bool) -> usize {
        self.seen.iter().filter(|report| wanted(report)).count()
    }

    /// Starts a shard anew that has failed.
    pub fn restart(&mut self, shard: u8) {
        let (peers, doorbell) = (Arc::clone(&self.peers), Arc::clone(&self.doorbell));
        let place = &mut self.shards[usize::from(shard)];
        let failed = std::mem::replace(place, start_shard(shard, &peers, &doorbell));
        failed.thread.join().expect("the panic was caught");
    }

    pub fn stop(mut self) {
        for shard in 0..self.shards.len() {
            self.send(shard as u8, ShardMessage::Stop);
        }
        for shard in self.shards.drain(..) {
            shard.thread.join().expect("a shard ends without a panic");
        }
    }
}

pub fn start_shard(n: u8, peers: &Arc<Peers>, doorbell: &Arc<Doorbell>) -> ShardHandle {
    let config = ShardConfig {
        id: ShardId(n),
        cpu: None,
        batch_wait: Duration::from_micros(500),
        connections_max: 64,
        seed: u64::from(n),
    };
    executor::start(config, Arc::clone(peers), Arc::clone(doorbell)).expect("this machine can run a shard")
}

/// A prompt of one level.
pub fn play(level: i16, samples: usize) -> OperationSpec {
    let prompts = vec![Prompt::Whole(vec![level; samples].into())];
    OperationSpec::Play {
        playlist: Box::new(Playlist { prompts, ..Playlist::default() }),
        volume: None,
        speed: None,
        isolate: false,
        until: StopConditions::default(),
    }
}

/// Both sides of a relay say something, and hear what the other said.
pub fn talk(a: &mut Leg, b: &mut Leg, fill: u8) {
    let sent = a.send(fill);
    assert_eq!(b.receive(), sent);
    let sent = b.send(!fill);
    assert_eq!(a.receive(), sent);
}

fn spec(remote: SocketAddr) -> ConnectionSpec {
    ConnectionSpec { remote: Some(remote), ..ConnectionSpec::default() }
}

impl Leg {
    pub fn send(&mut self, fill: u8) -> Vec<u8> {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend([fill; 160]);
        self.sequence = self.sequence.wrapping_add(1);
        self.endpoint.send_to(&packet, self.server).unwrap();
        packet
    }

    /// The next packet that has arrived, if one has.
    pub fn poll_receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        self.endpoint.set_nonblocking(true).unwrap();
        let received = self.endpoint.recv_from(&mut buffer);
        self.endpoint.set_nonblocking(false).unwrap();
        let (len, source) = received.ok()?;
        assert_eq!(source, self.server);
        Some(buffer[..len].to_vec())
    }

    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let (len, source) = self.endpoint.recv_from(&mut buffer).expect("a packet comes");
        assert_eq!(source, self.server);
        buffer[..len].to_vec()
    }
}
