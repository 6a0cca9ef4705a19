//! The run queue of one processor: a list of scheduling contexts per priority.
use crate::arena::{Arena, Id};
use crate::object::Sc;

/// Priorities.
const LEVELS: usize = 256;

/// Ready scheduling contexts.
#[derive(Debug)]
pub struct RunQueue {
    /// First and last of each priority.
    lists: [Option<(Id<Sc>, Id<Sc>)>; LEVELS],
    /// A bit per priority that has any.
    used: [u64; LEVELS / 64],
}

impl RunQueue {
    /// Empty.
    pub const fn new() -> Self {
        Self { lists: [None; LEVELS], used: [0; LEVELS / 64] }
    }

    /// Highest priority in the queue.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        for (index, word) in self.used.iter().enumerate().rev() {
            if *word != 0 {
                return Some((index as u32 * 64 + 63 - word.leading_zeros()) as u8);
            }
        }
        None
    }

    fn mark(&mut self, priority: u8) {
        let (word, bit) = (usize::from(priority / 64), priority % 64);
        if self.lists[usize::from(priority)].is_some() {
            self.used[word] |= 1 << bit;
        } else {
            self.used[word] &= !(1 << bit);
        }
    }

    /// Adds at the end of its priority's list, or at its front.
    pub fn push(&mut self, scs: &mut Arena<Sc>, id: Id<Sc>, front: bool) {
        let Ok(sc) = scs.get(id) else { return };
        let priority = sc.priority;
        let (next, previous) = match self.lists[usize::from(priority)] {
            None => {
                self.lists[usize::from(priority)] = Some((id, id));
                (None, None)
            }
            Some((first, last)) if front => {
                self.lists[usize::from(priority)] = Some((id, last));
                (Some(first), None)
            }
            Some((first, last)) => {
                self.lists[usize::from(priority)] = Some((first, id));
                (None, Some(last))
            }
        };
        link(scs, id, next, previous);
        if let Some(next) = next.and_then(|n| scs.get_mut(n).ok()) {
            next.previous = Some(id);
        }
        if let Some(previous) = previous.and_then(|p| scs.get_mut(p).ok()) {
            previous.next = Some(id);
        }
        self.mark(priority);
    }

    /// Takes the first of the highest priority.
    pub fn pop(&mut self, scs: &mut Arena<Sc>) -> Option<Id<Sc>> {
        let (first, _) = self.lists[usize::from(self.highest()?)]?;
        self.remove(scs, first);
        Some(first)
    }

    /// Takes one out that is in the queue.
    pub fn remove(&mut self, scs: &mut Arena<Sc>, id: Id<Sc>) {
        let Ok(sc) = scs.get(id) else { return };
        let (priority, next, previous) = (sc.priority, sc.next, sc.previous);
        let Some((first, last)) = self.lists[usize::from(priority)] else { return };
        let first = if first == id { next } else { Some(first) };
        let last = if last == id { previous } else { Some(last) };
        self.lists[usize::from(priority)] = first.zip(last);
        if let Some(next) = next.and_then(|n| scs.get_mut(n).ok()) {
            next.previous = previous;
        }
        if let Some(previous) = previous.and_then(|p| scs.get_mut(p).ok()) {
            previous.next = next;
        }
        link(scs, id, None, None);
        self.mark(priority);
    }
}

fn link(scs: &mut Arena<Sc>, id: Id<Sc>, next: Option<Id<Sc>>, previous: Option<Id<Sc>>) {
    if let Ok(sc) = scs.get_mut(id) {
        sc.next = next;
        sc.previous = previous;
    }
}
