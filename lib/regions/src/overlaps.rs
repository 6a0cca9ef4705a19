//! Ranges that may overlap each other, found by what they overlap.
use crate::Range;
use alloc::collections::BTreeMap;
use core::ops::Bound;

/// Tells ranges at the same place from each other: whose it is, and where it is there.
pub type Key = (u32, u64);

/// Where an entry is: the class of its length (log2), its base, its key.
type Place = (u32, u64, Key);

/// Classes of lengths.
const CLASSES: usize = u64::BITS as usize;

/// Ranges that may overlap, each with a key and a value. Those that overlap a given range are found
/// in a time that grows with their number, and logarithmically with that of all the others, as long as few
/// of these lie upon each other: what overlaps begins not further below than the longest of its class.
#[derive(Debug)]
pub struct Overlaps<V> {
    entries: BTreeMap<Place, (Range, V)>,
    /// How many ranges there are of each class.
    classes: [u32; CLASSES],
}

impl<V> Default for Overlaps<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// The class of a range's length.
const fn class_of(range: Range) -> u32 {
    match range.length.checked_ilog2() {
        Some(class) => class,
        None => 0,
    }
}

const fn place(range: Range, key: Key) -> Place {
    (class_of(range), range.base.0, key)
}

impl<V> Overlaps<V> {
    /// Upper bound of the bytes that a range takes: a node of the tree has room for eleven entries, and may
    /// hold one alone.
    pub const COST: usize = 12 * (size_of::<Place>() + size_of::<(Range, V)>());

    /// No ranges.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), classes: [0; CLASSES] }
    }

    /// Adds a range. One of the same place and key goes.
    pub fn insert(&mut self, range: Range, key: Key, value: V) {
        let place = place(range, key);
        if self.entries.insert(place, (range, value)).is_none() {
            self.classes[place.0 as usize] += 1;
        }
    }

    /// Removes a range.
    pub fn remove(&mut self, range: Range, key: Key) -> Option<V> {
        let place = place(range, key);
        let (_, value) = self.entries.remove(&place)?;
        self.classes[place.0 as usize] -= 1;
        Some(value)
    }

    /// The value of a range.
    pub fn get_mut(&mut self, range: Range, key: Key) -> Option<&mut V> {
        self.entries.get_mut(&place(range, key)).map(|(_, value)| value)
    }

    /// The first range that overlaps another one, in an order of its own, behind the one that was
    /// found before.
    #[must_use]
    #[inline]
    pub fn next(&self, other: Range, after: Option<(Range, Key)>) -> Option<(Range, Key, &V)> {
        // Most often there is none at all.
        if self.entries.is_empty() { None } else { self.search(other, after) }
    }

    fn search(&self, other: Range, after: Option<(Range, Key)>) -> Option<(Range, Key, &V)> {
        let after = after.map(|(range, key)| place(range, key));
        let first = after.map_or(0, |(class, ..)| class);
        (first..u64::BITS)
            .filter(|class| self.classes[*class as usize] > 0)
            .find_map(|class| self.next_of_class(class, other, after))
    }

    fn next_of_class(
        &self,
        class: u32,
        other: Range,
        after: Option<Place>,
    ) -> Option<(Range, Key, &V)> {
        let longest = u64::MAX >> (u64::BITS - 1 - class);
        let lowest = (class, other.base.0.saturating_sub(longest), (0, 0));
        let from = match after.filter(|after| *after >= lowest) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(lowest),
        };
        let mut near = self.entries.range((from, Bound::Excluded((class, other.end(), (0, 0)))));
        near.find(|(_, (range, _))| range.end() > other.base.0)
            .map(|((_, _, key), (range, value))| (*range, *key, value))
    }

    /// All ranges.
    pub fn iter(&self) -> impl Iterator<Item = (Range, Key, &V)> {
        self.entries.iter().map(|((_, _, key), (range, value))| (*range, *key, value))
    }
}
