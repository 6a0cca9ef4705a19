//! MSI-X (PCI 3.0, 6.8.2): the table of messages, masks, and the pending bits.
use crate::Msi;
use crate::notes::{Reader, Writer};

/// Most vectors that a function has.
pub const MAX_VECTORS: usize = 16;
/// Bytes of one table entry.
const ENTRY: u64 = 16;
/// Where the pending bits lie in the memory BAR; the table lies at its start.
pub const PENDING_OFFSET: u32 = 0x800;
/// Vector number that stands for "no interrupt" in virtio registers (virtio 1.2, 4.1.4.3).
pub const NO_VECTOR: u16 = 0xffff;

/// `Enable` of the message-control word.
const ENABLE: u16 = 1 << 15;
/// `Function Mask` of the message-control word.
const MASK_ALL: u16 = 1 << 14;

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
}

/// The MSI-X state of one function.
#[derive(Debug)]
pub struct Msix {
    entries: [Entry; MAX_VECTORS],
    count: u16,
    /// Bit n: vector n has been raised while it was masked.
    pending: u16,
    control: u16,
}

impl Msix {
    /// `count` vectors (at most [`MAX_VECTORS`]), all masked.
    #[must_use]
    pub fn new(count: u16) -> Self {
        let entry = Entry { address: 0, data: 0, masked: true };
        let count = count.clamp(1, MAX_VECTORS as u16);
        Self { entries: [entry; MAX_VECTORS], count, pending: 0, control: 0 }
    }

    /// Number of vectors.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The message-control word has been written.
    pub fn set_control(&mut self, control: u16) {
        self.control = control & (ENABLE | MASK_ALL);
    }

    /// True when MSI-X is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Raises a vector: its message, unless it is masked (then it stays pending) or MSI-X is off.
    pub fn raise(&mut self, vector: u16) -> Option<Msi> {
        let entry = *self.entries.get(usize::from(vector))?;
        if vector >= self.count || !self.is_enabled() {
            return None;
        }
        if entry.masked || self.control & MASK_ALL != 0 {
            self.pending |= 1 << vector;
            return None;
        }
        Some(Msi { address: entry.address, data: entry.data })
    }

    /// A pending message that is no longer masked.
    pub fn next_unmasked(&mut self) -> Option<Msi> {
        if self.pending == 0 || self.control & (ENABLE | MASK_ALL) != ENABLE {
            return None;
        }
        let open = |vector: &u16| {
            let masked = self.entries.get(usize::from(*vector)).is_none_or(|e| e.masked);
            self.pending & (1 << vector) != 0 && !masked
        };
        let vector = (0..self.count).find(open)?;
        self.pending &= !(1 << vector);
        self.raise(vector)
    }

    /// Reads the memory BAR: 4 or 8 bytes, aligned; anything else reads as zero.
    #[must_use]
    pub fn read(&self, offset: u64, length: u8) -> u64 {
        match length {
            4 if offset.is_multiple_of(4) => u64::from(self.read_word(offset)),
            8 if offset.is_multiple_of(8) => {
                let low = u64::from(self.read_word(offset));
                low | u64::from(self.read_word(offset + 4)) << 32
            }
            _ => 0,
        }
    }

    /// Writes the memory BAR: 4 or 8 bytes, aligned; anything else is ignored.
    pub fn write(&mut self, offset: u64, length: u8, value: u64) {
        match length {
            4 if offset.is_multiple_of(4) => self.write_word(offset, value as u32),
            8 if offset.is_multiple_of(8) => {
                self.write_word(offset, value as u32);
                self.write_word(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    /// Notes everything but the control word, which the configuration space has.
    pub(crate) fn note(&self, notes: &mut Writer) {
        notes.put(self.pending.into());
        for entry in self.entries.iter().take(self.count.into()) {
            notes.put(entry.address);
            notes.put(u64::from(entry.data) | u64::from(entry.masked) << 32);
        }
    }

    /// Takes up what was noted.
    pub(crate) fn recall(&mut self, notes: &mut Reader<'_>) -> Option<()> {
        self.pending = notes.small()?;
        for entry in self.entries.iter_mut().take(self.count.into()) {
            entry.address = notes.next()?;
            let word = notes.next()?;
            (entry.data, entry.masked) = (word as u32, word >> 32 & 1 != 0);
        }
        Some(())
    }

    fn read_word(&self, offset: u64) -> u32 {
        if offset == u64::from(PENDING_OFFSET) {
            return u32::from(self.pending);
        }
        let Some(entry) = self.entries.get((offset / ENTRY) as usize) else { return 0 };
        match offset % ENTRY {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _ => u32::from(entry.masked),
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let Some(entry) = self.entries.get_mut((offset / ENTRY) as usize) else { return };
        match offset % ENTRY {
            0 => entry.address = entry.address & !0xffff_ffff | u64::from(value),
            4 => entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32,
            8 => entry.data = value,
            _ => entry.masked = value & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_vector_stays_pending_until_it_is_unmasked() {
        let mut msix = Msix::new(2);
        assert_eq!(msix.raise(0), None);
        assert_eq!(msix.read(PENDING_OFFSET.into(), 4), 0);
        msix.set_control(ENABLE);
        msix.write(16, 8, 0xfee0_1000);
        msix.write(24, 4, 0x31);
        assert_eq!(msix.raise(1), None);
        assert_eq!(msix.read(PENDING_OFFSET.into(), 8), 2);
        assert_eq!(msix.next_unmasked(), None);
        msix.write(28, 4, 0);
        let message = Msi { address: 0xfee0_1000, data: 0x31 };
        assert_eq!(msix.next_unmasked(), Some(message));
        assert_eq!(msix.next_unmasked(), None);
        assert_eq!(msix.raise(1), Some(message));
        msix.set_control(ENABLE | MASK_ALL);
        assert_eq!(msix.raise(1), None);
        msix.set_control(ENABLE);
        assert_eq!(msix.next_unmasked(), Some(message));
        assert_eq!(msix.raise(2), None);
        assert_eq!(msix.raise(NO_VECTOR), None);
    }
}
