//! Models of virtio devices on a PCI bus, as a guest sees them. Pure: guest memory is a
//! [`memory::Memory`], what lies behind a device is passed in by the monitor.
//!
//! * [`Queue`], [`Chain`]: the device's side of a split virtqueue;
//! * [`Function`]: a device as a PCI function, with registers, MSI-X and configuration space;
//! * [`bus`]: how the guest finds the functions;
//! * [`model`]: what is particular to console, persistent memory, entropy, network, sockets.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bus;
mod chain;
mod config_space;
mod function;
pub mod model;
mod msix;
mod notes;
mod queue;

pub use chain::{Chain, Span};
pub use config_space::{
    Bars, ConfigSpace, MEMORY_BAR_SIZE, PORT_BAR_SIZE, TABLE_OFFSET, WINDOW_SIZE,
};
pub use function::{
    Asked, DEVICE_CONFIG, F_EVENT_IDX, F_INDIRECT, F_VERSION_1, Function, Model, PciFunction,
};
pub use msix::{MAX_VECTORS, Msix};
pub use queue::{Layout, MAX_SIZE, Queue};

/// A message-signalled interrupt: a write of `data` to `address` (PCI 3.0, 6.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msi {
    /// Where it goes; on x86 `0xfee` and the destination.
    pub address: u64,
    /// The data: vector and delivery mode.
    pub data: u32,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod window_tests;
