//! The run queue of one processor: a list of scheduling contexts per priority.
use crate::{Arena, Id};

/// Priorities.
const LEVELS: usize = 256;

/// Neighbours in a run queue.
#[derive(Debug)]
pub struct Links<T> {
    next: Option<Id<T>>,
    previous: Option<Id<T>>,
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Self { next: None, previous: None }
    }
}

impl<T> Clone for Links<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Links<T> {}

/// Something that can be in a run queue: in one at a time.
pub trait Queued: Sized {
    /// Its priority, which does not change while it is in a queue.
    fn priority(&self) -> u8;
    /// Its neighbours; for the queue's use only.
    fn links(&mut self) -> &mut Links<Self>;
}

/// Ready scheduling contexts.
#[derive(Debug)]
pub struct RunQueue<T> {
    /// First and last of each priority.
    lists: [Option<(Id<T>, Id<T>)>; LEVELS],
    /// A bit per priority that has any.
    used: [u64; LEVELS / 64],
}

impl<T: Queued> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Queued> RunQueue<T> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { lists: [None; LEVELS], used: [0; LEVELS / 64] }
    }

    /// Highest priority in the queue.
    #[inline]
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        for (index, word) in self.used.iter().enumerate().rev() {
            if *word != 0 {
                return Some((index as u32 * 64 + 63 - word.leading_zeros()) as u8);
            }
        }
        None
    }

    fn set(&mut self, priority: u8, list: Option<(Id<T>, Id<T>)>) {
        self.lists[usize::from(priority)] = list;
        let (word, bit) = (usize::from(priority / 64), priority % 64);
        if list.is_some() {
            self.used[word] |= 1 << bit;
        } else {
            self.used[word] &= !(1 << bit);
        }
    }

    /// Adds one that is in no queue at the end of its priority's list, or at its front.
    pub fn push(&mut self, all: &mut Arena<T>, id: Id<T>, front: bool) {
        let Ok(item) = all.get(id) else { return };
        let priority = item.priority();
        let (list, links) = match self.lists[usize::from(priority)] {
            None => ((id, id), Links::default()),
            Some((first, last)) if front => {
                ((id, last), Links { next: Some(first), previous: None })
            }
            Some((first, last)) => ((first, id), Links { next: None, previous: Some(last) }),
        };
        let Links { next, previous } = links;
        if let Ok(item) = all.get_mut(id) {
            *item.links() = links;
        }
        if let Some(next) = next.and_then(|n| all.get_mut(n).ok()) {
            next.links().previous = Some(id);
        }
        if let Some(previous) = previous.and_then(|p| all.get_mut(p).ok()) {
            previous.links().next = Some(id);
        }
        self.set(priority, Some(list));
    }

    /// Takes the first of the highest priority.
    pub fn pop(&mut self, all: &mut Arena<T>) -> Option<Id<T>> {
        let (first, _) = self.lists[usize::from(self.highest()?)]?;
        self.remove(all, first);
        Some(first)
    }

    /// Takes one out that is in this queue.
    pub fn remove(&mut self, all: &mut Arena<T>, id: Id<T>) {
        let Ok(item) = all.get_mut(id) else { return };
        let priority = item.priority();
        let Links { next, previous } = core::mem::take(item.links());
        let Some((first, last)) = self.lists[usize::from(priority)] else { return };
        let first = if first == id { next } else { Some(first) };
        let last = if last == id { previous } else { Some(last) };
        if let Some(next) = next.and_then(|n| all.get_mut(n).ok()) {
            next.links().previous = previous;
        }
        if let Some(previous) = previous.and_then(|p| all.get_mut(p).ok()) {
            previous.links().next = next;
        }
        self.set(priority, first.zip(last));
    }
}
