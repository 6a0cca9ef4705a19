//! How a socket becomes remote.
use super::readiness::{Access, Patience, wait_until};
use super::socket::descriptor;
use super::vouch::vouch;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{OptionSet, Resource, State};
use crate::wake::Wake;
use alloc::rc::Rc;
use linux_abi::{Errno, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, SOCK_DGRAM, check};
use wire::{Request, layout};

/// Makes the remote socket, with all options set before.
///
/// One thread does so at a time, and other calls on the socket wait meanwhile (see [`settled`]): so
/// nobody finds a remote socket that lacks its options or its registrations.
///
/// # Errors
/// What the delegate's kernel says; `ENETUNREACH` where another thread has made the socket the
/// own kernel's meanwhile.
pub async fn commit(cx: &Cx, resource: &Rc<Resource>) -> Result<i32, Errno> {
    settled(cx, resource).await?;
    match resource.state.get() {
        State::Undecided => {}
        State::Local => return Err(Errno::ENETUNREACH),
        State::Remote(_) | State::Dead => return cx.remote_fd(resource),
    }
    vouch(cx)?;
    let _committing = Committing::new(cx, resource);
    let made = make(cx, resource).await?;
    adopt(cx, resource, made).await?;
    Ok(made.fd)
}

/// A remote socket that nothing in the program stands for yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    delegate: u32,
    /// The delegate's descriptor.
    pub fd: i32,
}

/// Makes a remote socket like the placeholder, with its options.
pub(super) async fn make(cx: &Cx, resource: &Resource) -> Result<Made, Errno> {
    let lease = cx.worker().await?;
    let (domain, kind, protocol) = (resource.domain, resource.kind, resource.protocol);
    let made = cx.ask(&lease, &Request::Socket { domain, kind, protocol }).await?;
    let fd = descriptor(made.value)?;
    let options = resource.options.borrow().clone();
    for OptionSet { level, name, value } in options {
        lease.mailbox().memory().write_all(layout::PAYLOAD, &value)?;
        let length = value.len() as u32;
        // The placeholder took it; where the delegate's kernel does not, the default stays.
        cx.ask(&lease, &Request::SetOption { fd, level, name, length }).await?;
    }
    Ok(Made { delegate: lease.delegate.id, fd })
}

/// From here on the program's socket is that one.
pub(super) async fn adopt(cx: &Cx, resource: &Rc<Resource>, made: Made) -> Result<(), Errno> {
    resource.holders.borrow_mut().insert(made.delegate, made.fd);
    resource.state.set(State::Remote(made.fd));
    super::epoll::committed(cx, resource).await?;
    super::passing::share(cx, resource).await;
    super::signals::refresh(cx, resource).await
}

/// The time in which a thread makes a socket commit.
pub(super) struct Committing<'c> {
    cx: &'c Cx,
    resource: &'c Resource,
}

impl<'c> Committing<'c> {
    pub fn new(cx: &'c Cx, resource: &'c Resource) -> Self {
        resource.committing.set(Some((cx.space.id, cx.fs)));
        Self { cx, resource }
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.resource.committing.set(None);
        wake_waiters(self.cx, self.resource);
    }
}

/// The socket is the program's own kernel's from now on.
pub(super) fn become_local(cx: &Cx, resource: &Resource) -> State {
    let before = resource.state.replace(State::Local);
    wake_waiters(cx, resource);
    before
}

/// Whoever waits for what becomes of the socket looks again.
pub(super) fn wake_waiters(cx: &Cx, resource: &Resource) {
    for wake in resource.waiters.take() {
        cx.core.wakes.ring(&*cx.core.world, &wake);
    }
}

/// A thread waits for what becomes of the socket.
pub(super) fn expect(resource: &Resource, wake: &Rc<Wake>) {
    let mut waiters = resource.waiters.borrow_mut();
    if !waiters.iter().any(|w| Rc::ptr_eq(w, wake)) {
        waiters.push(wake.clone());
    }
}

/// A call that receives from a datagram socket that has not committed. Nothing can arrive there, but
/// another thread may make the socket commit, by its first send for instance, or shut it down (which wakes
/// receivers though it fails, `inet_shutdown`): that is waited for.
///
/// # Errors
/// `EINTR`, `EAGAIN` when the socket's time is over, what kept the thread from waiting.
pub async fn receive_later(cx: &Cx, resource: &Resource, flags: u32) -> Result<(), Errno> {
    let waits = !resource.nonblocking.get()
        && flags & (MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE) == 0
        && resource.kind == SOCK_DGRAM;
    if !waits {
        return Ok(());
    }
    let patience = Patience::from_timeout(resource.receive_timeout.get(), cx.core.world.now());
    let undecided = || resource.state.get() == State::Undecided && !resource.shut.get();
    let done = || !undecided() && resource.committing.get().is_none();
    wait_until(cx, patience, done, |wake| expect(resource, wake)).await
}

/// `shutdown` of a socket that has not committed.
///
/// # Errors
/// What its own kernel says.
pub async fn shutdown(cx: &Cx, resource: &Resource) -> Result<Outcome, Errno> {
    let result = cx.original().await;
    resource.shut.set(true);
    wake_waiters(cx, resource);
    check(result).map(Outcome::Return)
}

/// Waits until no other thread is making the socket commit. To be called just before a call
/// decides by the socket's state.
///
/// # Errors
/// What kept the thread from waiting.
pub async fn settled(cx: &Cx, resource: &Resource) -> Result<(), Errno> {
    // A handler that has interrupted its own thread's commit would wait for ever.
    let own = Some((cx.space.id, cx.fs)).filter(|_| !cx.space.is_shared(cx.fs));
    let done = || match resource.committing.get() {
        None => true,
        who => who == own,
    };
    if done() {
        return Ok(());
    }
    cx.sleep_deaf(done, |wake| expect(resource, wake)).await
}
