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
