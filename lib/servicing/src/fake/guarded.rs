//! Guest memory that the engine works on, with a watch over what it writes: the page that it has just
//! found by a walk of page tables, the marks of that walk, and the stub's entry; nothing else.
use memory::{Fake, Memory, OutOfBounds};
use std::cell::Cell;

const PRESENT: u64 = 1;
const USER: u64 = 1 << 2;
/// Accessed and dirty.
const MARKS: u32 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The memory. Whoever stands outside of the engine writes to the [`Fake`] behind it.
pub struct Guarded {
    inner: Fake,
    /// The last word of eight bytes that was read, by address: before a write, the last entry of a walk.
    last: Cell<(u64, u64)>,
}

impl Guarded {
    pub fn new(inner: Fake) -> Self {
        Self { inner, last: Cell::new((0, 0)) }
    }

    /// The page that the last entry names, if a program may use it. Of a large page at least 2 MiB, the
    /// smaller of the two sizes that it can have, or the whole gigabyte around it.
    fn names(entry: u64, offset: u64, length: u64) -> bool {
        let size = if entry & LARGE == 0 { 1 << 12 } else { 1 << 30 };
        let start = entry & ADDRESS & !(size - 1);
        entry & (PRESENT | USER) == PRESENT | USER
            && (start..start + size).contains(&offset)
            && offset + length <= start + size
    }
}

impl Memory for Guarded {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.inner.read(offset, into)?;
        if let Ok(word) = <[u8; 8]>::try_from(&*into) {
            self.last.set((offset, u64::from_le_bytes(word)));
        }
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        let (at, entry) = self.last.get();
        let length = from.len() as u64;
        if self.inner.len() >= offset.saturating_add(length) {
            let stub = (at, length) == (offset, 8)
                && (entry == 0 || entry.to_le_bytes().as_slice() == from);
            let page = Self::names(entry, offset, length);
            assert!(
                stub || page,
                "{length} bytes at {offset:#x} behind entry {entry:#x} at {at:#x}"
            );
        }
        self.inner.write(offset, from)
    }

    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        self.inner.load32(offset)
    }

    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        let (at, entry) = self.last.get();
        assert_eq!(at, offset, "{value:#x} is no mark of the last entry");
        assert_eq!(value & !MARKS, entry as u32 & !MARKS, "more than marks at {offset:#x}");
        self.inner.store32(offset, value)
    }
}
