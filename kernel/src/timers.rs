//! Deadlines of one processor's threads: a binary heap in which every thread knows its place.
use crate::arena::{Arena, Id};
use crate::object::Thread;
use alloc::vec::Vec;

/// One deadline.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    thread: Id<Thread>,
}

/// Earliest first.
#[derive(Debug)]
pub struct Timers {
    heap: Vec<Entry>,
}

impl Timers {
    /// No deadlines.
    pub const fn new() -> Self {
        Self { heap: Vec::new() }
    }

    /// The earliest deadline.
    #[inline]
    pub fn first(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.at)
    }

    /// Makes room for as many entries as there are threads.
    pub fn reserve(&mut self, threads: usize) {
        self.heap.reserve(threads.saturating_sub(self.heap.len()));
    }

    /// Adds a deadline for a thread that has none.
    pub fn insert(&mut self, threads: &mut Arena<Thread>, thread: Id<Thread>, at: u64) {
        let index = self.heap.len();
        self.heap.push(Entry { at, thread });
        self.settle(threads, index);
    }

    /// Removes a thread's deadline, if it has one.
    pub fn remove(&mut self, threads: &mut Arena<Thread>, thread: Id<Thread>) {
        let Ok(Some(index)) = threads.get_mut(thread).map(|t| t.timer.take()) else { return };
        self.heap.swap_remove(index);
        if index < self.heap.len() {
            self.settle(threads, index);
        }
    }

    /// Takes a thread whose deadline has passed.
    pub fn take_expired(&mut self, threads: &mut Arena<Thread>, now: u64) -> Option<Id<Thread>> {
        let entry = *self.heap.first()?;
        if entry.at > now {
            return None;
        }
        self.remove(threads, entry.thread);
        Some(entry.thread)
    }

    fn note(&self, threads: &mut Arena<Thread>, index: usize) {
        if let Ok(thread) = threads.get_mut(self.heap[index].thread) {
            thread.timer = Some(index);
        }
    }

    /// Moves an entry up or down to where it belongs.
    fn settle(&mut self, threads: &mut Arena<Thread>, mut index: usize) {
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
