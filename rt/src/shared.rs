//! Memory that others may change at any time: guest RAM, rings, device registers.
use core::sync::atomic::{AtomicU32, Ordering};
use memory::{Guarded, Losses, Memory, OutOfBounds, Registers, check};

/// RAM of a guest, of which pages can be lost.
pub type GuestRam = Guarded<Shared, Shared>;

/// Accesses that were refused because a page is lost.
static REFUSED: AtomicU32 = AtomicU32::new(0);

/// A mapped range of the program, as safe code may use it. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: u64,
    length: u64,
}

impl Shared {
    /// The region of that name in the configuration.
    #[must_use]
    pub fn region(name: &str) -> Option<Self> {
        let region = crate::config().region(name)?;
        Some(Self { base: region.address, length: region.length })
    }

    /// The region of that name, with what tells of lost pages of it, if somebody does.
    #[must_use]
    pub fn guest_ram(name: &str) -> Option<GuestRam> {
        let losses = Self::region(&alloc::format!("{name}{}", system::LOSSES_SUFFIX));
        Some(Guarded::new(Self::region(name)?, losses.map(Losses::new), &REFUSED))
    }

    /// The memory of a channel's end.
    #[must_use]
    pub(crate) fn of_channel(end: &system::ChannelEnd) -> Self {
        Self { base: end.address, length: end.length }
    }

    /// A range of the own space that the program bound itself (root server and tests).
    ///
    /// # Panics
    /// When the range is not inside one region of the program. A region is not enough for the
    /// compiler's own memory to be safe: the root server must not name its code, data or stack.
    #[must_use]
    pub fn own(base: u64, length: u64) -> Self {
        let inside = crate::regions::around(base, length).is_some();
        assert!(inside, "{base:#x}+{length:#x} is not in a region");
        Self { base, length }
    }

    /// Bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Part of this memory.
    ///
    /// # Errors
    /// `OutOfBounds`.
    pub fn part(&self, offset: u64, length: u64) -> Result<Self, OutOfBounds> {
        check(offset, length, self.length, 1)?;
        Ok(Self { base: self.base + offset, length })
    }

    /// Fills a range with zeros.
    ///
    /// # Errors
    /// `OutOfBounds`.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), OutOfBounds> {
        check(offset, length, self.length, 1)?;
        // SAFETY: inside the region; nobody holds references into it.
        unsafe { core::ptr::write_bytes((self.base + offset) as *mut u8, 0, length as usize) };
        Ok(())
    }

    /// Copies between two memories.
    ///
    /// # Errors
    /// `OutOfBounds`.
    pub fn copy_to(
        &self,
        offset: u64,
        to: &Shared,
        to_offset: u64,
        length: u64,
    ) -> Result<(), OutOfBounds> {
        check(offset, length, self.length, 1)?;
        check(to_offset, length, to.length, 1)?;
        let (from, into) = ((self.base + offset) as *const u8, (to.base + to_offset) as *mut u8);
        // SAFETY: both ranges are inside their regions; nobody holds references into them.
        unsafe { core::ptr::copy(from, into, length as usize) };
        Ok(())
    }

    /// Reads a register of 1, 2, 4 or 8 bytes with a single access of that width.
    ///
    /// # Errors
    /// `OutOfBounds`, also for another width or a misaligned offset.
    pub fn read_register(&self, offset: u64, width: u64) -> Result<u64, OutOfBounds> {
        check(offset, width, self.length, width.max(1))?;
        let at = self.base + offset;
        // SAFETY: inside the region and aligned; the width is checked by the match.
        unsafe {
            Ok(match width {
                1 => u64::from((at as *const u8).read_volatile()),
                2 => u64::from((at as *const u16).read_volatile()),
                4 => u64::from((at as *const u32).read_volatile()),
                8 => (at as *const u64).read_volatile(),
                _ => return Err(OutOfBounds { offset, length: width }),
            })
        }
    }

    /// Writes a register of 1, 2, 4 or 8 bytes with a single access of that width.
    ///
    /// # Errors
    /// `OutOfBounds`, also for another width or a misaligned offset.
    pub fn write_register(&self, offset: u64, width: u64, value: u64) -> Result<(), OutOfBounds> {
        check(offset, width, self.length, width.max(1))?;
        let at = self.base + offset;
        // SAFETY: inside the region and aligned; the width is checked by the match.
        unsafe {
            match width {
                1 => (at as *mut u8).write_volatile(value as u8),
                2 => (at as *mut u16).write_volatile(value as u16),
                4 => (at as *mut u32).write_volatile(value as u32),
                8 => (at as *mut u64).write_volatile(value),
                _ => return Err(OutOfBounds { offset, length: width }),
            }
        }
        Ok(())
    }

    fn atomic(&self, offset: u64) -> Result<&AtomicU32, OutOfBounds> {
        check(offset, 4, self.length, 4)?;
        // SAFETY: inside the region, aligned, and every access to shared words is atomic or a
        // byte copy whose result is checked as untrusted.
        Ok(unsafe { AtomicU32::from_ptr((self.base + offset) as *mut u32) })
    }

    /// Atomic exchange.
    ///
    /// # Errors
    /// `OutOfBounds`.
    pub fn swap32(&self, offset: u64, value: u32) -> Result<u32, OutOfBounds> {
        Ok(self.atomic(offset)?.swap(value, Ordering::AcqRel))
    }
}

impl Registers for Shared {
    fn read_register(&self, offset: u64, width: u64) -> Result<u64, OutOfBounds> {
        Shared::read_register(self, offset, width)
    }

    fn write_register(&self, offset: u64, width: u64, value: u64) -> Result<(), OutOfBounds> {
        Shared::write_register(self, offset, width, value)
    }
}

impl Memory for Shared {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        check(offset, into.len() as u64, self.length, 1)?;
        let from = (self.base + offset) as *const u8;
        // SAFETY: the source is inside the region, the destination is the caller's own.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        check(offset, from.len() as u64, self.length, 1)?;
        let to = (self.base + offset) as *mut u8;
        // SAFETY: the destination is inside the region, the source is the caller's own.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        Ok(self.atomic(offset)?.load(Ordering::Acquire))
    }

    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.atomic(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    fn read64(&self, offset: u64) -> Result<u64, OutOfBounds> {
        check(offset, 8, self.length, 1)?;
        // SAFETY: inside the region; the copy needs no alignment.
        Ok(u64::from_le(unsafe { ((self.base + offset) as *const u64).read_unaligned() }))
    }
}
