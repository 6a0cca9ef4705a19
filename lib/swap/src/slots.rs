//! Places on the disk: which are free, and what is expected in those that are not.
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What was written to a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Whose contents they are.
    pub page: u32,
    /// Number of the sealing.
    pub version: u64,
    /// Bytes, without the tag.
    pub length: u16,
}

/// What is written to a place that nobody uses. No sealing has that number.
const UNUSED: Written = Written { page: u32::MAX, version: 0, length: 0 };

/// The places. They are used in order, and the one freed first is used again first: what left memory
/// together lies together, and can be read together.
#[derive(Debug, Default)]
pub struct Slots {
    count: u32,
    /// Never used places begin here; what is known of those before.
    written: Vec<Written>,
    free: VecDeque<u32>,
}

impl Slots {
    /// `count` free places.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self { count, ..Self::default() }
    }

    /// Places in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        (self.written.len() - self.free.len()) as u32
    }

    /// True when no place is free.
    #[must_use]
    pub fn full(&self) -> bool {
        self.free.is_empty() && self.written.len() >= self.count as usize
    }

    /// Takes a place.
    pub fn take(&mut self, written: Written) -> Option<u32> {
        if let Some(slot) = self.free.pop_front() {
            *self.written.get_mut(slot as usize)? = written;
            return Some(slot);
        }
        if self.full() {
            return None;
        }
        self.written.push(written);
        Some(self.written.len() as u32 - 1)
    }

    /// A place is said to be in use: true when nobody else uses it. [`Slots::claimed`] follows.
    pub fn claim(&mut self, slot: u32, written: Written) -> bool {
        if slot >= self.count {
            return false;
        }
        if self.written.len() <= slot as usize {
            self.written.resize(slot as usize + 1, UNUSED);
        }
        let place = self.written.get_mut(slot as usize).filter(|place| **place == UNUSED);
        place.map(|place| *place = written).is_some()
    }

    /// Places that nobody has claimed are free.
    pub fn claimed(&mut self) {
        let places = (0..).zip(&self.written).filter(|(_, written)| **written == UNUSED);
        self.free = places.map(|(slot, _)| slot).collect();
    }

    /// What is expected there.
    #[must_use]
    pub fn written(&self, slot: u32) -> Option<Written> {
        self.written.get(slot as usize).copied()
    }

    /// Frees a place that was taken.
    pub fn release(&mut self, slot: u32) {
        self.free.push_back(slot);
    }
}
