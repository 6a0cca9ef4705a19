//! Listeners in both VMs, where the policy says so (`place = "both"`): the remote socket and the
//! placeholder are bound to the same port and both listen; `accept` takes from either in turn.
//! What it takes from the placeholder is the own kernel's alone from then on.
use super::accept::take_remote;
use super::commit::{Committing, Made, adopt, make};
use super::poll;
use super::readiness::Access;
use super::restarts::Restarts;
use super::socket::address_of;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, Resource};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{
    AF_INET, AF_INET6, Errno, F_GETFL, F_SETFL, O_ASYNC, O_NONBLOCK, POLLIN, PollFd, check, nr,
};
use wire::{Request, layout};

/// How often a free port of one VM may turn out to be taken in the other.
const ATTEMPTS: u32 = 16;

/// Binds a socket that has not committed in both VMs, to the same port.
///
/// # Errors
/// Those of either kernel: the socket is not bound then.
pub async fn bind(cx: &Cx, resource: &Rc<Resource>, address: &[u8]) -> Result<(), Errno> {
    let any_port = address.get(2..4) == Some(&[0, 0]);
    let _committing = Committing::new(cx, resource);
    for _ in 0..ATTEMPTS {
        let made = make(cx, resource).await?;
        match bind_halves(cx, made, address).await {
            Ok(()) => {
                resource.both.set(true);
                return adopt(cx, resource, made).await;
            }
            Err(error) => {
                cx.simple(&Request::Close { fd: made.fd }).await?;
                if error != Errno::EADDRINUSE || !any_port {
                    return Err(error);
                }
            }
        }
    }
    Err(Errno::EADDRINUSE)
}

/// The remote half first: it may choose the port.
async fn bind_halves(cx: &Cx, made: Made, address: &[u8]) -> Result<(), Errno> {
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::ADDRESS, address)?;
    let request = Request::Bind { fd: made.fd, address: address.len() as u32 };
    check(cx.ask(&lease, &request).await?.value)?;
    let named = cx.ask(&lease, &Request::LocalName { fd: made.fd }).await?;
    check(named.value)?;
    let port = address_of(&lease, named.address)?;
    drop(lease);
    let mut own = address.to_vec();
    if let (Some(to), Some(from)) = (own.get_mut(2..4), port.get(2..4)) {
        to.copy_from_slice(from);
    }
    let scratch = cx.scratch()?;
    cx.write(scratch.address, &own).await?;
    let call = [cx.arguments[0], scratch.address, own.len() as u64, 0, 0, 0];
    check(cx.local(nr::bind, call).await).map(|_| ())
}

/// The wildcard address without a port: where a socket listens that has no address.
fn wildcard(resource: &Resource) -> Vec<u8> {
    let (family, length) = match resource.domain {
        AF_INET6 => (AF_INET6, 28),
        _ => (AF_INET, 16),
    };
    let mut address = alloc::vec![0; length];
    address[..2].copy_from_slice(&(family as u16).to_le_bytes());
    address
}

/// `listen`.
pub async fn listen(cx: &Cx, resource: &Rc<Resource>) -> Result<Outcome, Errno> {
    if !resource.both.get() {
        bind(cx, resource, &wildcard(resource)).await?;
    }
    let (fd, backlog) = (cx.remote_fd(resource)?, cx.int(1));
    cx.simple(&Request::Listen { fd, backlog }).await?;
    let result = check(cx.original().await)?;
    // Whoever waits waits for both halves.
    set_flags(cx, None).await?;
    resource.listens_in_both.set(true);
    Ok(Outcome::Return(result))
}

/// Sets the placeholder's flags (those that it has, if none are given): it never blocks.
async fn set_flags(cx: &Cx, flags: Option<u64>) -> Result<i64, Errno> {
    let [fd, ..] = cx.arguments;
    let flags = match flags {
        Some(flags) => flags,
        None => check(cx.local(nr::fcntl, [fd, F_GETFL.into(), 0, 0, 0, 0]).await)? as u64,
    };
    let flags = flags | u64::from(O_NONBLOCK);
    check(cx.local(nr::fcntl, [fd, F_SETFL.into(), flags, 0, 0, 0]).await)
}

/// `fcntl` with `F_GETFL` and `F_SETFL`: the program sees the flags that it has set.
pub async fn flags(cx: &Cx, resource: &Rc<Resource>) -> Result<Outcome, Errno> {
    let own = u64::from(O_NONBLOCK);
    if cx.int(1) as u32 == F_SETFL {
        let result = set_flags(cx, Some(cx.arguments[2])).await?;
        resource.nonblocking.set(cx.arguments[2] & own != 0);
        let asynchronous = cx.arguments[2] & u64::from(O_ASYNC) != 0;
        super::signals::set_asynchronous(cx, resource, asynchronous).await?;
        return Ok(Outcome::Return(result));
    }
    let flags = check(cx.original().await)? as u64 & !own;
    let flags = if resource.nonblocking.get() { flags | own } else { flags };
    Ok(Outcome::Return(flags as i64))
}

/// `accept` and `accept4`.
pub async fn accept(cx: &Cx, resource: &Resource, flags: u32) -> Result<Outcome, Errno> {
    let start = cx.core.world.now();
    let timeout = Some(resource.receive_timeout.get()).filter(|t| *t > 0);
    let mut restarts = None;
    loop {
        let local_first = resource.local_first.get();
        resource.local_first.set(!local_first);
        for local in [local_first, !local_first] {
            let taken = match local {
                true => take_local(cx).await,
                false => take_remote(cx, resource, flags).await,
            };
            match taken {
                Err(Errno::EAGAIN) => {}
                other => return other.map(Outcome::Return),
            }
        }
        if resource.nonblocking.get() {
            return Err(Errno::EAGAIN);
        }
        let left = timeout.map(|t| t.saturating_sub(cx.core.world.now().saturating_sub(start)));
        if timeout.is_none() && restarts.is_none() {
            restarts = Restarts::new(cx).await;
        }
        let mut entries = alloc::vec![PollFd { fd: cx.int(0), events: POLLIN, revents: 0 }];
        entries.extend(restarts.as_ref().map(Restarts::entry));
        let mask = restarts.as_ref().map(Restarts::mask).unwrap_or_default();
        match poll::wait(cx, &mut entries, left, mask).await? {
            Some(0) => return Err(Errno::EAGAIN),
            Some(_) => {}
            // Another thread has closed it.
            None => return Err(Errno::EBADF),
        }
    }
}

async fn take_local(cx: &Cx) -> Result<i64, Errno> {
    let fd = check(cx.original().await)?;
    // What was under that number is a left-over of a close that nobody saw.
    if cx.table.get(fd as u64).is_some() {
        let old = cx.table.remove(fd as i32);
        cx.core.release(&cx.table, old);
    }
    Ok(fd)
}

/// Calls about the socket itself that the placeholder has to follow. What it answers does not
/// count: the remote half has answered.
pub async fn follow(cx: &Cx, entry: &Entry) {
    if entry.resource.both.get() {
        cx.original().await;
    }
}
