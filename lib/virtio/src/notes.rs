//! The state of a function as words that whoever models it writes down, and that somebody else takes up in his place. What is
//! read there may be anything: a state that no guest could have brought about is refused or made harmless.
use alloc::vec::Vec;

/// Collects words.
#[derive(Default)]
pub(crate) struct Writer(pub Vec<u64>);

impl Writer {
    pub fn put(&mut self, word: u64) {
        self.0.push(word);
    }
}

/// Takes them one after the other.
pub(crate) struct Reader<'a>(core::slice::Iter<'a, u64>);

impl<'a> Reader<'a> {
    pub fn new(words: &'a [u64]) -> Self {
        Self(words.iter())
    }

    pub fn next(&mut self) -> Option<u64> {
        self.0.next().copied()
    }

    /// A word that has to fit into a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.next()?).ok()
    }

    /// A word that is 0 or 1.
    pub fn flag(&mut self) -> Option<bool> {
        match self.next()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// True when nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.0.len() == 0
    }
}
