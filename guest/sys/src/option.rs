//! Options and requests of sockets, on bytes that come from, or go to, another machine.

use crate::checked;
use linux_abi::{SocketRequest, socket_request};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of an instruction of a packet filter (`struct sock_filter`).
const INSTRUCTION: usize = 8;

fn length_of(bytes: &[u8]) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn refused<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

/// Options whose value holds pointers or descriptors, which would mean nothing, or harm, in this
/// process, do not pass, nor whole levels that are none of a program's business.
/// (`include/uapi/linux/{in,in6,tcp,udp,netlink}.h`, `include/uapi/asm-generic/socket.h`.)
fn may_pass(level: i32, name: i32) -> bool {
    match level {
        libc::SOL_SOCKET => !matches!(
            name,
            libc::SO_ATTACH_FILTER
                | libc::SO_ATTACH_BPF
                | libc::SO_ATTACH_REUSEPORT_CBPF
                | libc::SO_ATTACH_REUSEPORT_EBPF
        ),
        // From 64 on: iptables, arptables, IPVS.
        libc::IPPROTO_IP => (0..64).contains(&name),
        // 64 and 65: ip6tables.
        libc::IPPROTO_IPV6 => (0..80).contains(&name) && !matches!(name, 64 | 65),
        libc::IPPROTO_TCP => name != libc::TCP_ZEROCOPY_RECEIVE,
        libc::IPPROTO_UDP
        | libc::IPPROTO_UDPLITE
        | libc::IPPROTO_ICMPV6
        | libc::SOL_RAW
        | libc::SOL_NETLINK
        | libc::SOL_TLS => true,
        _ => false,
    }
}

/// `setsockopt(2)`. A packet filter is given as its instructions.
///
/// # Errors
/// As `setsockopt(2)`; `ENOPROTOOPT` for options that cannot be passed on.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    if level == libc::SOL_SOCKET
        && matches!(name, libc::SO_ATTACH_FILTER | libc::SO_ATTACH_REUSEPORT_CBPF)
    {
        return set_filter(socket, name, value);
    }
    if !may_pass(level, name) {
        return refused(libc::ENOPROTOOPT);
    }
    // SAFETY: the kernel reads `value.len()` bytes; no option that is let through holds a pointer.
    checked(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length_of(value)?)
    })
    .map(drop)
}

fn set_filter(socket: BorrowedFd<'_>, name: i32, instructions: &[u8]) -> io::Result<()> {
    let (count, rest) = (instructions.len() / INSTRUCTION, instructions.len() % INSTRUCTION);
    let Ok(len) = libc::c_ushort::try_from(count) else { return refused(libc::EINVAL) };
    if rest != 0 {
        return refused(libc::EINVAL);
    }
    // The kernel copies the instructions from this address; it never writes there.
    let filter = instructions.as_ptr().cast_mut().cast::<libc::sock_filter>();
    let program = libc::sock_fprog { len, filter };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads one `sock_fprog`, and from its address `len` instructions of eight
    // bytes each, which lie within `instructions`; it needs no alignment (`copy_from_user`).
    checked(unsafe {
        let value = (&raw const program).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value, length)
    })
    .map(drop)
}

/// `getsockopt(2)`: the length of the value.
///
/// # Errors
/// As `getsockopt(2)`; `ENOPROTOOPT` for options that cannot be passed on.
pub fn option(socket: BorrowedFd<'_>, level: i32, name: i32, into: &mut [u8]) -> io::Result<usize> {
    if !may_pass(level, name) {
        // Of a level that they do not know, internet sockets say another thing when asked.
        let known = matches!(level, libc::SOL_SOCKET | libc::IPPROTO_IP | libc::IPPROTO_IPV6 | 6);
        return refused(if known { libc::ENOPROTOOPT } else { libc::EOPNOTSUPP });
    }
    let mut length = length_of(into)?;
    // SAFETY: the kernel writes at most `length` bytes to `into`; no option that is let through
    // holds a pointer.
    checked(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, into.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(length as usize)
}

/// `getsockopt(2)` with `SO_GET_FILTER`: how many instructions the socket's packet filter has, and, where
/// there is room for any, the instructions.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn filter(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // The kernel counts in instructions here (`sk_get_filter`).
    let mut length = length_of(into)? / INSTRUCTION as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: the kernel writes at most `length` instructions of eight bytes each to `into`, and none
    // where that is zero.
    checked(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, into.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(length as usize)
}

/// `ioctl(2)` of a socket, for requests that only ask, with the argument in `argument`.
///
/// # Errors
/// As `ioctl(2)`; `EOPNOTSUPP` for other requests, or too short an argument.
pub fn control(socket: BorrowedFd<'_>, request: u32, argument: &mut [u8]) -> io::Result<i32> {
    let asks = match socket_request(request) {
        Some(kind @ (SocketRequest::Integer | SocketRequest::Time | SocketRequest::Interface)) => {
            kind.size().is_some_and(|size| size <= argument.len())
        }
        _ => false,
    };
    if !asks {
        return refused(libc::EOPNOTSUPP);
    }
    let request = libc::Ioctl::from(request);
    let at = argument.as_mut_ptr();
    // SAFETY: each of the requests reads and writes at most as many bytes as `SocketRequest::size`
    // says, none of them a pointer; `argument` has them, and the kernel needs no alignment.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), request, at) })
}

/// `SIOCGIFCONF` (netdevice(7)): the interfaces' names and addresses, as much as there is room for.
/// Answers the bytes in use, or with no room the bytes that there would be.
///
/// # Errors
/// As `ioctl(2)`.
pub fn interfaces(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    /// `struct ifconf`.
    #[repr(C)]
    struct List {
        length: libc::c_int,
        at: *mut u8,
    }
    let Ok(length) = libc::c_int::try_from(into.len()) else { return refused(libc::EINVAL) };
    let at = if into.is_empty() { std::ptr::null_mut() } else { into.as_mut_ptr() };
    let mut list = List { length, at };
    let request = libc::Ioctl::from(linux_abi::SIOCGIFCONF);
    // SAFETY: the kernel reads and writes one `struct ifconf`, and writes at most `length` bytes
    // where it says, or none where that is null.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut list) })?;
    usize::try_from(list.length).or(refused(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::socket;
    use std::os::fd::AsFd;

    fn udp() -> std::os::fd::OwnedFd {
        socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap()
    }

    #[test]
    fn interfaces_are_listed_and_asked_for() {
        let socket = udp();
        let needed = interfaces(socket.as_fd(), &mut []).unwrap();
        let mut list = vec![0; needed];
        let length = interfaces(socket.as_fd(), &mut list).unwrap();
        assert_eq!(length % 40, 0);
        assert!(list.chunks(40).any(|entry| entry.starts_with(b"lo\0")));
        let mut request = [0; 40];
        request[..2].copy_from_slice(b"lo");
        assert_eq!(control(socket.as_fd(), 0x8933, &mut request).unwrap(), 0);
        assert_eq!(request[16..20], 1i32.to_ne_bytes());
        assert!(control(socket.as_fd(), 0x8933, &mut request[..39]).is_err());
        assert!(control(socket.as_fd(), 0x8914, &mut request).is_err());
    }

    #[test]
    fn filters_are_attached_and_half_ones_refused() {
        let socket = udp();
        // BPF_RET | BPF_K: take 0xffff bytes.
        let program = [6, 0, 0, 0, 0xff, 0xff, 0, 0];
        let attach = libc::SO_ATTACH_FILTER;
        assert!(set_option(socket.as_fd(), libc::SOL_SOCKET, attach, &program).is_ok());
        assert!(set_option(socket.as_fd(), libc::SOL_SOCKET, attach, &program[..7]).is_err());
        assert!(option(socket.as_fd(), libc::SOL_SOCKET, attach, &mut [0; 64]).is_err());
        let mut back = [0; 64];
        assert_eq!(filter(socket.as_fd(), &mut []).ok(), Some(program.len() / 8));
        assert_eq!(filter(socket.as_fd(), &mut back).ok(), Some(program.len() / 8));
        assert_eq!(back.get(..program.len()), Some(&program[..]));
        assert!(set_option(socket.as_fd(), libc::SOL_SOCKET, 27, &[0; 4]).is_ok());
        assert_eq!(filter(socket.as_fd(), &mut back).ok(), Some(0));
    }
}
