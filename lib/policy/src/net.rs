//! Ranges of addresses and ports.
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// A text that is no range of addresses or ports; it says what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoNet(pub String);

impl Display for NoNet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All addresses of one family that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Net {
    base: IpAddr,
    bits: u8,
}

/// The address as a number, in the upper bits.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first `bits` bits.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0)
}

impl Net {
    /// Every IPv4 address.
    pub const ANY_V4: Self = Self { base: IpAddr::V4(Ipv4Addr::UNSPECIFIED), bits: 0 };
    /// Every IPv6 address.
    pub const ANY_V6: Self = Self { base: IpAddr::V6(Ipv6Addr::UNSPECIFIED), bits: 0 };

    /// The addresses that share their first `bits` bits with `base`, where these are all that
    /// `base` has.
    #[must_use]
    pub fn new(base: IpAddr, bits: u8) -> Option<Self> {
        let fits = bits <= width(base) && number(base) & !mask(bits) == 0;
        fits.then_some(Self { base, bits })
    }

    /// True when the address is in the range. IPv4 addresses in IPv6 notation are IPv4 addresses.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.base)
            && (number(address) ^ number(self.base)) & mask(self.bits) == 0
    }

    /// True when the whole range is loopback addresses.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let least = match self.base {
            IpAddr::V4(_) => 8,
            IpAddr::V6(_) => 128,
        };
        self.bits >= least && is_loopback(self.base)
    }
}

/// True for the addresses of the own machine: `127.0.0.0/8` and `::1`.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Display for Net {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for Net {
    type Err = NoNet;

    /// `ADDRESS/BITS`, or an address alone.
    fn from_str(text: &str) -> Result<Self, NoNet> {
        use alloc::format;
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(base) = address.parse::<IpAddr>() else {
            return Err(NoNet(format!(
                "'{text}' is no range of addresses: write 10.0.0.0/8, 2001:db8::/32, \
                 192.0.2.7 or any (names are not looked up)"
            )));
        };
        let whole = width(base);
        let bits = match bits {
            None => whole,
            Some(bits) => bits.parse().ok().filter(|b| *b <= whole).ok_or_else(|| {
                NoNet(format!("'{text}': behind the slash must stand a number up to {whole}"))
            })?,
        };
        if base.to_canonical() != base {
            return Err(NoNet(format!("'{text}': write {} instead", base.to_canonical())));
        }
        Self::new(base, bits).ok_or_else(|| {
            let start = number(base) & mask(bits);
            let start = match base {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((start >> 96) as u32)),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(start)),
            };
            NoNet(format!("'{text}' has bits behind its prefix: did you mean {start}/{bits}?"))
        })
    }
}

/// Ports, as ranges that include both ends.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ports(pub Vec<(u16, u16)>);

impl Ports {
    /// Every port.
    #[must_use]
    pub fn all() -> Self {
        Self(alloc::vec![(0, u16::MAX)])
    }

    /// True when the port is one of them.
    #[must_use]
    pub fn contain(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

impl FromStr for Ports {
    type Err = NoNet;

    /// Ports and ranges between commas, `80,443,8000-8100`; or `any`.
    fn from_str(text: &str) -> Result<Self, NoNet> {
        use alloc::format;
        if text.trim() == "any" {
            return Ok(Self::all());
        }
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let port = |text: &str| {
                text.trim().parse::<u16>().map_err(|_| {
                    NoNet(format!(
                        "'{part}' is no port: write numbers up to 65535 and ranges, \
                         80,443,8000-8100, or any"
                    ))
                })
            };
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(NoNet(format!("'{part}': the first port is above the last")));
            }
            ranges.push((first, last));
        }
        Ok(Self(ranges))
    }
}
