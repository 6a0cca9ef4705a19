//! Time that is lent: whose turn it is, is decided between those who have time of their own; whom it goes to is found by
//! following who waits for whom. So what a server does for a caller counts as the caller's.

/// What a thread does with time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use<T> {
    /// It runs.
    Runs,
    /// It waits for this one to finish something.
    Lends(T),
    /// It waits for something else.
    Waits,
}

/// The one that the time of `first` goes to, in at most `longest` steps.
#[inline(always)]
pub fn follow<T>(mut first: T, longest: usize, mut look: impl FnMut(&T) -> Use<T>) -> Option<T> {
    for _ in 0..=longest {
        match look(&first) {
            Use::Runs => return Some(first),
            Use::Lends(to) => first = to,
            Use::Waits => return None,
        }
    }
    None
}

/// How long one runs before others of its priority get their turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    quantum: u64,
    left: u64,
}

impl Slice {
    /// All of it is left.
    #[must_use]
    pub const fn new(quantum: u64) -> Self {
        Self { quantum, left: quantum }
    }

    /// When it is over, if it begins or goes on now.
    #[inline]
    #[must_use]
    pub const fn end(&self, now: u64) -> u64 {
        now.saturating_add(self.left)
    }

    /// Somebody else runs now, although it would have ended only then. True when something is left: then it goes on
    /// before others of its priority.
    #[inline]
    pub fn interrupt(&mut self, end: u64, now: u64) -> bool {
        let left = end.saturating_sub(now).min(self.quantum);
        self.left = if left > 0 { left } else { self.quantum };
        left > 0
    }

    /// The next turn is a whole one.
    #[inline]
    pub fn renew(&mut self) {
        self.left = self.quantum;
    }
}
