//! How long a call may wait.

use crate::errno;
use guest_sys::socket;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use wire::WAIT_FOREVER;

/// Pause of a call whose socket is ready again and again, but not for it.
pub const PAUSE: Duration = Duration::from_millis(1);

const SOL_SOCKET: i32 = 1;
const SO_RCVTIMEO: i32 = 20;
const SO_SNDTIMEO: i32 = 21;

/// The `wait` of a request, together with the socket's own time limit, which the kernel does not
/// apply to sockets that do not block (`socket(7)`, `SO_RCVTIMEO`).
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    wait: u64,
    start: Instant,
    /// The option that limits the call, if any.
    option: Option<i32>,
    connecting: bool,
    /// Both limits, once the call had to wait.
    deadline: Option<Option<Instant>>,
}

impl Patience {
    /// Without a limit of the socket's.
    pub fn plain(wait: u64) -> Self {
        Self { wait, start: Instant::now(), option: None, connecting: false, deadline: None }
    }

    /// For a call that receives.
    pub fn receiving(wait: u64) -> Self {
        Self { option: Some(SO_RCVTIMEO), ..Self::plain(wait) }
    }

    /// For a call that sends.
    pub fn sending(wait: u64) -> Self {
        Self { option: Some(SO_SNDTIMEO), ..Self::plain(wait) }
    }

    /// For `connect`.
    pub fn connecting(wait: u64) -> Self {
        Self { connecting: true, ..Self::sending(wait) }
    }

    /// The call does not wait at all.
    pub const fn is_none(&self) -> bool {
        self.wait == 0
    }

    /// Error of a call whose time is over, `error` having been the last one.
    pub const fn over(&self, error: i64) -> i64 {
        if self.connecting { errno::EINPROGRESS } else { error }
    }

    /// When the request's own time is over.
    pub fn end(&self) -> Option<Instant> {
        match self.wait {
            WAIT_FOREVER => None,
            wait => self.start.checked_add(Duration::from_nanos(wait)),
        }
    }

    /// When the call's time is over.
    pub fn deadline(&mut self, socket: BorrowedFd<'_>) -> Option<Instant> {
        if let Some(deadline) = self.deadline {
            return deadline;
        }
        let limit = self.option.and_then(|option| limit(socket, option));
        let limit = limit.and_then(|limit| self.start.checked_add(limit));
        let deadline = [self.end(), limit].into_iter().flatten().min();
        self.deadline = Some(deadline);
        deadline
    }
}

/// The socket's time limit: a `struct timeval`, zero for none.
fn limit(socket: BorrowedFd<'_>, option: i32) -> Option<Duration> {
    let mut value = [0; 16];
    socket::option(socket, SOL_SOCKET, option, &mut value).ok()?;
    let ([seconds, microseconds], _) = value.as_chunks::<8>() else { return None };
    let seconds = u64::from_ne_bytes(*seconds);
    let microseconds = u64::from_ne_bytes(*microseconds);
    let limit = Duration::from_secs(seconds).checked_add(Duration::from_micros(microseconds))?;
    (!limit.is_zero()).then_some(limit)
}
