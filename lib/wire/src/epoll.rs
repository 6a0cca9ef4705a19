//! Requests about epoll instances of a delegate (`epoll(7)`).
//!
//! The instance and what is registered in it are real ones of the delegate's kernel, so
//! edge-triggering and the like are Linux' own. What is registered carries a *cookie* of the
//! relay's; the program's own data never leave the compute VM.
use crate::message::{Malformed, WORDS, from_i32, i32_of, u32_of};

const CREATE: u64 = 40;
const CONTROL: u64 = 41;
const TAKE: u64 = 42;
const DUPLICATE: u64 = 43;

/// What a worker is asked to do about an epoll instance. None of these waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpollRequest {
    /// `epoll_create1(EPOLL_CLOEXEC)`; answers the descriptor.
    Create,
    /// `epoll_ctl`.
    Control {
        /// Descriptor of the instance.
        epoll: i32,
        /// What is to be done.
        operation: EpollOperation,
        /// Descriptor that it is about.
        fd: i32,
        /// `EPOLL*` asked for.
        events: u32,
        /// Comes back with its events.
        cookie: u64,
    },
    /// `epoll_wait` that does not wait; answers the number of [`EpollFound`]s at `PAYLOAD`.
    Take {
        /// Descriptor of the instance.
        epoll: i32,
        /// Most events.
        count: u32,
    },
    /// `dup`: one more descriptor of the same socket, so that it can be registered twice.
    Duplicate {
        /// Descriptor.
        fd: i32,
    },
}

/// `EPOLL_CTL_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum EpollOperation {
    /// `EPOLL_CTL_ADD`.
    Add = 1,
    /// `EPOLL_CTL_DEL`.
    Delete = 2,
    /// `EPOLL_CTL_MOD`.
    Modify = 3,
}

impl EpollOperation {
    /// From the number that `epoll_ctl` takes.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Add),
            2 => Some(Self::Delete),
            3 => Some(Self::Modify),
            _ => None,
        }
    }
}

impl EpollRequest {
    /// Short name for log lines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Create => "epoll_create",
            Self::Control { .. } => "epoll_ctl",
            Self::Take { .. } => "epoll_wait",
            Self::Duplicate { .. } => "dup",
        }
    }

    pub(crate) fn words(&self) -> [u64; WORDS] {
        let (f, u) = (from_i32, u64::from);
        match *self {
            Self::Create => [CREATE, 0, 0, 0, 0, 0, 0, 0],
            Self::Control { epoll, operation, fd, events, cookie } => {
                [CONTROL, f(epoll), u(operation as u32), f(fd), u(events), cookie, 0, 0]
            }
            Self::Take { epoll, count } => [TAKE, f(epoll), u(count), 0, 0, 0, 0, 0],
            Self::Duplicate { fd } => [DUPLICATE, f(fd), 0, 0, 0, 0, 0, 0],
        }
    }

    pub(crate) fn of_words(w: &[u64; WORDS]) -> Result<Self, Malformed> {
        Ok(match w[0] {
            CREATE => Self::Create,
            CONTROL => Self::Control {
                epoll: i32_of(w[1])?,
                operation: EpollOperation::of(u32_of(w[2])?).ok_or(Malformed)?,
                fd: i32_of(w[3])?,
                events: u32_of(w[4])?,
                cookie: w[5],
            },
            TAKE => Self::Take { epoll: i32_of(w[1])?, count: u32_of(w[2])? },
            DUPLICATE => Self::Duplicate { fd: i32_of(w[1])? },
            _ => return Err(Malformed),
        })
    }
}

/// One event of a `Take`: 12 bytes at `PAYLOAD + 12 * index`, laid out as `struct epoll_event`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpollFound {
    /// `EPOLL*` found.
    pub events: u32,
    /// Of what it was found.
    pub cookie: u64,
}

impl EpollFound {
    /// Encoded size.
    pub const SIZE: usize = 12;

    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut b = [0; Self::SIZE];
        b[..4].copy_from_slice(&self.events.to_le_bytes());
        b[4..].copy_from_slice(&self.cookie.to_le_bytes());
        b
    }

    /// From the bytes.
    #[must_use]
    pub fn decode(b: [u8; Self::SIZE]) -> Self {
        let [e0, e1, e2, e3, d @ ..] = b;
        Self { events: u32::from_le_bytes([e0, e1, e2, e3]), cookie: u64::from_le_bytes(d) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_round_trip(bytes: [u8; 12]) {
            prop_assert_eq!(EpollFound::decode(bytes).encode(), bytes);
        }

        #[test]
        fn requests_survive(epoll: i32, fd: i32, events: u32, cookie: u64, n in 0u32..6) {
            let request = match EpollOperation::of(n) {
                Some(operation) => EpollRequest::Control { epoll, operation, fd, events, cookie },
                None if n == 0 => EpollRequest::Take { epoll, count: events },
                None if n == 4 => EpollRequest::Duplicate { fd },
                None => EpollRequest::Create,
            };
            let request = Request::Epoll(request);
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }
}
