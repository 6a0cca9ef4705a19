//! Deadlines of one processor's threads: a binary heap in which every thread knows its place.
use crate::{Arena, Id};
use alloc::vec::Vec;

/// Something that can wait for a deadline: for one at a time.
pub trait Deadline: Sized {
    /// Its place in the heap; for the heap's use only.
    fn place(&mut self) -> &mut Option<usize>;
}

/// One deadline.
#[derive(Debug)]
struct Entry<T> {
    at: u64,
    thread: Id<T>,
}

/// Earliest first.
#[derive(Debug)]
pub struct Timers<T> {
    heap: Vec<Entry<T>>,
}

impl<T: Deadline> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Deadline> Timers<T> {
    /// No deadlines.
    #[must_use]
    pub const fn new() -> Self {
        Self { heap: Vec::new() }
    }

    /// The earliest deadline.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Makes room for as many entries as there are threads.
    pub fn reserve(&mut self, threads: usize) {
        self.heap.reserve(threads.saturating_sub(self.heap.len()));
    }

    /// Adds a deadline for a thread that has none.
    pub fn insert(&mut self, threads: &mut Arena<T>, thread: Id<T>, at: u64) {
        let index = self.heap.len();
        self.heap.push(Entry { at, thread });
        self.settle(threads, index);
    }

    /// Removes a thread's deadline, if it has one.
    pub fn remove(&mut self, threads: &mut Arena<T>, thread: Id<T>) {
        let Ok(Some(index)) = threads.get_mut(thread).map(|t| t.place().take()) else { return };
        self.heap.swap_remove(index);
        if index < self.heap.len() {
            self.settle(threads, index);
        }
    }

    /// Takes a thread whose deadline has passed.
    pub fn take_expired(&mut self, threads: &mut Arena<T>, now: u64) -> Option<Id<T>> {
        let Entry { at, thread } = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(threads, thread);
        Some(thread)
    }

    fn note(&self, threads: &mut Arena<T>, index: usize) {
        if let Ok(thread) = threads.get_mut(self.heap[index].thread) {
            *thread.place() = Some(index);
        }
    }

    /// Moves an entry up or down to where it belongs.
    fn settle(&mut self, threads: &mut Arena<T>, mut index: usize) {
        while index > 0 && self.heap[index].at < self.heap[(index - 1) / 2].at {
            self.heap.swap(index, (index - 1) / 2);
            self.note(threads, index);
            index = (index - 1) / 2;
        }
        loop {
            let (left, right) = (2 * index + 1, 2 * index + 2);
            let mut least = index;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child].at < self.heap[least].at {
                    least = child;
                }
            }
            if least == index {
                break;
            }
            self.heap.swap(index, least);
            self.note(threads, index);
            index = least;
        }
        self.note(threads, index);
    }
}
