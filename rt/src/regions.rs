//! Regions of spaces.
use crate::sys;
use abi::{RegionInfo, Selector};
use core::iter::successors;

/// All regions of a space (zero: the own one) that the program controls, by address; none of another
/// one. Those that come and go meanwhile may be among them or not.
pub fn of(space: Selector) -> impl Iterator<Item = RegionInfo> {
    let at = move |address| sys::region_list(space, address).ok();
    successors(at(0), move |region| at(region.end()))
}

/// The program's own region that all of a range lies in.
#[must_use]
pub fn around(base: u64, length: u64) -> Option<RegionInfo> {
    let end = base.checked_add(length)?;
    let region = sys::region_list(Selector(0), base).ok()?;
    (region.base.0 <= base && end <= region.end()).then_some(region)
}
