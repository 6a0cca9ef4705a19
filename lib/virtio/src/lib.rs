//! Models of virtio devices on a PCI bus, as a guest sees them. Pure: guest memory is a
//! [`memory::Memory`], what lies behind a device is passed in by the monitor.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

/// A message-signalled interrupt: a write of `data` to `address` (PCI 3.0, 6.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msi {
    /// Where it goes; on x86 `0xfee` and the destination.
    pub address: u64,
    /// The data: vector and delivery mode.
    pub data: u32,
}
