//! Socket addresses.
use crate::{AF_INET, AF_INET6};
use core::net::{IpAddr, SocketAddr};

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

    /// The address alone.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        match *self {
            Self::V4(a, _) => IpAddr::V4(a.into()),
            Self::V6(a, _) => IpAddr::V6(a.into()),
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match *self {
            Self::V4(_, port) | Self::V6(_, port) => port,
        }
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        SocketAddr::new(self.ip(), self.port()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(address) = Address::parse(&bytes) {
                let _ = (address.ip(), address.port());
            }
        }
    }

    #[test]
    fn short_or_foreign_addresses_are_refused() {
        let mut v4 = [0; 16];
        v4[0] = 2;
        v4[3] = 80;
        assert_eq!(Address::parse(&v4), Some(Address::V4([0; 4], 80)));
        assert_eq!(Address::V4([10, 0, 2, 2], 80).to_string(), "10.0.2.2:80");
        assert_eq!(Address::parse(&v4[..15]), None);
        v4[0] = 1;
        assert_eq!(Address::parse(&v4), None);
    }
}
