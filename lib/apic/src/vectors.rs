//! A set of interrupt vectors, as IRR and ISR hold them.

/// 256 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vectors {
    words: [u32; 8],
}

impl Vectors {
    /// Adds a vector.
    pub fn set(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    /// Removes a vector.
    pub fn clear(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    /// The highest vector in the set.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = self.words.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some((index as u32 * 32 + word.ilog2()) as u8)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The register that holds 32 of them; zero beyond the last.
    #[must_use]
    pub fn word(&self, index: u32) -> u32 {
        self.words.get(index as usize).copied().unwrap_or(0)
    }
}
