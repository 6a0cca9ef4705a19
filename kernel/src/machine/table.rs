//! Page tables of native and guest-physical spaces: four levels, 4 KiB and 2 MiB pages
//! (AMD APM volume 2, section 5.3). Nested tables have the same format; their walks count as user
//! accesses, hence the user bit everywhere.
use super::phys;
use abi::{HostPhys, LARGE_PAGE_SIZE, MemRights, PAGE_SIZE};

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// First entry of a native root that belongs to the kernel.
const KERNEL_HALF: u64 = 256;
/// Level of the root; 0 is the level of 4 KiB pages, 1 that of 2 MiB pages.
const ROOT_LEVEL: u32 = 3;

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
pub struct Tables {
    root: HostPhys,
    /// The table of 4 KiB pages that was used last, and the 2 MiB that it covers.
    near: Near,
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

#[inline(always)]
fn size_of_level(level: u32) -> u64 {
    PAGE_SIZE << (9 * level)
}

#[inline(always)]
fn slot(table: HostPhys, level: u32, at: u64) -> HostPhys {
    let index = at >> (PAGE_SIZE.trailing_zeros() + 9 * level) & (ENTRIES - 1);
    HostPhys(table.0 + index * 8)
}

fn flags(rights: MemRights, level: u32) -> u64 {
    let mut bits = PRESENT | USER | ACCESSED;
    if rights.contains(MemRights::WRITE) {
        bits |= WRITE | DIRTY;
    }
    if !rights.contains(MemRights::EXEC) {
        bits |= NO_EXECUTE;
    }
    if rights.contains(MemRights::DEVICE) {
        bits |= UNCACHED | WRITE_THROUGH;
    }
    if level > 0 {
        bits |= LARGE;
    }
    bits
}

fn is_leaf(entry: u64, level: u32) -> bool {
    level == 0 || entry & LARGE != 0
}

impl Tables {
    /// Empty tables. `kernel`: root of the kernel's tables, whose upper half a native space has too.
    pub fn new(kernel: Option<HostPhys>, frames: &mut impl FrameSource) -> Result<Self, NoFrames> {
        let root = frames.take().ok_or(NoFrames)?;
        if let Some(kernel) = kernel {
            let half = KERNEL_HALF * 8;
            phys::copy(HostPhys(kernel.0 + half), HostPhys(root.0 + half), half);
        }
        Ok(Self { root, near: Near::NONE })
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
            return Ok(set(entry, 0, to.0 | flags(rights, 0), frames));
        }
        // Large pages may take the place of tables.
        self.near = Near::NONE;
        while done < length {
            let (from, target, rest) = (at + done, to.0 + done, length - done);
            let large = (from | target).is_multiple_of(LARGE_PAGE_SIZE) && rest >= LARGE_PAGE_SIZE;
            let level = u32::from(large);
            let table = self.descend(from, level, frames)?;
            // All entries of this table that the range covers with pages of this size.
            let size = size_of_level(level);
            let left = ENTRIES - from / size % ENTRIES;
            let count = left.min(rest / size);
            for index in 0..count {
                let entry = slot(table, level, from + index * size);
                let value = (target + index * size) | flags(rights, level);
                replaced |= set(entry, level, value, frames);
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
            && phys::set_absent64(slot(self.near.table, 0, at), PRESENT, to.0 | flags(rights, 0))
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
            let old = phys::read64(entry);
            if old & PRESENT == 0 {
                return Ok(false);
            }
            phys::write64(entry, 0);
            if !phys::is_zero_around(entry) {
                return Ok(true);
            }
            // The table is to go too.
            phys::write64(entry, old);
        }
        self.near = Near::NONE;
        unmap_level(self.root, ROOT_LEVEL, at, at + length, frames)
    }

    /// Which of at most 64 pages were used since they were mapped, or since this was last asked: bit
    /// 0 is the first. Pages of large ones count as used always.
    pub fn take_used(&mut self, at: u64, length: u64) -> u64 {
        let mut used = 0;
        for (bit, page) in (at..at + length).step_by(PAGE_SIZE as usize).enumerate() {
            let is_used = if self.find_near(page) {
                let entry = slot(self.near.table, 0, page);
                let value = phys::read64(entry);
                let both = value & (PRESENT | ACCESSED) == PRESENT | ACCESSED;
                if both {
                    phys::write64(entry, value & !ACCESSED);
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
            let entry = phys::read64(slot(table, level, at));
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
        let entry = phys::read64(slot(self.near.table, 0, at));
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
                let entry = phys::read64(slot(table, level, at));
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
        free_tables(self.root, ROOT_LEVEL, end, frames);
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
            table = next_table(slot(table, above, at), above, frames)?;
        }
        Ok(table)
    }
}

/// The table that an entry leads to: made when absent, split when the entry is a large page.
#[inline(always)]
fn next_table(
    entry: HostPhys,
    level: u32,
    frames: &mut impl FrameSource,
) -> Result<HostPhys, NoFrames> {
    let value = phys::read64(entry);
    if value & PRESENT != 0 && !is_leaf(value, level) {
        return Ok(HostPhys(value & ADDRESS));
    }
    make_table(entry, value, level, frames)
}

#[inline(never)]
fn make_table(
    entry: HostPhys,
    value: u64,
    level: u32,
    frames: &mut impl FrameSource,
) -> Result<HostPhys, NoFrames> {
    let table = frames.take().ok_or(NoFrames)?;
    if value & PRESENT != 0 {
        let below = level - 1;
        let bits = if below == 0 { value & !ADDRESS & !LARGE } else { value & !ADDRESS };
        let base = value & ADDRESS & !(size_of_level(level) - 1);
        for index in 0..ENTRIES {
            let page = base + index * size_of_level(below);
            phys::write64(HostPhys(table.0 + index * 8), page | bits);
        }
    }
    phys::write64(entry, table.0 | PRESENT | WRITE | USER | ACCESSED);
    Ok(table)
}

/// Writes an entry; frees the table that was there. True when something different was present.
fn set(entry: HostPhys, level: u32, value: u64, frames: &mut impl FrameSource) -> bool {
    let old = phys::read64(entry);
    phys::write64(entry, value);
    if old & PRESENT == 0 {
        return false;
    }
    if !is_leaf(old, level) {
        free_tables(HostPhys(old & ADDRESS), level - 1, ENTRIES, frames);
        frames.give(HostPhys(old & ADDRESS));
    }
    (old ^ value) & !(ACCESSED | DIRTY) != 0
}

fn free_tables(table: HostPhys, level: u32, end: u64, frames: &mut impl FrameSource) {
    if level == 0 {
        return;
    }
    for index in 0..end {
        let entry = phys::read64(HostPhys(table.0 + index * 8));
        if entry & PRESENT != 0 && !is_leaf(entry, level) {
            free_tables(HostPhys(entry & ADDRESS), level - 1, ENTRIES, frames);
            frames.give(HostPhys(entry & ADDRESS));
        }
    }
}

fn unmap_level(
    table: HostPhys,
    level: u32,
    start: u64,
    end: u64,
    frames: &mut impl FrameSource,
) -> Result<bool, NoFrames> {
    let size = size_of_level(level);
    let mut changed = false;
    let mut at = start;
    while at < end {
        let stop = ((at & !(size - 1)) + size).min(end);
        let place = slot(table, level, at);
        let entry = phys::read64(place);
        if entry & PRESENT != 0 {
            changed |= unmap_entry(place, level, (at, stop), frames)?;
        }
        at = stop;
    }
    Ok(changed)
}

/// Unmaps the part of one present entry that lies in `range`.
fn unmap_entry(
    place: HostPhys,
    level: u32,
    range: (u64, u64),
    frames: &mut impl FrameSource,
) -> Result<bool, NoFrames> {
    if range.1 - range.0 == size_of_level(level) {
        set(place, level, 0, frames);
        return Ok(true);
    }
    let below = next_table(place, level, frames)?;
    let changed = unmap_level(below, level - 1, range.0, range.1, frames)?;
    // What is not present is zero. Others are likely to be near.
    if phys::is_zero_around(slot(below, level - 1, range.0)) {
        phys::write64(place, 0);
        frames.give(below);
    }
    Ok(changed)
}

fn rights(entry: u64) -> MemRights {
    let mut rights = MemRights::READ;
    rights.set(MemRights::WRITE, entry & WRITE != 0);
    rights.set(MemRights::EXEC, entry & NO_EXECUTE == 0);
    rights.set(MemRights::DEVICE, entry & UNCACHED != 0);
    rights
}

/// Rights of a part of the kernel's image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelRights {
    /// Code.
    Execute,
    /// Constants.
    Read,
    /// Everything else.
    Write,
}

impl KernelRights {
    fn flags(self) -> u64 {
        let bits = PRESENT | ACCESSED;
        match self {
            KernelRights::Execute => bits,
            KernelRights::Read => bits | NO_EXECUTE,
            KernelRights::Write => bits | WRITE | DIRTY | NO_EXECUTE,
        }
    }
}

/// The kernel's own tables, built once at boot.
#[derive(Debug)]
pub struct KernelTables {
    root: HostPhys,
}

impl KernelTables {
    /// Empty tables, with all roots' shared entries in place.
    pub fn new(frames: &mut impl FrameSource) -> Result<Self, NoFrames> {
        Ok(Self { root: frames.take().ok_or(NoFrames)? })
    }

    /// Physical address of the root.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Maps memory for the kernel, with 2 MiB pages when `large`.
    ///
    /// # Errors
    /// `NoFrames`.
    pub fn map(
        &mut self,
        range: (u64, u64),
        to: HostPhys,
        rights: KernelRights,
        large: bool,
        frames: &mut impl FrameSource,
    ) -> Result<(), NoFrames> {
        let level = u32::from(large);
        let size = size_of_level(level);
        let leaf = rights.flags() | if large { LARGE } else { 0 };
        for (index, at) in (range.0..range.1).step_by(size as usize).enumerate() {
            let mut table = self.root;
            for above in (level + 1..=ROOT_LEVEL).rev() {
                let entry = slot(table, above, at);
                table = next_table(entry, above, frames)?;
                // The user bit is for user pages only.
                phys::write64(entry, phys::read64(entry) & !USER);
            }
            phys::write64(slot(table, level, at), (to.0 + index as u64 * size) | leaf);
        }
        Ok(())
    }
}
