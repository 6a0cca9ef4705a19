//! Page tables of native and guest-physical spaces: four levels, pages of 4 KiB, 2 MiB and 1 GiB
//! (AMD APM volume 2, section 5.3). Nested tables have the same format; their walks count as user
//! accesses, hence the user bit everywhere.
//!
//! The tables lie in physical memory, which the kernel and the tests each reach in their own way
//! ([`Physical`]). Telling processors to drop what they remember is the caller's part: each change says
//! whether something was mapped before.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod change;
mod entry;
mod kernel;

pub use kernel::{KernelRights, KernelTables};

use abi::{HostPhys, LARGE_PAGE_SIZE, MemRights, PAGE_SIZE};
use change::{free_tables, next_table, set, unmap_level};
use core::marker::PhantomData;
use entry::{
    ACCESSED, ADDRESS, ENTRIES, KERNEL_HALF, PRESENT, ROOT_LEVEL, flags, is_leaf, rights,
    size_of_level, slot,
};

/// How physical memory outside the kernel is reached: frames that [`FrameSource`] gave.
pub trait Physical {
    /// Eight aligned bytes.
    fn read(at: HostPhys) -> u64;
    /// Writes eight aligned bytes.
    fn write(at: HostPhys, value: u64);
    /// Writes eight aligned bytes where none of some bits is set; false when there is one.
    fn set_absent(at: HostPhys, bits: u64, value: u64) -> bool;
    /// Copies `length` bytes between two frames.
    fn copy(from: HostPhys, to: HostPhys, length: u64);
    /// True when the frame around an address holds nothing but zeros. What is not is likely to be
    /// near the address.
    fn is_zero_around(at: HostPhys) -> bool;
    /// True where the processors know pages of 1 GiB.
    fn has_huge_pages() -> bool;
}

/// Where tables come from and go to.
pub trait FrameSource {
    /// A zeroed frame, or `None` when the quota (or the memory) is used up.
    fn take(&mut self) -> Option<HostPhys>;
    /// A frame that is no longer needed.
    fn give(&mut self, frame: HostPhys);
}

/// There was no frame for a table. What was mapped before that stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoFrames;

/// A mapped page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Physical address of the byte that was asked for.
    pub phys: HostPhys,
    /// Bytes from there to the end of the page.
    pub rest: u64,
    /// Bytes of the whole page.
    pub size: u64,
    /// Rights.
    pub rights: MemRights,
}

/// Page tables of one space. They are freed by [`Tables::clear`], not by dropping.
#[derive(Debug)]
pub struct Tables<P> {
    root: HostPhys,
    /// The table of 4 KiB pages that was used last, and the 2 MiB that it covers.
    near: Near,
    memory: PhantomData<fn() -> P>,
}

/// Valid until any table of the space is freed.
#[derive(Clone, Copy, Debug)]
struct Near {
    block: u64,
    table: HostPhys,
}

impl Near {
    /// Covers no address.
    const NONE: Self = Self { block: u64::MAX, table: HostPhys(0) };

    #[inline(always)]
    fn covers(self, at: u64) -> bool {
        at / LARGE_PAGE_SIZE == self.block
    }
}

/// The level of the largest page that fits addresses, ored, and a length.
fn largest_level(addresses: u64, length: u64, huge: bool) -> u32 {
    let fits = |level: &u32| {
        let size = size_of_level(*level);
        addresses.is_multiple_of(size) && length >= size
    };
    let highest = if huge { 2 } else { 1 };
    (1..=highest).rev().find(fits).unwrap_or(0)
}

impl<P: Physical> Tables<P> {
    /// Empty tables. `kernel`: root of the kernel's tables, whose upper half a native space has too.
    pub fn new(kernel: Option<HostPhys>, frames: &mut impl FrameSource) -> Result<Self, NoFrames> {
        let root = frames.take().ok_or(NoFrames)?;
        if let Some(kernel) = kernel {
            let half = KERNEL_HALF * 8;
            P::copy(HostPhys(kernel.0 + half), HostPhys(root.0 + half), half);
        }
        Ok(Self { root, near: Near::NONE, memory: PhantomData })
    }

    /// Physical address of the root.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Maps a range; everything is a multiple of the page size. Large pages are used where
    /// addresses and length allow. Returns true when something else was mapped there before.
    ///
    /// # Errors
    /// `NoFrames`.
    pub fn map(
        &mut self,
        at: u64,
        to: HostPhys,
        length: u64,
        rights: MemRights,
        frames: &mut impl FrameSource,
    ) -> Result<bool, NoFrames> {
        let mut replaced = false;
        let mut done = 0;
        if length == PAGE_SIZE {
            if !self.near.covers(at) {
                let table = self.descend(at, 0, frames)?;
                self.near = Near { block: at / LARGE_PAGE_SIZE, table };
            }
            let entry = slot(self.near.table, 0, at);
            return Ok(set::<P>(entry, 0, to.0 | flags(rights, 0), frames));
        }
        // Large pages may take the place of tables.
        self.near = Near::NONE;
        while done < length {
            let (from, target, rest) = (at + done, to.0 + done, length - done);
            let level = largest_level(from | target, rest, P::has_huge_pages());
            let table = self.descend(from, level, frames)?;
            // All entries of this table that the range covers with pages of this size.
            let size = size_of_level(level);
            let left = ENTRIES - from / size % ENTRIES;
            let count = left.min(rest / size);
            for index in 0..count {
                let entry = slot(table, level, from + index * size);
                let value = (target + index * size) | flags(rights, level);
                replaced |= set::<P>(entry, level, value, frames);
            }
            done += count * size;
        }
        Ok(replaced)
    }

    /// Maps a small page where nothing is and the table is near. False when it is not so: nothing has
    /// happened then.
    #[inline(always)]
    pub fn fill(&mut self, at: u64, to: HostPhys, rights: MemRights) -> bool {
        self.near.covers(at)
            && P::set_absent(slot(self.near.table, 0, at), PRESENT, to.0 | flags(rights, 0))
    }

    /// Removes mappings in a range. Returns true when there was any.
    ///
    /// # Errors
    /// `NoFrames` when a large page has to be split and there is no frame for that.
    pub fn unmap(
        &mut self,
        at: u64,
        length: u64,
        frames: &mut impl FrameSource,
    ) -> Result<bool, NoFrames> {
        if length == PAGE_SIZE && self.find_near(at) {
            let entry = slot(self.near.table, 0, at);
            let old = P::read(entry);
            if old & PRESENT == 0 {
                return Ok(false);
            }
            P::write(entry, 0);
            if !P::is_zero_around(entry) {
                return Ok(true);
            }
            // The table is to go too.
            P::write(entry, old);
        }
        self.near = Near::NONE;
        unmap_level::<P>(self.root, ROOT_LEVEL, at, at + length, frames)
    }

    /// Sees to it that no page lies across an address: larger ones are replaced by their parts. What
    /// is mapped stays the same. Afterwards everything on one side can be unmapped without a frame.
    ///
    /// # Errors
    /// `NoFrames`.
    pub fn divide(&mut self, at: u64, frames: &mut impl FrameSource) -> Result<(), NoFrames> {
        let mut table = self.root;
        for level in (1..=ROOT_LEVEL).rev() {
            let entry = slot(table, level, at);
            if at.is_multiple_of(size_of_level(level)) || P::read(entry) & PRESENT == 0 {
                break;
            }
            table = next_table::<P>(entry, level, frames)?;
        }
        Ok(())
    }

    /// Which of at most 64 pages were used since they were mapped, or since this was last asked: bit
    /// 0 is the first. Pages of large ones count as used always.
    pub fn take_used(&mut self, at: u64, length: u64) -> u64 {
        let mut used = 0;
        for (bit, page) in (at..at + length).step_by(PAGE_SIZE as usize).enumerate() {
            let is_used = if self.find_near(page) {
                let entry = slot(self.near.table, 0, page);
                let value = P::read(entry);
                let both = value & (PRESENT | ACCESSED) == PRESENT | ACCESSED;
                if both {
                    P::write(entry, value & !ACCESSED);
                }
                both
            } else {
                self.walk(page).is_some()
            };
            used |= u64::from(is_used) << bit;
        }
        used
    }

    /// The page at an address.
    #[inline]
    pub fn walk(&self, at: u64) -> Option<Leaf> {
        let (mut table, mut level) = (self.root, ROOT_LEVEL);
        if self.near.covers(at) {
            (table, level) = (self.near.table, 0);
        }
        loop {
            let entry = P::read(slot(table, level, at));
            if entry & PRESENT == 0 {
                return None;
            }
            if is_leaf(entry, level) {
                let size = size_of_level(level);
                let phys = HostPhys((entry & ADDRESS & !(size - 1)) + at % size);
                let rest = size - at % size;
                return Some(Leaf { phys, rest, size, rights: rights(entry) });
            }
            table = HostPhys(entry & ADDRESS);
            level -= 1;
        }
    }

    /// The small page at an address, if its table is near: where it is, and its rights.
    #[inline(always)]
    pub fn near_page(&self, at: u64) -> Option<(HostPhys, MemRights)> {
        if !self.near.covers(at) {
            return None;
        }
        let entry = P::read(slot(self.near.table, 0, at));
        (entry & PRESENT != 0).then(|| (HostPhys(entry & ADDRESS), rights(entry)))
    }

    /// The page at an address; remembers its table.
    #[inline]
    pub fn walk_near(&mut self, at: u64) -> Option<Leaf> {
        self.find_near(at);
        self.walk(at)
    }

    /// Makes the table of 4 KiB pages around an address the near one; false when there is none.
    #[inline]
    fn find_near(&mut self, at: u64) -> bool {
        if !self.near.covers(at) {
            let mut table = self.root;
            for level in (1..=ROOT_LEVEL).rev() {
                let entry = P::read(slot(table, level, at));
                if entry & PRESENT == 0 || is_leaf(entry, level) {
                    return false;
                }
                table = HostPhys(entry & ADDRESS);
            }
            self.near = Near { block: at / LARGE_PAGE_SIZE, table };
        }
        true
    }

    /// Frees all tables. No processor may use them any more.
    pub fn clear(self, native: bool, frames: &mut impl FrameSource) {
        let end = if native { KERNEL_HALF } else { ENTRIES };
        free_tables::<P>(self.root, ROOT_LEVEL, end, frames);
        frames.give(self.root);
    }

    /// The table of `level` that covers an address, made where it is missing.
    fn descend(
        &mut self,
        at: u64,
        level: u32,
        frames: &mut impl FrameSource,
    ) -> Result<HostPhys, NoFrames> {
        let mut table = self.root;
        for above in (level + 1..=ROOT_LEVEL).rev() {
            table = next_table::<P>(slot(table, above, at), above, frames)?;
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
