//! Page-aligned memory that somebody outside the process reads and writes while the process uses
//! it.

use memory::{Memory, OutOfBounds, check};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Locks one byte of a file for this process (`fcntl(2)`, `F_SETLK`); the kernel unlocks it when
/// the process ends, or closes any descriptor of the file. False when another process has it.
///
/// # Errors
/// As `fcntl(2)`.
pub fn lock_byte(file: BorrowedFd<'_>, offset: u64) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset.try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the kernel reads the structure.
    match crate::checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) }) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Memory that the kernel may read and write by a system call. It is never seen as a Rust object,
/// or exclusively borrowed.
#[derive(Debug)]
pub struct Piece<'a> {
    pub(crate) start: *mut u8,
    pub(crate) length: usize,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> From<&'a mut [u8]> for Piece<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr(), length: bytes.len(), memory: PhantomData }
    }
}

/// Memory shared with the hypervisor, locked at its place.
///
/// The pages are present, writable, locked (never swapped out; `vm.compact_unevictable_allowed=0`
/// keeps them from being moved), shared (`fork` never makes a copy-on-write copy of them) and
/// absent in children.
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
    /// `length` bytes of a file (`memfd_create(2)`) from `offset` on. Both are multiples of the
    /// page size. The file keeps the pages when the process dies, so that what the hypervisor still
    /// writes then does no harm.
    ///
    /// # Errors
    /// As `mmap(2)` and `madvise(2)`; `EAGAIN` when `RLIMIT_MEMLOCK` does not suffice.
    pub fn of_file(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_LOCKED | libc::MAP_POPULATE;
        let offset = offset.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        let any = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice harms no existing object.
        let start = unsafe { libc::mmap(any, length, access, flags, file.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mailbox = Self { start, length };
        // SAFETY: the range is the mapping just made; DONTFORK only leaves it out of children,
        // which never get the value (see `fork`).
        crate::checked(unsafe {
            libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTFORK)
        })?;
        Ok(mailbox)
    }

    /// A part of the memory, for the kernel to copy from or to without a buffer in between.
    ///
    /// # Errors
    /// `OutOfBounds`.
    pub fn piece(&self, offset: u64, length: u32) -> Result<Piece<'_>, OutOfBounds> {
        check(offset, u64::from(length), self.length as u64, 1)?;
        // SAFETY: the offset lies inside the mapping, or at its end (just checked).
        let start = unsafe { self.start.as_ptr().add(offset as usize) };
        Ok(Piece { start, length: length as usize, memory: PhantomData })
    }

    /// The address that the hypervisor is told.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: the mapping is `length` bytes long, lives as long as `self`, and is only ever
        // accessed atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }

    fn quads(&self) -> &[AtomicU64] {
        // SAFETY: as in `bytes`; the mapping is page-aligned.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length / 8) }
    }

    fn word(&self, offset: u64) -> Result<&AtomicU32, OutOfBounds> {
        check(offset, 4, self.length as u64, 4)?;
        // SAFETY: the four bytes lie inside the mapping (just checked), are aligned, and are only
        // accessed atomically.
        Ok(unsafe { &*self.start.as_ptr().add(offset as usize).cast() })
    }

    /// Splits a checked range into bytes up to the next 8-byte boundary and the number of whole
    /// 8-byte words behind.
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
        // SAFETY: the mapping belongs to this value alone, and no reference into it outlives the
        // value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    fn memory_file(length: libc::off_t) -> OwnedFd {
        // SAFETY: the name is a string; the descriptor is new.
        let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"test".as_ptr(), 0)) };
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), length) }, 0);
        file
    }

    #[test]
    fn the_kernel_reads_and_writes_pieces_directly() {
        let file = memory_file(4096);
        let mailbox = Mailbox::of_file(file.as_fd(), 0, 4096).expect("memory");
        let (a, b) = crate::socket::socket_pair(libc::AF_UNIX, libc::SOCK_STREAM, 0).expect("pair");
        mailbox.write(10, b"hello").expect("inside");
        let piece = mailbox.piece(10, 5).expect("inside");
        assert_eq!(crate::socket::send_piece(a.as_fd(), &piece, &[], &[], 0).ok(), Some(5));
        let mut piece = mailbox.piece(4091, 5).expect("inside");
        let mut peer = [0; crate::socket::ADDRESS_MAX];
        let got = crate::socket::receive_piece(b.as_fd(), &mut piece, &mut peer, &mut [], 0);
        assert_eq!(got.expect("data").length, 5);
        let mut back = [0; 5];
        mailbox.read(4091, &mut back).expect("inside");
        assert_eq!(&back, b"hello");
        assert!(mailbox.piece(4092, 5).is_err());
    }

    #[test]
    fn every_offset_and_length_reads_what_was_written() {
        let file = memory_file(8192);
        let mailbox = Mailbox::of_file(file.as_fd(), 4096, 4096).expect("memory");
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
