//! Signals as a source of events: what the kernel would tell the owner of a socket (`O_ASYNC`,
//! `fcntl(2)`), read from a descriptor.

use crate::{checked, checked_length};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signal that watched sockets send: a queued one, which names socket and event.
fn event_signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

/// [`event_signal`], and `SIGIO`, which the kernel sends instead when too many are queued.
fn set() -> libc::sigset_t {
    // SAFETY: a set of signals is plain integers, and the calls write to nothing but it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, event_signal());
        libc::sigaddset(&raw mut set, libc::SIGIO);
        set
    }
}

/// Keeps the events of watched sockets from ending the process; threads that are started later
/// inherit that, as do processes.
///
/// # Errors
/// As `pthread_sigmask(3)`.
pub fn hold_events() -> io::Result<()> {
    let set = set();
    // SAFETY: the set is read only, nothing is written.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn fcntl(fd: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> io::Result<i32> {
    // SAFETY: these commands take integers, no pointers.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) })
}

/// Has the kernel tell this process what happens to a socket, or not any more.
///
/// # Errors
/// As `fcntl(2)`.
pub fn watch(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    /// `F_SETSIG` (`fcntl(2)`), which the C library's bindings lack.
    const SET_SIGNAL: libc::c_int = 10;
    let flags = fcntl(socket, libc::F_GETFL, 0)?;
    // Events name the descriptor under which they were asked for, so those of another one end first.
    fcntl(socket, libc::F_SETFL, flags & !libc::O_ASYNC)?;
    if on {
        fcntl(socket, libc::F_SETOWN, std::process::id().cast_signed())?;
        fcntl(socket, SET_SIGNAL, event_signal())?;
        fcntl(socket, libc::F_SETFL, flags | libc::O_ASYNC)?;
    }
    Ok(())
}

/// A descriptor that is readable while there are events of watched sockets.
///
/// # Errors
/// As `signalfd(2)`.
pub fn events() -> io::Result<OwnedFd> {
    let set = set();
    // SAFETY: the set is read only.
    let fd = checked(unsafe {
        libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    })?;
    // SAFETY: the kernel has just returned this descriptor to this thread, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What has happened to a watched socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its descriptor; `None`: events were lost.
    pub socket: Option<i32>,
    /// `POLL_IN`, `POLL_OUT`, … (`si_code`, `sigaction(2)`).
    pub code: i32,
}

/// The next event; `None` when there is none now.
///
/// # Errors
/// As `read(2)`.
pub fn next_event(events: BorrowedFd<'_>) -> io::Result<Option<Event>> {
    // SAFETY: a `signalfd_siginfo` is plain integers.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: `info` has room for `size` bytes.
    let got =
        checked_length(unsafe { libc::read(events.as_raw_fd(), (&raw mut info).cast(), size) });
    match got {
        Ok(length) if length == size => {
            let lost = info.ssi_signo == libc::SIGIO.cast_unsigned();
            let socket = (!lost).then_some(info.ssi_fd);
            Ok(Some(Event { socket, code: info.ssi_code }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
