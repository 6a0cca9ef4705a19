//! What test programs in the place of the root server make processes of.
use crate::env::{PAGE, RAM, SPACE, THREAD, ok, pinned, window, words_at};
use abi::{BootInfo, MemRights, RootSelector, Selector};
use alloc::format;
use alloc::string::String;
use core::mem::offset_of;
use rt::process::{Files, Means};
use rt::{Shared, sys};

/// Address and length of a region, to be unbound in the end.
pub type Region = (u64, u64);

/// The files of the boot archive, and where it was mapped.
pub fn files() -> Result<(Files, Region), String> {
    let archive = Selector(RootSelector::Archive as u32);
    let page = words_at(BootInfo::ADDRESS, PAGE);
    let length = page.get(offset_of!(BootInfo, archive_length) as u64);
    let whole = length.next_multiple_of(PAGE);
    let bind = pinned(whole, MemRights::READ);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, archive, 0, whole, MemRights::READ), "map")?;
    let files = Files::open(archive, Shared::own(bind.base, length));
    Ok((files.map_err(|e| format!("{e}"))?, (bind.base, whole)))
}

/// Memory for `count` processes of `each` bytes.
pub fn means(each: u64, count: u64) -> Result<(Means, Region), String> {
    let (base, offset) = window(each * count)?;
    let view = Shared::own(base, each * count);
    let means = Means { memory: RAM, view, offset, each, thread: THREAD };
    Ok((means, (base, each * count)))
}
