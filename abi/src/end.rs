//! How threads end, as `Event::ThreadEnd` tells it.
use crate::{MESSAGE_WORDS, Message};
use core::fmt;

/// First code of exceptions; the vector is added.
const EXCEPTION: u64 = 0x100;

/// Why a thread ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndCause {
    /// `Exit`. Code 0.
    Exit {
        /// What it exited with.
        code: u64,
    },
    /// `Destroy` of the thread or its space. Code 1.
    Destroyed,
    /// A page fault that nobody resolves. Code 2.
    Fault {
        /// The address.
        address: u64,
    },
    /// A page fault that its manager refused, or answered by nonsense. Code 3.
    Refused {
        /// The address.
        address: u64,
    },
    /// The manager ended with the fault in its hands. Code 4.
    ManagerGone {
        /// The address.
        address: u64,
    },
    /// The handler of a VM exit ended. Code 5.
    MonitorGone {
        /// Class of the exit.
        class: u64,
    },
    /// A VM exit that nobody handles, or that its handler refused. Code 6.
    Unhandled {
        /// Class of the exit.
        class: u64,
    },
    /// A page fault that was not resolved in time. Code 7.
    Late {
        /// The address.
        address: u64,
    },
    /// An exception. Code 0x100 + vector.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code.
        error: u64,
    },
}

impl EndCause {
    /// Code and detail, the first and the third word of the event.
    #[must_use]
    pub const fn encode(self) -> (u64, u64) {
        match self {
            EndCause::Exit { code } => (0, code),
            EndCause::Destroyed => (1, 0),
            EndCause::Fault { address } => (2, address),
            EndCause::Refused { address } => (3, address),
            EndCause::ManagerGone { address } => (4, address),
            EndCause::MonitorGone { class } => (5, class),
            EndCause::Unhandled { class } => (6, class),
            EndCause::Late { address } => (7, address),
            EndCause::Exception { vector, error } => (EXCEPTION + vector as u64, error),
        }
    }

    /// The cause that code and detail stand for; `None` for an unknown code.
    #[must_use]
    pub const fn decode(code: u64, detail: u64) -> Option<Self> {
        Some(match code {
            0 => EndCause::Exit { code: detail },
            1 => EndCause::Destroyed,
            2 => EndCause::Fault { address: detail },
            3 => EndCause::Refused { address: detail },
            4 => EndCause::ManagerGone { address: detail },
            5 => EndCause::MonitorGone { class: detail },
            6 => EndCause::Unhandled { class: detail },
            7 => EndCause::Late { address: detail },
            0x100..=0x1ff => EndCause::Exception { vector: code as u8, error: detail },
            _ => return None,
        })
    }
}

const fn exception_name(vector: u8) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug trap",
        4 => "overflow",
        6 => "invalid instruction",
        7 => "floating-point instruction",
        12 => "stack fault",
        13 => "privileged instruction or bad operand",
        17 => "misaligned access",
        _ => "exception",
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EndCause::Exit { code } => write!(f, "exit with {code}"),
            EndCause::Destroyed => f.write_str("destroyed"),
            EndCause::Fault { address } | EndCause::Refused { address } => {
                write!(f, "page fault at {address:#x} not resolved")
            }
            EndCause::ManagerGone { address } => {
                write!(f, "page fault at {address:#x}: manager ended meanwhile")
            }
            EndCause::MonitorGone { class } => {
                write!(f, "VM exit of class {class}: handler ended meanwhile")
            }
            EndCause::Unhandled { class } => {
                write!(f, "VM exit of class {class}: nobody handles it")
            }
            EndCause::Late { address } => {
                write!(f, "page fault at {address:#x}: not resolved by its manager in time")
            }
            EndCause::Exception { vector, error } => {
                write!(f, "{} (vector {vector}, error {error:#x})", exception_name(vector))
            }
        }
    }
}

/// The end of a thread: the message of `Event::ThreadEnd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadEnd {
    /// Why.
    pub cause: EndCause,
    /// Instruction that it had come to.
    pub ip: u64,
}

impl ThreadEnd {
    /// The message words.
    #[must_use]
    pub const fn encode(&self) -> Message {
        let (code, detail) = self.cause.encode();
        let mut words = [0; MESSAGE_WORDS];
        words[0] = code;
        words[1] = self.ip;
        words[2] = detail;
        words
    }

    /// The end that message words stand for; `None` for an unknown cause.
    #[must_use]
    pub const fn decode(words: &Message) -> Option<Self> {
        match EndCause::decode(words[0], words[2]) {
            Some(cause) => Some(Self { cause, ip: words[1] }),
            None => None,
        }
    }
}

impl fmt::Display for ThreadEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at instruction {:#x}", self.cause, self.ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_survive_encoding() {
        for code in (0..8).chain(0x100..0x200) {
            let cause = EndCause::decode(code, 0x1234).expect("known");
            let detail = if code == 1 { 0 } else { 0x1234 };
            assert_eq!(cause.encode(), (code, detail));
            let end = ThreadEnd { cause, ip: 5 };
            assert_eq!(ThreadEnd::decode(&end.encode()), Some(end));
        }
        for code in [8, 0xff, 0x200, u64::MAX] {
            assert_eq!(EndCause::decode(code, 0), None);
        }
    }
}
