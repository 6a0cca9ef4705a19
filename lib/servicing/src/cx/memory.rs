//! The memory of a process: copied out and in, page by page populated by its own kernel.
use super::Cx;
use alloc::vec::Vec;
use linux_abi::{Errno, MADV_POPULATE_READ, MADV_POPULATE_WRITE, nr};
use paging::{Access, Fault, PAGE, Stopped};

/// Most bytes that one populating call covers.
const POPULATE_SPAN: u64 = 1 << 20;
/// Operation of `futex`, on one that is shared.
const FUTEX_WAKE: u64 = 1;

impl Cx {
    /// Copies out of the process.
    ///
    /// # Errors
    /// `EFAULT`.
    pub async fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        loop {
            let result = self.space.tables(&self.core).read(address, into);
            let Err(stopped) = result else { return Ok(()) };
            self.populate(stopped, address, into.len(), Access::Read).await?;
        }
    }

    /// Copies an array of `N` bytes out of the process.
    ///
    /// # Errors
    /// `EFAULT`.
    pub async fn array<const N: usize>(&self, address: u64) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes).await?;
        Ok(bytes)
    }

    /// Copies `length` bytes out of the process.
    ///
    /// # Errors
    /// `EFAULT`.
    pub async fn bytes(&self, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = alloc::vec![0; length];
        self.read(address, &mut bytes).await?;
        Ok(bytes)
    }

    /// Copies a string without its NUL; `ENAMETOOLONG` beyond `limit` bytes.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`.
    pub async fn string(&self, address: u64, limit: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = alloc::vec![0; limit];
        loop {
            match self.space.tables(&self.core).read_string(address, &mut bytes) {
                Ok(Some(length)) => {
                    bytes.truncate(length);
                    return Ok(bytes);
                }
                Ok(None) => return Err(Errno::ENAMETOOLONG),
                Err(stopped) => self.populate(stopped, address, 1, Access::Read).await?,
            }
        }
    }

    /// Copies into the process.
    ///
    /// # Errors
    /// `EFAULT`.
    pub async fn write(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        loop {
            let result = self.space.tables(&self.core).write(address, from);
            let Err(stopped) = result else { return Ok(()) };
            self.populate(stopped, address, from.len(), Access::Write).await?;
        }
    }

    /// Makes a range writable now, before something happens that cannot be taken back.
    ///
    /// # Errors
    /// `EFAULT`.
    pub async fn prepare(&self, address: u64, length: usize) -> Result<(), Errno> {
        loop {
            let result = self.space.tables(&self.core).probe(address, length, Access::Write);
            let Err(stopped) = result else { return Ok(()) };
            self.populate(stopped, address, length, Access::Write).await?;
        }
    }

    /// Has the kernel make pages present from where an access stopped. Each call makes progress
    /// or fails, so loops around it end.
    async fn populate(
        &self,
        stopped: Stopped,
        address: u64,
        length: usize,
        access: Access,
    ) -> Result<(), Errno> {
        if stopped.fault == Fault::Bad || self.space.gate.get().is_none() {
            return Err(Errno::EFAULT);
        }
        let start = stopped.address & !(PAGE - 1);
        let end = address.saturating_add(length as u64).max(stopped.address + 1);
        let span = (end - start).div_ceil(PAGE).saturating_mul(PAGE).min(POPULATE_SPAN);
        let advice = match access {
            Access::Write => MADV_POPULATE_WRITE,
            _ => MADV_POPULATE_READ,
        };
        let madvise = [start, span, advice, 0, 0, 0];
        if self.passes(nr::madvise, madvise).is_ok() {
            self.local(nr::madvise, madvise).await;
        } else {
            // Sandboxes leave `futex`. To wake the waiters of a shared one, the kernel makes the
            // page present and writable where it may be (`get_futex_key`); nobody waits there, or
            // is surprised by waking up.
            self.local(nr::futex, [start, FUTEX_WAKE, 0, 0, 0, 0]).await;
        }
        // It stops at the first page that it cannot make present: what counts is the page that
        // was missing.
        let result = self.space.tables(&self.core).probe(stopped.address, 1, access);
        result.map_err(|_| Errno::EFAULT)
    }
}
