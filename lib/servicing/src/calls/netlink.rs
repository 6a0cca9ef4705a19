//! Routing sockets (`AF_NETLINK`, `NETLINK_ROUTE`): the service VM's, where the interfaces and
//! addresses are that the program's connections have. Programs may ask, and listen for changes;
//! nobody changes the service VM's network.
use super::readiness::Access;
use crate::cx::Cx;
use crate::delegate::Lease;
use linux_abi::{Errno, nr};
use wire::layout;

/// Most bytes of a request to the kernel; the longest that only ask are below 200.
pub const REQUEST_MAX: u64 = 16 << 10;
/// Bytes of a message's header: length, type, flags, sequence number, sender.
const HEADER: usize = 16;
/// Types below are about the conversation itself (`NLMSG_MIN_TYPE`).
const FIRST_ROUTING: u16 = 16;
/// Types come in fours: new, delete, get, set (`include/uapi/linux/rtnetlink.h`).
const GET: u16 = 2;

/// True for calls that need the socket itself: a routing socket is always remote.
#[must_use]
pub const fn commits(number: u64) -> bool {
    matches!(
        number,
        nr::bind
            | nr::connect
            | nr::getsockname
            | nr::setsockopt
            | nr::sendto
            | nr::sendmsg
            | nr::sendmmsg
            | nr::write
            | nr::writev
    )
}

/// Only the kernel may be spoken to: `struct sockaddr_nl` with neither a process nor groups.
///
/// # Errors
/// `EPERM`, as without privileges; `EINVAL`.
pub fn check_peer(address: &[u8]) -> Result<(), Errno> {
    let body = address.get(4..12).ok_or(Errno::EINVAL)?;
    if body.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Every message must be one that only asks, and end where its header says.
///
/// # Errors
/// `EPERM` for one that would change something, `EINVAL` for what is malformed.
pub fn check_request(bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let header = rest.first_chunk::<HEADER>().ok_or(Errno::EINVAL)?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_le_bytes([header[4], header[5]]);
        if length < HEADER || length > rest.len() {
            return Err(Errno::EINVAL);
        }
        if kind >= FIRST_ROUTING && kind % 4 != GET {
            return Err(Errno::EPERM);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(())
}

/// Puts a request that has been copied once into a mailbox, if it only asks.
///
/// # Errors
/// As [`check_request`].
pub fn put_request(cx: &Cx, lease: &Lease, bytes: &[u8]) -> Result<(), Errno> {
    if let Err(error) = check_request(bytes) {
        super::log_refusal(cx, error);
        return Err(error);
    }
    lease.mailbox().memory().write_all(layout::PAYLOAD, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let mut m = (16 + body as u32).to_le_bytes().to_vec();
        m.extend(kind.to_le_bytes());
        m.resize((16 + body).next_multiple_of(4), 0);
        m
    }

    #[test]
    fn only_questions_pass() {
        // RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE.
        for kind in [18, 22, 26] {
            assert_eq!(check_request(&message(kind, 1)), Ok(()));
        }
        // RTM_NEWLINK, RTM_DELADDR, RTM_SETLINK, also behind a question.
        for kind in [16, 21, 19] {
            assert_eq!(check_request(&message(kind, 8)), Err(Errno::EPERM));
            let both = [message(18, 3), message(kind, 8)].concat();
            assert_eq!(check_request(&both), Err(Errno::EPERM));
        }
        assert_eq!(check_request(&message(18, 0)[..15]), Err(Errno::EINVAL));
        assert_eq!(check_peer(&[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(check_peer(&[16, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::EPERM));
        assert_eq!(check_peer(&[16, 0]), Err(Errno::EINVAL));
    }

    proptest! {
        /// Whatever passes consists of questions when it is read as the kernel reads it
        /// (`netlink_rcv_skb`).
        #[test]
        fn nothing_hides_behind_a_length(bytes in proptest::collection::vec(0u8..32, 0..120)) {
            let passes = check_request(&bytes).is_ok();
            let mut rest = bytes.as_slice();
            while rest.len() >= HEADER {
                let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
                if length < HEADER || rest.len() < length {
                    break;
                }
                let kind = u16::from_le_bytes(rest[4..6].try_into().unwrap());
                prop_assert!(!passes || kind < FIRST_ROUTING || kind & 3 == 2);
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}
