//! Where a machine's notes are kept: two places in turn, and a word that says which of them counts. A place is complete before
//! the word names it, so whoever ends at any instruction has left the old notes or the new ones.
use alloc::vec;
use alloc::vec::Vec;
use memory::{Memory, OutOfBounds};

/// Bytes that a machine's notes take.
pub const AREA: u64 = 4096;

/// The two places, behind the word. Each begins with the number of words that follow.
const PLACES: [u64; 2] = [64, 64 + PLACE];
const PLACE: u64 = 2016;
/// Most words in a place.
const MOST: u64 = PLACE / 8 - 1;

/// The notes of one machine.
pub struct Kept<M> {
    memory: M,
    base: u64,
    /// What was written last.
    last: Option<Vec<u64>>,
}

impl<M: Memory> Kept<M> {
    /// The notes in `memory[base .. base + AREA]`.
    ///
    /// # Errors
    /// `OutOfBounds`: there is no such range.
    pub fn new(memory: M, base: u64) -> Result<Self, OutOfBounds> {
        memory::check(base, AREA, memory.len(), 8)?;
        Ok(Self { memory, base, last: None })
    }

    /// What was written last; `None` where nothing was, or something else is there.
    #[must_use]
    pub fn read(&self) -> Option<Vec<u64>> {
        let place = self.base + PLACES.get(self.counting()?)?;
        let length = self.memory.read64(place).ok().filter(|length| *length <= MOST)?;
        let words = (1..=length).map(|n| self.memory.read64(place + 8 * n).ok());
        words.collect()
    }

    /// Writes notes, where they are not what was written last.
    ///
    /// # Errors
    /// `OutOfBounds`: they are too many.
    pub fn write(&mut self, words: &[u64]) -> Result<(), OutOfBounds> {
        if self.last.as_deref() == Some(words) {
            return Ok(());
        }
        let length = words.len() as u64;
        memory::check(0, length, MOST, 1)?;
        let next = self.counting().map_or(0, |counting| 1 - counting);
        let mut bytes = vec![0; 8 * (words.len() + 1)];
        for (place, word) in bytes.chunks_exact_mut(8).zip(core::iter::once(&length).chain(words)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.memory.write(self.base + PLACES[next], &bytes)?;
        self.memory.store32(self.base, next as u32 + 1)?;
        self.last = Some(words.to_vec());
        Ok(())
    }

    /// Which place counts.
    fn counting(&self) -> Option<usize> {
        match self.memory.load32(self.base) {
            Ok(1) => Some(0),
            Ok(2) => Some(1),
            _ => None,
        }
    }
}
