//! Waiting until a remote socket is ready, by the rules of calls that read or write.
use crate::cx::{Cx, Scratch};
use crate::delegate::{Completion, Lease};
use crate::space::Back;
use crate::table::Resource;
use crate::wake::Wake;
use alloc::rc::Rc;
use linux_abi::{Errno, POLLIN, PollFd, SIGSET_SIZE, TimeSpec, check, nr};
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

/// A remote `poll` that is out.
pub struct RemotePoll {
    /// The worker that does it.
    pub lease: Lease,
    /// Its outcome.
    pub completion: Rc<Completion>,
    /// The worker had to be woken.
    pub asleep: bool,
}

impl RemotePoll {
    /// Starts one.
    ///
    /// # Errors
    /// What kept the process from getting a worker; `EINVAL` for too many entries.
    pub async fn start(cx: &Cx, entries: &[PollEntry], wait: u64) -> Result<Self, Errno> {
        let lease = cx.worker().await?;
        let count = u32::try_from(entries.len()).map_err(|_| Errno::EINVAL)?;
        let room = layout::PAYLOAD_MAX as usize / PollEntry::SIZE;
        if entries.len() > room {
            return Err(Errno::EINVAL);
        }
        for (n, entry) in entries.iter().enumerate() {
            let at = layout::PAYLOAD + (n * PollEntry::SIZE) as u64;
            lease.mailbox().memory().write_all(at, &entry.encode())?;
        }
        let (completion, asleep) = lease.post(&Request::Poll { count, wait });
        Ok(Self { lease, completion, asleep })
    }

    /// True when the outcome is there.
    pub fn is_done(&self, cx: &Cx) -> bool {
        self.lease.check(&cx.core.wakes);
        self.completion.get().is_some()
    }

    /// Holds the vCPU for a moment.
    pub fn spin(&self, cx: &Cx) -> bool {
        let settings = &cx.core.settings;
        let limit = if self.asleep { settings.hold_asleep } else { settings.hold };
        cx.spin(limit, || self.is_done(cx))
    }

    /// Has the thread woken when the outcome comes.
    pub fn arm(&self, wake: &Rc<Wake>) {
        self.completion.set_waiter(Some(wake.clone()));
        self.lease.want_doorbell();
    }

    /// The number of ready entries, filled in; errors of the delegate's are `EIO`, its end is
    /// readiness with an error on every entry.
    pub fn take(&self, entries: &mut [PollEntry]) -> usize {
        let Some(response) = self.completion.get() else { return 0 };
        let lost = response.value < 0 && !response.cancelled;
        let mut ready = 0;
        for (n, entry) in entries.iter_mut().enumerate() {
            let at = layout::PAYLOAD + (n * PollEntry::SIZE) as u64;
            let mut bytes = [0; PollEntry::SIZE];
            let read = self.lease.mailbox().memory().read_all(at, &mut bytes);
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
        ready
    }
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
    let entry = PollEntry { fd, events, revents: 0 };
    let poll = RemotePoll::start(cx, &[entry], WAIT_FOREVER).await?;
    if !poll.spin(cx) {
        let lease = cx.wake().await?;
        let scratch = cx.scratch()?;
        loop {
            poll.arm(lease.wake());
            if poll.is_done(cx) {
                break;
            }
            sleep(cx, lease.wake(), &scratch, patience).await?;
        }
        poll.completion.set_waiter(None);
    }
    let response = poll.completion.get().ok_or(Errno::EIO)?;
    if response.value < 0 {
        // What it was can only be said by the next real request.
        cx.remote_fd(resource)?;
    }
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
                }
            }
        }
    }
    Ok(())
}
