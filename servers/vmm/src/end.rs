//! Why a VM is over.
use alloc::string::String;

/// The reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Its kernel could not be loaded.
    NotStarted(String),
    /// It powered itself off.
    PoweredOff,
    /// It reset itself.
    Reset,
    /// A fault while it handled a double fault.
    TripleFault {
        /// Where.
        rip: u64,
    },
    /// It waits for an interrupt with interrupts off.
    Halted,
    /// It turned paging off: it leaves long mode, as to start a BIOS.
    PagingOff {
        /// Where.
        rip: u64,
    },
    /// The processor refuses its state.
    InvalidState,
    /// It touched an address behind which there is nothing, in a way that cannot be answered.
    NoMemory {
        /// Guest-physical address.
        address: u64,
        /// Where.
        rip: u64,
    },
    /// Its kernel or a device needs memory that can't be had back from where its manager had put it.
    MemoryLost,
    /// Its memory's manager has no place for what it writes.
    MemoryFull,
    /// The monitor before this one has failed: what it knew of the devices is lost.
    MonitorFailed,
    /// An exit that nobody expects.
    Unexpected {
        /// EXITCODE.
        code: u64,
        /// Where.
        rip: u64,
    },
}

impl core::fmt::Display for End {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotStarted(why) => write!(f, "it could not be started: {why}"),
            Self::PoweredOff => write!(f, "it powered itself off"),
            Self::Reset => write!(f, "it reset itself (its kernel panicked, or was told to)"),
            Self::TripleFault { rip } => write!(f, "triple fault at {rip:#x}"),
            Self::Halted => {
                write!(f, "it halted with interrupts off (its kernel gave up, or is damaged)")
            }
            Self::PagingOff { rip } => write!(f, "it turned paging off at {rip:#x}"),
            Self::InvalidState => write!(f, "the processor refuses its state"),
            Self::NoMemory { address, rip } => {
                write!(f, "access to {address:#x}, where there is nothing, by {rip:#x}")
            }
            Self::MemoryLost => {
                write!(
                    f,
                    "its kernel needs a part of its memory that is lost (the disk is damaged)"
                )
            }
            Self::MemoryFull => {
                write!(
                    f,
                    "there is no place for its memory (the manager's memory and disk are full)"
                )
            }
            Self::MonitorFailed => write!(f, "its monitor failed"),
            Self::Unexpected { code, rip } => write!(f, "unexpected exit {code:#x} at {rip:#x}"),
        }
    }
}
