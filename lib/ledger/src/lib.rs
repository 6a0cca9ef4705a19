//! What memory managers tell about themselves: a page of rows of counters, one row for each object,
//! which the manager writes and others only read. No call, no message: whoever looks costs the
//! manager nothing. A row that is read while it is written mixes two moments, which counters survive.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use memory::{Memory, OutOfBounds};
use serde::{Deserialize, Serialize};

/// What the name of a row begins with that tells of a space, not of an object: what of all objects is shown
/// there, and its faults.
pub const SPACE: char = '@';

/// Bytes of a manager's ledger.
pub const LENGTH: u64 = 8192;

macro_rules! row {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One object of a manager. Amounts in bytes, unless the text says otherwise.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        pub struct Row {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Row {
            const WORDS: usize = [$(stringify!($name)),*].len();

            fn words(&self) -> [u64; Self::WORDS] {
                [$(self.$name),*]
            }

            fn of(words: [u64; Self::WORDS]) -> Self {
                let [$($name),*] = words;
                Self { $($name),* }
            }
        }
    };
}

row! {
    /// What its users believe in.
    size,
    /// Most that may be in RAM, compressed pages included.
    quota,
    /// In RAM, not compressed.
    resident,
    /// Most that ever was there.
    resident_most,
    /// Mapped in all spaces together; more than `resident` where pages are shared.
    shown,
    /// Spaces that have mapped any of it.
    spaces,
    /// Contents that are compressed in RAM.
    packed,
    /// RAM that these take.
    packed_bytes,
    /// Places of the disk in use.
    disk,
    /// Faults since the start.
    faults,
    /// Of these, put off until the disk has done something.
    put_off,
    /// Pages that came back out of compressed memory since the start.
    unpacked,
    /// Pages read from the disk since the start.
    read,
    /// Pages compressed since the start.
    packings,
    /// Pages written to the disk since the start.
    written,
    /// Pages that left without any of this, since the start: zeros, or equal to their copy on the disk.
    dropped,
    /// Pages lost.
    lost,
}

const ROW: u64 = Row::WORDS as u64 * 8;

/// Rows that a ledger has room for.
pub const ROWS: u64 = LENGTH / ROW;

impl Row {
    /// Writes row `number` of a ledger.
    ///
    /// # Errors
    /// `OutOfBounds`: there is no such row.
    pub fn write(&self, ledger: &impl Memory, number: u64) -> Result<(), OutOfBounds> {
        let mut bytes = [0; ROW as usize];
        for (place, word) in bytes.chunks_mut(8).zip(self.words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        ledger.write(number.saturating_mul(ROW), &bytes)
    }

    /// Reads row `number` of a ledger.
    ///
    /// # Errors
    /// `OutOfBounds`: there is no such row.
    pub fn read(ledger: &impl Memory, number: u64) -> Result<Self, OutOfBounds> {
        let mut bytes = [0; ROW as usize];
        ledger.read(number.saturating_mul(ROW), &mut bytes)?;
        let mut words = [0; Self::WORDS];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = place.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        }
        Ok(Self::of(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Fake;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_survive_beside_each_other(size: u64, lost: u64, number in 0..ROWS - 1) {
            let ledger = Fake::new(LENGTH as usize);
            let row = Row { size, lost, ..Row::default() };
            row.write(&ledger, number).expect("room");
            Row { size: 1, ..Row::default() }.write(&ledger, number + 1).expect("room");
            prop_assert_eq!(Row::read(&ledger, number), Ok(row));
        }
    }

    #[test]
    fn rows_beyond_the_end_are_refused() {
        let ledger = Fake::new(LENGTH as usize);
        assert!(Row::default().write(&ledger, ROWS).is_err());
        assert!(Row::read(&ledger, u64::MAX).is_err());
    }
}
