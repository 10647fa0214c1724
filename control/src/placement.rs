//! Where new connections go: to the shard with the most measured headroom.

use ringbridge_media::id::ShardId;
use ringbridge_media::time::Instant;
use ringbridge_shard::snapshot::ShardSnapshot;
use std::time::Duration;

/// What is known of the load of each shard.
#[derive(Debug)]
pub struct Placement {
    shards: Vec<Load>,
    asked: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Share of the last second its thread was on a core, `0.0 ..= 1.0`.
    busy: f64,
}

impl Placement {
    /// Nothing is known yet: all shards are alike.
    pub fn new(shards: usize) -> Self {
        Self { shards: vec![Load::default(); shards], asked: None }
    }

    /// Whether the figures are old enough to ask for new ones. Says so once an interval.
    pub fn wants_figures(&mut self, now: Instant) -> bool {
        let old = self.asked.is_none_or(|asked| now.saturating_since(asked) >= FIGURES_INTERVAL);
        if old {
            self.asked = Some(now);
        }
        old
    }

    /// Takes in the figures of one shard.
    pub fn take_figures(&mut self, snapshot: &ShardSnapshot) {
        self.shards[usize::from(snapshot.shard.0)].busy = snapshot.busy;
    }

    /// Forgets the figures of a shard that has started again.
    pub fn reset(&mut self, shard: ShardId) {
        self.shards[usize::from(shard.0)] = Load::default();
    }

    /// The shard where one more connection weighs least: fewest connections, weighted by how busy its core was. The
    /// first one of equals; shard 0 if none is up.
    pub fn choose(&self, up: impl Iterator<Item = ShardId>, connections: impl Fn(ShardId) -> usize) -> ShardId {
        let weight = |shard: &ShardId| {
            let headroom = (1.0 - self.shards[usize::from(shard.0)].busy).max(HEADROOM_MIN);
            (connections(*shard) + 1) as f64 / headroom
        };
        up.min_by(|one, other| weight(one).total_cmp(&weight(other))).unwrap_or(ShardId(0))
    }
}

/// Figures older than this are asked for anew when the next connection is placed.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);
/// A core that is always busy still counts as having this much room, so that all of them can be compared.
const HEADROOM_MIN: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_connections_first_but_not_on_a_busy_core() {
        let mut placement = Placement::new(2);
        let both = || [ShardId(0), ShardId(1)].into_iter();
        assert_eq!(placement.choose(both(), |_| 0), ShardId(0));
        assert_eq!(placement.choose(both(), |shard| usize::from(shard.0 == 0)), ShardId(1));
        placement.shards[1].busy = 0.9;
        assert_eq!(placement.choose(both(), |shard| if shard.0 == 0 { 5 } else { 3 }), ShardId(0));
        assert_eq!(placement.choose([ShardId(1)].into_iter(), |_| 3), ShardId(1));
    }

    #[test]
    fn figures_are_asked_for_once_an_interval() {
        let mut placement = Placement::new(1);
        let start = Instant::from_millis(5_000);
        assert!(placement.wants_figures(start));
        assert!(!placement.wants_figures(start + Duration::from_millis(999)));
        assert!(placement.wants_figures(start + Duration::from_millis(1000)));
    }
}
