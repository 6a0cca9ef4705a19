//! Entries of page tables.
use abi::{HostPhys, MemRights, PAGE_SIZE};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a table.
pub(crate) const ENTRIES: u64 = 512;
/// First entry of a native root that belongs to the kernel.
pub(crate) const KERNEL_HALF: u64 = 256;
/// Level of the root; 0 is the level of 4 KiB pages, 1 that of 2 MiB pages, 2 that of 1 GiB pages.
pub(crate) const ROOT_LEVEL: u32 = 3;

#[inline(always)]
pub(crate) fn size_of_level(level: u32) -> u64 {
    PAGE_SIZE << (9 * level)
}

#[inline(always)]
pub(crate) fn slot(table: HostPhys, level: u32, at: u64) -> HostPhys {
    let index = at >> (PAGE_SIZE.trailing_zeros() + 9 * level) & (ENTRIES - 1);
    HostPhys(table.0 + index * 8)
}

pub(crate) fn flags(rights: MemRights, level: u32) -> u64 {
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

#[inline(always)]
pub(crate) fn rights(entry: u64) -> MemRights {
    let mut rights = MemRights::READ;
    rights.set(MemRights::WRITE, entry & WRITE != 0);
    rights.set(MemRights::EXEC, entry & NO_EXECUTE == 0);
    rights.set(MemRights::DEVICE, entry & UNCACHED != 0);
    rights
}

#[inline(always)]
pub(crate) fn is_leaf(entry: u64, level: u32) -> bool {
    level == 0 || entry & LARGE != 0
}
