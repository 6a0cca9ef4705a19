//! Socket addresses, and the rule which of them lie in the own machine.
use crate::{AF_INET, AF_INET6};

/// Where an address lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The own machine: `127.0.0.0/8`, `::1`, `::ffff:127.0.0.0/104`.
    Own,
    /// All own addresses: `0.0.0.0`, `::`.
    Wildcard,
    /// Anything else.
    Elsewhere,
}

/// An internet address out of a `struct sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    /// IPv4.
    V4([u8; 4], u16),
    /// IPv6.
    V6([u8; 16], u16),
}

impl Address {
    /// Reads a `struct sockaddr`; `None` for another family or one that is too short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let family = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        match u32::from(family) {
            AF_INET if bytes.len() >= 16 => Some(Self::V4(bytes.get(4..8)?.try_into().ok()?, port)),
            // SIN6_LEN_RFC2133: the scope id at the end may be missing.
            AF_INET6 if bytes.len() >= 24 => {
                Some(Self::V6(bytes.get(8..24)?.try_into().ok()?, port))
            }
            _ => None,
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        let v4 = |a: [u8; 4]| match a {
            [127, ..] => Place::Own,
            [0, 0, 0, 0] => Place::Wildcard,
            _ => Place::Elsewhere,
        };
        match *self {
            Self::V4(a, _) => v4(a),
            Self::V6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], _) => v4([a, b, c, d]),
            Self::V6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last @ (0 | 1)], _) => {
                if last == 1 { Place::Own } else { Place::Wildcard }
            }
            Self::V6(..) => Place::Elsewhere,
        }
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::V4(a, port) => write!(f, "{}:{port}", core::net::Ipv4Addr::from(*a)),
            Self::V6(a, port) => write!(f, "[{}]:{port}", core::net::Ipv6Addr::from(*a)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v6(text: &str) -> Address {
        Address::V6(text.parse::<core::net::Ipv6Addr>().unwrap().octets(), 80)
    }

    #[test]
    fn loopback_is_own_in_all_spellings() {
        assert_eq!(Address::V4([127, 0, 0, 1], 1).place(), Place::Own);
        assert_eq!(Address::V4([127, 255, 255, 255], 1).place(), Place::Own);
        assert_eq!(Address::V4([128, 0, 0, 1], 1).place(), Place::Elsewhere);
        assert_eq!(Address::V4([0, 0, 0, 0], 1).place(), Place::Wildcard);
        assert_eq!(v6("::1").place(), Place::Own);
        assert_eq!(v6("::").place(), Place::Wildcard);
        assert_eq!(v6("::2").place(), Place::Elsewhere);
        assert_eq!(v6("::ffff:127.9.9.9").place(), Place::Own);
        assert_eq!(v6("::ffff:0.0.0.0").place(), Place::Wildcard);
        assert_eq!(v6("::ffff:10.0.2.2").place(), Place::Elsewhere);
        assert_eq!(v6("2001:db8::1").place(), Place::Elsewhere);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(address) = Address::parse(&bytes) {
                let _ = address.place();
            }
        }
    }

    #[test]
    fn short_or_foreign_addresses_are_refused() {
        let mut v4 = [0; 16];
        v4[0] = 2;
        v4[3] = 80;
        assert_eq!(Address::parse(&v4), Some(Address::V4([0; 4], 80)));
        assert_eq!(Address::parse(&v4[..15]), None);
        v4[0] = 1;
        assert_eq!(Address::parse(&v4), None);
    }
}
