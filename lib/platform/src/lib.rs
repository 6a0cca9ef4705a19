//! What the machine of a VM looks like apart from its virtio devices: the processor's
//! identification, its model-specific registers, paravirtual time, the serial port, when an
//! interrupt can be delivered, what its instructions do, and what becomes of an access to memory that is lost. Pure;
//! used by the monitor and by device models.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clock;
pub mod code;
pub mod cpuid;
pub mod delivery;
pub mod eoi;
pub mod lost;
pub mod msr;
pub mod serial;

/// The access raises `#GP` in the guest.
pub use apic::GeneralProtection;
