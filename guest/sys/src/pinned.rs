//! Sends whose data the kernel goes on using after the call (`MSG_ZEROCOPY`).

use crate::checked;
use crate::socket::send;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// Pages with bytes in them.
struct Pages {
    start: NonNull<u8>,
    length: usize,
}

impl Pages {
    /// A copy of the bytes, of which there are some.
    fn with(bytes: &[u8]) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let any = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice harms no existing object.
        let start = unsafe { libc::mmap(any, bytes.len(), access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the mapping is new, writable and at least as long as `bytes`.
        unsafe { start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(Self { start, length: bytes.len() })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping has that length, holds initialised bytes, and is written by nobody.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's alone, and no reference to it is left. A failure leaves it
        // where it is, which harms nobody.
        let _ = checked(unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) });
    }
}

/// `sendmsg(2)` with `MSG_ZEROCOPY`, of a copy of the data: its pages are this call's alone, and are given up
/// after it. The kernel keeps those that it still needs.
///
/// # Errors
/// As `sendmsg(2)` and `mmap(2)`.
pub fn send_pinned(
    socket: BorrowedFd<'_>,
    data: &[u8],
    address: &[u8],
    control: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let flags = flags | libc::MSG_ZEROCOPY;
    if data.is_empty() {
        return send(socket, data, address, control, flags);
    }
    send(socket, Pages::with(data)?.bytes(), address, control, flags)
}
