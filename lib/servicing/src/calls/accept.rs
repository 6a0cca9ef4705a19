//! `accept`.
use super::both;
use super::readiness::{Patience, wait_ready};
use super::signals::quieten;
use super::socket::{address_of, address_out, descriptor, put};
use super::vouch::vouch;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, Resource, State};
use alloc::rc::Rc;
use linux_abi::{Errno, POLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK, check, nr};
use wire::Request;

/// The descriptor that a connection will have, made before the connection is taken out of the
/// queue: where none is free, it stays there, as on Linux.
struct Reserved {
    fd: i32,
    entry: Entry,
}

impl Reserved {
    async fn new(cx: &Cx, listener: &Resource, flags: u32) -> Result<Self, Errno> {
        let accepted = cx.core.resource(listener.domain, listener.kind, listener.protocol);
        accepted.nonblocking.set(flags & SOCK_NONBLOCK != 0);
        accepted.inherit(listener);
        let [domain, protocol] = [listener.domain, listener.protocol].map(u64::from);
        let kind = u64::from(listener.kind | flags);
        let fd = check(cx.local(nr::socket, [domain, kind, protocol, 0, 0, 0]).await)? as i32;
        let close_on_exec = flags & SOCK_CLOEXEC != 0;
        let entry = Entry { resource: Rc::new(accepted), close_on_exec };
        put(cx, fd, entry.clone()).await;
        Ok(Self { fd, entry })
    }

    /// Gives it back.
    async fn cancel(self, cx: &Cx) {
        // Another thread may have closed it, and the number may be something else's now.
        let is_own = |e: &Entry| e.resource.id == self.entry.resource.id;
        if !cx.table.get(self.fd as u64).as_ref().is_some_and(is_own) {
            return;
        }
        let entry = cx.table.remove(self.fd);
        cx.core.release(&cx.table, entry);
        cx.local(nr::close, [self.fd as u64, 0, 0, 0, 0, 0]).await;
    }
}

/// `accept` and `accept4`: the new connection gets a placeholder of its own.
pub async fn accept(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let flags = if cx.number == nr::accept4 { cx.int(3) as u32 } else { 0 };
    if flags & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let hold = cx.hold(entry);
    let resource = &hold.resource;
    quieten(cx, resource).await?;
    if resource.listens_in_both.get() {
        return both::accept(cx, resource, flags).await;
    }
    let patience = Patience::from_timeout(resource.receive_timeout.get(), cx.core.world.now());
    loop {
        match take_remote(cx, resource, flags).await {
            // A handler may leave the call while it waits: nothing is reserved then.
            Err(Errno::EAGAIN) if !resource.nonblocking.get() => {
                wait_ready(cx, resource, POLLIN, patience).await?;
            }
            other => return other.map(Outcome::Return),
        }
    }
}

/// Takes a connection of the remote socket, if there is one; its descriptor.
pub(super) async fn take_remote(cx: &Cx, listener: &Resource, flags: u32) -> Result<i64, Errno> {
    let reserved = Reserved::new(cx, listener, flags).await?;
    match take_connection(cx, listener, &reserved).await {
        Ok(()) => Ok(i64::from(reserved.fd)),
        Err(error) => {
            reserved.cancel(cx).await;
            Err(error)
        }
    }
}

/// Takes a connection out of the delegate's queue.
async fn take_connection(cx: &Cx, listener: &Resource, reserved: &Reserved) -> Result<(), Errno> {
    let fd = cx.remote_fd(listener)?;
    let lease = cx.worker().await?;
    // From here on the connection is closed again unless it keeps its descriptor.
    let connection = cx.hold(&reserved.entry);
    let response = cx.ask(&lease, &Request::Accept { fd, wait: 0 }).await?;
    let remote = descriptor(response.value)?;
    let accepted = &connection.resource;
    accepted.state.set(State::Remote(remote));
    accepted.holders.borrow_mut().insert(lease.delegate.id, remote);
    let peer = address_of(&lease, response.address)?;
    drop(lease);
    vouch(cx)?;
    super::passing::share(cx, accepted).await;
    address_out(cx, &peer, cx.arguments[1], cx.arguments[2]).await
}
