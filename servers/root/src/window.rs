//! Pinned regions, of the root server itself and of others.
use crate::layout::OWN_WINDOW;
use crate::{Failure, own};
use abi::{MemRights, RootSelector, Selector};
use alloc::format;
use rt::Shared;
use rt::sys::{self, Pinned};

/// Large pages, where memory and addresses fit.
const HINT: u64 = 21;

/// Shows memory in any space.
pub fn pinned(space: Selector, pinned: Pinned) -> Result<(), Failure> {
    let what = format!("mapping {:#x} bytes at {:#x}", pinned.length, pinned.base);
    pinned.show(space, HINT).map_err(Failure::kernel(what))
}

/// Shows memory in the own space.
pub fn own_window(shown: Pinned) -> Result<(), Failure> {
    pinned(own(RootSelector::Space), shown)
}

/// Looks at physical memory that is not RAM, page by page.
pub fn look<R>(physical: u64, length: u64, work: impl FnOnce(&Shared) -> R) -> Result<R, Failure> {
    let first = physical & !4095;
    let pages = (physical + length).next_multiple_of(4096) - first;
    let rights = MemRights::READ | MemRights::WRITE | MemRights::DEVICE;
    let memory = own(RootSelector::Devices);
    own_window(Pinned { base: OWN_WINDOW, memory, offset: first, length: pages, rights })?;
    let shared = Shared::own(OWN_WINDOW, pages);
    let part = shared.part(physical - first, length);
    let result = part.map(|part| work(&part));
    sys::region_unbind(own(RootSelector::Space), OWN_WINDOW, pages)
        .map_err(Failure::kernel("unmapping the window"))?;
    result.map_err(|_| Failure("window out of bounds".into()))
}
