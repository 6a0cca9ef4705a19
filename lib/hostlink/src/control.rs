//! Messages of the control stream, between the host command and `servers/link`.
use crate::BadMessage;
use crate::memory::Sample;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Version of everything in this crate; the two ends come from one build, so it must be equal.
pub const VERSION: u32 = 1;

/// From the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToHost {
    /// First message: the link server runs.
    Up {
        /// [`VERSION`] of the sender.
        version: u32,
    },
    /// The host's bytes for a stream were dropped because its reader does not take them.
    Dropped {
        /// Number of the stream.
        stream: u8,
        /// Bytes lost so far.
        bytes: u64,
    },
    /// Answer to [`ToMachine::GetMemory`].
    Memory(Sample),
    /// A part of the machine failed.
    Failed {
        /// What, and why.
        text: String,
    },
}

/// To the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToMachine {
    /// Asks for [`ToHost::Up`] again.
    Hello,
    /// Asks for [`ToHost::Memory`].
    GetMemory,
}

impl ToHost {
    /// The message as the payload of one frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::to_bytes(self)
    }

    /// Reads the payload of one frame.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn decode(payload: &[u8]) -> Result<Self, BadMessage> {
        crate::from_bytes(payload)
    }
}

impl ToMachine {
    /// The message as the payload of one frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::to_bytes(self)
    }

    /// Reads the payload of one frame.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn decode(payload: &[u8]) -> Result<Self, BadMessage> {
        crate::from_bytes(payload)
    }
}
