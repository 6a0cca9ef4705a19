//! How threads end, as `Event::ThreadEnd` tells it.
use crate::{Access, Error, MESSAGE_WORDS, Message};
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

macro_rules! obstacles {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// What is in the way of an access that no manager is asked about.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u64)]
        pub enum Obstacle {
            $($(#[$doc])* $name = $value,)*
        }

        impl Obstacle {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// A short text for reports.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

obstacles! {
    /// No region is there.
    NoRegion = 0, "no region";
    /// The region does not allow it.
    Rights = 1, "region without that right";
    /// The region has no manager.
    Pinned = 2, "pinned region, nothing mapped";
    /// The manager has ended.
    ManagerGone = 3, "manager gone";
    /// The manager waits for this thread.
    Cycle = 4, "manager waits for this thread";
    /// The manager is on another processor, and can't run there.
    WrongCpu = 5, "manager has no time on its own processor";
}

/// What is told of a page fault beyond its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// The access, and what was in its way.
    Obstacle(Access, Obstacle),
    /// The manager's answer, or what is wrong with it: the status of an [`Error`].
    Status(u64),
}

impl Detail {
    const fn encode(self) -> [u64; 3] {
        match self {
            Self::None => [0; 3],
            Self::Obstacle(access, obstacle) => [1, access as u64, obstacle as u64],
            Self::Status(status) => [2, status, 0],
        }
    }

    /// What makes no sense is nothing.
    fn decode(kind: u64, first: u64, second: u64) -> Self {
        let accesses = [Access::Read, Access::Write, Access::Execute];
        let access = accesses.into_iter().find(|access| *access as u64 == first);
        let obstacle = Obstacle::ALL.iter().find(|obstacle| **obstacle as u64 == second);
        match (kind, access, obstacle) {
            (1, Some(access), Some(obstacle)) => Self::Obstacle(access, *obstacle),
            (2, ..) => Self::Status(first),
            _ => Self::None,
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
    /// More about a page fault.
    pub detail: Detail,
}

/// Why a thread ended, in words, without the instruction.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a>(&'a ThreadEnd);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.0.cause;
        match (cause, self.0.detail) {
            (EndCause::Fault { address }, Detail::Obstacle(access, obstacle)) => {
                let access = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                    Access::Execute => "execution",
                };
                write!(f, "page fault, {access} at {address:#x}: {}", obstacle.text())
            }
            (EndCause::Refused { .. }, Detail::Status(status)) => match Error::check(status) {
                Err(error) => write!(f, "{cause}: {}", error.text()),
                Ok(()) => cause.fmt(f),
            },
            _ => cause.fmt(f),
        }
    }
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
        [words[3], words[4], words[5]] = self.detail.encode();
        words
    }

    /// Why, in words.
    #[must_use]
    pub const fn why(&self) -> Why<'_> {
        Why(self)
    }

    /// The end that message words stand for; `None` for an unknown cause.
    #[must_use]
    pub fn decode(words: &Message) -> Option<Self> {
        let cause = EndCause::decode(words[0], words[2])?;
        let detail = Detail::decode(words[3], words[4], words[5]);
        Some(Self { cause, ip: words[1], detail })
    }
}

impl fmt::Display for ThreadEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at instruction {:#x}", self.why(), self.ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_in_the_way() {
        extern crate std;
        let told = |cause, detail| std::format!("{}", ThreadEnd { cause, ip: 16, detail });
        let fault = EndCause::Fault { address: 64 };
        let obstacle = Detail::Obstacle(Access::Write, Obstacle::NoRegion);
        let text = "page fault, write at 0x40: no region, at instruction 0x10";
        assert_eq!(told(fault, obstacle), text);
        let refused = EndCause::Refused { address: 64 };
        let text = "page fault at 0x40 not resolved: stack overflow, at instruction 0x10";
        assert_eq!(told(refused, Detail::Status(Error::StackOverflow as u64)), text);
        let text = "page fault at 0x40 not resolved, at instruction 0x10";
        assert_eq!(told(refused, Detail::Status(0)), text);
        // Words that nobody makes.
        let mut words = ThreadEnd { cause: fault, ip: 16, detail: obstacle }.encode();
        words[5] = 99;
        assert_eq!(ThreadEnd::decode(&words).map(|end| end.detail), Some(Detail::None));
    }

    #[test]
    fn causes_survive_encoding() {
        for code in (0..8).chain(0x100..0x200) {
            let cause = EndCause::decode(code, 0x1234).expect("known");
            let detail = if code == 1 { 0 } else { 0x1234 };
            assert_eq!(cause.encode(), (code, detail));
            let accesses = [Access::Read, Access::Write, Access::Execute];
            let all = accesses.into_iter().flat_map(|a| Obstacle::ALL.iter().map(move |o| (a, *o)));
            let details = all.map(|(access, obstacle)| Detail::Obstacle(access, obstacle));
            for detail in details.chain([Detail::None, Detail::Status(u64::MAX)]) {
                let end = ThreadEnd { cause, ip: 5, detail };
                assert_eq!(ThreadEnd::decode(&end.encode()), Some(end));
            }
        }
        for code in [8, 0xff, 0x200, u64::MAX] {
            assert_eq!(EndCause::decode(code, 0), None);
        }
    }
}
