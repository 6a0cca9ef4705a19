//! The fault protocol between the kernel and memory managers.
use crate::{MESSAGE_WORDS, MemRights, Message, Selector};

/// What the faulting instruction tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Access {
    /// A read.
    Read = 0,
    /// A write.
    Write = 1,
    /// An instruction fetch.
    Execute = 2,
}

/// A fault as its region's manager gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultMessage {
    /// The region's tag, as given at bind.
    pub tag: u64,
    /// Byte offset of the faulting address within the region.
    pub offset: u64,
    /// Kind of access.
    pub access: Access,
    /// Instruction pointer of the faulting thread (guest RIP for a VM).
    pub ip: u64,
    /// Length of the region in bytes.
    pub region_length: u64,
    /// log2 of the region's page-size hint, or [`REGISTERS`](crate::REGISTERS).
    pub page_hint: u64,
    /// Where, in the space of the manager before this one, the region's window was; 0 when it had none, or
    /// has one now. Where a region is divided or moved, that goes with it. A hint: whoever controls the region's space may have
    /// made it, too.
    pub lost: u64,
}

impl FaultMessage {
    /// The message words.
    #[must_use]
    pub const fn encode(self) -> Message {
        let access = self.access as u64;
        [self.tag, self.offset, access, self.ip, self.region_length, self.page_hint, self.lost, 0]
    }

    /// Reads the words of an `Event::Fault`.
    #[must_use]
    pub const fn decode(words: &Message) -> Self {
        let access = match words[2] {
            1 => Access::Write,
            2 => Access::Execute,
            _ => Access::Read,
        };
        Self {
            tag: words[0],
            offset: words[1],
            access,
            ip: words[3],
            region_length: words[4],
            page_hint: words[5],
            lost: words[6],
        }
    }
}

/// What a manager answers. A status other than zero in `ReplyWait` ends the faulting thread
/// with a report (for a vCPU: exit class `Error` to its monitor).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultReply {
    /// The access was carried out on the thread's behalf, or may simply be tried again.
    Resume,
    /// The thread goes on waiting, and the manager serves others meanwhile, until it asks for all
    /// such faults to be tried again (`FaultRetry`). When the manager ends, so does the thread.
    Later,
    /// Map `length` bytes of `memory` from `memory_offset` at `region_offset` of the region.
    Map {
        /// Memory capability of the manager.
        memory: Selector,
        /// Offset in that memory, page aligned.
        memory_offset: u64,
        /// Offset in the region, page aligned.
        region_offset: u64,
        /// Bytes, page aligned; large pages are used where everything is aligned.
        length: u64,
        /// Rights; cut down to the region's and the capability's.
        rights: MemRights,
    },
    /// The region gets a window, as by `RegionWindow`, but its own space pays for it: the access is resolved through it.
    Window {
        /// Where in the manager's space the window begins; it is as long as the region.
        at: u64,
    },
}

impl FaultReply {
    /// The reply words.
    #[must_use]
    pub const fn encode(self) -> Message {
        match self {
            FaultReply::Resume => [0; MESSAGE_WORDS],
            FaultReply::Map { memory, memory_offset, region_offset, length, rights } => {
                let memory = memory.0 as u64;
                [1, memory, memory_offset, region_offset, length, rights.bits(), 0, 0]
            }
            FaultReply::Later => [2, 0, 0, 0, 0, 0, 0, 0],
            FaultReply::Window { at } => [3, at, 0, 0, 0, 0, 0, 0],
        }
    }

    /// Decodes untrusted words; `None` for an unknown kind or rights.
    #[must_use]
    pub fn decode(words: &Message) -> Option<Self> {
        match words[0] {
            0 => Some(FaultReply::Resume),
            1 => Some(FaultReply::Map {
                memory: Selector(u32::try_from(words[1]).ok()?),
                memory_offset: words[2],
                region_offset: words[3],
                length: words[4],
                rights: MemRights::from_bits(words[5])?,
            }),
            2 => Some(FaultReply::Later),
            3 => Some(FaultReply::Window { at: words[1] }),
            _ => None,
        }
    }
}
