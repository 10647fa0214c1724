//! Socket addresses as the kernel lays them out (`sockaddr_in`, `sockaddr_in6`), read and written as plain bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longest address: `sockaddr_in6`.
pub(super) const ADDRESS_BYTES_MAX: usize = 28;
const V4_BYTES: usize = 16;

const FAMILY_V4: [u8; 2] = family(libc::AF_INET);
const FAMILY_V6: [u8; 2] = family(libc::AF_INET6);

#[expect(clippy::cast_possible_truncation, reason = "address families are small numbers; the kernel's type is 16 bits")]
const fn family(family: libc::c_int) -> [u8; 2] {
    (family as libc::sa_family_t).to_ne_bytes()
}

/// An address in the kernel's form, aligned as the kernel's types are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct RawAddress {
    bytes: [u8; ADDRESS_BYTES_MAX],
    len: u32,
}

impl RawAddress {
    /// No address at all.
    pub(super) const NONE: Self = Self { bytes: [0; ADDRESS_BYTES_MAX], len: 0 };

    /// `address` in the kernel's form.
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut raw = Self::NONE;
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                raw.bytes[..2].copy_from_slice(&FAMILY_V4);
                raw.bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = 16;
            }
            SocketAddr::V6(v6) => {
                raw.bytes[..2].copy_from_slice(&FAMILY_V6);
                raw.bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                raw.bytes[8..24].copy_from_slice(&v6.ip().octets());
                raw.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                raw.len = 28;
            }
        }
        raw
    }

    /// Where the address begins; null if there is none.
    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        if self.len == 0 { std::ptr::null() } else { self.bytes.as_ptr().cast() }
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> libc::socklen_t {
        self.len
    }
}

/// Reads an address the kernel wrote; `None` if it is neither IPv4 nor IPv6 or too short. An IPv4 address in IPv6
/// clothes (RFC 4291 s.2.5.5.2) is reported as the IPv4 address it is.
pub(super) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*bytes.get(2..4)?.first_chunk()?);
    let family = *bytes.first_chunk::<2>()?;
    if family == FAMILY_V4 && bytes.len() >= V4_BYTES {
        let ip = Ipv4Addr::from(*bytes.get(4..8)?.first_chunk::<4>()?);
        return Some(SocketAddr::new(IpAddr::V4(ip), port));
    }
    if family != FAMILY_V6 {
        return None;
    }
    let flowinfo = u32::from_be_bytes(*bytes.get(4..8)?.first_chunk()?);
    let ip = Ipv6Addr::from(*bytes.get(8..24)?.first_chunk::<16>()?);
    let scope = u32::from_ne_bytes(*bytes.get(24..28)?.first_chunk()?);
    Some(canonical(SocketAddr::V6(SocketAddrV6::new(ip, port, flowinfo, scope))))
}

/// `address` with an IPv4 address in IPv6 clothes undressed.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// `address` as a socket of the given family wants it: the reverse of [`canonical`].
pub(super) fn for_socket(address: SocketAddr, socket_is_v6: bool) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if socket_is_v6 => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(raw: &RawAddress) -> &[u8] {
        &raw.bytes[..raw.len as usize]
    }

    #[test]
    fn addresses_round_trip() {
        for text in ["127.0.0.1:40000", "255.255.255.255:65535", "[::1]:5004", "[fe80::1%3]:1", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(parse(bytes(&RawAddress::new(address))), Some(address), "{text}");
        }
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let raw = RawAddress::new("1.2.3.4:258".parse().unwrap());
        assert_eq!(bytes(&raw)[2..8], [1, 2, 1, 2, 3, 4]);
        assert_eq!((raw.len(), size_of::<libc::sockaddr_in>()), (16, 16));
        assert_eq!(size_of::<libc::sockaddr_in6>(), ADDRESS_BYTES_MAX);
        assert!(RawAddress::NONE.as_ptr().is_null());
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        let plain: SocketAddr = "10.0.0.1:5004".parse().unwrap();
        let mapped = for_socket(plain, true);
        assert_eq!(mapped, "[::ffff:10.0.0.1]:5004".parse().unwrap());
        assert_eq!(parse(bytes(&RawAddress::new(mapped))), Some(plain));
        assert_eq!(for_socket(plain, false), plain);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let good = RawAddress::new("[::1]:5004".parse().unwrap());
        for len in 0..ADDRESS_BYTES_MAX {
            assert_eq!(parse(&bytes(&good)[..len]), None, "{len} bytes of an IPv6 address");
        }
        let short = RawAddress::new("1.2.3.4:5".parse().unwrap());
        assert_eq!(parse(&bytes(&short)[..8]), None);
        assert_eq!(parse(&[0xff; 28]), None);
    }
}
