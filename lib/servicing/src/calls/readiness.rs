//! Waiting until a remote socket is ready, by the rules of calls that read or write.
use crate::cx::{Cx, Scratch};
use crate::delegate::{Answer, Completion, Kept, Lease};
use crate::space::{Back, Exchange};
use crate::table::{Resource, Table};
use crate::wake::Wake;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use linux_abi::{Errno, POLLIN, POLLRDHUP, PollFd, SIGSET_SIZE, TimeSpec, check, nr};
use paging::PAGE;
use wire::{PollEntry, Request, WAIT_FOREVER, layout};

/// How a call waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Without limit; a signal's handler may have the call restarted (`SA_RESTART`).
    Restartable,
    /// Until this time, and never restarted: what Linux does with a time-out, and with a call
    /// that has transferred something already.
    Until(u64),
}

impl Patience {
    /// From a socket's time-out (zero for none) and the time.
    #[must_use]
    pub fn from_timeout(timeout: u64, now: u64) -> Self {
        match timeout {
            0 => Self::Restartable,
            n => Self::Until(now.saturating_add(n)),
        }
    }

    /// The same for a call that has had an effect.
    #[must_use]
    pub fn once_begun(self) -> Self {
        match self {
            Self::Restartable => Self::Until(u64::MAX),
            other => other,
        }
    }
}

/// A remote `poll` that is out. Its worker is kept where the engine finds it: when a signal's
/// handler makes a call of its own, the worker is taken away, and the poll must be started again.
///
/// One without a time-out that has not been answered when its call ends stays out, see
/// [`Standing`](crate::delegate::Standing).
pub struct RemotePoll {
    table: Rc<Table>,
    exchange: Rc<Exchange>,
    entries: Vec<PollEntry>,
    wait: u64,
    out: RefCell<Out>,
    /// Who is to be woken.
    armed: RefCell<Option<Rc<Wake>>>,
}

/// The request that is out.
struct Out {
    completion: Rc<Completion>,
    /// The worker has to be woken, or wakes by itself: an answer takes its time.
    asleep: bool,
    /// The activity when it was posted.
    since: u64,
    /// It was posted by an earlier call, and something has happened since: what it finds must be
    /// looked at once more.
    stale: bool,
}

impl Drop for RemotePoll {
    fn drop(&mut self) {
        let Some(lease) = self.exchange.worker.take() else { return };
        self.disarm();
        if self.wait == WAIT_FOREVER && lease.in_flight() {
            let out = self.out.get_mut();
            let entries = core::mem::take(&mut self.entries);
            let (completion, since) = (out.completion.clone(), out.since);
            self.table.standing.keep(Kept { entries, lease, completion, since });
        }
    }
}

impl RemotePoll {
    /// Starts one. A call has one at a time.
    ///
    /// # Errors
    /// What kept the process from getting a worker; `EINVAL` for too many entries.
    pub async fn start(cx: &Cx, entries: &[PollEntry], wait: u64) -> Result<Self, Errno> {
        if wait == WAIT_FOREVER
            && let Some(poll) = Self::adopt(cx, entries)
        {
            return Ok(poll);
        }
        let out = RefCell::new(Self::post(cx, entries, wait).await?);
        let (table, exchange) = (cx.table.clone(), cx.exchange.clone());
        let armed = RefCell::default();
        Ok(Self { table, exchange, entries: entries.to_vec(), wait, out, armed })
    }

    /// Takes over a poll that an earlier call left out: one that has not been answered, or whose
    /// answer still holds.
    #[must_use]
    pub fn adopt(cx: &Cx, entries: &[PollEntry]) -> Option<Self> {
        let delegate = cx.table.delegate.borrow().clone()?;
        let kept = cx.table.standing.take(entries, &delegate)?;
        kept.lease.check(&cx.core.wakes);
        let stale = kept.since != cx.core.delegates.activity.get();
        if stale && kept.completion.get().is_some() {
            return None;
        }
        let Kept { entries, lease, completion, since } = kept;
        *cx.exchange.worker.borrow_mut() = Some(lease);
        let out = RefCell::new(Out { completion, asleep: true, since, stale });
        let (table, exchange) = (cx.table.clone(), cx.exchange.clone());
        Some(Self { table, exchange, entries, wait: WAIT_FOREVER, out, armed: RefCell::default() })
    }

    /// Starts it again, when its worker has been taken away.
    ///
    /// # Errors
    /// As `start`.
    pub async fn again(&mut self, cx: &Cx, entries: &[PollEntry]) -> Result<(), Errno> {
        if self.exchange.worker.borrow().is_none() {
            self.out = RefCell::new(Self::post(cx, entries, self.wait).await?);
            self.entries = entries.to_vec();
        }
        Ok(())
    }

    async fn post(cx: &Cx, entries: &[PollEntry], wait: u64) -> Result<Out, Errno> {
        cx.take_turns().await;
        let lease = cx.worker().await?;
        let out = Self::post_with(cx, &lease, entries, wait)?;
        *cx.exchange.worker.borrow_mut() = Some(lease);
        Ok(out)
    }

    fn post_with(cx: &Cx, lease: &Lease, entries: &[PollEntry], wait: u64) -> Result<Out, Errno> {
        let count = u32::try_from(entries.len()).map_err(|_| Errno::EINVAL)?;
        let room = layout::PAYLOAD_MAX as usize / PollEntry::SIZE;
        if entries.len() > room {
            return Err(Errno::EINVAL);
        }
        for (n, entry) in entries.iter().enumerate() {
            let at = layout::PAYLOAD + (n * PollEntry::SIZE) as u64;
            lease.mailbox().memory().write_all(at, &entry.encode())?;
        }
        let since = cx.core.delegates.activity.get();
        let (completion, asleep) = lease.post(&Request::Poll { count, wait });
        Ok(Out { completion, asleep, since, stale: false })
    }

    fn is_gone(&self) -> bool {
        self.exchange.worker.borrow().is_none()
    }

    /// True when the outcome is there.
    pub fn is_done(&self, cx: &Cx) -> bool {
        let worker = self.exchange.worker.borrow();
        let Some(lease) = worker.as_ref() else { return false };
        lease.check(&cx.core.wakes);
        let out = &mut *self.out.borrow_mut();
        let Some(response) = out.completion.get() else { return false };
        if !out.stale || response.value < 0 {
            return true;
        }
        // Only a hint: the same is asked anew. An error says that the worker is gone.
        match Self::post_with(cx, lease, &self.entries, self.wait) {
            Ok(new) => *out = new,
            Err(_) => return true,
        }
        if let Some(wake) = self.armed.borrow().as_ref() {
            out.completion.set_waiter(Some(wake.clone()));
            lease.want_doorbell();
        }
        lease.check(&cx.core.wakes);
        out.completion.get().is_some()
    }

    /// Holds the vCPU for a moment.
    pub fn spin(&self, cx: &Cx) -> bool {
        let asleep = self.out.borrow().asleep;
        cx.spin(cx.core.hold(asleep), || self.is_done(cx))
    }

    /// Waits for an outcome that does not take long, deaf to signals.
    ///
    /// # Errors
    /// What kept the thread from waiting.
    pub async fn soon(&self, cx: &Cx) -> Result<(), Errno> {
        if self.spin(cx) {
            return Ok(());
        }
        let result = cx.sleep_deaf(|| self.is_gone() || self.is_done(cx), |w| self.arm(w)).await;
        self.disarm();
        result
    }

    /// Has the thread woken when the outcome comes.
    pub fn arm(&self, wake: &Rc<Wake>) {
        *self.armed.borrow_mut() = Some(wake.clone());
        self.out.borrow().completion.set_waiter(Some(wake.clone()));
        if let Some(lease) = self.exchange.worker.borrow().as_ref() {
            lease.want_doorbell();
        }
    }

    /// Nobody is woken any more.
    pub fn disarm(&self) {
        self.armed.take();
        self.out.borrow().completion.set_waiter(None);
    }

    /// The number of ready entries, filled in. When the delegate is gone, every entry is ready
    /// with an error.
    pub fn take(&self, cx: &Cx, entries: &mut [PollEntry]) -> usize {
        let worker = self.exchange.worker.borrow();
        let (since, response) = {
            let out = self.out.borrow();
            (out.since, out.completion.get())
        };
        let (Some(lease), Some(response)) = (worker.as_ref(), response) else {
            return 0;
        };
        let lost = response.value < 0 && !response.cancelled;
        let mut ready = 0;
        for (n, entry) in entries.iter_mut().enumerate() {
            let at = layout::PAYLOAD + (n * PollEntry::SIZE) as u64;
            let mut bytes = [0; PollEntry::SIZE];
            let read = lease.mailbox().memory().read_all(at, &mut bytes);
            let found = PollEntry::decode(bytes).revents;
            let always = linux_abi::POLLERR | linux_abi::POLLHUP | linux_abi::POLLNVAL;
            entry.revents = match (lost, read) {
                (true, _) | (_, Err(_)) => dead_events(entry.events),
                // Only what was asked for, or is always told.
                (false, Ok(())) if response.value > 0 => found & (entry.events | always),
                _ => 0,
            };
            ready += usize::from(entry.revents != 0);
        }
        if !lost && entries.iter().all(super::select::is_complete) {
            let (delegate, at) = (lease.delegate.id, cx.core.world.now());
            self.table.standing.note(Answer { entries: entries.to_vec(), delegate, since, at });
        }
        ready
    }
}

/// Fills in what is ready for a `select` without asking, where an answer to the same question
/// said all there is and nothing has been done to any socket since.
pub fn recall(cx: &Cx, entries: &mut [PollEntry]) -> bool {
    let Some(delegate) = cx.table.delegate.borrow().clone() else { return false };
    let (activity, now) = (cx.core.delegates.activity.get(), cx.core.world.now());
    cx.table.standing.recall(entries, &delegate, activity, now)
}

/// True while an earlier call's poll of the same is out, without an answer.
pub fn is_out(cx: &Cx, entries: &[PollEntry]) -> bool {
    let Some(delegate) = cx.table.delegate.borrow().clone() else { return false };
    cx.table.standing.is_out(entries, &delegate, &cx.core.wakes)
}

/// What `poll` says of a socket that is lost.
#[must_use]
pub fn dead_events(asked: u16) -> u16 {
    linux_abi::POLLERR | linux_abi::POLLHUP | asked & (linux_abi::POLLIN | linux_abi::POLLOUT)
}

/// Memory accesses with errors of calls: a mailbox that is shorter than its layout would be the
/// relay's own mistake.
pub trait Access {
    /// Writes all bytes.
    ///
    /// # Errors
    /// `EIO`.
    fn write_all(&self, at: u64, bytes: &[u8]) -> Result<(), Errno>;
    /// Reads all bytes.
    ///
    /// # Errors
    /// `EIO`.
    fn read_all(&self, at: u64, into: &mut [u8]) -> Result<(), Errno>;
}

impl<M: memory::Memory> Access for M {
    fn write_all(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.write(at, bytes).map_err(|_| Errno::EIO)
    }
    fn read_all(&self, at: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.read(at, into).map_err(|_| Errno::EIO)
    }
}

/// How often a call may find that its socket has an error for somebody else, before it pauses.
const IN_VAIN: u32 = 3;
/// The pause, in nanoseconds.
const PAUSE: u64 = 2_000_000;

/// Waits until a socket is ready for `events`, or has an error.
///
/// # Errors
/// `EINTR`, `EAGAIN` when the time is over, the socket's loss.
pub async fn wait_ready(
    cx: &Cx,
    resource: &Resource,
    events: u16,
    patience: Patience,
) -> Result<(), Errno> {
    let fd = cx.remote_fd(resource)?;
    let mut entry = [PollEntry { fd, events, revents: 0 }];
    wait_for(cx, &mut entry, WAIT_FOREVER, patience).await?;
    // `poll` tells of an error queue (IP_RECVERR) until somebody reads it; other calls go on
    // waiting meanwhile.
    if entry[0].revents == linux_abi::POLLERR {
        cx.in_vain.set(cx.in_vain.get() + 1);
        if cx.in_vain.get() > IN_VAIN {
            wait_for(cx, &mut [], PAUSE, patience).await?;
        }
    }
    Ok(())
}

/// Waits for some nanoseconds, or until the other side of a stream has ended: whether it has.
///
/// # Errors
/// `EINTR`, `EAGAIN` when the time of the call is over, the socket's loss.
pub async fn ends_within(
    cx: &Cx,
    resource: &Resource,
    time: u64,
    patience: Patience,
) -> Result<bool, Errno> {
    let fd = cx.remote_fd(resource)?;
    let mut entry = [PollEntry { fd, events: POLLRDHUP, revents: 0 }];
    wait_for(cx, &mut entry, time, patience).await?;
    Ok(entry[0].revents != 0)
}

/// Waits for some nanoseconds, with restarts by signals' handlers as for a call without time-out.
///
/// # Errors
/// `EINTR`.
pub async fn pause(cx: &Cx, time: u64) -> Result<(), Errno> {
    wait_for(cx, &mut [], time, Patience::Restartable).await
}

/// Waits until `done`; `arm` says where the wake-up comes from, and is called before each sleep.
///
/// # Errors
/// `EINTR`, `EAGAIN` when the time is over, what kept the thread from waiting.
pub async fn wait_until(
    cx: &Cx,
    patience: Patience,
    done: impl Fn() -> bool,
    arm: impl Fn(&Rc<Wake>),
) -> Result<(), Errno> {
    let lease = cx.wake().await?;
    let scratch = cx.scratch()?;
    loop {
        arm(lease.wake());
        if done() {
            return Ok(());
        }
        sleep(cx, lease.wake(), &scratch, patience).await?;
    }
}

/// Waits for an entry, or until the remote side's time is over.
async fn wait_for(
    cx: &Cx,
    entries: &mut [PollEntry],
    wait: u64,
    patience: Patience,
) -> Result<(), Errno> {
    let mut poll = RemotePoll::start(cx, entries, wait).await?;
    if !poll.spin(cx) {
        let lease = cx.wake().await?;
        let scratch = cx.scratch()?;
        loop {
            poll.again(cx, entries).await?;
            poll.arm(lease.wake());
            if poll.is_done(cx) {
                break;
            }
            sleep(cx, lease.wake(), &scratch, patience).await?;
        }
        poll.disarm();
    }
    // Where the delegate is gone, the next real request says what that means.
    poll.take(cx, entries);
    Ok(())
}

/// One sleep on a wake socket: returns after a wake-up, real or not.
async fn sleep(
    cx: &Cx,
    wake: &Rc<Wake>,
    scratch: &Scratch,
    patience: Patience,
) -> Result<(), Errno> {
    match patience {
        Patience::Restartable => {
            let read = [wake.fd as u64, scratch.address + PAGE - 64, 64, 0, 0, 0];
            match cx.local_once(nr::read, read).await {
                Back::Restart => {}
                Back::Result(0) => {
                    wake.closed.set(true);
                    return Err(Errno::EIO);
                }
                Back::Result(result) => {
                    let n = check(result)?;
                    cx.core.woke_up(wake.rung.get());
                    wake.consumed(u32::try_from(n).unwrap_or(u32::MAX));
                }
            }
        }
        Patience::Until(deadline) => {
            let now = cx.core.world.now();
            if now >= deadline {
                return Err(Errno::EAGAIN);
            }
            if wake.outstanding.get() > 0 {
                return cx.drain(wake, scratch).await;
            }
            let entry = PollFd { fd: wake.fd, events: POLLIN, revents: 0 };
            let at = scratch.address;
            cx.write(at, &entry.encode()).await?;
            let mut time = 0;
            if deadline != u64::MAX {
                cx.write(at + 16, &TimeSpec::from_nanoseconds(deadline - now).encode()).await?;
                time = at + 16;
            }
            match cx.local_once(nr::ppoll, [at, 1, time, 0, SIGSET_SIZE, 0]).await {
                Back::Restart => {}
                Back::Result(0) => return Err(Errno::EAGAIN),
                Back::Result(result) => {
                    check(result)?;
                    cx.core.woke_up(wake.rung.get());
                }
            }
        }
    }
    Ok(())
}
