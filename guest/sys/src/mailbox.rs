//! Page-aligned memory that somebody outside the process reads and writes while the process uses it.

use memory::{Memory, OutOfBounds, check};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Memory shared with the hypervisor, locked at its place.
///
/// The pages are present, writable, locked (never swapped out; `vm.compact_unevictable_allowed=0` keeps them from
/// being moved), shared (`fork` never makes a copy-on-write copy of them) and absent in children.
#[derive(Debug)]
pub struct Mailbox {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: all access goes through atomic operations on memory that lives as long as the value.
unsafe impl Send for Mailbox {}
// SAFETY: as above.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// Anonymous memory of `length` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// As `mmap(2)` and `madvise(2)`; `EAGAIN` when `RLIMIT_MEMLOCK` does not suffice.
    pub fn new(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_ANONYMOUS | libc::MAP_LOCKED | libc::MAP_POPULATE, -1)
    }

    /// The beginning of a file, for tests, where another process plays the hypervisor.
    ///
    /// # Errors
    /// As `mmap(2)` and `madvise(2)`.
    pub fn of_file(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        Self::map(length, 0, file.as_raw_fd())
    }

    fn map(length: usize, flags: libc::c_int, file: libc::c_int) -> io::Result<Self> {
        const PAGE: usize = 4096;
        let length =
            length.max(1).checked_next_multiple_of(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice harms no existing object.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED | flags, file, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mailbox = Self { start, length };
        // SAFETY: the range is the mapping just made; DONTFORK only leaves it out of children, which never get the value
        // (see `fork`).
        if unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTFORK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mailbox)
    }

    /// The address that the hypervisor is told.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping is `length` bytes long, lives as long as `self`, and is only ever accessed atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }

    fn quads(&self) -> &[AtomicU64] {
        // SAFETY: as in `bytes`; the mapping is page-aligned.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length / 8) }
    }

    fn word(&self, offset: u64) -> Result<&AtomicU32, OutOfBounds> {
        check(offset, 4, self.length as u64, 4)?;
        // SAFETY: the four bytes lie inside the mapping (just checked), are aligned, and are only accessed atomically.
        Ok(unsafe { &*self.start.as_ptr().add(offset as usize).cast() })
    }

    /// Splits a checked range into bytes up to the next 8-byte boundary and the number of whole 8-byte words behind.
    fn head(offset: usize, length: usize) -> usize {
        (offset.next_multiple_of(8) - offset).min(length)
    }
}

impl Memory for Mailbox {
    fn len(&self) -> u64 {
        self.length as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        check(offset, into.len() as u64, self.len(), 1)?;
        let offset = offset as usize;
        let head = Self::head(offset, into.len());
        let (first, rest) = into.split_at_mut(head);
        let (words, last) = rest.as_chunks_mut::<8>();
        for (to, from) in first.iter_mut().zip(&self.bytes()[offset..]) {
            *to = from.load(Ordering::Relaxed);
        }
        let start = (offset + head) / 8;
        for (to, from) in words.iter_mut().zip(self.quads().get(start..).unwrap_or_default()) {
            *to = from.load(Ordering::Relaxed).to_ne_bytes();
        }
        let end = offset + head + words.len() * 8;
        for (to, from) in last.iter_mut().zip(self.bytes().get(end..).unwrap_or_default()) {
            *to = from.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        check(offset, from.len() as u64, self.len(), 1)?;
        let offset = offset as usize;
        let head = Self::head(offset, from.len());
        let (first, rest) = from.split_at(head);
        let (words, last) = rest.as_chunks::<8>();
        for (from, to) in first.iter().zip(&self.bytes()[offset..]) {
            to.store(*from, Ordering::Relaxed);
        }
        let start = (offset + head) / 8;
        for (from, to) in words.iter().zip(self.quads().get(start..).unwrap_or_default()) {
            to.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
        }
        let end = offset + head + words.len() * 8;
        for (from, to) in last.iter().zip(self.bytes().get(end..).unwrap_or_default()) {
            to.store(*from, Ordering::Relaxed);
        }
        Ok(())
    }

    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        Ok(self.word(offset)?.load(Ordering::Acquire))
    }

    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.word(offset)?.store(value, Ordering::Release);
        Ok(())
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value alone, and no reference into it outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_length_reads_what_was_written() {
        let mailbox = Mailbox::new(100).expect("memory");
        assert_eq!(mailbox.len(), 4096);
        for offset in 4000..4096u64 {
            for length in 0..=(4096 - offset) as usize {
                let data: Vec<u8> = (0..length).map(|i| (i as u8) ^ (offset as u8) | 1).collect();
                let mut back = vec![0; length];
                mailbox.write(offset, &data).expect("inside");
                mailbox.read(offset, &mut back).expect("inside");
                assert_eq!(data, back);
            }
        }
        assert!(mailbox.write(4095, &[0; 2]).is_err());
        assert!(mailbox.load32(4096).is_err());
    }
}
