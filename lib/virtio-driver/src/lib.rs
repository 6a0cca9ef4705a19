//! The driver's side of virtio devices on PCI (virtio 1.2, modern transport only), in safe code:
//! registers are [`memory::Registers`], queues lie in DMA memory that is a [`memory::Memory`].
//!
//! * [`Device`]: capabilities, features, status, MSI-X;
//! * [`Queue`]: a split queue of fixed buffers in DMA memory.
//!
//! The device is not trusted: what it writes is checked, and at worst a queue stands still.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod device;
mod queue;

pub use device::{Device, Error, Interrupt};
pub use queue::{Addresses, Direction, NoRoom, Queue, footprint};

/// The ring's layout and addressing follow virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Event indices instead of flags suppress kicks and interrupts.
pub const F_EVENT_IDX: u64 = 1 << 29;

#[cfg(test)]
mod tests;
