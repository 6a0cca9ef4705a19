//! The VM's PCI bus and its virtio devices, as the monitor sees them.
//!
//! The monitor owns one [`Devices`] and
//! * gives it every port access that [`Devices::owns_port`] claims (configuration ports
//!   `0xcf8..=0xcff` and the devices' register BARs; all virtio registers are on ports, so that
//!   kicks need no instruction decoding), and every access of the guest to
//!   [`MEMORY_WINDOW`] (MSI-X tables only; set-up and interrupt masking);
//! * calls [`Devices::notified`] when its notification shows bits of [`Devices::channel_bits`];
//! * after each of these calls takes the interrupts from [`Devices::next_interrupt`] until there
//!   is none, and delivers them to its x2APIC model as messages (address `0xfee.....`, data).
use core::ops::Range;
use memory::Memory;
pub use virtio::Msi;

/// Guest-physical addresses of the devices' memory BARs.
pub const MEMORY_WINDOW: Range<u64> = 0xe000_0000..0xf000_0000;

/// What differs between VMs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service VM has a network card, the compute VM has none.
    pub service: bool,
    /// Guest-physical addresses of the root image (multiples of 4 KiB; 2 MiB is better).
    pub root_image: Range<u64>,
}

/// All devices of one VM.
pub struct Devices<M> {
    ram: M,
}

impl<M: Memory> Devices<M> {
    /// The devices of a VM with this RAM, after power-on. Opens the channels by name.
    pub fn new(ram: M, _settings: &Settings) -> Self {
        Self { ram }
    }

    /// True where the port belongs to these devices now.
    #[must_use]
    pub fn owns_port(&self, port: u16) -> bool {
        (0xcf8..=0xcff).contains(&port)
    }

    /// The guest reads `length` (1, 2, 4) bytes from a port.
    pub fn port_read(&mut self, _port: u16, _length: u8) -> u32 {
        let _ = self.ram.len();
        u32::MAX
    }

    /// The guest writes `length` (1, 2, 4) bytes to a port.
    pub fn port_write(&mut self, _port: u16, _length: u8, _value: u32) {}

    /// The guest reads `length` (1, 2, 4, 8) bytes in [`MEMORY_WINDOW`].
    pub fn memory_read(&mut self, _address: u64, _length: u8) -> u64 {
        u64::MAX
    }

    /// The guest writes `length` (1, 2, 4, 8) bytes in [`MEMORY_WINDOW`].
    pub fn memory_write(&mut self, _address: u64, _length: u8, _value: u64) {}

    /// Bytes that the guest wrote to its serial port; they go to the kernel-console channel.
    pub fn serial_output(&mut self, _bytes: &[u8]) {}

    /// Bits of the monitor's notification that belong to the devices' channels.
    #[must_use]
    pub fn channel_bits(&self) -> u64 {
        0
    }

    /// The monitor was notified with these bits (others are ignored).
    pub fn notified(&mut self, _bits: u64) {}

    /// The next interrupt to deliver.
    pub fn next_interrupt(&mut self) -> Option<Msi> {
        None
    }
}
