//! How much of each class of resource may be in use at once, as licences counted it (Metreos.MediaControl).
//!
//! Units are taken before a command is sent and held by what they were taken for: they go back with it, whatever it
//! ends by. Cheap to clone, and usable on any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::Deserialize;

/// A class of resources.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Class {
    /// Each connection, from its reservation.
    Rtp,
    /// Each connection with a codec that is only passed on, besides.
    EnhancedRtp,
    /// Each media operation.
    Voice,
    /// Each party of a mixed conference, all its monitors together, each operation on it.
    Conference,
    /// Speech recognition.
    Speech,
    /// Each text being rendered.
    Tts,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] = [Self::Rtp, Self::EnhancedRtp, Self::Voice, Self::Conference, Self::Speech, Self::Tts];

    /// The name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtp => "rtp",
            Self::EnhancedRtp => "enhanced_rtp",
            Self::Voice => "voice",
            Self::Conference => "conference",
            Self::Speech => "speech",
            Self::Tts => "tts",
        }
    }
}

/// Which limits hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// None.
    #[default]
    Unlimited,
    /// Those of a fully licensed Cisco Unified Application Environment.
    CuaeStandard,
    /// Those of its development kit.
    Sdk,
}

/// Limits: those of a profile, and what overrides them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// `unlimited`, `cuae-standard` or `sdk`. The last two also limit the number of mixed conferences to half the
    /// smaller of `rtp` and `conference`, and that of operations on conferences to a quarter of `rtp`, at least 4.
    pub profile: Profile,
    /// Connections.
    pub rtp: Option<u32>,
    /// Connections with a codec that is only passed on.
    pub enhanced_rtp: Option<u32>,
    /// Media operations.
    pub voice: Option<u32>,
    /// Parties of, and operations on, mixed conferences.
    pub conference: Option<u32>,
    /// Speech recognitions.
    pub speech: Option<u32>,
    /// Texts being rendered.
    pub tts: Option<u32>,
}

/// All counts of one server.
#[derive(Clone, Debug)]
pub struct Quota(Arc<Pools>);

/// Units in use. They are given back when this is dropped.
#[derive(Debug)]
pub struct Units {
    pools: Arc<Pools>,
    pool: usize,
    count: u32,
}

/// None is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no {} resource is free: {what} are limited to {limit}", class.name())]
pub struct Denied {
    /// Of which class.
    pub class: Class,
    what: &'static str,
    limit: u32,
}

/// The state of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Units in use.
    pub in_use: u32,
    /// How many there are; `None`: unlimited.
    pub limit: Option<u32>,
    /// Times nothing was free.
    pub denied: u64,
}

#[derive(Debug)]
struct Pools {
    pools: [Pool; Class::ALL.len() + 2],
}

#[derive(Debug)]
struct Pool {
    class: Class,
    what: &'static str,
    in_use: AtomicU32,
    limit: Option<u32>,
    denied: AtomicU64,
}

/// Mixed conferences at once; counted as denials of their class.
const MIXED_CONFERENCES: usize = Class::ALL.len();
/// Operations on conferences at once; likewise.
const CONFERENCE_OPERATIONS: usize = Class::ALL.len() + 1;

impl QuotaConfig {
    fn limit(&self, class: Class) -> Option<u32> {
        let (given, standard, sdk) = match class {
            Class::Rtp => (self.rtp, 240, 6),
            Class::EnhancedRtp => (self.enhanced_rtp, 200, 0),
            Class::Voice => (self.voice, 240, 6),
            Class::Conference => (self.conference, 240, 6),
            Class::Speech => (self.speech, 240, 0),
            Class::Tts => (self.tts, 60, 1),
        };
        given.or(match self.profile {
            Profile::Unlimited => None,
            Profile::CuaeStandard => Some(standard),
            Profile::Sdk => Some(sdk),
        })
    }
}

impl Quota {
    /// Counts within the limits of `config`.
    pub fn new(config: &QuotaConfig) -> Self {
        let limit = |class| config.limit(class);
        let derived = match config.profile {
            Profile::Unlimited => None,
            Profile::CuaeStandard | Profile::Sdk => limit(Class::Rtp).zip(limit(Class::Conference)),
        };
        let pool =
            |class, what, limit| Pool { class, what, in_use: AtomicU32::new(0), limit, denied: AtomicU64::new(0) };
        let own = |class, what| pool(class, what, limit(class));
        Self(Arc::new(Pools {
            pools: [
                own(Class::Rtp, "connections"),
                own(Class::EnhancedRtp, "connections with a low-bitrate codec"),
                own(Class::Voice, "media operations"),
                own(Class::Conference, "parties of and operations on conferences"),
                own(Class::Speech, "speech recognitions"),
                own(Class::Tts, "texts being rendered"),
                pool(Class::Conference, "mixed conferences", derived.map(|(rtp, conference)| rtp.min(conference) / 2)),
                pool(Class::Conference, "operations on conferences", derived.map(|(rtp, _)| (rtp / 4).max(4))),
            ],
        }))
    }

    /// Takes one unit.
    ///
    /// # Errors
    /// None is free; that is counted.
    pub fn try_take(&self, class: Class) -> Result<Units, Denied> {
        self.try_take_many(class, 1)
    }

    /// Takes several units at once, or none.
    ///
    /// # Errors
    /// Not as many are free; that is counted once.
    pub fn try_take_many(&self, class: Class, count: u32) -> Result<Units, Denied> {
        self.take(class as usize, count)
    }

    /// Takes the place of one mixed conference.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn try_take_mix(&self) -> Result<Units, Denied> {
        self.take(MIXED_CONFERENCES, 1)
    }

    /// Takes what one operation needs.
    ///
    /// # Errors
    /// As [`try_take`](Self::try_take). Nothing is taken then.
    pub fn try_take_operation(&self, on_conference: bool) -> Result<Vec<Units>, Denied> {
        let mut units = vec![self.try_take(Class::Voice)?];
        if on_conference {
            units.push(self.take(CONFERENCE_OPERATIONS, 1)?);
            units.push(self.try_take(Class::Conference)?);
        }
        Ok(units)
    }

    /// The state of one class.
    pub fn usage(&self, class: Class) -> Usage {
        let pool = &self.0.pools[class as usize];
        let of_class = self.0.pools.iter().filter(|pool| pool.class == class);
        Usage {
            in_use: pool.in_use.load(Ordering::Relaxed),
            limit: pool.limit,
            denied: of_class.map(|pool| pool.denied.load(Ordering::Relaxed)).sum(),
        }
    }

    fn take(&self, pool: usize, count: u32) -> Result<Units, Denied> {
        let Pool { class, what, in_use, limit, denied } = &self.0.pools[pool];
        let limit = limit.unwrap_or(u32::MAX);
        let more = |used: u32| used.checked_add(count).filter(|sum| *sum <= limit);
        if in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            return Ok(Units { pools: Arc::clone(&self.0), pool, count });
        }
        denied.fetch_add(1, Ordering::Relaxed);
        let refusal = Denied { class: *class, what, limit };
        tracing::warn!(class = class.name(), "{refusal}");
        Err(refusal)
    }
}

impl Units {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Splits one off, to be given back by itself. `None`: there is none.
    pub fn split_one(&mut self) -> Option<Self> {
        self.count = self.count.checked_sub(1)?;
        Some(Self { pools: Arc::clone(&self.pools), pool: self.pool, count: 1 })
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        self.pools.pools[self.pool].in_use.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(profile: Profile) -> Quota {
        Quota::new(&QuotaConfig { profile, ..QuotaConfig::default() })
    }

    fn limits(quota: &Quota) -> Vec<Option<u32>> {
        let pools = quota.0.pools.iter();
        pools.map(|pool| pool.limit).collect()
    }

    #[test]
    fn profiles_have_their_limits_and_single_ones_can_be_overridden() {
        assert_eq!(limits(&quota(Profile::Unlimited)), [None; 8]);
        assert_eq!(limits(&quota(Profile::Sdk)), [6, 0, 6, 6, 0, 1, 3, 4].map(Some));
        assert_eq!(limits(&quota(Profile::CuaeStandard)), [240, 200, 240, 240, 240, 60, 120, 60].map(Some));
        let config = QuotaConfig { profile: Profile::Sdk, rtp: Some(40), voice: Some(0), ..QuotaConfig::default() };
        assert_eq!(limits(&Quota::new(&config)), [40, 0, 0, 6, 0, 1, 3, 10].map(Some));
        let config = QuotaConfig { rtp: Some(40), conference: Some(10), ..QuotaConfig::default() };
        assert_eq!(limits(&Quota::new(&config))[6..], [None, None]);
    }

    #[test]
    fn units_are_taken_all_or_none_and_come_back() {
        let quota = quota(Profile::Sdk);
        let mut four = quota.try_take_many(Class::Conference, 4).expect("free");
        assert_eq!(quota.try_take_many(Class::Conference, 3).expect_err("too many").class, Class::Conference);
        let one = four.split_one().expect("there are four");
        drop(four);
        let usage = Usage { in_use: 1, limit: Some(6), denied: 1 };
        assert_eq!(quota.usage(Class::Conference), usage);
        drop(one);
        assert_eq!(quota.usage(Class::Conference).in_use, 0);
        // An operation on a conference that finds no voice resource leaves nothing taken.
        let voices = quota.try_take_many(Class::Voice, 6).expect("free");
        assert_eq!(quota.try_take_operation(true).expect_err("no voice").class, Class::Voice);
        assert_eq!(quota.usage(Class::Conference).in_use, 0);
        drop(voices);
        let conferences = quota.try_take_many(Class::Conference, 6).expect("free");
        assert_eq!(quota.try_take_operation(true).expect_err("no conference").class, Class::Conference);
        assert_eq!(quota.usage(Class::Voice).in_use, 0);
        drop(conferences);
        let held: Vec<_> = (0..4).map(|_| quota.try_take_operation(true).expect("four at once")).collect();
        let denied = quota.try_take_operation(true).expect_err("a fifth");
        assert!(denied.to_string().contains("operations on conferences are limited to 4"), "{denied}");
        drop(held);
        assert_eq!(quota.usage(Class::Conference), Usage { in_use: 0, limit: Some(6), denied: 3 });
    }
}
