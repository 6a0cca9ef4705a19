//! The region map of a space: disjoint ranges of addresses, each with a binding (for the kernel:
//! the portal of its manager, a tag, rights). Looking an address up takes logarithmic time; a
//! hundred thousand regions are practical.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

use abi::{Error, PAGE_SIZE, SpaceAddr};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address, page aligned.
    pub base: SpaceAddr,
    /// Bytes, page aligned, not zero.
    pub length: u64,
}

impl Range {
    /// A range of whole pages that does not wrap around and ends at `limit` or below.
    ///
    /// # Errors
    /// `BadArgument` for a length of zero or anything that is not page aligned, `BadAddress` for a
    /// range that wraps around or goes beyond `limit`.
    pub const fn new(base: u64, length: u64, limit: u64) -> Result<Self, Error> {
        if length == 0 || !base.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
            return Err(Error::BadArgument);
        }
        match base.checked_add(length) {
            Some(end) if end <= limit => Ok(Self { base: SpaceAddr(base), length }),
            _ => Err(Error::BadAddress),
        }
    }

    /// One past the last address.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base.0 + self.length
    }

    /// True when the address lies inside.
    #[must_use]
    pub const fn contains(self, address: u64) -> bool {
        address >= self.base.0 && address - self.base.0 < self.length
    }

    /// True when the other range lies wholly inside.
    #[must_use]
    pub const fn covers(self, other: Range) -> bool {
        self.contains(other.base.0) && other.end() <= self.end()
    }
}

/// Disjoint ranges and what each is bound to.
#[derive(Debug)]
pub struct RegionMap<B> {
    /// By base address: length and binding.
    regions: BTreeMap<u64, (u64, B)>,
    /// What [`find_near`](Self::find_near) found last. Never outlives its region.
    recent: Option<(Range, B)>,
}

impl<B> Default for RegionMap<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> RegionMap<B> {
    /// Upper bound of the bytes that a region takes in the tree: nodes are at least half full,
    /// and one word in eleven is a link.
    pub const COST: usize = 2 * (size_of::<(u64, (u64, B))>() + 24);

    /// No regions.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: BTreeMap::new(), recent: None }
    }

    /// Number of regions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Adds a region.
    ///
    /// # Errors
    /// `Overlap` when any address of it belongs to a region already; nothing changes then.
    pub fn bind(&mut self, range: Range, binding: B) -> Result<(), Error> {
        self.check_free(range)?;
        self.regions.insert(range.base.0, (range.length, binding));
        Ok(())
    }

    /// Says whether [`bind`](Self::bind) would be refused.
    ///
    /// # Errors
    /// `Overlap`.
    pub fn check_free(&self, range: Range) -> Result<(), Error> {
        match self.regions.range(..range.end()).next_back() {
            Some((base, (length, _))) if base + length > range.base.0 => Err(Error::Overlap),
            _ => Ok(()),
        }
    }

    /// Removes exactly this region.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length.
    pub fn unbind(&mut self, range: Range) -> Result<B, Error> {
        match self.regions.entry(range.base.0) {
            Entry::Occupied(entry) if entry.get().0 == range.length => {
                self.recent = None;
                Ok(entry.remove().1)
            }
            _ => Err(Error::NoRegion),
        }
    }

    /// The binding of exactly this region.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length.
    pub fn get(&self, range: Range) -> Result<&B, Error> {
        match self.regions.get(&range.base.0) {
            Some((length, binding)) if *length == range.length => Ok(binding),
            _ => Err(Error::NoRegion),
        }
    }

    /// The region that an address lies in.
    #[must_use]
    pub fn find(&self, address: SpaceAddr) -> Option<(Range, &B)> {
        let (base, (length, binding)) = self.regions.range(..=address.0).next_back()?;
        let range = Range { base: SpaceAddr(*base), length: *length };
        range.contains(address.0).then_some((range, binding))
    }

    /// The region that an address lies in; looks at the one that was found last first.
    #[inline]
    pub fn find_near(&mut self, address: SpaceAddr) -> Option<(Range, &B)>
    where
        B: Copy,
    {
        if !self.recent.as_ref().is_some_and(|(range, _)| range.contains(address.0)) {
            let (range, binding) = self.find(address)?;
            self.recent = Some((range, *binding));
        }
        self.recent.as_ref().map(|(range, binding)| (*range, binding))
    }

    /// Divides exactly this region in two at an address. Both parts are bound alike.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length, `BadArgument` when the address is
    /// not that of a page inside, other than the first; nothing changes then.
    pub fn split(&mut self, range: Range, at: u64) -> Result<(Range, Range), Error>
    where
        B: Copy,
    {
        let binding = *self.get(range)?;
        let inside = range.contains(at) && at != range.base.0;
        if !inside || !at.is_multiple_of(PAGE_SIZE) {
            return Err(Error::BadArgument);
        }
        let lower = Range { base: range.base, length: at - range.base.0 };
        let upper = Range { base: SpaceAddr(at), length: range.end() - at };
        self.unbind(range)?;
        self.bind(lower, binding)?;
        self.bind(upper, binding)?;
        Ok((lower, upper))
    }

    /// Moves exactly this region to another place of the same length, which it may overlap.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length, `BadArgument` for another length,
    /// `Overlap` when another region is in the way; nothing changes then.
    pub fn relocate(&mut self, range: Range, to: Range) -> Result<(), Error>
    where
        B: Copy,
    {
        if range.length != to.length {
            return Err(Error::BadArgument);
        }
        let binding = self.unbind(range)?;
        let moved = self.bind(to, binding);
        if moved.is_err() {
            self.bind(range, binding)?;
        }
        moved
    }

    /// Changes the binding of exactly this region.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length.
    pub fn get_mut(&mut self, range: Range) -> Result<&mut B, Error> {
        self.recent = None;
        match self.regions.get_mut(&range.base.0) {
            Some((length, binding)) if *length == range.length => Ok(binding),
            _ => Err(Error::NoRegion),
        }
    }

    /// All regions, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Range, &B)> {
        self.regions.iter().map(|(base, (length, binding))| {
            (Range { base: SpaceAddr(*base), length: *length }, binding)
        })
    }
}

#[cfg(test)]
mod tests;
