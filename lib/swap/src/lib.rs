//! What a swapping memory manager decides and does: which pages stay in memory, which are
//! compressed there, which go to a disk, encrypted, and how they come back.
//!
//! * [`Swap`]: the states of all pages, faults, eviction, finished disk requests;
//! * [`Chunks`]: the store of compressed pages;
//! * [`Sealer`]: encryption and authentication of what goes to the disk;
//! * [`Slots`]: places on the disk;
//! * [`Notes`]: what is written down for the manager that is started in this one's place.
//!
//! The disk is hostile: whatever it returns is authenticated together with the page, the place and
//! the version that are expected. The manager's own memory is not.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod chunks;
mod frames;
mod notes;
mod seal;
mod slots;
mod store;

pub use chunks::Chunks;
pub use notes::{Notes, Place};
pub use seal::{Forged, KEY, Label, Sealer, TAG};
pub use slots::{Slots, Written};
pub use store::{Answer, Counters, Damage, Now, Sizes, Swap};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a place on the disk: a page and its tag, in whole sectors.
pub const SLOT: usize = (PAGE + TAG).next_multiple_of(512);
/// Most spaces that can show a page.
pub const MOST_SPACES: u8 = 8;

/// The spaces in which pages are mapped. `spaces` is a set: bit `n` stands for space `n`.
pub trait Spaces {
    /// Removes a page from these spaces; afterwards nobody reads or writes it any more.
    fn unmap(&mut self, page: u32, spaces: u8);
    /// True when the page was used in one of these spaces since this was last asked. A hint.
    fn used(&mut self, page: u32, spaces: u8) -> bool;
}

/// A disk with a number of requests, each with a buffer of [`SLOT`] bytes, that can be under way at
/// the same time. The end of a request is told by [`Swap::finished`].
pub trait Disk {
    /// Places of [`SLOT`] bytes; 0 where there is no disk.
    fn slots(&self) -> u32;
    /// Requests.
    fn requests(&self) -> u16;
    /// Starts to write `bytes` to a place.
    fn write(&mut self, request: u16, slot: u32, bytes: &[u8]);
    /// Starts to read the first `length` bytes of a place.
    fn read(&mut self, request: u16, slot: u32, length: usize);
    /// Starts the request that failed once more.
    fn again(&mut self, request: u16);
    /// Copies out what a finished request has read.
    fn received(&self, request: u16, into: &mut [u8]);
}

#[cfg(test)]
mod tests;
