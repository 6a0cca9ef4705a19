//! The driver's side of virtio devices on PCI (virtio 1.2, modern transport only), in safe code:
//! registers are [`memory::Registers`], queues lie in DMA memory that is a [`memory::Memory`].
//!
//! * [`Device`]: capabilities, features, status, MSI-X;
//! * [`Queue`]: a split queue of fixed buffers in DMA memory;
//! * [`Requests`]: the requests of a block device, in such a queue.
//!
//! The device is not trusted: what it writes is checked, and at worst a queue stands still.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod device;
mod queue;
mod requests;

pub use device::{Device, Error, Interrupt};
pub use queue::{Addresses, Direction, NoRoom, Queue, footprint};
pub use requests::{Requests, SECTOR};

/// The ring's layout and addressing follow virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Descriptors may lead to tables of descriptors.
pub const F_INDIRECT: u64 = 1 << 28;
/// Event indices instead of flags suppress kicks and interrupts.
pub const F_EVENT_IDX: u64 = 1 << 29;

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod tests;
