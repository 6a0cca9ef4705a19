//! The three requests to the kernel's routing socket that a static configuration takes
//! (`rtnetlink(7)`).

use guest_sys::socket;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

const AF_NETLINK: i32 = 16;
const SOCK_RAW: i32 = 3;
const AF_INET: u8 = 2;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// An interface number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interface(pub u32);

/// An open routing socket.
pub struct Netlink(OwnedFd);

fn attribute(message: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    message.extend_from_slice(&8u16.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&value);
}

/// A message with its header (`struct nlmsghdr`).
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 16;
    let length = HEADER + body.len() as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Sequence number and sender: only one request is ever under way.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// The error number of an acknowledgement.
fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = reply.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let error = reply.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match (kind.ok_or_else(malformed)?, error.ok_or_else(malformed)?) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, error) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(malformed()),
    }
}

impl Netlink {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        socket::socket(AF_NETLINK, SOCK_RAW, 0).map(Self)
    }

    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        // The kernel handles a request before `send` returns, so its answer is there at once.
        socket::send(self.0.as_fd(), &message(kind, flags, body), &[], &[], 0)?;
        let mut reply = [0; 1024];
        let mut sender = [0; socket::ADDRESS_MAX];
        let received = socket::receive(self.0.as_fd(), &mut reply, &mut sender, &mut [], 0)?;
        acknowledged(reply.get(..received.length).unwrap_or_default())
    }

    /// Switches an interface on.
    pub fn up(&self, interface: Interface) -> io::Result<()> {
        // struct ifinfomsg: family, padding, type, index, flags, which flags change.
        let mut body = vec![0; 4];
        for word in [interface.0, IFF_UP, IFF_UP] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        self.request(RTM_NEWLINK, 0, &body)
    }

    /// Gives an interface an address.
    pub fn address(&self, interface: Interface, address: Ipv4Addr, bits: u8) -> io::Result<()> {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let mut body = vec![AF_INET, bits, 0, 0];
        body.extend_from_slice(&interface.0.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, address.octets());
        attribute(&mut body, IFA_ADDRESS, address.octets());
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// Sets the default route.
    pub fn default_route(&self, interface: Interface, gateway: Ipv4Addr) -> io::Result<()> {
        // struct rtmsg: family, lengths of destination and source, service, table, origin, scope,
        // type; flags.
        let mut body =
            vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
        attribute(&mut body, RTA_GATEWAY, gateway.octets());
        attribute(&mut body, RTA_OIF, interface.0.to_ne_bytes());
        self.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_and_short_replies_refused() {
        let mut reply = message(NLMSG_ERROR, 0, &(-17i32).to_ne_bytes());
        assert_eq!(acknowledged(&reply).map_err(|e| e.raw_os_error()), Err(Some(17)));
        reply.truncate(18);
        assert!(acknowledged(&reply).is_err());
        assert!(acknowledged(&message(NLMSG_ERROR, 0, &[0; 4])).is_ok());
    }
}
