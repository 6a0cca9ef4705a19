//! Physical memory, given out once and for all.
use crate::layout::OWN_RAM;
use crate::{Failure, own};
use abi::{MemRights, RootSelector};
use alloc::format;
use memory::Memory;
use rt::sys::Pinned;
use rt::{Shared, sys};

/// All RAM that the kernel left, seen through one window.
pub struct Ram {
    physical: u64,
    length: u64,
    next: u64,
    /// What nobody asks to be zeroed is given out full of [`DIRT`].
    dirty: bool,
    /// The window; offsets are offsets in the RAM capability.
    pub view: Shared,
}

/// A piece of what memory is full of that somebody has used before.
const DIRT: [u8; 4096] = [0xa5; 4096];

impl Ram {
    /// Maps all of RAM. `used` bytes at its start are taken already. `dirty`, for tests: whoever is to zero what he
    /// gets is to be seen to do so, though an emulator's memory is zero at first.
    pub fn new(used: u64, dirty: bool) -> Result<Self, Failure> {
        let ram = own(RootSelector::Ram);
        let (physical, length, _) = sys::mem_info(ram).map_err(Failure::kernel("RAM"))?;
        let rights = MemRights::READ | MemRights::WRITE;
        let (base, memory, offset) = (OWN_RAM, ram, 0);
        crate::window::own_window(Pinned { base, memory, offset, length, rights })?;
        Ok(Self { physical, length, next: used, dirty, view: Shared::own(OWN_RAM, length) })
    }

    /// Takes `length` bytes whose physical address is a multiple of `align`, zeroed if asked.
    /// Returns their offset in the RAM capability.
    pub fn take(&mut self, length: u64, align: u64, zero: bool) -> Result<u64, Failure> {
        let length = length.next_multiple_of(4096);
        let at = (self.physical + self.next).next_multiple_of(align) - self.physical;
        let end = at.checked_add(length).filter(|end| *end <= self.length);
        self.next = end.ok_or_else(|| {
            let (want, left) = (length >> 20, self.length.saturating_sub(at) >> 20);
            Failure(format!(
                "the machine's memory is too small: {want} MiB wanted, {left} MiB left; \
                 give it more, or the virtual machines less"
            ))
        })?;
        let done = match (zero, self.dirty) {
            (true, _) => self.view.zero(at, length),
            (false, true) => {
                let mut places = (at..at + length).step_by(DIRT.len());
                places.try_for_each(|place| self.view.write(place, &DIRT))
            }
            (false, false) => Ok(()),
        };
        done.map_err(|_| Failure("RAM window".into()))?;
        Ok(at)
    }

    /// Physical address of an offset.
    pub const fn physical(&self, offset: u64) -> u64 {
        self.physical + offset
    }

    /// Bytes that nobody has taken.
    pub const fn left(&self) -> u64 {
        self.length - self.next
    }
}
