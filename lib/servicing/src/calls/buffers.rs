//! Where a program's data lie.
use super::readiness::Access as _;
use crate::cx::Cx;
use crate::delegate::Lease;
use alloc::vec::Vec;
use linux_abi::{Errno, IOV_MAX, IoVec, MAX_RW_COUNT, TASK_SIZE_MAX};
use wire::layout;

/// Bytes that are copied at a time.
const CHUNK: usize = 16 << 10;
/// The program's buffers.
#[derive(Clone, Debug)]
pub struct Buffers {
    parts: Vec<IoVec>,
    /// Bytes in all of them.
    pub total: u64,
}

impl Buffers {
    /// A single one, cut down to what one call transfers.
    ///
    /// # Errors
    /// `EFAULT` for a range that is not the user's.
    pub fn one(base: u64, length: u64) -> Result<Self, Errno> {
        let length = length.min(MAX_RW_COUNT);
        let part = IoVec { base, length };
        Self::check(&part)?;
        Ok(Self { parts: alloc::vec![part], total: length })
    }

    /// One buffer of `read` or `write`, which refuse a length that leaves user memory; others cut
    /// it to the most that is moved at once first.
    ///
    /// # Errors
    /// `EFAULT` when it lies outside user memory.
    pub fn whole(base: u64, length: u64) -> Result<Self, Errno> {
        Self::check(&IoVec { base, length })?;
        Self::one(base, length)
    }

    fn check(part: &IoVec) -> Result<(), Errno> {
        match part.base.checked_add(part.length) {
            Some(end) if end <= TASK_SIZE_MAX || part.length == 0 => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Copies an array of `struct iovec` in; `too_many` is the error for more than `IOV_MAX`.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` for a negative length, `too_many`.
    pub async fn vectors(cx: &Cx, at: u64, count: u64, too_many: Errno) -> Result<Self, Errno> {
        if count > IOV_MAX {
            return Err(too_many);
        }
        let bytes = cx.bytes(at, count as usize * IoVec::SIZE).await?;
        let mut parts = Vec::with_capacity(count as usize);
        let mut total = 0u64;
        for chunk in bytes.chunks_exact(IoVec::SIZE) {
            let mut raw = [0; IoVec::SIZE];
            raw.copy_from_slice(chunk);
            let mut part = IoVec::decode(&raw);
            if part.length > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            part.length = part.length.min(MAX_RW_COUNT - total);
            Self::check(&part)?;
            total += part.length;
            parts.push(part);
        }
        Ok(Self { parts, total })
    }

    /// The pieces of `skip .. skip + length`, as (address, length).
    fn pieces(&self, skip: u64, length: u64) -> impl Iterator<Item = (u64, usize)> + '_ {
        let mut before = 0u64;
        let end = skip.saturating_add(length);
        self.parts.iter().filter_map(move |part| {
            let start = before.max(skip);
            let stop = (before + part.length).min(end);
            let piece =
                (start < stop).then(|| (part.base + (start - before), (stop - start) as usize));
            before += part.length;
            piece
        })
    }

    /// Copies `length` bytes from `skip` on into a mailbox.
    pub(super) async fn gather(
        &self,
        cx: &Cx,
        lease: &Lease,
        skip: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let mut chunk = alloc::vec![0; CHUNK.min(length as usize)];
        let mut at = layout::PAYLOAD;
        for (mut address, mut left) in self.pieces(skip, length) {
            while left > 0 {
                let n = left.min(chunk.len());
                let Some(part) = chunk.get_mut(..n) else { return Err(Errno::EIO) };
                cx.read(address, part).await?;
                lease.mailbox().memory().write_all(at, part)?;
                (address, left, at) = (address + n as u64, left - n, at + n as u64);
            }
        }
        Ok(())
    }

    /// Copies `length` bytes out of a mailbox to `skip` and on.
    pub(super) async fn scatter(
        &self,
        cx: &Cx,
        lease: &Lease,
        skip: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let mut chunk = alloc::vec![0; CHUNK.min(length as usize)];
        let mut at = layout::PAYLOAD;
        for (mut address, mut left) in self.pieces(skip, length) {
            while left > 0 {
                let n = left.min(chunk.len());
                let Some(part) = chunk.get_mut(..n) else { return Err(Errno::EIO) };
                lease.mailbox().memory().read_all(at, part)?;
                cx.write(address, part).await?;
                (address, left, at) = (address + n as u64, left - n, at + n as u64);
            }
        }
        Ok(())
    }

    /// Copies everything out, to be looked at before it goes on.
    ///
    /// # Errors
    /// `EFAULT`; `EMSGSIZE` for more than `limit`.
    pub(super) async fn copy(&self, cx: &Cx, limit: u64) -> Result<Vec<u8>, Errno> {
        if self.total > limit {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = Vec::with_capacity(self.total as usize);
        for (address, length) in self.pieces(0, self.total) {
            bytes.extend(cx.bytes(address, length).await?);
        }
        Ok(bytes)
    }

    /// Makes `length` bytes from `skip` on writable.
    pub(super) async fn prepare(&self, cx: &Cx, skip: u64, length: u64) -> Result<(), Errno> {
        for (address, part) in self.pieces(skip, length) {
            cx.prepare(address, part).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_exactly_what_is_asked(
            lengths in proptest::collection::vec(0u64..50, 0..10),
            skip in 0u64..300,
            length in 0u64..300,
        ) {
            let mut parts = Vec::new();
            let mut bytes = Vec::new();
            for (n, length) in lengths.iter().enumerate() {
                let base = 0x1000 * (n as u64 + 1);
                parts.push(IoVec { base, length: *length });
                bytes.extend((0..*length).map(|k| base + k));
            }
            let buffers = Buffers { parts, total: bytes.len() as u64 };
            let got: Vec<u64> = buffers
                .pieces(skip, length)
                .flat_map(|(at, n)| (0..n as u64).map(move |k| at + k))
                .collect();
            let end = (skip + length).min(bytes.len() as u64) as usize;
            let expected = bytes.get(skip as usize..end).unwrap_or(&[]);
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn ranges_outside_user_memory_are_faults() {
        assert!(Buffers::one(0xffff_8000_0000_0000, 1).is_err());
        assert!(Buffers::one(u64::MAX, 2).is_err());
        assert_eq!(Buffers::one(0x1000, u64::MAX).map(|b| b.total), Ok(MAX_RW_COUNT));
        assert!(Buffers::whole(0x1000, u64::MAX).is_err());
        assert_eq!(Buffers::whole(0x1000, 1 << 40).map(|b| b.total), Ok(MAX_RW_COUNT));
    }
}
