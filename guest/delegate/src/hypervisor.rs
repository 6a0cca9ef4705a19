//! What dispatcher and delegates ask of the hypervisor.

use crate::errno;
use crate::pool::Slot;
use guest_sys::{hypercall, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use wire::hypercall::{DOORBELL, REGISTER};

/// The hypervisor, or what takes its place in a test.
pub trait Hypervisor: Clone + Send + Sync + 'static {
    /// A new doorbell connection (non-blocking) and its own port.
    ///
    /// # Errors
    /// Nobody answers.
    fn connect(&self) -> io::Result<(OwnedFd, u32)>;

    /// Hands over a mailbox whose header says who it belongs to.
    ///
    /// # Errors
    /// It was refused.
    fn register(&self, connection: BorrowedFd<'_>, slot: &Slot) -> io::Result<()>;

    /// Says that a response has been put into a mailbox.
    fn doorbell(&self, connection: BorrowedFd<'_>);
}

/// The real one: `VMMCALL`, and a virtual socket to the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

const AF_VSOCK: u16 = 40;
const SOCK_STREAM: i32 = 1;
/// Address of the host, and so of the hypervisor (`vsock(7)`, `VMADDR_CID_HOST`).
const HOST: u32 = 2;
const SOL_SOCKET: i32 = 1;
const SO_ERROR: i32 = 4;

/// How long a connection may take.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// How long the relay may take to look at a registration, and the pause before a worker asks or
/// looks again by itself.
const ADMISSION: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// `struct sockaddr_vm` of a port of the host.
fn address(port: u32) -> [u8; 16] {
    let [family, port, host] = [u32::from(AF_VSOCK), port, HOST].map(u32::to_ne_bytes);
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(family.into_iter().chain(port).chain(host)) {
        *to = from;
    }
    bytes
}

/// The port out of a `struct sockaddr_vm`.
fn port(address: &[u8]) -> Option<u32> {
    address.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)
}

fn established(connection: BorrowedFd<'_>) -> io::Result<()> {
    let mut ready = [PollFd::new(&connection, PollFlags::OUT)];
    if poll(&mut ready, Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut error = [0; 4];
    socket::option(connection, SOL_SOCKET, SO_ERROR, &mut error)?;
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Waits until the relay has said in the mailbox what becomes of the registration. A byte on the
/// doorbell connection says that it has; one that finds no worker waiting harms nobody.
fn admission(connection: BorrowedFd<'_>, slot: &Slot, end: Instant) -> io::Result<()> {
    let mailbox = wire::Mailbox::new(slot.memory());
    loop {
        match mailbox.admitted().map_err(|_| io::ErrorKind::InvalidData)? {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => return Err(io::Error::from_raw_os_error(-error)),
            None if Instant::now() > end => return Err(io::ErrorKind::TimedOut.into()),
            None => {}
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&connection, PollFlags::IN)], Some(&pause))? > 0 {
            // The byte was for this: a request brings one only to a worker that says it sleeps.
            match rustix::io::read(connection, &mut [0; 64]) {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Hypervisor for Machine {
    fn connect(&self) -> io::Result<(OwnedFd, u32)> {
        let connection = socket::socket(i32::from(AF_VSOCK), SOCK_STREAM, 0)?;
        match socket::connect(connection.as_fd(), &address(wire::vsock::DOORBELL_PORT)) {
            Err(error) if errno::of(&error) == errno::EINPROGRESS => {
                established(connection.as_fd())?;
            }
            outcome => outcome?,
        }
        let mut own = [0; socket::ADDRESS_MAX];
        let length = socket::local_name(connection.as_fd(), &mut own)?;
        let port = own.get(..length).and_then(port).ok_or(io::ErrorKind::InvalidData)?;
        Ok((connection, port))
    }

    fn register(&self, connection: BorrowedFd<'_>, slot: &Slot) -> io::Result<()> {
        let arguments = [slot.memory().address(), wire::layout::LENGTH, 0];
        let end = Instant::now() + ADMISSION;
        loop {
            match hypercall::call(REGISTER, arguments) {
                0.. => break,
                error if error == -errno::EAGAIN && Instant::now() < end => {
                    std::thread::sleep(PAUSE);
                }
                error => {
                    return Err(io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(0)));
                }
            }
        }
        admission(connection, slot, end)
    }

    fn doorbell(&self, _: BorrowedFd<'_>) {
        // A refusal would mean that the relay knows this mailbox no longer: then it closes the
        // connection, too.
        let _ = hypercall::call(DOORBELL, [0; 3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_where_they_are_put() {
        let bytes = address(0x0102_0304);
        assert_eq!(bytes, [40, 0, 0, 0, 4, 3, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(port(&bytes), Some(0x0102_0304));
        assert_eq!(port(&bytes[..7]), None);
    }
}
