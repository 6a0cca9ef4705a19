//! File calls on numbers and bytes that come from, or go to, another machine unchanged.

use crate::mailbox::Piece;
use crate::{checked, checked_length};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of the kernel's own `struct stat` (`arch/x86/include/uapi/asm/stat.h`).
pub const STATUS_SIZE: usize = 144;
/// Bytes of `struct statx`.
pub const STATUSX_SIZE: usize = size_of::<libc::statx>();
/// Bytes of `struct statfs`.
pub const FILE_SYSTEM_SIZE: usize = size_of::<libc::statfs>();
/// Bytes of `struct flock`.
pub const RECORD_LOCK_SIZE: usize = size_of::<libc::flock>();
/// Two `struct timespec`.
pub const TIMES_SIZE: usize = 2 * size_of::<libc::timespec>();

const _: () = assert!(STATUS_SIZE == size_of::<libc::stat>());

/// The result of a system call made by number: −1 means `errno`.
fn checked_long(result: libc::c_long) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `preadv2(2)` into shared memory; a position of −1 is the file's own one.
///
/// # Errors
/// As `preadv2(2)`.
pub fn read(file: BorrowedFd<'_>, into: &mut Piece<'_>, at: i64, flags: i32) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: into.start.cast(), iov_len: into.length };
    // SAFETY: the vector leads to shared memory, or an exclusive slice, of that length.
    checked_length(unsafe { libc::preadv2(file.as_raw_fd(), &raw const piece, 1, at, flags) })
}

/// `pwritev2(2)` out of shared memory; a position of −1 is the file's own one.
///
/// # Errors
/// As `pwritev2(2)`.
pub fn write(file: BorrowedFd<'_>, from: &Piece<'_>, at: i64, flags: i32) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: from.start.cast(), iov_len: from.length };
    // SAFETY: the vector leads to shared memory, or a slice, of that length, which is only read.
    checked_length(unsafe { libc::pwritev2(file.as_raw_fd(), &raw const piece, 1, at, flags) })
}

/// `lseek(2)`.
///
/// # Errors
/// As `lseek(2)`.
pub fn seek(file: BorrowedFd<'_>, to: i64, whence: i32) -> io::Result<i64> {
    // SAFETY: no pointers.
    checked_long(unsafe { libc::lseek(file.as_raw_fd(), to, whence) })
}

/// `fstat(2)`, also of what is only a path (`O_PATH`).
///
/// # Errors
/// As `newfstatat(2)`.
pub fn status(file: BorrowedFd<'_>) -> io::Result<[u8; STATUS_SIZE]> {
    let mut out = [0u8; STATUS_SIZE];
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is a string, and `out` has room for the structure.
    checked_long(unsafe {
        libc::syscall(libc::SYS_newfstatat, file.as_raw_fd(), path, out.as_mut_ptr(), flags)
    })?;
    Ok(out)
}

/// `statx(2)` of an open file, with flags about synchronisation, and a mask.
///
/// # Errors
/// As `statx(2)`.
pub fn statusx(file: BorrowedFd<'_>, flags: i32, mask: u32) -> io::Result<[u8; STATUSX_SIZE]> {
    let mut out = [0u8; STATUSX_SIZE];
    let (path, flags) = (c"".as_ptr(), flags | libc::AT_EMPTY_PATH);
    let file = file.as_raw_fd();
    // SAFETY: the path is a string, and `out` has room for the structure.
    checked_long(unsafe {
        libc::syscall(libc::SYS_statx, file, path, flags, mask, out.as_mut_ptr())
    })?;
    Ok(out)
}

/// `fstatfs(2)`.
///
/// # Errors
/// As `fstatfs(2)`.
pub fn file_system(file: BorrowedFd<'_>) -> io::Result<[u8; FILE_SYSTEM_SIZE]> {
    let mut out = [0u8; FILE_SYSTEM_SIZE];
    // SAFETY: `out` has room for the structure.
    checked_long(unsafe { libc::syscall(libc::SYS_fstatfs, file.as_raw_fd(), out.as_mut_ptr()) })?;
    Ok(out)
}

/// `getdents64(2)`, or `getdents(2)`: the bytes that were filled.
///
/// # Errors
/// As `getdents(2)`.
pub fn entries(directory: BorrowedFd<'_>, into: &mut [u8], older: bool) -> io::Result<usize> {
    let number = if older { libc::SYS_getdents } else { libc::SYS_getdents64 };
    let length = libc::c_uint::try_from(into.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the slice has room for `length` bytes.
    let filled = checked_long(unsafe {
        libc::syscall(number, directory.as_raw_fd(), into.as_mut_ptr(), length)
    })?;
    usize::try_from(filled).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// `faccessat2(2)` of what is open, by effective ids.
///
/// # Errors
/// As `faccessat2(2)`.
pub fn access(file: BorrowedFd<'_>, mode: i32) -> io::Result<()> {
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH | libc::AT_EACCESS);
    // SAFETY: the path is a string.
    checked_long(unsafe {
        libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), path, mode, flags)
    })
    .map(drop)
}

/// `ftruncate(2)`.
///
/// # Errors
/// As `ftruncate(2)`.
pub fn truncate(file: BorrowedFd<'_>, length: i64) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::ftruncate(file.as_raw_fd(), length) }).map(drop)
}

/// `truncate(2)`.
///
/// # Errors
/// As `truncate(2)`.
pub fn truncate_path(path: &CStr, length: i64) -> io::Result<()> {
    // SAFETY: the path is a string.
    checked(unsafe { libc::truncate(path.as_ptr(), length) }).map(drop)
}

/// `fallocate(2)`.
///
/// # Errors
/// As `fallocate(2)`.
pub fn allocate(file: BorrowedFd<'_>, mode: i32, from: i64, length: i64) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, from, length) }).map(drop)
}

/// `fchownat(2)` of what is open; an id of all ones stays as it is.
///
/// # Errors
/// As `fchownat(2)`.
pub fn set_owner(file: BorrowedFd<'_>, user: u32, group: u32) -> io::Result<()> {
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is a string.
    checked(unsafe { libc::fchownat(file.as_raw_fd(), path, user, group, flags) }).map(drop)
}

/// `utimensat(2)` of what is open; `None` is now.
///
/// # Errors
/// As `utimensat(2)`.
pub fn set_times(file: BorrowedFd<'_>, times: Option<&[u8; TIMES_SIZE]>) -> io::Result<()> {
    // The kernel takes them from any address.
    let times = times.map_or(std::ptr::null(), |t| t.as_ptr());
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is a string; the times are of the right size, or none.
    checked_long(unsafe {
        libc::syscall(libc::SYS_utimensat, file.as_raw_fd(), path, times, flags)
    })
    .map(drop)
}

/// `flock(2)`, never waiting.
///
/// # Errors
/// As `flock(2)`.
pub fn lock(file: BorrowedFd<'_>, operation: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) }).map(drop)
}

/// One of the commands of `fcntl(2)` about record locks that never wait.
///
/// # Errors
/// As `fcntl(2)`; `EINVAL` for another command.
pub fn record_lock(
    file: BorrowedFd<'_>,
    command: i32,
    lock: &mut [u8; RECORD_LOCK_SIZE],
) -> io::Result<()> {
    let known =
        [libc::F_GETLK, libc::F_SETLK, libc::F_OFD_GETLK, libc::F_OFD_SETLK].contains(&command);
    if !known {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all these commands read, and some write, a structure of that size.
    checked_long(unsafe {
        libc::syscall(libc::SYS_fcntl, file.as_raw_fd(), command, lock.as_mut_ptr())
    })
    .map(drop)
}

/// `copy_file_range(2)`; a position of −1 is the file's own one. Positions are moved on.
///
/// # Errors
/// As `copy_file_range(2)`.
pub fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    positions: &mut [i64; 2],
    length: usize,
) -> io::Result<usize> {
    let [from_at, to_at] = positions;
    let pointer = |at: &mut i64| if *at == -1 { std::ptr::null_mut() } else { &raw mut *at };
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: the positions are variables, or none.
    checked_length(unsafe {
        libc::copy_file_range(from, pointer(from_at), to, pointer(to_at), length, 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn file() -> std::fs::File {
        // SAFETY: the name is a string; the descriptor is new.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(libc::memfd_create(c"test".as_ptr(), 0)) }
    }

    #[test]
    fn positions_sizes_and_copies() {
        let (mut one, two) = (file(), file());
        one.write_all(b"0123456789").expect("write");
        assert_eq!(seek(one.as_fd(), 0, libc::SEEK_CUR).ok(), Some(10));
        let mut bytes = [0; 4];
        let mut piece = Piece::from(&mut bytes[..]);
        assert_eq!(read(one.as_fd(), &mut piece, 3, 0).ok(), Some(4));
        assert_eq!(&bytes, b"3456");
        let piece = Piece::from(&mut bytes[..]);
        assert_eq!(write(two.as_fd(), &piece, -1, 0).ok(), Some(4));
        let mut positions = [8, -1];
        assert_eq!(copy(one.as_fd(), two.as_fd(), &mut positions, 100).ok(), Some(2));
        assert_eq!(positions, [10, -1]);
        let status = status(two.as_fd()).expect("status");
        assert_eq!(status[48..56], 6u64.to_ne_bytes());
        let more = statusx(two.as_fd(), 0, 0x7ff).expect("statx");
        assert_eq!(more[40..48], 6u64.to_ne_bytes());
        assert!(truncate(two.as_fd(), 3).is_ok() && access(two.as_fd(), libc::R_OK).is_ok());
        assert!(set_times(two.as_fd(), Some(&[0; TIMES_SIZE])).is_ok());
        assert!(entries(two.as_fd(), &mut [0; 100], false).is_err());
    }

    #[test]
    fn only_commands_about_locks_that_do_not_wait() {
        let file = file();
        let mut lock = [0; RECORD_LOCK_SIZE];
        assert!(record_lock(file.as_fd(), libc::F_SETLKW, &mut lock).is_err());
        assert!(record_lock(file.as_fd(), libc::F_DUPFD, &mut lock).is_err());
        assert!(record_lock(file.as_fd(), libc::F_OFD_SETLK, &mut lock).is_ok());
        assert!(super::lock(file.as_fd(), libc::LOCK_EX).is_ok());
    }
}
