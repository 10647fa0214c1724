//! How often somebody may try to log in: a token bucket for each source and one for each user.
//!
//! An attempt reserves one token of both buckets, and costs them if it turns out wrong; any other gives them back, so
//! whoever knows the password is not slowed down by logging in often. What others have reserved may come back: who
//! lacks no more than that waits for them to end, so that right ones made at one moment all succeed, and wrong ones
//! made at one moment are no more than the bucket holds.
//!
//! A source is an IPv4 address or an IPv6 /64, which one host has to itself. The table has a maximum: buckets that are
//! full again are forgotten first, and when all are in use newcomers share one bucket, so that filling the table gains
//! an attacker nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::tokens::KeyHash;

/// How much is allowed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ThrottleConfig {
    /// Attempts of one source that are allowed at once, and then in one `period`.
    pub source_attempts: u32,
    /// Attempts on one user from everywhere together.
    pub user_attempts: u32,
    /// How long an emptied bucket takes to be full again.
    pub period: Duration,
    /// Buckets at most, of sources and users together.
    pub buckets_max: usize,
}

impl Default for ThrottleConfig {
    /// Five attempts a minute and source, ten a minute and user.
    fn default() -> Self {
        Self { source_attempts: 5, user_attempts: 10, period: Duration::from_secs(60), buckets_max: 16_384 }
    }
}

/// Refused: how long to wait before the next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many attempts to log in; try again in {} s", .0.as_secs_f64().ceil())]
pub struct Wait(pub Duration);

/// Why an attempt may not be made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// There were too many.
    Wait(Wait),
    /// There may be too many, if those that are being made turn out wrong: to be asked again when one has ended.
    InFlight,
}

/// An attempt that is being made: the buckets it has reserved a token of.
#[derive(Debug)]
#[must_use = "ends with `Throttle::end`"]
pub(super) struct Attempt([Key; 2]);

/// Counts attempts to log in.
#[derive(Debug)]
pub struct Throttle {
    config: ThrottleConfig,
    buckets: HashMap<Key, Bucket>,
    /// What newcomers share while the table is full.
    shared_source: Bucket,
    shared_user: Bucket,
    swept_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Key {
    Source(IpAddr),
    /// By hash: names come from outside and may be long.
    User(KeyHash),
    /// Of all that have none of their own.
    SharedSource,
    SharedUser,
}

/// What is missing from a full bucket, as it was at a time, and what is reserved of the rest.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    missing: f64,
    at: Option<Instant>,
    reserved: u32,
}

impl Throttle {
    /// Nobody has tried yet.
    pub fn new(config: ThrottleConfig) -> Self {
        Self {
            config,
            buckets: HashMap::new(),
            shared_source: Bucket::default(),
            shared_user: Bucket::default(),
            swept_at: None,
        }
    }

    /// Lets `source` try to log in as `user`, until [`end`](Self::end).
    ///
    /// # Errors
    /// There were too many, or are. This one does not count, and does not touch the password.
    pub(super) fn begin(&mut self, now: Instant, source: IpAddr, user: &str) -> Result<Attempt, Refused> {
        let keys = [Key::source(source), Key::user(user)];
        self.make_room(now, keys);
        let config = self.config;
        let keys = keys.map(|key| self.bucket_of(key));
        let wait = keys.map(|key| self.bucket(key).wait(now, &config, key)).into_iter().max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(Refused::Wait(Wait(wait)));
        }
        if keys.iter().any(|key| !self.bucket(*key).has_unreserved(now, &config, *key)) {
            return Err(Refused::InFlight);
        }
        for key in keys {
            self.bucket(key).reserved += 1;
        }
        Ok(Attempt(keys))
    }

    /// The attempt is over; `wrong` ones cost what they reserved.
    pub(super) fn end(&mut self, now: Instant, attempt: Attempt, wrong: bool) {
        for key in attempt.0 {
            let rate = self.config.rate(key);
            let bucket = self.bucket(key);
            bucket.reserved = bucket.reserved.saturating_sub(1);
            if wrong {
                bucket.take(now, rate);
            }
        }
    }

    /// Buckets in use.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Gives each key a bucket of its own, if there is room.
    fn make_room(&mut self, now: Instant, keys: [Key; 2]) {
        let new = keys.iter().filter(|key| !self.buckets.contains_key(key)).count();
        let full = |buckets: usize| buckets + new > self.config.buckets_max;
        if full(self.buckets.len()) && self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_REST) {
            self.swept_at = Some(now);
            let config = self.config;
            self.buckets.retain(|key, bucket| bucket.reserved > 0 || bucket.missing_at(now, config.rate(*key)) > 0.0);
        }
        if !full(self.buckets.len()) {
            for key in keys {
                self.buckets.entry(key).or_default();
            }
        }
    }

    /// The bucket of that key, or the one that is shared.
    fn bucket_of(&self, key: Key) -> Key {
        match key {
            own if self.buckets.contains_key(&own) => own,
            Key::Source(_) | Key::SharedSource => Key::SharedSource,
            Key::User(_) | Key::SharedUser => Key::SharedUser,
        }
    }

    fn bucket(&mut self, key: Key) -> &mut Bucket {
        match (self.buckets.get_mut(&key), key) {
            (Some(bucket), _) => bucket,
            (None, Key::Source(_) | Key::SharedSource) => &mut self.shared_source,
            (None, Key::User(_) | Key::SharedUser) => &mut self.shared_user,
        }
    }
}

impl ThrottleConfig {
    fn size(&self, key: Key) -> f64 {
        f64::from(match key {
            Key::Source(_) | Key::SharedSource => self.source_attempts,
            Key::User(_) | Key::SharedUser => self.user_attempts,
        })
    }

    /// Tokens a second.
    fn rate(&self, key: Key) -> f64 {
        self.size(key) / self.period.as_secs_f64()
    }
}

impl Bucket {
    fn missing_at(&self, now: Instant, rate: f64) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.missing - passed.as_secs_f64() * rate).max(0.0)
    }

    fn wait(&self, now: Instant, config: &ThrottleConfig, key: Key) -> Duration {
        let lacking = self.missing_at(now, config.rate(key)) + 1.0 - config.size(key);
        if lacking <= ROUNDING {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(lacking / config.rate(key)).unwrap_or(Duration::MAX)
    }

    fn has_unreserved(&self, now: Instant, config: &ThrottleConfig, key: Key) -> bool {
        let lacking = self.missing_at(now, config.rate(key)) + f64::from(self.reserved) + 1.0 - config.size(key);
        lacking <= ROUNDING
    }

    /// Attempts end in another order than they began: the time of a bucket never goes back.
    fn take(&mut self, now: Instant, rate: f64) {
        self.missing = self.missing_at(now, rate) + 1.0;
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }
}

impl Key {
    fn source(ip: IpAddr) -> Self {
        Self::Source(network_of(ip))
    }

    fn user(name: &str) -> Self {
        Self::User(KeyHash::of(name))
    }
}

/// What one host has to itself: its IPv4 address or its IPv6 /64.
pub(crate) fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// A millionth of a token is a rounding error.
const ROUNDING: f64 = 1e-6;
/// A full table is not searched for idle buckets more often than this.
const SWEEP_REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, last])
    }

    impl Throttle {
        /// A wrong attempt.
        fn attempt(&mut self, now: Instant, source: IpAddr, user: &str) -> Result<(), Wait> {
            match self.begin(now, source, user) {
                Ok(attempt) => self.end(now, attempt, true),
                Err(Refused::Wait(wait)) => return Err(wait),
                Err(Refused::InFlight) => panic!("none is in flight"),
            }
            Ok(())
        }
    }

    #[test]
    fn a_source_has_five_attempts_and_one_more_every_twelve_seconds() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig::default());
        for user in 0..5 {
            throttle.attempt(now, A, &user.to_string()).unwrap();
        }
        assert_eq!(throttle.attempt(now, A, "x"), Err(Wait(12 * SECOND)));
        assert_eq!(throttle.attempt(now + 11 * SECOND, A, "x"), Err(Wait(SECOND)));
        throttle.attempt(now + 12 * SECOND, A, "x").unwrap();
        throttle.attempt(now + 12 * SECOND, A, "x").unwrap_err();
        // Others are not concerned; a mapped address is the same source.
        throttle.attempt(now + 12 * SECOND, ip(1), "x").unwrap();
        throttle.attempt(now + 12 * SECOND, "::ffff:192.0.2.1".parse().unwrap(), "x").unwrap_err();
    }

    #[test]
    fn a_user_is_protected_from_many_sources() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig::default());
        for source in 0..10 {
            throttle.attempt(now, ip(source), "anna").unwrap();
        }
        let Wait(wait) = throttle.attempt(now, ip(99), "anna").unwrap_err();
        assert_eq!(wait, 6 * SECOND);
        throttle.attempt(now, ip(99), "berta").unwrap();
        throttle.attempt(now + wait, ip(99), "anna").unwrap();
    }

    #[test]
    fn who_knows_the_password_is_not_slowed_down() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig::default());
        for _ in 0..1000 {
            let attempt = throttle.begin(now, A, "anna").unwrap();
            throttle.end(now, attempt, false);
        }
    }

    #[test]
    fn attempts_at_one_moment_wait_for_each_other() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig::default());
        let mut flying: Vec<Attempt> = (0..5).map(|_| throttle.begin(now, A, "anna").unwrap()).collect();
        assert_eq!(throttle.begin(now, A, "anna").unwrap_err(), Refused::InFlight);
        // One was right: its place is free.
        throttle.end(now, flying.pop().unwrap(), false);
        flying.push(throttle.begin(now, A, "anna").unwrap());
        assert_eq!(throttle.begin(now, A, "anna").unwrap_err(), Refused::InFlight);
        // One was wrong: its place is gone, and so are all when all were.
        throttle.end(now, flying.pop().unwrap(), true);
        assert_eq!(throttle.begin(now, A, "anna").unwrap_err(), Refused::InFlight);
        for attempt in flying {
            throttle.end(now, attempt, true);
        }
        assert_eq!(throttle.attempt(now, A, "anna"), Err(Wait(12 * SECOND)));
    }

    #[test]
    fn one_that_took_long_does_not_set_the_clock_back() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig::default());
        let slow = throttle.begin(now, A, "a").unwrap();
        let later = now + 600 * SECOND;
        for user in 0..4 {
            throttle.attempt(later, A, &user.to_string()).unwrap();
        }
        throttle.end(now, slow, true);
        assert_eq!(throttle.attempt(later, A, "x"), Err(Wait(12 * SECOND)));
    }

    #[test]
    fn a_whole_ipv6_network_is_one_source() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig::default());
        for host in 1..=5u16 {
            let source = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
            throttle.attempt(now, source, &host.to_string()).unwrap();
        }
        throttle.attempt(now, "2001:db8:0:1:ffff::9".parse().unwrap(), "x").unwrap_err();
        throttle.attempt(now, "2001:db8:0:2::9".parse().unwrap(), "x").unwrap();
    }

    #[test]
    fn the_table_is_bounded_and_a_full_one_helps_no_attacker() {
        let now = Instant::now();
        let mut throttle = Throttle::new(ThrottleConfig { buckets_max: 8, ..ThrottleConfig::default() });
        for last in 0..4 {
            throttle.attempt(now, ip(last), &last.to_string()).unwrap();
        }
        assert_eq!(throttle.len(), 8);
        // From now on newcomers share: five attempts for all of them.
        let passed = (10..200).filter(|last| throttle.attempt(now, ip(*last), &last.to_string()).is_ok()).count();
        assert_eq!((passed, throttle.len()), (5, 8));
        // Who has a bucket keeps it.
        throttle.attempt(now, ip(0), "0").unwrap();
        // Once the buckets are full again they make room.
        throttle.attempt(now + 120 * SECOND, ip(50), "new").unwrap();
        assert_eq!(throttle.len(), 2);
    }
}
