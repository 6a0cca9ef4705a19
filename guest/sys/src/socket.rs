//! Socket calls on bytes that come from, or go to, another machine unchanged.

use crate::mailbox::Piece;
pub use crate::option::{control, filter, interfaces, option, set_option};
pub use crate::pinned::send_pinned;
use crate::{checked, checked_length};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The largest socket address of any family (`sockaddr_storage`, `socket(7)`).
pub const ADDRESS_MAX: usize = size_of::<libc::sockaddr_storage>();

/// A buffer for one address.
pub type Address = [u8; ADDRESS_MAX];

fn length_of(bytes: &[u8]) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn take(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    let descriptor = checked(descriptor)?;
    // SAFETY: the kernel has just returned this descriptor to this thread, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `socket(2)`; the descriptor is non-blocking and closed by `exec`.
///
/// # Errors
/// As `socket(2)`.
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    take(unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) })
}

/// `socketpair(2)`; the descriptors are non-blocking and closed by `exec`.
///
/// # Errors
/// As `socketpair(2)`.
pub fn socket_pair(family: i32, kind: i32, protocol: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `pair` has room for two descriptors.
    checked(unsafe { libc::socketpair(family, kind, protocol, pair.as_mut_ptr()) })?;
    Ok((take(pair[0])?, take(pair[1])?))
}

/// `bind(2)`.
///
/// # Errors
/// As `bind(2)`.
pub fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `address.len()` bytes and checks them itself.
    checked(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length_of(address)?) })
        .map(drop)
}

/// `connect(2)`.
///
/// # Errors
/// As `connect(2)`.
pub fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `address.len()` bytes and checks them itself.
    checked(unsafe {
        libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length_of(address)?)
    })
    .map(drop)
}

/// `listen(2)`.
///
/// # Errors
/// As `listen(2)`.
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// `shutdown(2)`.
///
/// # Errors
/// As `shutdown(2)`.
pub fn shutdown(socket: BorrowedFd<'_>, how: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::shutdown(socket.as_raw_fd(), how) }).map(drop)
}

/// Runs a call that fills in an address, and returns the length that the kernel reports (it may
/// exceed the buffer).
fn with_address(
    into: &mut Address,
    call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<(libc::c_int, usize)> {
    let mut length = ADDRESS_MAX as libc::socklen_t;
    let result = checked(call(into.as_mut_ptr().cast(), &raw mut length))?;
    Ok((result, length as usize))
}

/// `accept4(2)`: the new socket (non-blocking, closed by `exec`) and the length of its peer's
/// address.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(socket: BorrowedFd<'_>, peer: &mut Address) -> io::Result<(OwnedFd, usize)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (descriptor, length) = with_address(peer, |to, length| {
        // SAFETY: `to` has room for `*length` bytes.
        unsafe { libc::accept4(socket.as_raw_fd(), to, length, flags) }
    })?;
    Ok((take(descriptor)?, length))
}

/// `getsockname(2)`: the length of the address.
///
/// # Errors
/// As `getsockname(2)`.
pub fn local_name(socket: BorrowedFd<'_>, into: &mut Address) -> io::Result<usize> {
    // SAFETY: `to` has room for `*length` bytes.
    with_address(into, |to, length| unsafe { libc::getsockname(socket.as_raw_fd(), to, length) })
        .map(|(_, n)| n)
}

/// `getpeername(2)`: the length of the address.
///
/// # Errors
/// As `getpeername(2)`.
pub fn peer_name(socket: BorrowedFd<'_>, into: &mut Address) -> io::Result<usize> {
    // SAFETY: `to` has room for `*length` bytes.
    with_address(into, |to, length| unsafe { libc::getpeername(socket.as_raw_fd(), to, length) })
        .map(|(_, n)| n)
}

/// `sendmsg(2)` of bytes; an empty `address` or `control` means none.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send(
    socket: BorrowedFd<'_>,
    data: &[u8],
    address: &[u8],
    control: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    send_vector(socket, piece, address, control, flags)
}

/// `sendmsg(2)` out of shared memory; an empty `address` or `control` means none.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send_piece(
    socket: BorrowedFd<'_>,
    data: &Piece<'_>,
    address: &[u8],
    control: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: data.start.cast(), iov_len: data.length };
    send_vector(socket, piece, address, control, flags)
}

fn send_vector(
    socket: BorrowedFd<'_>,
    mut piece: libc::iovec,
    address: &[u8],
    control: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let mut message = empty_message(&mut piece);
    if !address.is_empty() {
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = length_of(address)?;
    }
    if !control.is_empty() {
        message.msg_control = control.as_ptr().cast_mut().cast();
        message.msg_controllen = control.len();
    }
    // SAFETY: all pointers lead to memory of the lengths given, which the kernel only reads: slices
    // of the caller's, and `piece`, which both callers made of a slice or of shared memory.
    checked_length(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
}

/// What `recvmsg(2)` reports besides the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// The call's result: bytes of data (with `MSG_TRUNC` possibly more than there was room for).
    pub length: usize,
    /// Length of the sender's address; 0 where there is none.
    pub address: usize,
    /// Bytes of control messages.
    pub control: usize,
    /// `msg_flags`.
    pub flags: i32,
}

/// `recvmsg(2)` into bytes; see [`receive_piece`].
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive(
    socket: BorrowedFd<'_>,
    data: &mut [u8],
    address: &mut Address,
    control: &mut [u8],
    flags: i32,
) -> io::Result<Received> {
    receive_piece(socket, &mut Piece::from(data), address, control, flags)
}

/// `recvmsg(2)` into shared memory. Descriptors that arrive in control messages are closed by
/// `exec`.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive_piece(
    socket: BorrowedFd<'_>,
    data: &mut Piece<'_>,
    address: &mut Address,
    control: &mut [u8],
    flags: i32,
) -> io::Result<Received> {
    let mut piece = libc::iovec { iov_base: data.start.cast(), iov_len: data.length };
    let mut message = empty_message(&mut piece);
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = ADDRESS_MAX as libc::socklen_t;
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
    }
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all pointers lead to exclusive slices, or to shared memory, of the lengths given.
    let length =
        checked_length(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })?;
    Ok(Received {
        length,
        address: message.msg_namelen as usize,
        control: if control.is_empty() { 0 } else { message.msg_controllen },
        flags: message.msg_flags & !libc::MSG_CMSG_CLOEXEC,
    })
}

fn empty_message(piece: &mut libc::iovec) -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: piece,
        msg_iovlen: 1,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}
