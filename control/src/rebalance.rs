//! When one shard has much more to do than another: what is to move so that they are alike again.
//!
//! A pure machine: the time and measured loads go in, decisions come out; it reads no clock and sends nothing. What it
//! promises: nothing is decided on a gap that does not last, a move never makes the busier shard the idler one, nothing
//! moves again soon, and it rests once the gap is well below the threshold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ringbridge_media::command::Target;
use ringbridge_media::id::ShardId;
use ringbridge_media::time::Instant;
use serde::Deserialize;

/// When and how far loads are evened out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RebalanceConfig {
    /// Whether anything moves by itself.
    pub enabled: bool,
    /// Percentage points of a core between the busiest and the idlest shard from which on something moves, `5 ..= 100`.
    pub threshold_percent: u8,
    /// How long they have to be apart, in milliseconds, `1000 ..= 3600000`.
    pub sustain_ms: u32,
    /// How long nothing that has moved moves again, in milliseconds, `0 ..= 86400000`.
    pub cooldown_ms: u32,
    /// Conferences with more members than this stay where they are, `0 ..= 4096`.
    pub room_members_max: u32,
}

impl Default for RebalanceConfig {
    fn default() -> Self {
        Self { enabled: true, threshold_percent: 20, sustain_ms: 5_000, cooldown_ms: 60_000, room_members_max: 64 }
    }
}

/// What moves as one, and what it costs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Group {
    /// A connection by itself, one side of a relay, or a conference.
    pub target: Target,
    /// How many connections move with it.
    pub members: u32,
    /// Its share of the work of its shard, in any unit.
    pub weight: f64,
}

/// What a shard had to do lately.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Load {
    /// Which.
    pub shard: ShardId,
    /// Share of the time that its thread was on a core, `0.0 ..= 1.0`.
    pub busy: f64,
    /// Share of the time that it waited for one, which others held.
    pub waited: f64,
}

/// Two shards that are too far apart, for too long.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gap {
    /// The busiest.
    pub from: ShardId,
    /// The idlest.
    pub to: ShardId,
    /// Share of a core that the first was busy.
    pub busy: f64,
    /// How far they are apart: what the first used above what the second used or would have.
    pub apart: f64,
}

/// Loads while they are too far apart.
#[derive(Debug)]
struct Unequal {
    since: Instant,
    looks: u32,
    /// Of each shard, and how often it was looked at.
    sums: BTreeMap<ShardId, (Load, u32)>,
}

/// The machine.
#[derive(Debug)]
pub struct Rebalancer {
    config: RebalanceConfig,
    unequal: Option<Unequal>,
    /// What has moved, and when.
    moved: HashMap<Target, Instant>,
}

impl Rebalancer {
    /// A machine that has seen nothing yet.
    pub fn new(config: RebalanceConfig) -> Self {
        Self { config, unequal: None, moved: HashMap::new() }
    }

    /// Takes in what each shard that is up had to do lately. One that did little because others held its core is not idle:
    /// nothing is given to it. When some have been apart for so long that
    /// something has to move, tells of the two that were furthest apart in all that time; then it looks anew.
    pub fn observe(&mut self, now: Instant, loads: &[Load]) -> Option<Gap> {
        let cooldown = self.cooldown();
        self.moved.retain(|_, at| now.saturating_since(*at) < cooldown);
        let threshold = f64::from(self.config.threshold_percent) / 100.0;
        if furthest_apart(loads.iter().copied()).is_none_or(|gap| gap.apart <= threshold) {
            self.unequal = None;
            return None;
        }
        let unequal = self.unequal.get_or_insert_with(|| Unequal { since: now, looks: 0, sums: BTreeMap::new() });
        unequal.looks += 1;
        for load in loads {
            let (sum, looks) = unequal.sums.entry(load.shard).or_insert((Load { busy: 0.0, waited: 0.0, ..*load }, 0));
            (sum.busy, sum.waited, *looks) = (sum.busy + load.busy, sum.waited + load.waited, *looks + 1);
        }
        if now.saturating_since(unequal.since) < Duration::from_millis(u64::from(self.config.sustain_ms)) {
            return None;
        }
        let Unequal { looks, sums, .. } = self.unequal.take()?;
        // One that has come up or gone down meanwhile is not compared.
        let seen_always = sums.into_values().filter(|(_, seen)| *seen == looks);
        let mean = |sum: f64| sum / f64::from(looks);
        let means = seen_always.map(|(sum, _)| Load { busy: mean(sum.busy), waited: mean(sum.waited), ..sum });
        // Loads that only change places are equal in the mean.
        furthest_apart(means.collect::<Vec<_>>().into_iter()).filter(|gap| gap.apart > threshold)
    }

    /// What of all that lives on the busier shard is to move, one after the other, the heaviest first. Together they
    /// make up for half of the gap at most: more would only change sides.
    pub fn plan(&self, gap: Gap, groups: &[Group]) -> Vec<Target> {
        let total: f64 = groups.iter().map(|group| group.weight.max(0.0)).sum();
        if total <= 0.0 {
            return Vec::new();
        }
        let cost = |group: &Group| gap.busy * group.weight / total;
        let mut left = gap.apart / 2.0;
        // What is too light to matter only costs.
        let enough = left / f64::from(MOVES_AT_ONCE_MAX) / 4.0;
        let mut candidates: Vec<&Group> = groups.iter().filter(|group| self.may_move(group)).collect();
        // Equals in an order of their own, so that the same figures give the same plan.
        candidates.sort_by_key(|group| (Reverse(OrderedWeight(group.weight)), key(group.target)));
        let mut plan = Vec::new();
        for group in candidates {
            let cost = cost(group);
            if plan.len() < MOVES_AT_ONCE_MAX as usize && cost >= enough && cost <= left {
                left -= cost;
                plan.push(group.target);
            }
        }
        plan
    }

    /// Notes that something has moved, or was found unable to: it is left alone for a while.
    pub fn note(&mut self, now: Instant, target: Target) {
        self.moved.insert(target, now);
    }

    fn may_move(&self, group: &Group) -> bool {
        let small = matches!(group.target, Target::Connection(_)) || group.members <= self.config.room_members_max;
        small && !self.moved.contains_key(&group.target)
    }

    fn cooldown(&self) -> Duration {
        Duration::from_millis(u64::from(self.config.cooldown_ms))
    }
}

/// The busiest, and the one that would have been the idlest with its core to itself.
fn furthest_apart(loads: impl Iterator<Item = Load> + Clone) -> Option<Gap> {
    let wanted = |load: &Load| load.busy + load.waited;
    let from = loads.clone().max_by(|one, other| one.busy.total_cmp(&other.busy))?;
    let to = loads.min_by(|one, other| wanted(one).total_cmp(&wanted(other)))?;
    Some(Gap { from: from.shard, to: to.shard, busy: from.busy, apart: from.busy - wanted(&to) })
}

/// Finite weights in their order.
#[derive(PartialEq)]
struct OrderedWeight(f64);

impl Eq for OrderedWeight {}

impl PartialOrd for OrderedWeight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedWeight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

fn key(target: Target) -> (u8, u64) {
    match target {
        Target::Connection(id) => (0, id.to_bits()),
        Target::Conference(id) => (1, id.to_bits()),
    }
}

/// Groups that move, one after the other, before loads are looked at again.
const MOVES_AT_ONCE_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringbridge_media::id::{ConferenceId, ConnectionId};

    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    fn shard(n: usize) -> ShardId {
        ShardId(u8::try_from(n).expect("few"))
    }

    fn connection(n: usize) -> Target {
        Target::Connection(ConnectionId::new(ShardId(0), u32::try_from(n).expect("few"), 0))
    }

    fn room(n: usize) -> Target {
        Target::Conference(ConferenceId::new(ShardId(0), u32::try_from(n).expect("few"), 0))
    }

    fn load(n: usize, busy: f64, waited: f64) -> Load {
        Load { shard: shard(n), busy, waited }
    }

    fn group(target: Target, weight: f64) -> Group {
        Group { target, members: 2, weight }
    }

    /// What each group costs in truth, as a share of a core, and where it lives.
    struct Farm {
        groups: Vec<(Target, u32, f64, usize)>,
        shards: usize,
        rebalancer: Rebalancer,
        now: Instant,
        /// Every move: when, what, from, to.
        moves: Vec<(Instant, Target, usize, usize)>,
    }

    impl Farm {
        fn new(shards: usize, groups: Vec<(Target, u32, f64, usize)>) -> Self {
            let rebalancer = Rebalancer::new(RebalanceConfig::default());
            Self { groups, shards, rebalancer, now: Instant::from_millis(1), moves: Vec::new() }
        }

        fn load(&self, shard: usize) -> f64 {
            let costs = self.groups.iter().filter(|group| group.3 == shard).map(|group| group.2);
            (0.02 + costs.sum::<f64>()).min(1.0)
        }

        fn gap(&self) -> f64 {
            let loads: Vec<f64> = (0..self.shards).map(|shard| self.load(shard)).collect();
            loads.iter().copied().fold(0.0, f64::max) - loads.iter().copied().fold(1.0, f64::min)
        }

        /// A second passes; `noise` falsifies what is measured of each shard.
        fn tick(&mut self, noise: impl Fn(usize) -> f64) {
            self.now = self.now + TICK;
            let loads: Vec<_> =
                (0..self.shards).map(|n| load(n, (self.load(n) + noise(n)).clamp(0.0, 1.0), 0.0)).collect();
            let Some(gap) = self.rebalancer.observe(self.now, &loads) else { return };
            let (from, to) = (usize::from(gap.from.0), usize::from(gap.to.0));
            let here = self.groups.iter().filter(|group| group.3 == from);
            let groups: Vec<_> =
                here.map(|&(target, members, cost, _)| Group { target, members, weight: 1_000.0 * cost }).collect();
            for target in self.rebalancer.plan(gap, &groups) {
                self.rebalancer.note(self.now, target);
                self.moves.push((self.now, target, from, to));
                let moved = self.groups.iter_mut().find(|group| group.0 == target).expect("it lives there");
                assert_eq!(moved.3, from);
                moved.3 = to;
            }
        }
    }

    #[test]
    fn a_gap_that_lasts_is_closed_and_then_there_is_rest() {
        let calls = (0..80).map(|n| (connection(n), 2, 0.01, 0)).collect();
        let mut farm = Farm::new(2, calls);
        for _ in 0..5 {
            farm.tick(|_| 0.0);
            assert!(farm.moves.is_empty(), "it may pass");
        }
        for _ in 0..60 {
            farm.tick(|_| 0.0);
        }
        assert!(farm.gap() <= 0.2, "{}", farm.gap());
        let moves = farm.moves.len();
        assert!(moves <= 40, "{moves}");
        for _ in 0..600 {
            farm.tick(|_| 0.0);
        }
        assert_eq!(farm.moves.len(), moves, "balanced is balanced");
    }

    #[test]
    fn what_passes_moves_nothing() {
        let mut farm = Farm::new(2, (0..50).map(|n| (connection(n), 2, 0.01, n % 2)).collect());
        for second in 0..1_000usize {
            // Four seconds of every six one of them looks busy.
            let peak = if second % 6 < 4 { 0.5 } else { 0.0 };
            farm.tick(|shard| if shard == 0 { peak } else { 0.0 });
        }
        assert_eq!(farm.moves, []);
    }

    #[test]
    fn loads_that_change_places_move_nothing() {
        let mut farm = Farm::new(2, (0..50).map(|n| (connection(n), 2, 0.01, n % 2)).collect());
        for second in 0..1_000usize {
            farm.tick(|shard| if shard == second % 2 { 0.4 } else { 0.0 });
        }
        assert_eq!(farm.moves, []);
    }

    #[test]
    fn a_shard_that_others_keep_from_its_core_is_not_taken_for_an_idle_one() {
        let looks = |waited: f64| {
            let mut rebalancer = Rebalancer::new(RebalanceConfig::default());
            let loads = [load(0, 0.4, 0.1), load(1, 0.05, waited), load(2, 0.1, 0.0)];
            (1..10).find_map(|second| rebalancer.observe(Instant::from_millis(1_000 * second), &loads))
        };
        assert_eq!(looks(0.01).map(|gap| (gap.from, gap.to)), Some((shard(0), shard(1))));
        assert_eq!(looks(0.3).map(|gap| (gap.from, gap.to)), Some((shard(0), shard(2))));
        // What it would have done counts against the gap.
        let mut rebalancer = Rebalancer::new(RebalanceConfig::default());
        let loads = [load(0, 0.4, 0.1), load(1, 0.05, 0.2)];
        assert!((1..10).all(|second| rebalancer.observe(Instant::from_millis(1_000 * second), &loads).is_none()));
    }

    #[test]
    fn one_heavy_room_is_not_passed_to_and_fro() {
        let mut farm = Farm::new(2, vec![(room(0), 10, 0.6, 0), (connection(1), 1, 0.05, 0)]);
        for _ in 0..300 {
            farm.tick(|_| 0.0);
        }
        assert!(farm.moves.iter().all(|it| it.1 == connection(1)) && farm.moves.len() <= 1, "{:?}", farm.moves);
    }

    #[test]
    fn rooms_that_are_too_large_stay_and_small_ones_move() {
        let rebalancer = Rebalancer::new(RebalanceConfig::default());
        let gap = Gap { from: shard(0), to: shard(1), busy: 0.8, apart: 0.6 };
        let large = Group { target: room(0), members: 65, weight: 2.0 };
        let small = Group { target: room(1), members: 64, weight: 2.0 };
        let rest = group(connection(2), 4.0);
        assert_eq!(rebalancer.plan(gap, &[large, small, rest]), [room(1)]);
        assert_eq!(rebalancer.plan(gap, &[]), []);
        assert_eq!(rebalancer.plan(gap, &[group(connection(1), 0.0)]), []);
    }

    #[test]
    fn what_could_not_move_is_left_alone_for_a_while() {
        let mut rebalancer = Rebalancer::new(RebalanceConfig::default());
        let gap = Gap { from: shard(0), to: shard(1), busy: 0.8, apart: 0.6 };
        let groups = [group(connection(1), 1.0), group(connection(2), 1.0), group(connection(3), 2.0)];
        let now = Instant::from_millis(1_000);
        assert_eq!(rebalancer.plan(gap, &groups), [connection(1)]);
        rebalancer.note(now, connection(1));
        assert_eq!(rebalancer.plan(gap, &groups), [connection(2)]);
        assert_eq!(rebalancer.observe(now + Duration::from_secs(61), &[]), None);
        assert_eq!(rebalancer.plan(gap, &groups), [connection(1)]);
    }

    proptest! {
        #[test]
        fn whatever_the_loads_it_converges_and_never_oscillates(
            shards in 2usize..6,
            costs in proptest::collection::vec((0.001f64..0.12, 0usize..6, 1u32..100, any::<bool>()), 1..120),
            seed in any::<u64>(),
        ) {
            let groups: Vec<_> = costs
                .iter()
                .enumerate()
                .map(|(n, &(cost, home, members, is_room))| {
                    (if is_room { room(n) } else { connection(n) }, members, cost / shards as f64, home % shards)
                })
                .collect();
            let mut farm = Farm::new(shards, groups);
            // What is measured is off by two points of a hundred at the most.
            let noise = |second: u64, shard: usize| {
                let mixed = (seed ^ second.wrapping_mul(0x9e37_79b9) ^ shard as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                ((mixed >> 40) % 1_000) as f64 / 1_000.0 * 0.04 - 0.02
            };
            let mut gap = farm.gap();
            for second in 0..900u64 {
                farm.tick(|shard| if second < 300 { noise(second, shard) } else { 0.0 });
                prop_assert!(farm.gap() <= gap + 0.05, "no move widens the gap");
                gap = farm.gap();
            }
            // It rests in the end, once nothing changes any more.
            let late = farm.now.saturating_since(Instant::ZERO).saturating_sub(Duration::from_secs(300));
            prop_assert!(farm.moves.iter().all(|it| it.0.saturating_since(Instant::ZERO) < late), "{:?}", farm.moves);
            for (n, one) in farm.moves.iter().enumerate() {
                for other in &farm.moves[..n] {
                    let again = one.1 == other.1;
                    prop_assert!(!again || one.0.saturating_since(other.0) >= Duration::from_secs(60));
                    prop_assert!(!(again && one.3 == other.2 && one.2 == other.3), "to and fro: {one:?} {other:?}");
                }
            }
            // Either the shards are alike, or nothing on the busiest may move or fits.
            let busiest = (0..shards).max_by(|a, b| farm.load(*a).total_cmp(&farm.load(*b))).expect("some");
            let fits = farm.groups.iter().any(|&(target, members, cost, home)| {
                let small = matches!(target, Target::Connection(_)) || members <= 64;
                home == busiest && small && cost <= farm.gap() / 2.0 - 0.03 && cost > 0.01
            });
            prop_assert!(farm.gap() <= 0.25 || !fits, "{} apart", farm.gap());
        }
    }
}
