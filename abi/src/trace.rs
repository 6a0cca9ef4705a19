//! Layout of the per-CPU trace rings, which follow each other in memory, [`RING`] bytes each.
//!
//! A ring is an array of records. The first one is a header: its `tsc` counts the records written
//! so far. Record `n` is at index `1 + n % (RING / 32 - 1)`.

/// Bytes of one processor's ring.
pub const RING: u64 = 64 << 10;

/// Kind of a trace record; bit `1 << kind` of the mask turns it on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    /// Kernel entry: a = vector or call number.
    Enter = 0,
    /// Back to user or guest mode.
    Leave = 1,
    /// Thread switch: a = from, b = to.
    Switch = 2,
    /// Fault sent to a manager: a = tag, b = offset.
    Fault = 3,
    /// VM exit: a = exit code, b = guest RIP.
    VmExit = 4,
    /// Thread ended: a = reason.
    End = 5,
    /// A stage of the start: a = [`BootStage`]. In the boot processor's ring from the beginning,
    /// whatever the mask says.
    Boot = 6,
}

impl Kind {
    /// Decodes a record's number.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            0 => Self::Enter,
            1 => Self::Leave,
            2 => Self::Switch,
            3 => Self::Fault,
            4 => Self::VmExit,
            5 => Self::End,
            6 => Self::Boot,
            _ => return None,
        })
    }
}

/// Stages of the start that records tell of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum BootStage {
    /// The processor knows the trap table and the entry of system calls.
    TrapTable = 0,
    /// The timer has been measured and can interrupt.
    Timer = 1,
}

/// Number of stages.
pub const BOOT_STAGES: usize = 2;

/// `a` of an [`Enter`](Kind::Enter) by a call is this and the call's number.
pub const CALLS: u64 = 0x100;

/// One record of 32 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Record {
    /// Time-stamp counter.
    pub tsc: u64,
    /// `Kind`.
    pub kind: u16,
    /// Processor.
    pub cpu: u16,
    /// Thread that ran.
    pub thread: u32,
    /// First detail.
    pub a: u64,
    /// Second detail.
    pub b: u64,
}

const _: () = assert!(core::mem::size_of::<Record>() == 32);
