//! `connect`.
use super::commit::{commit, settled};
use super::netlink;
use super::readiness::{Access, Patience, wait_ready};
use super::rules::{self, Peer};
use super::socket::address_in;
use crate::cx::{Cx, Hold};
use crate::space::Outcome;
use crate::table::{Entry, Resource, State};
use alloc::vec::Vec;
use linux_abi::{AF_NETLINK, Errno, MSG_FASTOPEN, POLLOUT, check};
use wire::{Request, layout};

/// `AF_UNSPEC`, which dissolves an association (`connect(2)`).
fn is_unspecified(address: &[u8]) -> bool {
    address.get(..2) == Some(&[0, 0])
}

/// A socket without connections that its program has not bound is free again when its
/// association is dissolved: Linux drops the port as well (`__udp_disconnect`). So programs can
/// ask one socket for the source address of several destinations, as `getaddrinfo` does.
fn is_free(resource: &Resource) -> bool {
    resource.dissolved.get() && resource.bound.get().is_none() && !resource.is_stream()
}

/// `connect`.
pub async fn connect(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let address = address_in(cx, cx.arguments[1], cx.arguments[2]).await?;
    let resource = &entry.resource;
    settled(cx, resource).await?;
    let state = resource.state.get();
    if resource.domain == AF_NETLINK {
        if !is_unspecified(&address) {
            netlink::check_peer(&address)?;
        }
    } else {
        let free = is_free(resource);
        if state == State::Local && !free {
            return connect_locally(cx, resource, &address).await;
        }
        // Bound in both VMs, and not listening: the peer decides which half remains.
        let both = resource.both.get() && !resource.listens_in_both.get();
        let open = free || both || state == State::Undecided;
        match rules::peer_of(cx, resource, open, &address, Errno::EACCES)? {
            Peer::Own => return become_local(cx, resource, &address).await,
            // Its own kernel says what is wrong with the address.
            Peer::Unknown if state == State::Local => {
                return connect_locally(cx, resource, &address).await;
            }
            Peer::Unknown if state == State::Undecided => return Ok(Outcome::Reflect),
            Peer::Unknown | Peer::Remote => {}
        }
        if both {
            resource.both.set(false);
        }
        if state == State::Local {
            resource.state.set(State::Undecided);
        }
    }
    let hold = cx.hold(entry);
    commit(cx, &hold.resource).await?;
    let result = attempt(cx, &hold, &address).await?;
    resource.dissolved.set(is_unspecified(&address));
    Ok(Outcome::Return(result))
}

/// The peer is in the program's own VM, and the socket may choose its side.
async fn become_local(cx: &Cx, resource: &Resource, address: &[u8]) -> Result<Outcome, Errno> {
    resource.both.set(false);
    match super::commit::become_local(cx, resource) {
        State::Local => return connect_locally(cx, resource, address).await,
        State::Remote(fd) => {
            resource.dissolved.set(false);
            // Whatever the delegate says, the socket is not its own any more.
            let _ = cx.simple(&Request::Close { fd }).await;
            resource.holders.borrow_mut().clear();
        }
        State::Undecided | State::Dead => {}
    }
    Ok(Outcome::Reflect)
}

/// `connect` of a socket that is, and stays, the own kernel's.
async fn connect_locally(cx: &Cx, resource: &Resource, address: &[u8]) -> Result<Outcome, Errno> {
    if resource.is_stream() {
        return Ok(Outcome::Reflect);
    }
    let result = check(cx.original().await)?;
    resource.dissolved.set(is_unspecified(address));
    Ok(Outcome::Return(result))
}

/// Connects, waiting where the socket does. The call itself is repeated when the socket has become
/// writable: it answers what became of the attempt, and does to the socket's state what a call
/// that waits in the kernel would have done.
async fn attempt(cx: &Cx, hold: &Hold, address: &[u8]) -> Result<i64, Errno> {
    let resource = &hold.resource;
    let waits = !resource.nonblocking.get() && resource.is_stream();
    let patience = Patience::from_timeout(resource.send_timeout.get(), cx.core.world.now());
    let mut first = None;
    loop {
        let fd = cx.remote_fd(resource)?;
        let lease = cx.worker().await?;
        lease.mailbox().memory().write_all(layout::ADDRESS, address)?;
        let length = address.len() as u32;
        let response = cx.ask(&lease, &Request::Connect { fd, address: length, wait: 0 }).await?;
        drop(lease);
        match check(response.value) {
            Err(error @ (Errno::EINPROGRESS | Errno::EALREADY)) if waits => {
                let first = *first.get_or_insert(error);
                match wait_ready(cx, resource, POLLOUT, patience).await {
                    Err(Errno::EAGAIN) => return Err(first),
                    other => other?,
                }
            }
            // Another thread has been told first: whoever waited learns that it is connected.
            Err(Errno::EISCONN) if first.is_some() => return Ok(0),
            result => return result,
        }
    }
}

/// Waits for the connection that a send with `MSG_FASTOPEN` has begun (without a cookie the data
/// are still to be sent). Answers the flags and the address to go on with.
///
/// # Errors
/// What became of the connection.
pub async fn finish_fast_open(
    cx: &Cx,
    hold: &Hold,
    flags: u32,
    address: &[u8],
) -> Result<(u32, Vec<u8>), Errno> {
    attempt(cx, hold, address).await?;
    Ok((flags & !MSG_FASTOPEN, Vec::new()))
}
