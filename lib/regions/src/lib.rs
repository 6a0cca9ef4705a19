//! The region map of a space: disjoint ranges of addresses, each with a binding (for the kernel:
//! the portal of its manager, a tag, rights). Looking an address up takes logarithmic time; a
//! hundred thousand regions are practical.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

mod overlaps;

pub use overlaps::{Key, Overlaps};

use abi::{Error, PAGE_SIZE, SpaceAddr};
use alloc::vec::Vec;

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
    /// `BadArgument` for a length of zero, `Unaligned` for anything that is not page aligned, `WrapsAround`,
    /// `BadAddress` for a range that goes beyond `limit`.
    pub const fn new(base: u64, length: u64, limit: u64) -> Result<Self, Error> {
        if length == 0 {
            return Err(Error::BadArgument);
        }
        if !base.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Unaligned);
        }
        match base.checked_add(length) {
            Some(end) if end <= limit => Ok(Self { base: SpaceAddr(base), length }),
            Some(_) => Err(Error::BadAddress),
            None => Err(Error::WrapsAround),
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
        // A range does not wrap around, so below its base the difference is too large.
        address.wrapping_sub(self.base.0) < self.length
    }

    /// Its parts below and above an address.
    ///
    /// # Errors
    /// `Unaligned`; `BadArgument` when that is not the address of a page inside, other than the first.
    pub const fn divided(self, at: u64) -> Result<(Self, Self), Error> {
        if !at.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Unaligned);
        }
        if !self.contains(at) || at == self.base.0 {
            return Err(Error::BadArgument);
        }
        let lower = Self { base: self.base, length: at - self.base.0 };
        let upper = Self { base: SpaceAddr(at), length: self.end() - at };
        Ok((lower, upper))
    }

    /// True when the other range lies wholly inside.
    #[must_use]
    pub const fn covers(self, other: Range) -> bool {
        self.contains(other.base.0) && other.end() <= self.end()
    }
}

/// A region.
#[derive(Debug)]
struct Entry<B> {
    range: Range,
    binding: B,
}

/// Most regions of a leaf.
const MOST: usize = 32;

/// Where a region is: number of the leaf, and in the leaf.
type Place = (usize, usize);

/// Disjoint ranges and what each is bound to: a sorted list of leaves, each a sorted list of regions.
/// A search is two binary searches in lists without gaps, which take fewer steps than one down a
/// tree of narrow nodes; changing a list of some thousand leaves is rare.
#[derive(Debug)]
pub struct RegionMap<B> {
    /// Address of the first region of each leaf.
    firsts: Vec<u64>,
    /// None is empty; two neighbours have more than half of `MOST` regions together.
    leaves: Vec<Vec<Entry<B>>>,
    /// Number of regions.
    count: usize,
    /// What [`find_near`](Self::find_near) found last, until anything changes: a range of length zero
    /// contains nothing.
    recent: (Range, Option<B>),
}

impl<B> Default for RegionMap<B> {
    fn default() -> Self {
        Self::new()
    }
}

/// After something was removed from a list: room for four times as much at most.
fn trim<T>(list: &mut Vec<T>) {
    if list.capacity() > 4 * list.len() {
        list.shrink_to(2 * list.len());
    }
}

/// Contains no address.
const NOWHERE: Range = Range { base: SpaceAddr(0), length: 0 };

impl<B> RegionMap<B> {
    /// Upper bound of the bytes that a region takes: its leaf has room for four times what is in it
    /// at most, and so have the two lists of leaves.
    pub const COST: usize = 4 * (size_of::<Entry<B>>() + size_of::<u64>() + size_of::<Vec<()>>());

    /// No regions.
    #[must_use]
    pub const fn new() -> Self {
        Self { firsts: Vec::new(), leaves: Vec::new(), count: 0, recent: (NOWHERE, None) }
    }

    /// Number of regions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The last region that begins below an address, or at it.
    #[inline]
    fn before(&self, address: u64) -> Option<Place> {
        let leaf = self.firsts.partition_point(|first| *first <= address).checked_sub(1)?;
        let entries = self.leaves.get(leaf)?;
        let index = entries.partition_point(|entry| entry.range.base.0 <= address);
        Some((leaf, index.checked_sub(1)?))
    }

    #[inline]
    fn entry(&self, (leaf, index): Place) -> Option<&Entry<B>> {
        self.leaves.get(leaf)?.get(index)
    }

    /// Where exactly this region is.
    fn place(&self, range: Range) -> Result<Place, Error> {
        let place = self.before(range.base.0).ok_or(Error::NoRegion)?;
        let found = self.entry(place).is_some_and(|entry| entry.range == range);
        if found { Ok(place) } else { Err(Error::NoRegion) }
    }

    /// Adds a region.
    ///
    /// # Errors
    /// `Overlap` when any address of it belongs to a region already; nothing changes then.
    pub fn bind(&mut self, range: Range, binding: B) -> Result<(), Error> {
        let before = self.free_place(range)?;
        self.recent = (NOWHERE, None);
        self.count += 1;
        let entry = Entry { range, binding };
        let (leaf, index) = match before {
            Some((leaf, index)) => (leaf, index + 1),
            None if self.leaves.is_empty() => {
                self.insert_leaf(0, Vec::new());
                (0, 0)
            }
            None => (0, 0),
        };
        let (leaf, index) = self.make_room(leaf, index);
        self.leaves[leaf].insert(index, entry);
        if index == 0 {
            self.firsts[leaf] = range.base.0;
        }
        Ok(())
    }

    fn insert_leaf(&mut self, at: usize, entries: Vec<Entry<B>>) {
        self.firsts.insert(at, entries.first().map_or(0, |entry| entry.range.base.0));
        self.leaves.insert(at, entries);
    }

    /// Divides a full leaf. Where the new region's place is then.
    fn make_room(&mut self, leaf: usize, index: usize) -> Place {
        let last = self.leaves.len() == leaf + 1;
        let entries = &mut self.leaves[leaf];
        if entries.len() < MOST {
            return (leaf, index);
        }
        // Whoever binds in ascending order leaves full leaves behind.
        let keep = if last && index == MOST { MOST - 1 } else { MOST / 2 };
        let upper = entries.split_off(keep);
        self.insert_leaf(leaf + 1, upper);
        if index > keep { (leaf + 1, index - keep) } else { (leaf, index) }
    }

    /// The last region below a range that overlaps none.
    fn free_place(&self, range: Range) -> Result<Option<Place>, Error> {
        let before = self.before(range.end() - 1);
        match before.and_then(|place| self.entry(place)) {
            Some(entry) if entry.range.end() > range.base.0 => Err(Error::Overlap),
            _ => Ok(before),
        }
    }

    /// Says whether [`bind`](Self::bind) would be refused.
    ///
    /// # Errors
    /// `Overlap`.
    pub fn check_free(&self, range: Range) -> Result<(), Error> {
        self.free_place(range).map(drop)
    }

    /// Removes exactly this region.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length.
    pub fn unbind(&mut self, range: Range) -> Result<B, Error> {
        let (leaf, index) = self.place(range)?;
        self.recent = (NOWHERE, None);
        self.count -= 1;
        let removed = self.leaves[leaf].remove(index);
        trim(&mut self.leaves[leaf]);
        self.keep_leaf(leaf);
        Ok(removed.binding)
    }

    /// After a leaf has lost a region: it is not empty, or it goes; it has more than a few with its
    /// neighbours, or it becomes one with them.
    fn keep_leaf(&mut self, leaf: usize) {
        let length = |at: usize| self.leaves.get(at).map_or(MOST, Vec::len);
        let own = length(leaf);
        if own == 0 {
            self.remove_leaf(leaf);
            // Its neighbours are each other's now.
            if let Some(lower) = leaf.checked_sub(1) {
                self.merge(lower);
            }
            return;
        }
        self.firsts[leaf] = self.leaves[leaf][0].range.base.0;
        if own + length(leaf + 1) <= MOST / 2 {
            self.merge(leaf);
        } else if let Some(lower) = leaf.checked_sub(1) {
            self.merge(lower);
        }
    }

    /// Joins a leaf with the next one if they are small.
    fn merge(&mut self, leaf: usize) {
        let length = |at: usize| self.leaves.get(at).map_or(MOST, Vec::len);
        if length(leaf) + length(leaf + 1) <= MOST / 2 {
            let mut upper = self.remove_leaf(leaf + 1);
            self.leaves[leaf].append(&mut upper);
        }
    }

    fn remove_leaf(&mut self, leaf: usize) -> Vec<Entry<B>> {
        self.firsts.remove(leaf);
        let entries = self.leaves.remove(leaf);
        trim(&mut self.firsts);
        trim(&mut self.leaves);
        entries
    }

    /// The binding of exactly this region.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length.
    pub fn get(&self, range: Range) -> Result<&B, Error> {
        let (leaf, index) = self.place(range)?;
        Ok(&self.leaves[leaf][index].binding)
    }

    /// The region that an address lies in.
    #[must_use]
    #[inline]
    pub fn find(&self, address: SpaceAddr) -> Option<(Range, &B)> {
        let entry = self.entry(self.before(address.0)?)?;
        entry.range.contains(address.0).then_some((entry.range, &entry.binding))
    }

    /// The region that an address lies in, or else the next one above it.
    #[must_use]
    pub fn at_or_above(&self, address: u64) -> Option<(Range, &B)> {
        let before = self.before(address);
        let inside = before.and_then(|place| self.entry(place)).filter(|e| e.range.end() > address);
        let above = || match before {
            Some((leaf, index)) => {
                self.entry((leaf, index + 1)).or_else(|| self.entry((leaf + 1, 0)))
            }
            None => self.entry((0, 0)),
        };
        inside.or_else(above).map(|entry| (entry.range, &entry.binding))
    }

    /// The region that an address lies in; looks at the one that was found last first.
    #[inline]
    pub fn find_near(&mut self, address: SpaceAddr) -> Option<(Range, &B)>
    where
        B: Copy,
    {
        if !self.recent.0.contains(address.0) {
            let (range, binding) = self.find(address)?;
            self.recent = (range, Some(*binding));
        }
        let (range, binding) = &self.recent;
        Some((*range, binding.as_ref()?))
    }

    /// Divides exactly this region in two at an address. Both parts are bound alike.
    ///
    /// # Errors
    /// `NoRegion` when there is none with this base and length, those of [`Range::divided`]; nothing
    /// changes then.
    pub fn split(&mut self, range: Range, at: u64) -> Result<(Range, Range), Error>
    where
        B: Copy,
    {
        let (leaf, index) = self.place(range)?;
        let (lower, upper) = range.divided(at)?;
        let entry = &mut self.leaves[leaf][index];
        entry.range = lower;
        let binding = entry.binding;
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
        let (leaf, index) = self.place(range)?;
        self.recent = (NOWHERE, None);
        Ok(&mut self.leaves[leaf][index].binding)
    }

    /// All regions, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Range, &B)> {
        self.leaves.iter().flatten().map(|entry| (entry.range, &entry.binding))
    }
}

#[cfg(test)]
mod overlaps_tests;
#[cfg(test)]
mod tests;
