//! What changes page tables.
use crate::entry::{
    ACCESSED, ADDRESS, DIRTY, ENTRIES, LARGE, PRESENT, USER, WRITE, is_leaf, size_of_level, slot,
};
use crate::{FrameSource, NoFrames, Physical};
use abi::HostPhys;

/// The table that an entry leads to: made when absent, split when the entry is a large page.
#[inline(always)]
pub(crate) fn next_table<P: Physical>(
    entry: HostPhys,
    level: u32,
    frames: &mut impl FrameSource,
) -> Result<HostPhys, NoFrames> {
    let value = P::read(entry);
    if value & PRESENT != 0 && !is_leaf(value, level) {
        return Ok(HostPhys(value & ADDRESS));
    }
    make_table::<P>(entry, value, level, frames)
}

#[inline(never)]
fn make_table<P: Physical>(
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
            P::write(HostPhys(table.0 + index * 8), page | bits);
        }
    }
    P::write(entry, table.0 | PRESENT | WRITE | USER | ACCESSED);
    Ok(table)
}

/// Writes an entry; frees the table that was there. True when something different was present.
pub(crate) fn set<P: Physical>(
    entry: HostPhys,
    level: u32,
    value: u64,
    frames: &mut impl FrameSource,
) -> bool {
    let old = P::read(entry);
    P::write(entry, value);
    if old & PRESENT == 0 {
        return false;
    }
    if !is_leaf(old, level) {
        free_tables::<P>(HostPhys(old & ADDRESS), level - 1, ENTRIES, frames);
        frames.give(HostPhys(old & ADDRESS));
    }
    (old ^ value) & !(ACCESSED | DIRTY) != 0
}

pub(crate) fn free_tables<P: Physical>(
    table: HostPhys,
    level: u32,
    end: u64,
    frames: &mut impl FrameSource,
) {
    if level == 0 {
        return;
    }
    for index in 0..end {
        let entry = P::read(HostPhys(table.0 + index * 8));
        if entry & PRESENT != 0 && !is_leaf(entry, level) {
            free_tables::<P>(HostPhys(entry & ADDRESS), level - 1, ENTRIES, frames);
            frames.give(HostPhys(entry & ADDRESS));
        }
    }
}

pub(crate) fn unmap_level<P: Physical>(
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
        let entry = P::read(place);
        if entry & PRESENT != 0 {
            changed |= unmap_entry::<P>(place, level, (at, stop), frames)?;
        }
        at = stop;
    }
    Ok(changed)
}

/// Unmaps the part of one present entry that lies in `range`.
fn unmap_entry<P: Physical>(
    place: HostPhys,
    level: u32,
    range: (u64, u64),
    frames: &mut impl FrameSource,
) -> Result<bool, NoFrames> {
    if range.1 - range.0 == size_of_level(level) {
        set::<P>(place, level, 0, frames);
        return Ok(true);
    }
    let below = next_table::<P>(place, level, frames)?;
    let changed = unmap_level::<P>(below, level - 1, range.0, range.1, frames)?;
    // What is not present is zero. Others are likely to be near.
    if P::is_zero_around(slot(below, level - 1, range.0)) {
        P::write(place, 0);
        frames.give(below);
    }
    Ok(changed)
}
