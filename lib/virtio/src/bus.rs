//! Bus 0 by configuration mechanism 1 (PCI 3.0, 3.2.2.3.2): the address port and the data port.
use crate::config_space::{ConfigSpace, Identity, WINDOW_SIZE};
use core::ops::Range;

/// Most functions behind the host bridge.
pub const SLOTS: usize = 32;
/// First of the eight configuration ports.
pub const ADDRESS_PORT: u16 = 0xcf8;
/// First of the four data ports.
pub const DATA_PORT: u16 = 0xcfc;

/// Guest-physical addresses of the memory BARs of functions that the monitor models.
pub const MONITOR_WINDOW: Range<u64> = 0xe000_0000..0xe800_0000;

/// Guest-physical addresses of the registers of the function in a slot that somebody else models: after reset, and for
/// good, for they are a region of its own.
#[must_use]
pub const fn window(slot: u8) -> Range<u64> {
    let start = MONITOR_WINDOW.end + slot as u64 * WINDOW_SIZE;
    start..start + WINDOW_SIZE
}

/// Which register of which slot a data access means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Slot on bus 0, function 0.
    pub slot: u8,
    /// Offset in the configuration space.
    pub offset: u8,
}

/// The host bridge.
#[derive(Debug)]
pub struct HostBridge {
    address: u32,
    /// The bridge's own configuration space, slot 0.
    pub space: ConfigSpace,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// The bridge after power-on.
    #[must_use]
    pub fn new() -> Self {
        // A generic host bridge: Linux has no special handling for it.
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            class: 0x06_0000,
            revision: 0,
            subsystem: 0x1100,
        };
        Self { address: 0, space: ConfigSpace::new(identity) }
    }

    /// Reads the address port.
    #[must_use]
    pub fn address(&self, port: u16, length: u8) -> u32 {
        if port == ADDRESS_PORT && length == 4 { self.address } else { u32::MAX }
    }

    /// Writes the address port; only 4 bytes at once count.
    pub fn set_address(&mut self, port: u16, length: u8, value: u32) {
        if port == ADDRESS_PORT && length == 4 {
            self.address = value;
        }
    }

    /// What an access to the data port means; `None` for another bus or function, for disabled
    /// configuration access, or when it would cross a word.
    #[must_use]
    pub fn target(&self, port: u16, length: u8) -> Option<Target> {
        let byte = u8::try_from(port.checked_sub(DATA_PORT)?).ok()?;
        let [low, devfn, bus, top] = self.address.to_le_bytes();
        let fits = byte.checked_add(length)? <= 4;
        let here = top & 0x80 != 0 && bus == 0 && devfn & 7 == 0;
        (fits && here).then_some(Target { slot: devfn >> 3, offset: low & 0xfc | byte })
    }
}
