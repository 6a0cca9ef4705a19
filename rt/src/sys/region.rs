//! Calls about regions, and about faults in them.
use super::{map, plain, sel};
use abi::{CallNumber, Error, MemRights, RegionInfo, Selector};

/// A region to bind.
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    /// Space that gets it.
    pub space: Selector,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// Portal of its manager, or selector zero for a pinned region.
    pub portal: Selector,
    /// Tag.
    pub tag: u64,
    /// Rights.
    pub rights: MemRights,
    /// log2 of the page size that suits it: 12, 21 or 30; or [`abi::REGISTERS`].
    pub hint: u64,
}

/// Binds a region.
///
/// # Errors
/// `Unaligned`, `WrapsAround`, `BadAddress`, `BadArgument`, `Overlap`, `NoRight`, `Cycle`, `Quota`.
pub fn region_bind(b: Bind) -> Result<(), Error> {
    let list = [sel(b.space), b.base, b.length, sel(b.portal), b.tag, b.rights.bits(), b.hint];
    plain(CallNumber::RegionBind, &list).map(drop)
}

/// Removes a region.
///
/// # Errors
/// `NoRegion`.
pub fn region_unbind(space: Selector, base: u64, length: u64) -> Result<(), Error> {
    plain(CallNumber::RegionUnbind, &[sel(space), base, length]).map(drop)
}

/// Lets the faults go on that this thread has put off.
pub fn fault_retry() {
    // It has no way to fail.
    let _ = plain(CallNumber::FaultRetry, &[]);
}

/// Which of 1 to 64 pages, in a region that this program manages, were used: bit 0 is the first.
///
/// # Errors
/// `NoRegion`, `BadArgument`.
pub fn pages_used(space: Selector, address: u64, length: u64) -> Result<u64, Error> {
    plain(CallNumber::PagesUsed, &[sel(space), address, length]).map(|r| r[0])
}

/// Names a window of a region that this program manages; 0: it has none any more.
///
/// # Errors
/// `NoRegion`, `BadArgument`, `BadAddress`, `Quota`.
pub fn region_window(space: Selector, base: u64, length: u64, window: u64) -> Result<(), Error> {
    plain(CallNumber::RegionWindow, &[sel(space), base, length, window]).map(drop)
}

/// Divides a region of a space (zero: the own one) in two at a page inside.
///
/// # Errors
/// `NoRegion`, `Unaligned`, `BadArgument`, `BadState`, `Quota`.
pub fn region_split(
    space: Selector,
    base: u64,
    length: u64,
    at: u64,
    tag: u64,
) -> Result<(), Error> {
    plain(CallNumber::RegionSplit, &[sel(space), base, length, at, tag]).map(drop)
}

/// Moves a region of a space (zero: the own one).
///
/// # Errors
/// `NoRegion`, `Unaligned`, `WrapsAround`, `BadAddress`, `BadState`, `Overlap`.
pub fn region_move(space: Selector, base: u64, length: u64, to: u64) -> Result<(), Error> {
    plain(CallNumber::RegionMove, &[sel(space), base, length, to]).map(drop)
}

/// Changes the rights of a region of a space (zero: the own one).
///
/// # Errors
/// `NoRegion`, `NoRight`, `BadArgument`.
pub fn region_rights(
    space: Selector,
    base: u64,
    length: u64,
    rights: MemRights,
) -> Result<(), Error> {
    plain(CallNumber::RegionRights, &[sel(space), base, length, rights.bits()]).map(drop)
}

/// Gives a region of a space (zero: the own one) another manager.
///
/// # Errors
/// `NoRegion`, `BadCapability`, `NoRight`, `Cycle`, `Quota`.
pub fn region_manager(
    space: Selector,
    base: u64,
    length: u64,
    portal: Selector,
    tag: u64,
) -> Result<(), Error> {
    plain(CallNumber::RegionManager, &[sel(space), base, length, sel(portal), tag]).map(drop)
}

/// Gives regions of a space (zero: the own one) that name a portal its successor's manager (zero: none). How many: 64 at a time.
///
/// # Errors
/// `BadCapability`, `NoRight`, `Cycle`, `Gone` when the successor's thread has ended, `Quota`.
pub fn regions_pass(space: Selector, portal: Selector, successor: Selector) -> Result<u64, Error> {
    plain(CallNumber::RegionsPass, &[sel(space), sel(portal), sel(successor)]).map(|out| out[0])
}

/// Limits how long a fault of a space's threads (zero: the own one's) may remain unresolved; zero: not.
///
/// # Errors
/// `BadCapability`, `NoRight`.
pub fn fault_limit(space: Selector, microseconds: u64) -> Result<(), Error> {
    plain(CallNumber::FaultLimit, &[sel(space), microseconds]).map(drop)
}

/// The region of a space (zero: the own one) at an address, or else the next one above.
///
/// # Errors
/// `BadCapability`, `NoRight`, `NoRegion` past the last.
pub fn region_list(space: Selector, address: u64) -> Result<RegionInfo, Error> {
    let r = plain(CallNumber::RegionList, &[sel(space), address])?;
    Ok(RegionInfo::decode([r[0], r[1], r[2], r[3]]))
}

/// Memory that a space sees from the start, in a region of its own that nobody manages.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    /// Where the region begins.
    pub base: u64,
    /// The memory.
    pub memory: Selector,
    /// Offset in it.
    pub offset: u64,
    /// Bytes, whole pages.
    pub length: u64,
    /// Rights.
    pub rights: MemRights,
}

impl Pinned {
    /// Binds and maps it in a space (zero: the own one); `hint` is log2 of the page size that suits it.
    ///
    /// # Errors
    /// As `RegionBind` and `Map`.
    pub fn show(self, space: Selector, hint: u64) -> Result<(), Error> {
        let Self { base, memory, offset, length, rights } = self;
        region_bind(Bind { space, base, length, portal: Selector(0), tag: 0, rights, hint })?;
        map(space, base, memory, offset, length, rights)
    }
}
