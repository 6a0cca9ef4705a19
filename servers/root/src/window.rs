//! Pinned regions of the root server itself.
use crate::layout::OWN_WINDOW;
use crate::{Failure, own};
use abi::{MemRights, RootSelector, Selector};
use alloc::format;
use rt::Shared;
use rt::sys::{self, Bind};

/// Binds and maps `length` bytes of `memory` at `base` of the own space.
pub fn pinned(
    base: u64,
    memory: Selector,
    offset: u64,
    length: u64,
    rights: MemRights,
) -> Result<(), Failure> {
    pinned_in(own(RootSelector::Space), base, memory, offset, length, rights)
}

/// The same in any space.
pub fn pinned_in(
    space: Selector,
    base: u64,
    memory: Selector,
    offset: u64,
    length: u64,
    rights: MemRights,
) -> Result<(), Failure> {
    let what = format!("mapping {length:#x} bytes at {base:#x}");
    let bind = Bind { space, base, length, portal: Selector(0), tag: 0, rights, hint: 21 };
    sys::region_bind(bind).map_err(Failure::kernel(&what))?;
    sys::map(space, base, memory, offset, length, rights).map_err(Failure::kernel(&what))
}

/// Looks at physical memory that is not RAM, page by page.
pub fn look<R>(physical: u64, length: u64, work: impl FnOnce(&Shared) -> R) -> Result<R, Failure> {
    let first = physical & !4095;
    let pages = (physical + length).next_multiple_of(4096) - first;
    let rights = MemRights::READ | MemRights::WRITE | MemRights::DEVICE;
    pinned(OWN_WINDOW, own(RootSelector::Devices), first, pages, rights)?;
    let shared = Shared::own(OWN_WINDOW, pages);
    let part = shared.part(physical - first, length);
    let result = part.map(|part| work(&part));
    sys::region_unbind(own(RootSelector::Space), OWN_WINDOW, pages)
        .map_err(Failure::kernel("unmapping the window"))?;
    result.map_err(|_| Failure("window out of bounds".into()))
}
