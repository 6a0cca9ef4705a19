//! The one way in which safe code touches memory that others may change at any time: guest RAM,
//! device rings, mailboxes, channels between servers. Every access is bounds-checked and copies;
//! nothing ever hands out a reference, so a value is read once and checked on the copy.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]
#![forbid(unsafe_code)]

pub mod losses;

pub use losses::{Guarded, Losses};

/// An access that is not wholly inside the memory, or is not aligned as the access needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfBounds {
    /// Byte offset of the access.
    pub offset: u64,
    /// Length of the access in bytes.
    pub length: u64,
}

/// Shared memory, addressed by byte offsets from its start.
///
/// For guest RAM the offset is the guest-physical address.
pub trait Memory {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// True when there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies out.
    ///
    /// # Errors
    /// `OutOfBounds`; nothing is copied then.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds>;

    /// Copies in.
    ///
    /// # Errors
    /// `OutOfBounds`; nothing is copied then.
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds>;

    /// Atomic load with acquire order; `offset` is a multiple of 4.
    ///
    /// # Errors
    /// `OutOfBounds`.
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds>;

    /// Atomic store with release order; `offset` is a multiple of 4.
    ///
    /// # Errors
    /// `OutOfBounds`.
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds>;

    /// A full memory fence: what was stored before is seen before what is loaded after.
    fn fence(&self) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }

    /// A little-endian `u16` copied out.
    ///
    /// # Errors
    /// `OutOfBounds`.
    fn read16(&self, offset: u64) -> Result<u16, OutOfBounds> {
        let mut b = [0; 2];
        self.read(offset, &mut b)?;
        Ok(u16::from_le_bytes(b))
    }

    /// A little-endian `u64` copied out.
    ///
    /// # Errors
    /// `OutOfBounds`.
    fn read64(&self, offset: u64) -> Result<u64, OutOfBounds> {
        let mut b = [0; 8];
        self.read(offset, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }
}

/// Device registers: memory where the width of an access matters.
pub trait Registers {
    /// Reads a register of 1, 2, 4 or 8 bytes with a single access of that width.
    ///
    /// # Errors
    /// `OutOfBounds`, also for another width or a misaligned offset.
    fn read_register(&self, offset: u64, width: u64) -> Result<u64, OutOfBounds>;

    /// Writes a register of 1, 2, 4 or 8 bytes with a single access of that width.
    ///
    /// # Errors
    /// `OutOfBounds`, also for another width or a misaligned offset.
    fn write_register(&self, offset: u64, width: u64, value: u64) -> Result<(), OutOfBounds>;
}

impl<M: Memory + ?Sized> Memory for &M {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        (**self).read(offset, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        (**self).write(offset, from)
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        (**self).load32(offset)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        (**self).store32(offset, value)
    }
    fn read64(&self, offset: u64) -> Result<u64, OutOfBounds> {
        (**self).read64(offset)
    }
}

/// Checks that `offset..offset + length` lies inside `0..total`, and the alignment.
///
/// # Errors
/// `OutOfBounds` when it does not, wrap-around included.
pub const fn check(offset: u64, length: u64, total: u64, align: u64) -> Result<(), OutOfBounds> {
    match offset.checked_add(length) {
        Some(end) if end <= total && offset.is_multiple_of(align) => Ok(()),
        _ => Err(OutOfBounds { offset, length }),
    }
}

#[cfg(any(test, feature = "fake"))]
mod fake {
    use super::{Memory, OutOfBounds, check};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    /// Memory for host tests; clones share the same bytes.
    #[derive(Clone, Debug)]
    pub struct Fake {
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    impl Fake {
        /// `length` zero bytes.
        #[must_use]
        pub fn new(length: usize) -> Self {
            Self { bytes: Arc::new(Mutex::new(vec![0; length])) }
        }

        fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Memory for Fake {
        fn len(&self) -> u64 {
            self.lock().len() as u64
        }

        fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
            let bytes = self.lock();
            check(offset, into.len() as u64, bytes.len() as u64, 1)?;
            into.copy_from_slice(&bytes[offset as usize..offset as usize + into.len()]);
            Ok(())
        }

        fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
            let mut bytes = self.lock();
            check(offset, from.len() as u64, bytes.len() as u64, 1)?;
            bytes[offset as usize..offset as usize + from.len()].copy_from_slice(from);
            Ok(())
        }

        fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
            check(offset, 4, self.len(), 4)?;
            let mut b = [0; 4];
            self.read(offset, &mut b)?;
            Ok(u32::from_le_bytes(b))
        }

        fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
            check(offset, 4, self.len(), 4)?;
            self.write(offset, &value.to_le_bytes())
        }
    }
}

#[cfg(any(test, feature = "fake"))]
pub use fake::Fake;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_at_the_end_is_allowed_and_beyond_it_refused() {
        let memory = Fake::new(16);
        assert!(memory.write(12, &[1, 2, 3, 4]).is_ok());
        assert_eq!(memory.load32(12), Ok(0x0403_0201));
        assert_eq!(memory.write(13, &[0; 4]), Err(OutOfBounds { offset: 13, length: 4 }));
    }

    #[test]
    fn wrap_around_and_misalignment_are_refused() {
        assert!(check(u64::MAX, 2, 100, 1).is_err());
        assert!(check(2, 4, 100, 4).is_err());
        assert!(check(96, 4, 100, 4).is_ok());
    }
}
