//! The pool of local port pairs: even port for RTP, the next one for RTCP (RFC 3550 section 11).
//!
//! The pair that has been free for longest is taken first, so that packets still on their way to a connection that
//! has ended meet a closed port for as long as possible, not somebody else's call. What was last heard on a pair is
//! remembered and barred for its next user.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;

use ringbridge_shard::sockets::{SocketOptions, bind_pair};

use crate::config::PortRange;

/// Source address and SSRC heard on a pair of ports.
pub type Heard = (SocketAddr, u32);

/// The pool; one queue of free pairs for each local address.
#[derive(Debug)]
pub struct PortPool {
    range: PortRange,
    addresses: HashMap<IpAddr, Rc<RefCell<VecDeque<FreePair>>>>,
}

/// A pair taken from the pool. It goes back when this is dropped.
#[derive(Debug)]
pub struct PortLease {
    free: Rc<RefCell<VecDeque<FreePair>>>,
    ip: IpAddr,
    pair: FreePair,
}

/// Why no pair could be taken.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Every pair is in use, here or by other programs.
    #[error("no pair of ports is free on {0}")]
    OutOfPorts(IpAddr),
    /// The address is not one of the configured ones.
    #[error("{0} is not a configured address")]
    UnknownAddress(IpAddr),
    /// The system refused for another reason than the port.
    #[error("can't open sockets on {ip}: {source}")]
    Io {
        /// Where.
        ip: IpAddr,
        /// Why.
        source: io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
struct FreePair {
    port: u16,
    heard: Option<Heard>,
}

impl PortPool {
    /// A pool of every pair of `range` on every one of `addresses`.
    pub fn new(range: PortRange, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let pairs = || range.pairs().map(|port| FreePair { port, heard: None }).collect::<VecDeque<_>>();
        let addresses = addresses.into_iter().map(|ip| (ip, Rc::new(RefCell::new(pairs())))).collect();
        Self { range, addresses }
    }

    /// Takes the pair that has been free for longest and binds it. A pair of which a foreign program holds a port is
    /// put back behind all others, and the next one tried.
    ///
    /// # Errors
    /// See [`PortError`]. Nothing is taken then.
    pub fn take(&self, ip: IpAddr, options: SocketOptions) -> Result<(PortLease, UdpSocket, UdpSocket), PortError> {
        self.take_with(ip, |port| bind_pair(ip, port, options))
    }

    /// Pairs of each address.
    pub fn pairs_total(&self) -> usize {
        self.range.pairs().count() * self.addresses.len()
    }

    /// Pairs that are free.
    pub fn pairs_free(&self) -> usize {
        self.addresses.values().map(|free| free.borrow().len()).sum()
    }

    fn take_with<S>(
        &self,
        ip: IpAddr,
        mut bind: impl FnMut(u16) -> io::Result<(S, S)>,
    ) -> Result<(PortLease, S, S), PortError> {
        let free = self.addresses.get(&ip).ok_or(PortError::UnknownAddress(ip))?;
        let attempts = free.borrow().len().min(BIND_ATTEMPTS_MAX);
        for _ in 0..attempts {
            let Some(pair) = free.borrow_mut().pop_front() else { break };
            // Put back behind all others when dropped, so that the next turn of the loop tries another.
            let lease = PortLease { free: Rc::clone(free), ip, pair };
            match bind(pair.port) {
                Ok((rtp, rtcp)) => return Ok((lease, rtp, rtcp)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(source) => return Err(PortError::Io { ip, source }),
            }
        }
        Err(PortError::OutOfPorts(ip))
    }
}

impl PortLease {
    /// Remembers what was last heard on the pair; `None` keeps what was known, since who is barred may still be sending.
    pub fn set_heard(&mut self, heard: Option<Heard>) {
        if heard.is_some() {
            self.pair.heard = heard;
        }
    }

    /// What the previous user last heard here.
    pub fn barred(&self) -> Option<Heard> {
        self.pair.heard
    }

    /// Where RTP is received.
    pub fn rtp(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.pair.port)
    }

    /// Where RTCP is received.
    pub fn rtcp(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.pair.port + 1)
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.free.borrow_mut().push_back(self.pair);
    }
}

/// Pairs tried by one request before it gives up; keeps the control thread from looking at ten thousand.
const BIND_ATTEMPTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pool(lo: u16, hi: u16) -> PortPool {
        PortPool::new(PortRange::new(lo, hi).expect("a range"), [IP])
    }

    fn take(pool: &PortPool) -> Result<PortLease, PortError> {
        pool.take_with(IP, |_| Ok(((), ()))).map(|(lease, (), ())| lease)
    }

    #[test]
    fn every_pair_is_taken_once_and_then_none() {
        let pool = pool(40_000, 40_019);
        let leases: Vec<_> = (0..10).map(|_| take(&pool).expect("free")).collect();
        let ports: HashSet<_> = leases.iter().map(|lease| lease.rtp().port()).collect();
        assert_eq!(ports.len(), 10);
        assert!(ports.iter().all(|port| port % 2 == 0 && (40_000..40_019).contains(port)));
        assert!(leases.iter().all(|lease| lease.rtcp().port() == lease.rtp().port() + 1));
        assert!(matches!(take(&pool), Err(PortError::OutOfPorts(IP))));
        drop(leases);
        assert_eq!(pool.pairs_free(), 10);
    }

    #[test]
    fn least_recently_used_comes_first() {
        let pool = pool(40_000, 40_007);
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push(take(&pool).expect("free").rtp().port());
        }
        assert_eq!(seen, [40_000, 40_002, 40_004, 40_006, 40_000, 40_002, 40_004, 40_006]);
    }

    #[test]
    fn foreign_ports_are_passed_over_and_never_lost() {
        let pool = pool(40_000, 40_007);
        let bind = |port| if port == 40_004 { Ok(((), ())) } else { Err(io::ErrorKind::AddrInUse.into()) };
        let (lease, (), ()) = pool.take_with(IP, bind).expect("one is free");
        assert_eq!(lease.rtp().port(), 40_004);
        assert!(matches!(pool.take_with(IP, bind), Err(PortError::OutOfPorts(_))));
        assert_eq!(pool.pairs_free(), 3);
        drop(lease);
        assert_eq!(pool.pairs_free(), 4);
    }

    #[test]
    fn a_system_error_takes_nothing() {
        let pool = pool(40_000, 40_007);
        let refused = pool.take_with::<()>(IP, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(matches!(refused, Err(PortError::Io { .. })));
        assert_eq!(pool.pairs_free(), 4);
    }

    #[test]
    fn what_was_heard_is_barred_until_something_else_is_heard() {
        let pool = pool(40_000, 40_001);
        let heard = (SocketAddr::new(IP, 9), 77);
        let mut lease = take(&pool).expect("free");
        assert_eq!(lease.barred(), None);
        lease.set_heard(Some(heard));
        drop(lease);
        let mut lease = take(&pool).expect("free");
        assert_eq!(lease.barred(), Some(heard));
        lease.set_heard(None);
        drop(lease);
        assert_eq!(take(&pool).expect("free").barred(), Some(heard));
    }

    #[test]
    fn real_sockets_meet_a_foreign_program() {
        // Whatever else runs on this machine: find two neighbouring pairs that can be bound, then hold the first.
        let (lo, foreign) = (29_500..29_990u16)
            .step_by(4)
            .find_map(|lo| {
                let both = bind_pair(IP, lo, SocketOptions::default()).ok()?;
                drop(bind_pair(IP, lo + 2, SocketOptions::default()).ok()?);
                Some((lo, both))
            })
            .expect("four free ports");
        let pool = pool(lo, lo + 3);
        let (lease, rtp, rtcp) = pool.take(IP, SocketOptions::default()).expect("the second pair is free");
        assert_eq!(lease.rtp().port(), lo + 2);
        assert_eq!(rtp.local_addr().expect("bound"), lease.rtp());
        assert_eq!(rtcp.local_addr().expect("bound"), lease.rtcp());
        drop(foreign);
    }
}
