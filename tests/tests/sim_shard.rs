//! Real shards on a simulated network, turn by turn on virtual time: relays that move between two shards in full
//! speech, and conferences in parts on both, while the network loses, doubles, delays and reorders.
//!
//! Nothing may be lost that the network did not lose or a counter does not name, and the same seed gives the same
//! trace.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its numbers are small")]

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use ringbridge_codec::g711;
use ringbridge_media::command::{Command, ConferenceSpec, ConnectionSpec, ParticipantSpec, Request, Target};
use ringbridge_media::engine::Engine;
use ringbridge_media::event::{Answer, CommandError, DropReason, Event};
use ringbridge_media::id::{ConferenceId, ConnectionId, ShardId};
use ringbridge_media::parts::Parts;
use ringbridge_media::time::Instant;
use ringbridge_shard::mailbox::{
    Doorbell, Lane, Mailbox, MailboxReader, MoveOrder, Outbox, Peers, ShardMessage, ShardReport,
};
use ringbridge_shard::run::Shard;
use ringbridge_shard::sim::{LinkProfile, SimIo, SimNet, SimSocket};
use ringbridge_shard::snapshot::ShardSnapshot;
use ringbridge_tests::audio::Codec;
use ringbridge_tests::endpoint::Speech;
use ringbridge_wire::rtp::RtpPacket;

/// One step of the virtual clock.
const STEP: Duration = Duration::from_micros(500);
/// Calls: each of two endpoints, one on each shard to begin with.
const CALLS: usize = 3;
/// How often every call is moved to the other shard and wired anew.
const ROUNDS: usize = 6;

/// One shard with the test's ends of its mailboxes.
struct Node {
    shard: Shard<SimIo>,
    mailbox: Arc<Mailbox<SimSocket>>,
    outbox: Arc<Outbox>,
}

/// One side of a call.
struct Side {
    id: ConnectionId,
    /// Where its connection lives.
    shard: u8,
    endpoint: SocketAddr,
    server: SocketAddr,
    speech: Speech,
    sent: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
}

struct World {
    net: SimNet,
    now: Instant,
    nodes: [Node; 2],
    sides: Vec<Side>,
    dice: Pcg64Mcg,
    talking: bool,
    /// Each says one level of its own, not something that tells packets apart.
    levels: bool,
    conferences_ended: usize,
    step: u64,
    token: u64,
    answers: BTreeMap<u64, Result<Answer, CommandError>>,
    arrived: VecDeque<(ConnectionId, ShardId)>,
    snapshots: BTreeMap<u64, Box<ShardSnapshot>>,
    trace: DefaultHasher,
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    trace: u64,
    heard: usize,
    lost: u64,
    moved: usize,
}

fn address(port: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port as u16))
}

fn spec(remote: SocketAddr) -> ConnectionSpec {
    ConnectionSpec { remote: Some(remote), ..ConnectionSpec::default() }
}

impl World {
    fn new(seed: u64, profile: LinkProfile) -> Self {
        let net = SimNet::new(seed, profile);
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let peers = Peers::new(2).unwrap();
        let nodes = [0, 1].map(|number| {
            let bell = Arc::clone(peers.doorbell(ShardId(number)).unwrap());
            let (mailbox, outbox) = (Mailbox::with_doorbell(bell), Outbox::new(Arc::clone(&doorbell)));
            let engine = Engine::new(ShardId(number), seed + u64::from(number), Instant::ZERO);
            let reader = MailboxReader::new(Arc::clone(&mailbox));
            let (io, out) = (net.io(4096), Arc::clone(&outbox));
            let batch = Duration::from_micros(500);
            let shard = Shard::new(ShardId(number), batch, engine, io, reader, out, Arc::clone(&peers));
            Node { shard, mailbox, outbox }
        });
        let mut world = Self {
            net,
            now: Instant::ZERO,
            nodes,
            sides: Vec::new(),
            dice: Pcg64Mcg::seed_from_u64(!seed),
            talking: false,
            levels: false,
            conferences_ended: 0,
            step: 0,
            token: 0,
            answers: BTreeMap::new(),
            arrived: VecDeque::new(),
            snapshots: BTreeMap::new(),
            trace: DefaultHasher::new(),
        };
        (0..2 * CALLS).for_each(|number| world.open(number));
        world
    }

    /// Side `number` of the calls: even ones on the first shard, odd ones on the second.
    fn open(&mut self, number: usize) {
        let shard = (number % 2) as u8;
        let (endpoint, server) = (address(1000 + 2 * number), address(5000 + 2 * number));
        self.net.listen(endpoint);
        let id = ConnectionId::new(ShardId(shard), number as u32, 1);
        let [rtp, rtcp] = [server, address(5001 + 2 * number)].map(|at| self.net.bind(at).unwrap());
        let request = self.request(Command::CreateConnection { id, spec: Box::new(spec(endpoint)) });
        let token = request.token;
        self.post(shard, ShardMessage::Open { request, rtp, rtcp });
        assert!(matches!(self.answer(token), Ok(Answer::Done)));
        let speech = Speech { codec: Codec::Pcmu, ..Speech::new(number as u32 + 1) };
        self.sides.push(Side { id, shard, endpoint, server, speech, sent: Vec::new(), heard: Vec::new() });
    }

    fn request(&mut self, command: Command) -> Request {
        self.token += 1;
        Request { token: self.token, received: self.now, command }
    }

    fn post(&self, shard: u8, message: ShardMessage<SimSocket>) {
        assert!(self.nodes[usize::from(shard)].mailbox.send(Lane::Ordinary, message).is_ok(), "the mailbox has room");
    }

    fn send(&mut self, shard: u8, command: Command) -> u64 {
        let request = self.request(command);
        self.post(shard, ShardMessage::Command(request));
        self.token
    }

    fn answer(&mut self, token: u64) -> Result<Answer, CommandError> {
        for _ in 0..1000 {
            if let Some(answer) = self.answers.remove(&token) {
                return answer;
            }
            self.run(1);
        }
        panic!("no answer");
    }

    /// Lets so many steps pass. The shards take their turns in an order of chance.
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now = self.now + STEP;
            self.net.set_now(self.now);
            self.speak();
            let first = usize::from(self.dice.random_bool(0.5));
            for number in [first, 1 - first] {
                let shard = &mut self.nodes[number].shard;
                let turn = shard.turn(self.now).unwrap();
                let plan = shard.plan_wait(self.now, turn, STEP);
                shard.wait(plan).unwrap();
            }
            self.listen();
            self.step += 1;
        }
    }

    /// Each side says a packet every 20 ms, each at another moment.
    fn speak(&mut self) {
        for (number, side) in self.sides.iter_mut().enumerate() {
            if self.talking && (self.step + 7 * number as u64).is_multiple_of(40) {
                let level = self.levels.then(|| level(number));
                let packet = side.speech.packet(side.sent.len(), |index| level.unwrap_or(index as i16));
                self.net.send(self.now, side.endpoint, side.server, &packet);
                side.sent.push(packet);
            }
        }
    }

    fn listen(&mut self) {
        for side in &mut self.sides {
            while let Some((at, from, bytes)) = self.net.poll_receive(self.now, side.endpoint) {
                assert_eq!(from, side.server, "media comes from where it is sent to");
                (at.saturating_since(Instant::ZERO), &bytes).hash(&mut self.trace);
                side.heard.push(bytes);
            }
        }
        for node in &self.nodes {
            while let Some(report) = node.outbox.pop() {
                match report {
                    ShardReport::Event(Event::Answer { token, result }) => drop(self.answers.insert(token, result)),
                    ShardReport::Event(
                        Event::ConnectionLearned { .. }
                        | Event::TalkStarted { .. }
                        | Event::TalkStopped { .. }
                        | Event::ActiveSpeaker { .. },
                    ) => {}
                    ShardReport::Event(Event::ConferenceEnded { .. }) => self.conferences_ended += 1,
                    ShardReport::Event(event) => panic!("{event:?}"),
                    ShardReport::Moved(moved) => {
                        self.arrived.extend(moved.connections.iter().map(|id| (*id, moved.shard)));
                    }
                    ShardReport::Snapshot { token, snapshot } => drop(self.snapshots.insert(token, snapshot)),
                    other @ (ShardReport::Stopped | ShardReport::Failed { .. }) => panic!("{other:?}"),
                }
            }
        }
    }

    /// Moves side `number` to the other shard.
    fn change_shard(&mut self, number: usize) {
        let (from, id) = (self.sides[number].shard, self.sides[number].id);
        let to = 1 - from;
        // At home it has its own slot, on the other shard one that is kept for it.
        let slot = if id.shard() == ShardId(to) { number as u32 } else { 100 + number as u32 };
        self.order(from, id, to, vec![(id, slot)]);
        for _ in 0..1000 {
            if let Some(arrived) = self.arrived.pop_front() {
                assert_eq!(arrived, (id, ShardId(to)));
                self.sides[number].shard = to;
                return;
            }
            self.run(1);
        }
        panic!("it never arrived");
    }

    fn order(&mut self, from: u8, id: ConnectionId, to: u8, slots: Vec<(ConnectionId, u32)>) {
        self.token += 1;
        let order = MoveOrder {
            token: self.token,
            received: self.now,
            target: Target::Connection(id),
            to: ShardId(to),
            slots,
            room: None,
        };
        self.post(from, ShardMessage::Move(Box::new(order)));
    }

    /// Moves both sides of a call to the other shard, named by one of them.
    fn change_shard_of_call(&mut self, call: usize) {
        let sides = [2 * call, 2 * call + 1];
        let (from, to) = (self.sides[sides[0]].shard, 1 - self.sides[sides[0]].shard);
        let slots = sides.map(|number| {
            let id = self.sides[number].id;
            (id, if id.shard() == ShardId(to) { number as u32 } else { 100 + number as u32 })
        });
        let named = sides[self.dice.random_range(0..2)];
        self.order(from, self.sides[named].id, to, slots.to_vec());
        for _ in 0..1000 {
            if self.arrived.len() == 2 {
                assert!(self.arrived.drain(..).all(|(_, shard)| shard == ShardId(to)));
                sides.into_iter().for_each(|number| self.sides[number].shard = to);
                return;
            }
            self.run(1);
        }
        panic!("it never arrived");
    }

    fn wire(&mut self, call: usize) {
        let (a, b) = (2 * call, 2 * call + 1);
        if self.sides[a].shard != self.sides[b].shard {
            self.change_shard(b);
        }
        let command = Command::StartRelay { a: self.sides[a].id, b: self.sides[b].id, transcode: false };
        let token = self.send(self.sides[a].shard, command);
        assert!(matches!(self.answer(token), Ok(Answer::Effect(_))));
    }

    fn unwire(&mut self, call: usize) {
        let side = &self.sides[2 * call];
        let token = self.send(side.shard, Command::StopRelay { a: side.id });
        assert!(matches!(self.answer(token), Ok(Answer::Effect(_) | Answer::Done)));
    }

    fn ask(&mut self, shard: u8, command: Command) -> Result<Answer, CommandError> {
        let token = self.send(shard, command);
        self.answer(token)
    }

    /// Opens a conference on both shards, for everybody there is.
    fn meet(&mut self) -> ConferenceId {
        let id = ConferenceId::new(ShardId(0), 5, 1);
        let parts = Parts { shards: [0, 1].map(ShardId).into_iter().collect(), epoch: self.now };
        for (shard, slot) in [(0, 5), (1, 77)] {
            let spec = ConferenceSpec::default();
            let create = Command::CreatePart { id, slot, spec, parts: Box::new(parts) };
            assert!(matches!(self.ask(shard, create), Ok(Answer::Done)));
        }
        for number in 0..self.sides.len() {
            let (shard, connection) = (self.sides[number].shard, self.sides[number].id);
            let participant = ParticipantSpec::default();
            let joined = self.ask(shard, Command::JoinConference { conference: id, connection, participant });
            assert!(matches!(joined, Ok(Answer::Effect(_))), "{joined:?}");
        }
        id
    }

    fn snapshot(&mut self, shard: u8) -> Box<ShardSnapshot> {
        self.token += 1;
        let token = self.token;
        self.post(shard, ShardMessage::Snapshot { token });
        for _ in 0..1000 {
            if let Some(snapshot) = self.snapshots.remove(&token) {
                return snapshot;
            }
            self.run(1);
        }
        panic!("no snapshot");
    }
}

/// What a side of a conference says, as µ-law tells it. So soft that all of them together are not too loud.
fn level(number: usize) -> i16 {
    let mut payload = [0];
    g711::encode_ulaw(&[300 + 200 * number as i16], &mut payload);
    let mut level = [0];
    g711::decode_ulaw(&payload, &mut level);
    level[0]
}

/// A conference in parts; what each has heard, and the trace.
fn confer(seed: u64, profile: LinkProfile) -> (World, ConferenceId) {
    let mut world = World::new(seed, profile);
    (world.talking, world.levels) = (true, true);
    let room = world.meet();
    let pause = world.dice.random_range(2_000..3_000);
    world.run(pause);
    (world, room)
}

/// Plays one seed and checks everything that holds for any.
fn play(seed: u64, profile: LinkProfile) -> Outcome {
    let mut world = World::new(seed, profile);
    world.talking = true;
    let mut moved = 0;
    for _ in 0..ROUNDS {
        for call in 0..CALLS {
            world.wire(call);
            let pause = world.dice.random_range(50..400);
            world.run(pause);
        }
        for call in 0..CALLS {
            world.unwire(call);
            world.change_shard(2 * call);
            moved += 1;
        }
    }
    (0..CALLS).for_each(|call| world.wire(call));
    world.run(400);
    world.talking = false;
    // Whatever is still on its way arrives.
    world.run(1000);

    let snapshots = [world.snapshot(0), world.snapshot(1)];
    let total = |figure: fn(&ShardSnapshot) -> u64| snapshots.iter().map(|snapshot| figure(snapshot)).sum::<u64>();
    let (received, sent) = (total(|shard| shard.io.received), total(|shard| shard.io.sent));
    let drops = total(|shard| shard.drops.total());
    assert_eq!(received, sent + drops, "every packet that came in went out or was counted");
    let said: usize = world.sides.iter().map(|side| side.sent.len()).sum();
    let heard: usize = world.sides.iter().map(|side| side.heard.len()).sum();
    let network = world.net.counters();
    assert_eq!(network.sent, said as u64 + sent, "nobody else sends");
    assert_eq!(network.sent + network.duplicated, network.lost + network.delivered + network.foreign);
    assert_eq!(network.delivered, received + heard as u64, "everything that arrived was taken");
    assert_eq!((network.foreign, network.queue_full, network.nobody), (0, 0, 0));
    let unrouted = total(|shard| shard.drops.count(DropReason::Unrouted));
    assert_eq!(drops, unrouted, "only what came between two relays goes nowhere");
    let reorders = profile.reorder > 0.0;
    for call in 0..CALLS {
        for (from, to) in [(2 * call, 2 * call + 1), (2 * call + 1, 2 * call)] {
            let (said, heard) = (&world.sides[from].sent, &world.sides[to].heard);
            assert!(heard.len() > 20, "{} of {} heard", heard.len(), said.len());
            let places: Vec<usize> = heard
                .iter()
                .map(|packet| said.iter().position(|sent| sent == packet).expect("as it was said"))
                .collect();
            assert!(reorders || places.is_sorted(), "out of order");
            assert!(profile.duplicate > 0.0 || places.windows(2).all(|pair| reorders || pair[0] < pair[1]), "twice");
        }
    }
    Outcome { trace: world.trace.finish(), heard, lost: network.lost, moved }
}

fn profile(loss: f64, duplicate: f64, reorder: f64) -> LinkProfile {
    let (delay, jitter) = (Duration::from_millis(5), Duration::from_millis(4));
    LinkProfile { loss, duplicate, reorder, reorder_by: Duration::from_millis(30), delay, jitter }
}

#[test]
fn moving_loses_nothing_on_a_good_network() {
    for seed in 0..8 {
        let outcome = play(seed, profile(0.0, 0.0, 0.0));
        assert_eq!((outcome.lost, outcome.moved), (0, ROUNDS * CALLS));
    }
}

#[test]
fn calls_that_move_whole_in_full_speech_lose_nothing_at_all() {
    for seed in 0..40 {
        let mut world = World::new(seed, profile(0.0, 0.0, 0.0));
        (0..CALLS).for_each(|call| world.wire(call));
        world.talking = true;
        for _ in 0..20 {
            let call = world.dice.random_range(0..CALLS);
            world.change_shard_of_call(call);
            let pause = world.dice.random_range(0..60);
            world.run(pause);
        }
        world.talking = false;
        world.run(1000);
        for (own, side) in world.sides.iter().enumerate() {
            assert_eq!(world.sides[own ^ 1].heard, side.sent, "seed {seed}: once, in order, as it was said");
        }
        let drops: u64 = [world.snapshot(0), world.snapshot(1)].iter().map(|shard| shard.drops.total()).sum();
        assert_eq!(drops, 0);
    }
}

#[test]
fn on_a_bad_network_every_packet_is_accounted_for() {
    for seed in 0..8 {
        for (loss, duplicate, reorder) in [(0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1), (0.05, 0.05, 0.05)] {
            let outcome = play(seed, profile(loss, duplicate, reorder));
            assert_eq!(outcome.lost > 0, loss > 0.0);
        }
    }
}

#[test]
fn everybody_in_a_conference_in_parts_hears_all_others_to_the_bit() {
    for seed in 0..8 {
        let (mut world, room) = confer(seed, profile(0.0, 0.0, 0.0));
        let all: i32 = (0..world.sides.len()).map(|number| i32::from(level(number))).sum();
        for (number, side) in world.sides.iter().enumerate() {
            let packets: Vec<_> = side.heard.iter().map(|packet| RtpPacket::parse(packet).unwrap()).collect();
            assert!(packets.len() > 40, "seed {seed}: {} packets", packets.len());
            for pair in packets.windows(2) {
                assert_eq!(pair[1].sequence_number(), pair[0].sequence_number().next());
                assert_eq!(pair[1].timestamp(), pair[0].timestamp().wrapping_add(160));
            }
            let mut others = [0; 160];
            g711::encode_ulaw(&[(all - i32::from(level(number))) as i16; 160], &mut others);
            // Once all have been heard for a while it is the same packet over and over.
            assert!(packets[30..].iter().all(|packet| packet.payload() == others), "seed {seed}: side {number}");
        }
        for shard in [0, 1] {
            let snapshot = world.snapshot(shard);
            assert_eq!((snapshot.partials_late, snapshot.partials_dropped, snapshot.drops.total()), (0, 0, 0));
        }
        // A delete ends it in both places, and the parties stay.
        for shard in [1, 0] {
            let deleted = world.ask(shard, Command::DeleteConference { id: room, keep_connections: true });
            assert!(deleted.is_ok(), "{deleted:?}");
        }
        world.run(100);
        let rooms: u64 = [world.snapshot(0), world.snapshot(1)].iter().map(|shard| shard.conferences).sum();
        assert_eq!((world.conferences_ended, rooms), (1, 0));
    }
}

#[test]
fn a_conference_in_parts_is_the_same_each_time_however_bad_the_network() {
    let bad = profile(0.05, 0.05, 0.05);
    let trace = |seed| {
        let (world, _) = confer(seed, bad);
        assert!(world.sides.iter().all(|side| side.heard.len() > 20), "seed {seed}");
        world.trace.finish()
    };
    for seed in [3, 91] {
        assert_eq!(trace(seed), trace(seed));
        assert_ne!(trace(seed), trace(seed + 1));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let bad = profile(0.05, 0.05, 0.05);
    for seed in [1, 77] {
        assert_eq!(play(seed, bad), play(seed, bad));
        assert_ne!(play(seed, bad).trace, play(seed + 1, bad).trace);
    }
}
