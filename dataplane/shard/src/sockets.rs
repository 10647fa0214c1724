//! The sockets of the media plane: bound in pairs, RTP on the even port, RTCP on the odd one above (RFC 3550 s.11).
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// How media sockets are set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// DiffServ code point of what leaves, `0 ..= 63`; voice is 46, expedited forwarding (RFC 4594 s.4.1).
    pub dscp: u8,
    /// Bytes the kernel may queue for a socket, packet headers and bookkeeping included. Beyond `net.core.rmem_max` it
    /// takes the right to force it (`CAP_NET_ADMIN`); without, the kernel gives what it may.
    pub receive_buffer_bytes: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { dscp: 46, receive_buffer_bytes: 1 << 20 }
    }
}

/// Binds a pair: RTP on `rtp_port`, RTCP on the next. Both are non-blocking; neither shares its port with anyone.
///
/// # Errors
/// `rtp_port` is odd or zero or the code point has more than six bits (`InvalidInput`); a port is in use
/// (`AddrInUse`); the address is not ours; the process is out of descriptors. Both are bound, or neither.
pub fn bind_pair(ip: IpAddr, rtp_port: u16, options: SocketOptions) -> io::Result<(UdpSocket, UdpSocket)> {
    if rtp_port == 0 || !rtp_port.is_multiple_of(2) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the RTP port of a pair is even"));
    }
    let rtp = bind(SocketAddr::new(ip, rtp_port), options)?;
    let rtcp = bind(SocketAddr::new(ip, rtp_port + 1), options)?;
    Ok((rtp, rtcp))
}

/// Binds a pair like [`bind_pair`], trying again for `patience` while a port is in use. For a start right after
/// another process has ended: the kernel may hold the ports of its rings for some milliseconds more. Blocks.
///
/// # Errors
/// As [`bind_pair`].
pub fn bind_pair_retrying(
    ip: IpAddr,
    rtp_port: u16,
    options: SocketOptions,
    patience: Duration,
) -> io::Result<(UdpSocket, UdpSocket)> {
    let start = Instant::now();
    loop {
        match bind_pair(ip, rtp_port, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < patience => {
                thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Raises the limit of open files as far as this process may: to the hard limit, and with the right to do so
/// (`CAP_SYS_RESOURCE`) to `fs.nr_open`. Returns the limit that holds now. It also bounds the ports of a ring.
///
/// # Errors
/// The kernel refuses even the hard limit.
pub fn raise_nofile_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let ceiling = fs::read_to_string(NR_OPEN).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let hard = limit.maximum.or(ceiling).unwrap_or(u64::MAX);
    if let Some(ceiling) = ceiling.filter(|ceiling| *ceiling > hard) {
        let forced = Rlimit { current: Some(ceiling), maximum: Some(ceiling) };
        if setrlimit(Resource::Nofile, forced).is_ok() {
            return Ok(ceiling);
        }
    }
    if limit.current.is_some_and(|current| current < hard) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: limit.maximum })?;
    }
    Ok(hard)
}

fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<UdpSocket> {
    if options.dscp > DSCP_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a DiffServ code point has six bits"));
    }
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), None)?;
    // The code point fills the upper six bits of the former type of service (RFC 2474 s.3).
    let traffic_class = options.dscp << 2;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_tos(&socket, traffic_class)?,
        SocketAddr::V6(_) => {
            // The IPv4 side of the port is a socket of its own.
            socket.set_only_v6(true)?;
            sockopt::set_ipv6_tclass(&socket, u32::from(traffic_class))?;
        }
    }
    match sockopt::set_socket_recv_buffer_size_force(&socket, options.receive_buffer_bytes) {
        Err(Errno::PERM) => sockopt::set_socket_recv_buffer_size(&socket, options.receive_buffer_bytes)?,
        forced => forced?,
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The kernel's ceiling for the limit of open files.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
const DSCP_MAX: u8 = 63;
const RETRY_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// An even port that was free together with its neighbour a moment ago, bound.
    fn some_pair(ip: IpAddr) -> (u16, UdpSocket, UdpSocket) {
        for _ in 0..1000 {
            let port = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap().port() & !1;
            if let Ok((rtp, rtcp)) = bind_pair(ip, port, SocketOptions::default()) {
                return (port, rtp, rtcp);
            }
        }
        panic!("no free pair");
    }

    #[test]
    fn a_pair_is_even_and_odd_marked_and_roomy() {
        for ip in [LOCALHOST, IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let (port, rtp, rtcp) = some_pair(ip);
            assert_eq!(rtp.local_addr().unwrap(), SocketAddr::new(ip, port));
            assert_eq!(rtcp.local_addr().unwrap(), SocketAddr::new(ip, port + 1));
            for socket in [&rtp, &rtcp] {
                let class = if ip.is_ipv4() {
                    u32::from(sockopt::ip_tos(socket).unwrap())
                } else {
                    sockopt::ipv6_tclass(socket).unwrap()
                };
                assert_eq!(class, 46 << 2);
                assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
                // More than a default socket has, or as much as the kernel lets anyone have.
                let plain = UdpSocket::bind((ip, 0)).unwrap();
                let room = sockopt::socket_recv_buffer_size(socket).unwrap();
                assert!(room >= sockopt::socket_recv_buffer_size(&plain).unwrap().min(2 << 20));
                assert!(!sockopt::socket_reuseaddr(socket).unwrap());
            }
        }
    }

    #[test]
    fn both_or_neither() {
        let (port, rtp, rtcp) = some_pair(LOCALHOST);
        drop(rtp);
        // The odd port is taken, so the even one is not kept either.
        let error = bind_pair(LOCALHOST, port, SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let even = UdpSocket::bind((LOCALHOST, port)).unwrap();
        drop((even, rtcp));
        bind_pair(LOCALHOST, port, SocketOptions::default()).unwrap();
    }

    #[test]
    fn wishes_out_of_range_are_refused() {
        for (port, dscp) in [(0, 0), (40_001, 0), (40_000, 64)] {
            let options = SocketOptions { dscp, ..SocketOptions::default() };
            let error = bind_pair(LOCALHOST, port, options).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "port {port} dscp {dscp}");
        }
        let error = bind_pair("192.0.2.1".parse().unwrap(), 40_000, SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_retry_waits_for_the_port_and_only_for_that() {
        let (port, rtp, rtcp) = some_pair(LOCALHOST);
        let options = SocketOptions::default();
        let error = bind_pair_retrying(LOCALHOST, port, options, Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let patience = Duration::from_secs(20);
        let retrying = thread::spawn(move || bind_pair_retrying(LOCALHOST, port, options, patience));
        drop((rtp, rtcp));
        retrying.join().unwrap().unwrap();

        let start = Instant::now();
        let error = bind_pair_retrying(LOCALHOST, 1, options, patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(start.elapsed() < patience);
    }

    #[test]
    fn the_limit_of_open_files_is_raised() {
        let raised = raise_nofile_limit().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, Some(raised));
        assert_eq!(limit.maximum, Some(raised));
        assert_eq!(raise_nofile_limit().unwrap(), raised);
    }
}
