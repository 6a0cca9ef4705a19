//! PCI configuration space of one function: an image and a mask of what the guest may change.
use crate::msix::PENDING_OFFSET;
use crate::notes::{Reader, Writer};

const SIZE: usize = 256;

/// Offset of the command register.
const COMMAND: usize = 0x04;
/// Offset of the first base-address register.
const BARS: usize = 0x10;
/// Offset of the MSI-X capability.
const MSIX: usize = 0x40;
/// Offset of the MSI-X message-control word.
const MSIX_CONTROL: usize = MSIX + 2;
/// Where the vendor capabilities begin.
const VENDOR: usize = 0x50;

/// Command register: port decoding, memory decoding.
const COMMAND_PORTS: u16 = 1;
const COMMAND_MEMORY: u16 = 2;

/// Interrupt line: a scratch register for software.
const INTERRUPT_LINE: usize = 0x3c;

/// Bytes of the port BAR (index 0).
pub const PORT_BAR_SIZE: u16 = 0x100;
/// Bytes of the memory BAR (index 1) of a function with ports.
pub const MEMORY_BAR_SIZE: u64 = 0x1000;
/// Bytes of the memory BAR (index 0) of a function without ports: registers, and from [`TABLE_OFFSET`] on what
/// the other form has in its memory BAR.
pub const WINDOW_SIZE: u64 = 0x2000;
/// Where the MSI-X table lies in a window.
pub const TABLE_OFFSET: u64 = 0x1000;

/// Who a function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Class, subclass and programming interface, 24 bits.
    pub class: u32,
    /// Revision; modern virtio devices have at least 1.
    pub revision: u8,
    /// Subsystem device number.
    pub subsystem: u16,
}

/// Where a function's registers are after reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bars {
    /// Virtio structures on ports, the MSI-X table in memory.
    Split {
        /// First port.
        ports: u16,
        /// Guest-physical address.
        memory: u32,
    },
    /// All of them in memory.
    Window {
        /// Guest-physical address, a multiple of [`WINDOW_SIZE`].
        at: u32,
    },
}

impl Bars {
    /// The register of the memory BAR, its address after reset and its size.
    fn memory(self) -> (usize, u32, u64) {
        match self {
            Self::Split { memory, .. } => (BARS + 4, memory, MEMORY_BAR_SIZE),
            Self::Window { at } => (BARS, at, WINDOW_SIZE),
        }
    }

    /// In which BAR the MSI-X table is, and where there.
    fn table(self) -> (u32, u32) {
        match self {
            Self::Split { .. } => (1, 0),
            Self::Window { .. } => (0, TABLE_OFFSET as u32),
        }
    }
}

/// A virtio structure in BAR 0 (virtio 1.2, 4.1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Structure {
    /// `cfg_type`.
    pub kind: u8,
    /// Offset in the BAR.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
}

/// What a guest can change: offset and bytes.
const CHANGEABLE: [(u8, u8); 5] = [
    (COMMAND as u8, 2),
    (BARS as u8, 4),
    (BARS as u8 + 4, 4),
    (INTERRUPT_LINE as u8, 1),
    (MSIX_CONTROL as u8, 2),
];

/// `cfg_type` of the notification structure, whose capability is 4 bytes longer.
pub const NOTIFY: u8 = 2;

/// Configuration space.
#[derive(Debug)]
pub struct ConfigSpace {
    image: [u8; SIZE],
    writable: [u8; SIZE],
    bars: Option<Bars>,
}

impl ConfigSpace {
    /// A function without BARs or capabilities, such as the host bridge.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self { image: [0; SIZE], writable: [0; SIZE], bars: None };
        space.put16(0x00, identity.vendor);
        space.put16(0x02, identity.device);
        space.put32(0x08, identity.class << 8 | u32::from(identity.revision));
        space.put16(0x2c, identity.vendor);
        space.put16(0x2e, identity.subsystem);
        space
    }

    /// Adds the BARs at their places after reset, decoding switched on.
    pub fn add_bars(&mut self, bars: Bars) {
        self.bars = Some(bars);
        let mut command = COMMAND_MEMORY;
        if let Bars::Split { ports, .. } = bars {
            command |= COMMAND_PORTS;
            self.put32(BARS, u32::from(ports) | 1);
            self.allow32(BARS, !(u32::from(PORT_BAR_SIZE) - 1));
        }
        self.put16(COMMAND, command);
        // Also bus mastering and "interrupt disable".
        self.allow16(COMMAND, 0x0404 | command);
        let (register, memory, size) = bars.memory();
        self.put32(register, memory);
        self.allow32(register, !(size as u32 - 1));
        self.allow16(INTERRUPT_LINE, 0x00ff);
    }

    /// Adds the capability list: MSI-X in the memory BAR, and virtio structures in BAR 0.
    pub fn add_capabilities(&mut self, vectors: u16, structures: &[Structure]) {
        // Status: has a capability list.
        self.put16(0x06, 0x0010);
        self.put16(0x34, MSIX as u16);
        self.put16(MSIX, 0x11 | (VENDOR as u16) << 8);
        self.put16(MSIX_CONTROL, vectors.saturating_sub(1));
        self.allow16(MSIX_CONTROL, 0xc000);
        let (bar, table) = self.bars.map_or((0, 0), Bars::table);
        self.put32(MSIX + 4, table | bar);
        self.put32(MSIX + 8, (table + PENDING_OFFSET) | bar);
        let mut at = VENDOR;
        for (n, structure) in structures.iter().enumerate() {
            let length: u16 = if structure.kind == NOTIFY { 20 } else { 16 };
            let following = at + usize::from(length);
            let next = if n + 1 == structures.len() { 0 } else { following };
            self.put16(at, 0x09 | (next as u16) << 8);
            self.put16(at + 2, length | u16::from(structure.kind) << 8);
            // BAR 0, then padding. The multiplier of NOTIFY stays zero: one place for all queues.
            self.put32(at + 4, 0);
            self.put32(at + 8, structure.offset);
            self.put32(at + 12, structure.length);
            at = following;
        }
    }

    /// Its BARs, if it has any.
    pub(crate) fn bars(&self) -> Option<Bars> {
        self.bars
    }

    /// Reads `length` bytes at `offset`.
    #[must_use]
    pub fn read(&self, offset: u8, length: u8) -> u32 {
        let at = usize::from(offset);
        let bytes = self.image.get(at..at + usize::from(length.min(4))).unwrap_or(&[]);
        bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
    }

    /// Writes `length` bytes at `offset`; bits that are not writable keep their value.
    pub fn write(&mut self, offset: u8, length: u8, value: u32) {
        let at = usize::from(offset);
        for (n, byte) in value.to_le_bytes().iter().take(usize::from(length)).enumerate() {
            let Some(mask) = self.writable.get(at + n).copied() else { return };
            if let Some(old) = self.image.get_mut(at + n) {
                *old = *old & !mask | byte & mask;
            }
        }
    }

    /// The MSI-X message-control word.
    #[must_use]
    pub fn msix_control(&self) -> u16 {
        self.read(MSIX_CONTROL as u8, 2) as u16
    }

    /// First port of the port BAR; `None` while decoding is off, it lies beyond the ports, or there is none.
    #[must_use]
    pub fn port_base(&self) -> Option<u16> {
        let Some(Bars::Split { .. }) = self.bars else { return None };
        let on = self.read(COMMAND as u8, 2) as u16 & COMMAND_PORTS != 0;
        on.then(|| u16::try_from(self.read(BARS as u8, 4) & !1).ok()).flatten()
    }

    /// Address of the memory BAR; `None` while decoding is off.
    #[must_use]
    pub fn memory_base(&self) -> Option<u64> {
        let on = self.read(COMMAND as u8, 2) as u16 & COMMAND_MEMORY != 0;
        let (register, ..) = self.bars?.memory();
        on.then(|| u64::from(self.read(register as u8, 4)))
    }

    /// Notes what the guest has changed.
    pub(crate) fn note(&self, notes: &mut Writer) {
        for (at, length) in CHANGEABLE {
            notes.put(self.read(at, length).into());
        }
    }

    /// Takes up what was noted, as far as a guest could have written it.
    pub(crate) fn recall(&mut self, notes: &mut Reader<'_>) -> Option<()> {
        for (at, length) in CHANGEABLE {
            self.write(at, length, u32::try_from(notes.next()?).ok()?);
        }
        Some(())
    }

    fn put16(&mut self, at: usize, value: u16) {
        put(&mut self.image, at, &value.to_le_bytes());
    }

    fn put32(&mut self, at: usize, value: u32) {
        put(&mut self.image, at, &value.to_le_bytes());
    }

    fn allow16(&mut self, at: usize, mask: u16) {
        put(&mut self.writable, at, &mask.to_le_bytes());
    }

    fn allow32(&mut self, at: usize, mask: u32) {
        put(&mut self.writable, at, &mask.to_le_bytes());
    }
}

fn put(image: &mut [u8; SIZE], at: usize, bytes: &[u8]) {
    if let Some(part) = image.get_mut(at..at + bytes.len()) {
        part.copy_from_slice(bytes);
    }
}
