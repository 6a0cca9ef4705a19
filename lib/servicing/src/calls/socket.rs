//! Sockets and their addresses, options and states.
use super::readiness::{Access, Patience, wait_ready};
use super::rules::{self, Own, Peer};
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, OPTION_LIMIT, OptionSet, Resource, State};
use crate::world::{Kind, add};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{
    Errno, POLLIN, POLLOUT, SO_ATTACH_BPF, SO_ATTACH_FILTER, SO_RCVTIMEO, SO_RCVTIMEO_NEW,
    SO_SNDTIMEO, SO_SNDTIMEO_NEW, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_TYPE_MASK, SOL_SOCKET, TimeVal,
    check, nr,
};
use wire::{Request, layout};

/// Longest option value that is carried over.
const OPTION_MAX: usize = 4096;
/// Option of `SOL_TCP` whose value holds a pointer.
const TCP_ZEROCOPY_RECEIVE: i32 = 35;
const SOL_TCP: i32 = 6;

/// `socket`: makes the placeholder; the remote socket is made when it commits.
pub async fn socket(cx: &Cx) -> Result<Outcome, Errno> {
    let fd = check(cx.original().await)?;
    let [domain, kind, protocol] = [0, 1, 2].map(|n| cx.int(n) as u32);
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

/// Makes the remote socket, with all options set before.
///
/// # Errors
/// What the delegate's kernel says.
pub async fn commit(cx: &Cx, resource: &Resource) -> Result<i32, Errno> {
    if resource.state.get() != State::Undecided {
        return cx.remote_fd(resource);
    }
    let lease = cx.worker().await?;
    let (domain, kind, protocol) = (resource.domain, resource.kind, resource.protocol);
    let made = cx.ask(&lease, &Request::Socket { domain, kind, protocol }).await?;
    let fd = descriptor(made.value)?;
    resource.holders.borrow_mut().insert(lease.delegate.id, fd);
    resource.state.set(State::Remote(fd));
    let options = resource.options.take();
    for OptionSet { level, name, value } in options {
        lease.mailbox().memory().write_all(layout::PAYLOAD, &value)?;
        let length = value.len() as u32;
        // The placeholder took it; where the delegate's kernel does not, the default stays.
        cx.ask(&lease, &Request::SetOption { fd, level, name, length }).await?;
    }
    drop(lease);
    super::epoll::committed(cx, resource).await?;
    super::passing::share(cx, resource).await;
    Ok(fd)
}

/// A descriptor number out of a response.
///
/// # Errors
/// The response's error, `EIO` for nonsense.
pub fn descriptor(value: i64) -> Result<i32, Errno> {
    i32::try_from(check(value)?).ok().filter(|fd| *fd >= 0).ok_or(Errno::EIO)
}

/// `connect`.
pub async fn connect(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let address = address_in(cx, cx.arguments[1], cx.arguments[2]).await?;
    let resource = &entry.resource;
    match rules::peer(cx, resource, &address, Errno::EACCES)? {
        Peer::Unknown => return Ok(Outcome::Reflect),
        Peer::Own => {
            resource.state.set(State::Local);
            return Ok(Outcome::Reflect);
        }
        Peer::Remote => {}
    }
    let hold = cx.hold(entry);
    commit(cx, &hold.resource).await?;
    let waits = !resource.nonblocking.get() && resource.is_stream();
    let patience = Patience::from_timeout(resource.send_timeout.get(), cx.core.world.now());
    loop {
        match connect_once(cx, resource, &address).await {
            // Once its outcome is there, asking again tells it, as for a program that asks twice.
            Err(Errno::EINPROGRESS | Errno::EALREADY) if waits => {}
            result => return Ok(Outcome::Return(result?)),
        }
        match wait_ready(cx, resource, POLLOUT, patience).await {
            Err(Errno::EAGAIN) => return Err(Errno::EINPROGRESS),
            other => other?,
        }
    }
}

async fn connect_once(cx: &Cx, resource: &Resource, address: &[u8]) -> Result<i64, Errno> {
    let fd = cx.remote_fd(resource)?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::ADDRESS, address)?;
    let length = address.len() as u32;
    check(cx.ask(&lease, &Request::Connect { fd, address: length, wait: 0 }).await?.value)
}

/// `bind`: the rules decide in which VM the address is.
pub async fn bind(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let address = address_in(cx, cx.arguments[1], cx.arguments[2]).await?;
    let resource = &entry.resource;
    let own = match rules::own_address(cx, resource, &address)? {
        Own::Unknown => return Ok(Outcome::Reflect),
        Own::Local => {
            resource.state.set(State::Local);
            return Ok(Outcome::Reflect);
        }
        Own::Remote(own) => own,
    };
    let hold = cx.hold(entry);
    let fd = commit(cx, &hold.resource).await?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::ADDRESS, &address)?;
    let length = address.len() as u32;
    let response = cx.ask(&lease, &Request::Bind { fd, address: length }).await?;
    let result = check(response.value)?;
    resource.bound.set(Some(own));
    Ok(Outcome::Return(result))
}

/// `listen`: a socket without an address listens on all of them.
pub async fn listen(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    if rules::listener(cx, &entry.resource)? == Peer::Own {
        entry.resource.state.set(State::Local);
        return Ok(Outcome::Reflect);
    }
    let hold = cx.hold(entry);
    let fd = commit(cx, &hold.resource).await?;
    let backlog = cx.int(1);
    Ok(Outcome::Return(cx.simple(&Request::Listen { fd, backlog }).await?))
}

/// `shutdown`.
pub async fn shutdown(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let how = cx.int(1) as u32;
    Ok(Outcome::Return(cx.simple(&Request::Shutdown { fd, how }).await?))
}

/// `accept` and `accept4`: the new connection gets a placeholder of its own.
pub async fn accept(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let flags = if cx.number == nr::accept4 { cx.int(3) as u32 } else { 0 };
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let hold = cx.hold(entry);
    let resource = &hold.resource;
    let patience = Patience::from_timeout(resource.receive_timeout.get(), cx.core.world.now());
    let (remote, peer, delegate) = loop {
        let fd = cx.remote_fd(resource)?;
        let lease = cx.worker().await?;
        let response = cx.ask(&lease, &Request::Accept { fd, wait: 0 }).await?;
        if response.value == Errno::EAGAIN.result() && !resource.nonblocking.get() {
            drop(lease);
            wait_ready(cx, resource, POLLIN, patience).await?;
            continue;
        }
        let remote = descriptor(response.value)?;
        break (remote, address_of(&lease, response.address)?, lease.delegate.id);
    };
    let accepted = cx.core.resource(resource.domain, resource.kind, resource.protocol);
    accepted.state.set(State::Remote(remote));
    accepted.holders.borrow_mut().insert(delegate, remote);
    accepted.nonblocking.set(flags & SOCK_NONBLOCK != 0);
    let entry = Entry { resource: Rc::new(accepted), close_on_exec: flags & SOCK_CLOEXEC != 0 };
    // From here on the connection is closed again unless it gets its descriptor.
    let connection = cx.hold(&entry);
    let kind = u64::from(resource.kind | flags);
    let placeholder = [u64::from(resource.domain), kind, u64::from(resource.protocol), 0, 0, 0];
    let fd = check(cx.local(nr::socket, placeholder).await)?;
    put(cx, fd as i32, entry).await;
    drop(connection);
    if let Err(error) = address_out(cx, &peer, cx.arguments[1], cx.arguments[2]).await {
        let lost = cx.table.remove(fd as i32);
        cx.core.release(&cx.table, lost);
        cx.local(nr::close, [fd as u64, 0, 0, 0, 0, 0]).await;
        return Err(error);
    }
    Ok(Outcome::Return(fd))
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

/// Options whose value is, or holds, a pointer.
fn has_pointer(level: i32, name: i32) -> bool {
    level == SOL_SOCKET && matches!(name, SO_ATTACH_FILTER | SO_ATTACH_BPF | 27 | 51 | 52)
        || level == SOL_TCP && name == TCP_ZEROCOPY_RECEIVE
        // iptables' options share the level of IP.
        || matches!(level, 0 | 41) && name == 64
}

async fn option_value(cx: &Cx) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(cx.int(4)).map_err(|_| Errno::EINVAL)?;
    if length > OPTION_MAX {
        return Err(Errno::EINVAL);
    }
    cx.bytes(cx.arguments[3], length).await
}

/// `setsockopt` before the socket has committed.
pub async fn note_option(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let (level, name) = (cx.int(1), cx.int(2));
    if has_pointer(level, name) {
        return Ok(Outcome::Reflect);
    }
    rules::option(cx, level, name)?;
    let value = option_value(cx).await?;
    let result = check(cx.original().await)?;
    time_limit(&entry.resource, level, name, &value);
    let mut options = entry.resource.options.borrow_mut();
    if options.len() >= OPTION_LIMIT {
        return Err(Errno::ENOBUFS);
    }
    options.push(OptionSet { level, name, value });
    Ok(Outcome::Return(result))
}

/// Time-outs are the relay's own business: remote sockets never block.
fn time_limit(resource: &Resource, level: i32, name: i32, value: &[u8]) {
    let timeout = match name {
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => &resource.receive_timeout,
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => &resource.send_timeout,
        _ => return,
    };
    let value: Option<&[u8; 16]> = value.get(..16).and_then(|v| v.try_into().ok());
    if let (SOL_SOCKET, Some(value)) = (level, value) {
        timeout.set(TimeVal::decode(value).to_nanoseconds().unwrap_or(0));
    }
}

/// `setsockopt` of a remote socket.
pub async fn set_option(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let (level, name) = (cx.int(1), cx.int(2));
    if has_pointer(level, name) {
        return refuse_option(cx);
    }
    rules::option(cx, level, name)?;
    let value = option_value(cx).await?;
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::PAYLOAD, &value)?;
    let length = value.len() as u32;
    let response = cx.ask(&lease, &Request::SetOption { fd, level, name, length }).await?;
    let result = check(response.value)?;
    time_limit(&hold.resource, level, name, &value);
    Ok(Outcome::Return(result))
}

/// `getsockopt` of a remote socket.
pub async fn get_option(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let (level, name) = (cx.int(1), cx.int(2));
    if has_pointer(level, name) {
        return refuse_option(cx);
    }
    let length_at = cx.arguments[4];
    let room = i32::from_le_bytes(cx.array(length_at).await?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(OPTION_MAX);
    let value = cx.bytes(cx.arguments[3], room).await?;
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::PAYLOAD, &value)?;
    let length = room as u32;
    let response = cx.ask(&lease, &Request::GetOption { fd, level, name, length }).await?;
    let result = check(response.value)?;
    let mut out = alloc::vec![0; (response.length as usize).min(room)];
    lease.mailbox().memory().read_all(layout::PAYLOAD, &mut out)?;
    cx.write(cx.arguments[3], &out).await?;
    cx.write(length_at, &(out.len() as u32).to_le_bytes()).await?;
    Ok(Outcome::Return(result))
}

fn refuse_option(cx: &Cx) -> Result<Outcome, Errno> {
    cx.note(Kind::Refused);
    super::log_refusal(cx, Errno::EOPNOTSUPP);
    Err(Errno::EOPNOTSUPP)
}
