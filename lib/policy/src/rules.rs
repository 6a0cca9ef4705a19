//! Rules about addresses.
use crate::Program;
use crate::net::{Net, Ports, is_loopback};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde::{Deserialize, Serialize};

/// Protocols that rules tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Protocol {
    /// Byte streams.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echo requests on datagram sockets (`ping`).
    Icmp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// Its name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The protocol with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// Where something takes place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Place {
    /// In the service VM.
    Remote,
    /// In the compute VM.
    Local,
    /// In both: a listener takes connections from either side.
    Both,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Remote, Self::Local, Self::Both];

    /// Its name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local => "local",
            Self::Both => "both",
        }
    }
}

/// What a policy says about an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may be used, there.
    Use(Place),
    /// It must not be used.
    Refuse,
}

/// A rule about peers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConnectRule {
    /// Peers' addresses.
    pub nets: Vec<Net>,
    /// Peers' ports.
    pub ports: Ports,
    /// Protocols.
    pub protocols: Vec<Protocol>,
    /// What matches is refused.
    pub deny: bool,
    /// Where the connection is made: not `Both`.
    pub place: Place,
}

/// A rule about own addresses. The fields mean the same as those of [`ConnectRule`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListenRule {
    /// Own addresses.
    pub nets: Vec<Net>,
    /// Own ports; zero stands for one that the kernel chooses.
    pub ports: Ports,
    /// Protocols.
    pub protocols: Vec<Protocol>,
    /// What matches is refused.
    pub deny: bool,
    /// Where it listens.
    pub place: Place,
}

/// What is asked about.
struct Question {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
}

impl Question {
    fn matches(&self, nets: &[Net], ports: &Ports, protocols: &[Protocol]) -> bool {
        // Loopback is the own machine unless a rule is about nothing else.
        let own = is_loopback(self.address);
        let net = |net: &&Net| net.contains(self.address) && (!own || net.is_loopback());
        // Echo requests have no ports.
        let port = self.protocol == Protocol::Icmp || ports.contain(self.port);
        protocols.contains(&self.protocol) && port && nets.iter().find(net).is_some()
    }

    /// The first rule's decision. What no rule is about stays in the own machine, or is refused.
    fn decide(&self, mut verdicts: impl Iterator<Item = (bool, Place)>) -> Decision {
        match verdicts.next() {
            Some((true, _)) => Decision::Refuse,
            Some((false, place)) => Decision::Use(place),
            None if is_loopback(self.address) => Decision::Use(Place::Local),
            None => Decision::Refuse,
        }
    }
}

impl Program {
    /// May this program send to, or connect to, that peer? The wildcard address means the own
    /// machine, as on Linux. `None` as protocol is one that no rule can name.
    #[must_use]
    pub fn connect(&self, protocol: Option<Protocol>, peer: IpAddr, port: u16) -> Decision {
        let address = match peer.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            other => other,
        };
        let Some(protocol) = protocol else { return unnamed(address) };
        let question = Question { protocol, address, port };
        let fits = |r: &&ConnectRule| question.matches(&r.nets, &r.ports, &r.protocols);
        question.decide(self.connect.iter().filter(fits).map(|r| (r.deny, r.place)))
    }

    /// May this program receive on that own address? The wildcard address is matched by ranges
    /// that hold all addresses.
    #[must_use]
    pub fn listen(&self, protocol: Option<Protocol>, own: IpAddr, port: u16) -> Decision {
        let address = own.to_canonical();
        let Some(protocol) = protocol else { return unnamed(address) };
        let question = Question { protocol, address, port };
        let fits = |r: &&ListenRule| question.matches(&r.nets, &r.ports, &r.protocols);
        question.decide(self.listen.iter().filter(fits).map(|r| (r.deny, r.place)))
    }

    /// May this program give a socket that own address? Clients do so, too, with port zero: that
    /// is no listening, and follows where the program may connect to.
    #[must_use]
    pub fn bind(&self, protocol: Option<Protocol>, own: IpAddr, port: u16) -> Decision {
        let decision = self.listen(protocol, own, port);
        if decision != Decision::Refuse || port != 0 {
            return decision;
        }
        let mut places = self.connect.iter().filter(|r| !r.deny).filter(|r| {
            protocol.is_some_and(|p| r.protocols.contains(&p))
                && !r.nets.iter().all(Net::is_loopback)
        });
        places.next().map_or(Decision::Refuse, |rule| Decision::Use(rule.place))
    }
}

fn unnamed(address: IpAddr) -> Decision {
    if is_loopback(address) { Decision::Use(Place::Local) } else { Decision::Refuse }
}
