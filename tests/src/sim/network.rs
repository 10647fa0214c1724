//! A seeded network between the phones and the server: loss in bursts, duplicates, jitter that reorders.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

use ringbridge_media::id::ConnectionId;
use ringbridge_media::time::Instant;

use super::dice::Dice;

/// A datagram on its way to a connection's port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Datagram {
    pub(crate) to: ConnectionId,
    pub(crate) rtcp: bool,
    pub(crate) source: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One packet in so many is lost, and with it up to three that follow.
    loss_one_in: u64,
    duplicate_one_in: u64,
    jitter_us: u64,
}

impl Weather {
    pub(crate) fn of(dice: &mut Dice) -> Self {
        Self {
            loss_one_in: *dice.pick(&[u64::MAX, 500, 50, 10]),
            duplicate_one_in: *dice.pick(&[u64::MAX, 200, 20]),
            jitter_us: *dice.pick(&[1, 1_000, 15_000, 60_000]),
        }
    }
}

/// What is under way.
#[derive(Debug)]
pub(crate) struct Network {
    dice: Dice,
    weather: Weather,
    under_way: BinaryHeap<Reverse<(Instant, u64, Datagram)>>,
    sent: u64,
    burst: u64,
}

impl Network {
    pub(crate) const fn new(dice: Dice, weather: Weather) -> Self {
        Self { dice, weather, under_way: BinaryHeap::new(), sent: 0, burst: 0 }
    }

    pub(crate) fn send(&mut self, now: Instant, datagram: Datagram) {
        if self.burst > 0 {
            self.burst -= 1;
            return;
        }
        if self.dice.one_in(self.weather.loss_one_in) {
            self.burst = self.dice.below(4);
            return;
        }
        if self.dice.one_in(self.weather.duplicate_one_in) {
            self.launch(now, datagram.clone());
        }
        self.launch(now, datagram);
    }

    /// When the next datagram arrives.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next datagram that has arrived by `now`.
    pub(crate) fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next_at()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse((.., datagram))| datagram)
    }

    fn launch(&mut self, now: Instant, datagram: Datagram) {
        let delay = Duration::from_micros(2_000 + self.dice.below(self.weather.jitter_us));
        // The running number keeps the order of what arrives at once.
        self.sent += 1;
        self.under_way.push(Reverse((now + delay, self.sent, datagram)));
    }
}
