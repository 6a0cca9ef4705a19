//! What runs on the machine, declared: the *description* (programs, memory, channels, virtual
//! machines, devices), which the host checks and the root server carries out, and the
//! *configuration* that the root server hands to each native program.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod command_line;
mod config;
mod description;
mod models;
mod sharing;
#[cfg(any(test, feature = "std"))]
mod text;

pub use command_line::{parse_size, word};
pub use config::{ChannelEnd, Config, Region};
pub use description::{
    Channel, Description, Device, End, ExitRoute, FileUse, GuestWindow, MemoryObject, MemoryUse,
    Program, STACK, STACK_LIMIT, Swap, VirtualMachine,
};
pub use models::{MODELLED, Models};
pub use sharing::{SharedGuest, SharedObject, SharedUse, Sharing};
#[cfg(any(test, feature = "std"))]
pub use text::{TextError, from_text};

/// Name of the description in the boot archive.
pub const DESCRIPTION_FILE: &str = "system";

/// Where the segments of native programs' files may be.
pub const PROGRAM: core::ops::Range<u64> = 0x1000..0x1000_0000;
/// First stack in a native program's space. Nothing is below it.
pub const STACKS: u64 = 0x3000_0000;
/// Its heap.
pub const HEAP: u64 = 0x4000_0000;
/// Where the configuration is mapped in every native program but the root server.
pub const CONFIG_ADDRESS: u64 = 0x2000_0000;
/// Name of the region in which a program tells how full its heap is: two words, the bytes in use and all.
/// Whoever looks has it under this name, a hyphen and the program's.
pub const HEAP_REGION: &str = "heap-use";
/// What the name of a region ends with that tells of lost pages of another region (`memory::Losses`), whose name comes before.
pub const LOSSES_SUFFIX: &str = "-lost";
/// Most bytes that a configuration can have.
pub const CONFIG_LIMIT: u64 = 64 << 10;
/// A parameter, without a value, of programs that were started in the place of one that has failed.
pub const SUCCESSOR: &str = "successor";

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Encodes with a length prefix of 8 bytes.
#[must_use]
pub fn encode<T: serde::Serialize>(value: &T) -> alloc::vec::Vec<u8> {
    let body = postcard::to_allocvec(value).unwrap_or_default();
    let mut out = alloc::vec::Vec::with_capacity(body.len() + 8);
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// Decodes what [`encode`] wrote; bytes behind it are ignored.
///
/// # Errors
/// `Malformed` for anything else.
pub fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let length = bytes.get(..8).ok_or(Malformed)?;
    let length = u64::from_le_bytes(length.try_into().map_err(|_| Malformed)?);
    let end = usize::try_from(length).ok().and_then(|l| l.checked_add(8)).ok_or(Malformed)?;
    postcard::from_bytes(bytes.get(8..end).ok_or(Malformed)?).map_err(|_| Malformed)
}
