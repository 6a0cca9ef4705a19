//! Sockets and their addresses, options and states.
use super::both;
use super::commit::{commit, settled};
use super::readiness::Access;
use super::rules::{self, Own};
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use crate::world::{Kind, add};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, Errno, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_PACKET,
    SOCK_RAW, SOCK_TYPE_MASK, check, nr,
};
use policy::Place;
use wire::{Request, layout};

/// The routing protocol of `AF_NETLINK` (`NETLINK_ROUTE`).
const NETLINK_ROUTE: u32 = 0;
/// One more than the highest protocol number (`IPPROTO_MAX`).
const PROTOCOL_END: u32 = 263;

/// What is done with a new socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Making {
    /// The own kernel's business alone.
    Own,
    /// It may become remote.
    Serve,
    /// Not made: what a program without `CAP_NET_RAW` gets.
    Refuse(Errno),
}

/// The rule for new sockets. Whoever sends raw packets through the service VM is bound by no
/// address rule, so nobody may.
#[must_use]
pub fn making(domain: u32, kind: u32, protocol: u32) -> Making {
    let (base, flags) = (kind & SOCK_TYPE_MASK, kind & !SOCK_TYPE_MASK);
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Making::Own;
    }
    match (domain, base) {
        (AF_PACKET, _) | (AF_INET, SOCK_PACKET) => Making::Refuse(Errno::EPERM),
        // The order of `inet_create` and `inet6_create`.
        (AF_INET | AF_INET6, SOCK_RAW) => Making::Refuse(match protocol {
            0 => Errno::EPROTONOSUPPORT,
            n if n < PROTOCOL_END => Errno::EPERM,
            _ => Errno::EINVAL,
        }),
        (AF_INET | AF_INET6, _) => Making::Serve,
        (AF_NETLINK, _) if protocol == NETLINK_ROUTE => Making::Serve,
        _ => Making::Own,
    }
}

/// `socket`: makes the placeholder; the remote socket is made when it commits.
pub async fn socket(cx: &Cx) -> Result<Outcome, Errno> {
    let [domain, kind, protocol] = [0, 1, 2].map(|n| cx.int(n) as u32);
    if let Making::Refuse(error) = making(domain, kind, protocol) {
        cx.note(Kind::Refused);
        cx.core.world.log(format_args!(
            "{}[{}]: socket({domain}, {kind:#x}, {protocol}) is not for trusted programs: {}",
            cx.space.name.borrow(),
            cx.space.id,
            error.name(),
        ));
        return Err(error);
    }
    let fd = check(cx.original().await)?;
    let resource = cx.core.resource(domain, kind & SOCK_TYPE_MASK, protocol);
    resource.nonblocking.set(kind & SOCK_NONBLOCK != 0);
    let close_on_exec = kind & SOCK_CLOEXEC != 0;
    put(cx, fd as i32, Entry { resource: Rc::new(resource), close_on_exec }).await;
    Ok(Outcome::Return(fd))
}

/// Enters a descriptor that the kernel has just given out. An entry under its number is a
/// left-over of a close that nobody saw.
pub async fn put(cx: &Cx, fd: i32, entry: Entry) {
    add(&cx.core.counters.descriptors, 1);
    if let Some(old) = cx.table.insert(fd, entry) {
        cx.core.release(&cx.table, [old]);
    }
}

/// Copies a socket address in.
///
/// # Errors
/// `EINVAL` for a length that no address has, `EFAULT`.
pub async fn address_in(cx: &Cx, at: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(length as u32).map_err(|_| Errno::EINVAL)?;
    if length > layout::ADDRESS_MAX as usize {
        return Err(Errno::EINVAL);
    }
    cx.bytes(at, length).await
}

/// Copies an address out of a mailbox's copy by the rules of `getsockname`: cut down to the
/// caller's room, the full length reported.
///
/// # Errors
/// `EFAULT`, `EINVAL` for a negative room.
pub async fn address_out(cx: &Cx, from: &[u8], to: u64, length_at: u64) -> Result<(), Errno> {
    if to == 0 {
        return Ok(());
    }
    let room = i32::from_le_bytes(cx.array(length_at).await?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    cx.write(to, from.get(..room.min(from.len())).unwrap_or(from)).await?;
    cx.write(length_at, &(from.len() as u32).to_le_bytes()).await
}

/// A descriptor number out of a response.
///
/// # Errors
/// The response's error, `EIO` for nonsense.
pub fn descriptor(value: i64) -> Result<i32, Errno> {
    i32::try_from(check(value)?).ok().filter(|fd| *fd >= 0).ok_or(Errno::EIO)
}

/// `bind`: the rules decide in which VM the address is.
pub async fn bind(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let address = address_in(cx, cx.arguments[1], cx.arguments[2]).await?;
    let resource = &entry.resource;
    settled(cx, resource).await?;
    // Routing sockets have no rules: their addresses name processes, not machines.
    let own = if resource.domain == AF_NETLINK {
        None
    } else {
        match rules::own_address(cx, resource, &address)? {
            Own::Unknown => return Ok(Outcome::Reflect),
            Own::Local(own) => {
                super::commit::become_local(cx, resource);
                resource.bound.set(Some(own));
                return Ok(Outcome::Reflect);
            }
            Own::Both(own) => {
                let hold = cx.hold(entry);
                both::bind(cx, &hold.resource, &address).await?;
                resource.bound.set(Some(own));
                return Ok(Outcome::Return(0));
            }
            Own::Remote(own) => Some(own),
        }
    };
    let hold = cx.hold(entry);
    let fd = commit(cx, &hold.resource).await?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::ADDRESS, &address)?;
    let length = address.len() as u32;
    let response = cx.ask(&lease, &Request::Bind { fd, address: length }).await?;
    let result = check(response.value)?;
    resource.bound.set(own);
    Ok(Outcome::Return(result))
}

/// `listen`: a socket without an address listens on all of them.
pub async fn listen(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    settled(cx, &entry.resource).await?;
    let hold = cx.hold(entry);
    match rules::listener(cx, &entry.resource)? {
        Place::Local => {
            super::commit::become_local(cx, &entry.resource);
            return Ok(Outcome::Reflect);
        }
        Place::Both => return both::listen(cx, &hold.resource).await,
        Place::Remote => {}
    }
    let fd = commit(cx, &hold.resource).await?;
    let backlog = cx.int(1);
    Ok(Outcome::Return(cx.simple(&Request::Listen { fd, backlog }).await?))
}

/// `shutdown`.
pub async fn shutdown(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let how = cx.int(1) as u32;
    let result = cx.simple(&Request::Shutdown { fd, how }).await?;
    both::follow(cx, entry).await;
    Ok(Outcome::Return(result))
}

/// An address out of a mailbox.
///
/// # Errors
/// `EIO` for a length that no address has.
pub fn address_of(lease: &crate::delegate::Lease, length: u32) -> Result<Vec<u8>, Errno> {
    if length > layout::ADDRESS_MAX {
        return Err(Errno::EIO);
    }
    let mut bytes = alloc::vec![0; length as usize];
    lease.mailbox().memory().read_all(layout::ADDRESS, &mut bytes)?;
    Ok(bytes)
}

/// `getsockname`, `getpeername`.
pub async fn names(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let request = match cx.number {
        nr::getsockname => Request::LocalName { fd },
        _ => Request::PeerName { fd },
    };
    let lease = cx.worker().await?;
    let response = cx.ask(&lease, &request).await?;
    check(response.value)?;
    let address = address_of(&lease, response.address)?;
    if cx.arguments[1] == 0 {
        return Err(Errno::EFAULT);
    }
    address_out(cx, &address, cx.arguments[1], cx.arguments[2]).await?;
    Ok(Outcome::Return(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_sockets_are_refused_as_without_privileges() {
        assert_eq!(making(AF_INET, SOCK_RAW, 0), Making::Refuse(Errno::EPROTONOSUPPORT));
        assert_eq!(making(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, 58), Making::Refuse(Errno::EPERM));
        assert_eq!(making(AF_INET, SOCK_RAW, 300), Making::Refuse(Errno::EINVAL));
        assert_eq!(making(AF_INET, SOCK_PACKET, 3), Making::Refuse(Errno::EPERM));
        assert_eq!(making(AF_PACKET, SOCK_RAW, 3), Making::Refuse(Errno::EPERM));
        assert_eq!(making(AF_INET, 1, 0), Making::Serve);
        assert_eq!(making(AF_NETLINK, SOCK_RAW, 0), Making::Serve);
        assert_eq!(making(AF_NETLINK, SOCK_RAW, 15), Making::Own);
        assert_eq!(making(1, 1, 0), Making::Own);
        // Flags that do not exist: the own kernel says so.
        assert_eq!(making(AF_INET, SOCK_RAW | 0x100, 1), Making::Own);
    }
}
