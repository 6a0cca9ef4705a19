//! Little-endian numbers at fixed places.
use crate::Error;

/// Bytes of a structure.
pub struct Fields<'b>(pub &'b [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Error> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk::<N>());
        bytes.copied().ok_or(Error::Damaged)
    }

    pub fn u8(&self, at: usize) -> Result<u8, Error> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub fn u16(&self, at: usize) -> Result<u16, Error> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub fn u32(&self, at: usize) -> Result<u32, Error> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub fn u64(&self, at: usize) -> Result<u64, Error> {
        self.array(at).map(u64::from_le_bytes)
    }
}
