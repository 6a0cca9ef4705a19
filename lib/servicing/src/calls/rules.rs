//! Where the policy is asked: about the copied arguments of a call, just before they are used.
//!
//! Refusals are those of Linux' own rules: `EACCES` where an address is chosen (as from a
//! prohibiting route), `EPERM` where something is sent (as from a packet filter).
use crate::cx::Cx;
use crate::table::{Resource, State};
use crate::world::Kind;
use alloc::borrow::Cow;
use core::fmt::Display;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use linux_abi::{AF_INET, AF_INET6, Address, Errno, SOCK_DGRAM, SOCK_STREAM, name};
use policy::{Decision, Place, Protocol};

const IPPROTO_ICMP: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_ICMPV6: u32 = 58;
const IPPROTO_MPTCP: u32 = 262;

/// Bytes of a `struct sockaddr_in`.
const SHORTEST_ADDRESS: usize = 16;

/// Where a peer is, or a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// In the program's own VM.
    Own,
    /// In the service VM, or beyond it.
    Remote,
    /// It is no address: the kernel that has the socket says so.
    Unknown,
}

/// Where an own address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Own {
    /// In the program's own VM.
    Local((IpAddr, u16)),
    /// In the service VM.
    Remote((IpAddr, u16)),
    /// In both VMs.
    Both((IpAddr, u16)),
    /// It is no address: the program's kernel says so.
    Unknown,
}

/// The protocol by which rules know a socket.
fn protocol(resource: &Resource) -> Option<Protocol> {
    match (resource.kind, resource.protocol) {
        (SOCK_STREAM, 0 | IPPROTO_TCP | IPPROTO_MPTCP) => Some(Protocol::Tcp),
        (SOCK_DGRAM, 0 | IPPROTO_UDP) => Some(Protocol::Udp),
        (SOCK_DGRAM, IPPROTO_ICMP) if resource.domain == AF_INET => Some(Protocol::Icmp),
        (SOCK_DGRAM, IPPROTO_ICMPV6) if resource.domain == AF_INET6 => Some(Protocol::Icmp),
        _ => None,
    }
}

const fn family(address: &[u8]) -> Option<u16> {
    match address.first_chunk::<2>() {
        Some(family) => Some(u16::from_le_bytes(*family)),
        None => None,
    }
}

/// Reads an address where Linux takes `AF_UNSPEC` for `AF_INET`: when it sends or binds.
fn lenient(address: &[u8]) -> Option<Address> {
    let mut address = Cow::Borrowed(address);
    if family(&address) == Some(0)
        && let Some(first) = address.to_mut().first_mut()
    {
        *first = AF_INET as u8;
    }
    Address::parse(&address)
}

/// One line about what the policy refuses.
fn refused(cx: &Cx, resource: &Resource, what: &dyn Display, error: Errno) -> Errno {
    cx.note(Kind::Refused);
    cx.core.world.log(format_args!(
        "{}[{}]: the policy refuses {} {} {what}: {}",
        cx.space.name.borrow(),
        cx.space.id,
        name(cx.number),
        protocol(resource).map_or("?", Protocol::name),
        error.name(),
    ));
    error
}

/// Decides about a destination; `refusal` is the error for one that is not allowed.
///
/// # Errors
/// `refusal`; what a remote socket says to a peer that it cannot have.
pub fn peer(cx: &Cx, resource: &Resource, address: &[u8], refusal: Errno) -> Result<Peer, Errno> {
    peer_of(cx, resource, resource.state.get() == State::Undecided, address, refusal)
}

/// The same where the caller knows whether the socket may still choose its side.
///
/// # Errors
/// As [`peer`].
pub fn peer_of(
    cx: &Cx,
    resource: &Resource,
    undecided: bool,
    address: &[u8],
    refusal: Errno,
) -> Result<Peer, Errno> {
    let sends = refusal == Errno::EPERM;
    let found = if sends { lenient(address) } else { Address::parse(address) };
    let Some(found) = found else {
        return match family(address) {
            _ if undecided => Ok(Peer::Unknown),
            // AF_UNSPEC dissolves an association; what is too short is refused over there.
            Some(0) if !sends => Ok(Peer::Remote),
            _ if address.len() < SHORTEST_ADDRESS => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        };
    };
    let program = cx.core.program(&cx.space);
    let decide = |p: &policy::Program| p.connect(protocol(resource), found.ip(), found.port());
    match program.map_or(Decision::Refuse, decide) {
        Decision::Use(Place::Local) if undecided => Ok(Peer::Own),
        Decision::Use(Place::Local) => {
            cx.core.world.log(format_args!(
                "{}[{}]: refused: {found} is in the compute VM, the socket in the service VM",
                cx.space.name.borrow(),
                cx.space.id,
            ));
            Err(Errno::ENETUNREACH)
        }
        Decision::Use(Place::Remote | Place::Both) => Ok(Peer::Remote),
        Decision::Refuse => Err(refused(cx, resource, &found, refusal)),
    }
}

/// Decides about an address that a socket shall have.
///
/// # Errors
/// `EACCES`; `EADDRNOTAVAIL` for an address of the other VM.
pub fn own_address(cx: &Cx, resource: &Resource, address: &[u8]) -> Result<Own, Errno> {
    let undecided = resource.state.get() == State::Undecided;
    let Some(found) = lenient(address) else {
        return if undecided { Ok(Own::Unknown) } else { Err(Errno::EAFNOSUPPORT) };
    };
    let program = cx.core.program(&cx.space);
    let decide = |p: &policy::Program| p.bind(protocol(resource), found.ip(), found.port());
    match program.map_or(Decision::Refuse, decide) {
        Decision::Use(Place::Local) if undecided => Ok(Own::Local((found.ip(), found.port()))),
        Decision::Use(Place::Local) => Err(Errno::EADDRNOTAVAIL),
        Decision::Use(Place::Both) if undecided && resource.is_stream() => {
            Ok(Own::Both((found.ip(), found.port())))
        }
        Decision::Use(Place::Remote | Place::Both) => Ok(Own::Remote((found.ip(), found.port()))),
        Decision::Refuse => Err(refused(cx, resource, &found, Errno::EACCES)),
    }
}

/// Decides whether a socket may listen where it is. One without an address listens on all.
///
/// # Errors
/// `EACCES`.
pub fn listener(cx: &Cx, resource: &Resource) -> Result<Place, Errno> {
    let wildcard = match resource.domain {
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let undecided = resource.state.get() == State::Undecided;
    let (own, port) = resource.bound.get().unwrap_or((wildcard, 0));
    let program = cx.core.program(&cx.space);
    let decide = |p: &policy::Program| p.listen(protocol(resource), own, port);
    match program.map_or(Decision::Refuse, decide) {
        Decision::Use(Place::Local) if undecided => Ok(Place::Local),
        Decision::Use(Place::Both)
            if resource.is_stream() && (undecided || resource.both.get()) =>
        {
            Ok(Place::Both)
        }
        Decision::Use(Place::Remote | Place::Both) => Ok(Place::Remote),
        _ => {
            let what = core::net::SocketAddr::new(own, port);
            Err(refused(cx, resource, &what, Errno::EACCES))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_family_is_ipv4_where_linux_takes_it_for_that() {
        let mut address = [0; 16];
        address[3] = 80;
        address[4..8].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(lenient(&address), Some(Address::V4([10, 1, 2, 3], 80)));
        assert_eq!(lenient(&address[..8]), None);
        assert_eq!(lenient(&[]), None);
        address[0] = 1;
        assert_eq!(lenient(&address), None);
    }
}
