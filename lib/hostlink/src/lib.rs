//! What the host command and the machine say to each other over one virtio-console.
//!
//! * [`frame`]: the outermost layer. Several streams share the console; `servers/link` takes them
//!   apart without looking into them.
//! * [`control`]: messages of [`Stream::Control`], between the host command and `servers/link`.
//! * [`memory`]: what memory managers tell, within those.
//! * [`agent`]: the byte protocol between the host command and `guest/init` (hvc1 of a VM), carried
//!   by the two agent streams.
//! * [`relay`]: messages of [`Stream::Relay`], between the host command and `servers/relay`.
//!
//! Whatever arrives is hostile: every decoder is total, bounds what it stores, and answers an
//! error instead of guessing.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod agent;
pub mod control;
pub mod frame;
pub mod memory;
pub mod relay;

pub use frame::{BadFrame, Decoder, Frame, MAX_PAYLOAD, Stream};

use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// How a VM's monitor begins the line that it writes to the VM's console when the VM is over; the
/// reason follows. A guest can write such a line too, and thereby only end itself.
pub const VM_ENDED: &str = "[trapline] this VM is over: ";

/// A message that does not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadMessage;

impl core::fmt::Display for BadMessage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("malformed message")
    }
}

impl core::error::Error for BadMessage {}

/// The bytes of a message (postcard).
pub(crate) fn to_bytes<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising plain data into growing memory has no way to fail.
    postcard::to_allocvec(message).unwrap_or_default()
}

/// A message from bytes that hold exactly one.
pub(crate) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadMessage> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(BadMessage),
    }
}
