//! Requests on sockets, files and epoll instances, carried out on real ones.
//!
//! Sockets never block. A request that may wait is tried, and tried again whenever its socket may
//! have become ready; in between its worker sleeps where it can be cancelled (`Door::wait`).

mod epoll;
mod events;
mod files;
mod patience;
mod transfer;

use crate::door::{Door, Gone};
use crate::errno;
use crate::hypervisor::Hypervisor;
use crate::sockets::Sockets;
use guest_sys::socket;
use memory::{Memory, OutOfBounds};
use patience::Patience;
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use wire::{PollEntry, Request, Response, layout};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const NETLINK_ROUTE: u32 = 0;
const SOCK_DGRAM: i32 = 2;
/// Longest argument of an `ioctl` (`struct ifreq`), and list of interfaces that is told.
const ARGUMENT_MAX: u32 = 40;
const LIST_MAX: u32 = 64 * 1024;
/// `SIOCGIFCONF`.
const LIST_INTERFACES: u32 = 0x8912;
const SOL_SOCKET: i32 = 1;
/// `SO_GET_FILTER`.
const SO_ATTACH_FILTER: i32 = 26;
/// Options whose value a request may carry; the longest ones that Linux knows are far below.
const OPTION_MAX: u32 = 64 * 1024;

/// Why a request has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// A Linux error number (positive).
    Errno(i64),
    /// It was cancelled before it had an effect.
    Cancelled,
    /// There is nobody left to answer to.
    Gone(Gone),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Errno(errno::of(&error))
    }
}

impl From<OutOfBounds> for Failure {
    /// A length in the request is beyond the mailbox.
    fn from(_: OutOfBounds) -> Self {
        Self::Errno(errno::EINVAL)
    }
}

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// A result, or why there is none.
pub type Outcome<T> = Result<T, Failure>;

/// One request under way.
#[derive(Debug)]
pub struct Call<'a, H> {
    /// Where it came from.
    pub door: &'a Door<H>,
    /// The delegate's sockets.
    pub sockets: &'a Sockets,
    /// Its number.
    pub sequence: u32,
}

fn limited(length: u32, most: u32) -> Outcome<u32> {
    if length <= most { Ok(length) } else { Err(Failure::Errno(errno::EINVAL)) }
}

impl<H: Hypervisor> Call<'_, H> {
    /// Carries a request out; `None` for those that are no socket's business.
    ///
    /// # Errors
    /// `Gone`.
    pub fn run(&self, request: &Request) -> Result<Option<Response>, Gone> {
        match self.dispatch(request) {
            Ok(response) => Ok(response),
            Err(Failure::Errno(number)) => Ok(Some(Response::value(-number))),
            Err(Failure::Cancelled) => {
                Ok(Some(Response { cancelled: true, ..Response::value(-errno::EINTR) }))
            }
            Err(Failure::Gone(gone)) => Err(gone),
        }
    }

    fn dispatch(&self, request: &Request) -> Outcome<Option<Response>> {
        let response = match *request {
            Request::Nop => Response::value(0),
            Request::Socket { domain, kind, protocol } => self.socket(domain, kind, protocol)?,
            Request::Close { fd } => self.close(fd)?,
            Request::Bind { fd, address } => self.bind(fd, address)?,
            Request::Connect { fd, address, wait } => self.connect(fd, address, wait)?,
            Request::Listen { fd, backlog } => self.listen(fd, backlog)?,
            Request::Accept { fd, wait } => self.accept(fd, wait)?,
            Request::Send { .. } => self.send(request)?,
            Request::Receive { .. } => self.receive(request)?,
            Request::Shutdown { fd, how } => self.shutdown(fd, how)?,
            Request::GetOption { fd, level, name, length } => {
                self.option(fd, level, name, length)?
            }
            Request::SetOption { fd, level, name, length } => {
                self.set_option(fd, level, name, length)?
            }
            Request::LocalName { fd } => self.name(fd, socket::local_name)?,
            Request::PeerName { fd } => self.name(fd, socket::peer_name)?,
            Request::Ioctl { fd, command } => self.ioctl(fd, command)?,
            Request::Poll { count, wait } => self.poll(count, wait)?,
            Request::Watch { fd, on } => self.watch(fd, on)?,
            Request::Events => self.events()?,
            Request::Identity(whom) => self.act_as(&whom)?,
            Request::Fetch { pid, fd } => self.fetch(pid, fd)?,
            Request::Epoll(request) => self.epoll(request)?,
            Request::File(request) => self.file(request)?,
            Request::Fork { .. } | Request::Spawn { .. } | Request::Exit => return Ok(None),
        };
        Ok(Some(response))
    }

    fn get(&self, fd: i32) -> Outcome<Arc<OwnedFd>> {
        self.sockets.get(fd).ok_or(Failure::Errno(errno::EBADF))
    }

    /// The address that a request brings along.
    fn address(&self, length: u32) -> Outcome<Vec<u8>> {
        let mut address = vec![0; limited(length, layout::ADDRESS_MAX)? as usize];
        self.door.memory().read(layout::ADDRESS, &mut address)?;
        Ok(address)
    }

    /// Puts an address into the mailbox; its length there.
    fn put_address(&self, address: &socket::Address, length: usize) -> Outcome<u32> {
        let known = address.get(..length).unwrap_or(address);
        self.door.memory().write(layout::ADDRESS, known)?;
        Ok(known.len() as u32)
    }

    /// Tries until it works, fails, or has taken too long. Answers the last error then.
    fn patiently<T>(
        &self,
        socket: &OwnedFd,
        events: PollFlags,
        patience: &mut Patience,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Outcome<T> {
        // A socket can be ready for something else than what is tried: an error queue, for example.
        let mut in_vain = 0;
        loop {
            let error = match attempt(socket.as_fd()) {
                Ok(result) => return Ok(result),
                Err(error) => errno::of(&error),
            };
            match error {
                errno::EINTR => continue,
                errno::EAGAIN | errno::EINPROGRESS | errno::EALREADY => {}
                _ => return Err(Failure::Errno(error)),
            }
            if patience.is_none() {
                return Err(Failure::Errno(error));
            }
            in_vain += 1;
            if in_vain > 3 {
                std::thread::sleep(patience::PAUSE);
            }
            let deadline = patience.deadline(socket.as_fd());
            // A socket that is always ready would never be found too late by waiting for it.
            let late = in_vain > 1 && deadline.is_some_and(|end| Instant::now() >= end);
            if late || !self.await_socket(socket, events, deadline)? {
                return Err(Failure::Errno(patience.over(error)));
            }
        }
    }

    /// Waits for a socket; false when the time is over.
    fn await_socket(
        &self,
        socket: &OwnedFd,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> Outcome<bool> {
        let mut one = vec![PollFd::new(socket, events)];
        match self.door.wait(self.sequence, &mut one, deadline)? {
            crate::door::Woken::Ready => Ok(true),
            crate::door::Woken::TimedOut => Ok(false),
            crate::door::Woken::Cancelled => Err(Failure::Cancelled),
        }
    }

    fn socket(&self, domain: u32, kind: u32, protocol: u32) -> Outcome<Response> {
        /// The part of a socket's kind that is no flag (`SOCK_TYPE_MASK`).
        const KINDS: u32 = 0xf;
        if !matches!((domain, protocol), (AF_INET | AF_INET6, _) | (AF_NETLINK, NETLINK_ROUTE)) {
            return Err(Failure::Errno(errno::EAFNOSUPPORT));
        }
        let signed = |word: u32| i32::try_from(word).map_err(|_| Failure::Errno(errno::EINVAL));
        let kind = signed(limited(kind, KINDS)?)?;
        let socket = socket::socket(signed(domain)?, kind, signed(protocol)?)?;
        Ok(Response::value(i64::from(self.sockets.add(socket))))
    }

    fn act_as(&self, whom: &wire::Identity) -> Outcome<Response> {
        /// `NGROUPS_MAX` is more than a mailbox holds.
        const GROUPS_MAX: u32 = layout::PAYLOAD_MAX / 4;
        let bytes = self.payload(limited(whom.groups, GROUPS_MAX)? * 4, layout::PAYLOAD_MAX)?;
        let (groups, _) = bytes.as_chunks();
        let groups: Vec<_> = groups.iter().map(|group| u32::from_le_bytes(*group)).collect();
        crate::identity::act_as(whom, &groups)?;
        Ok(Response::value(0))
    }

    fn fetch(&self, pid: i32, fd: i32) -> Outcome<Response> {
        let fetched = crate::identity::fetch(pid, fd)?;
        Ok(Response::value(i64::from(self.sockets.add(fetched))))
    }

    fn close(&self, fd: i32) -> Outcome<Response> {
        self.sockets.remove(fd).ok_or(Failure::Errno(errno::EBADF))?;
        Ok(Response::value(0))
    }

    fn bind(&self, fd: i32, address: u32) -> Outcome<Response> {
        let socket = self.get(fd)?;
        socket::bind(socket.as_fd(), &self.address(address)?)?;
        Ok(Response::value(0))
    }

    fn connect(&self, fd: i32, address: u32, wait: u64) -> Outcome<Response> {
        let socket = self.get(fd)?;
        let address = self.address(address)?;
        // Called again when the socket is writable, `connect` answers what became of the attempt
        // (and does for the socket's state what a blocking call would have done).
        let mut patience = Patience::connecting(wait);
        self.patiently(&socket, PollFlags::OUT, &mut patience, |socket| {
            socket::connect(socket, &address)
        })?;
        Ok(Response::value(0))
    }

    fn listen(&self, fd: i32, backlog: i32) -> Outcome<Response> {
        socket::listen(self.get(fd)?.as_fd(), backlog)?;
        Ok(Response::value(0))
    }

    fn accept(&self, fd: i32, wait: u64) -> Outcome<Response> {
        let socket = self.get(fd)?;
        let mut peer = [0; socket::ADDRESS_MAX];
        let mut patience = Patience::receiving(wait);
        let (new, length) = self.patiently(&socket, PollFlags::IN, &mut patience, |socket| {
            socket::accept(socket, &mut peer)
        })?;
        let address = self.put_address(&peer, length)?;
        Ok(Response { address, ..Response::value(i64::from(self.sockets.add(new))) })
    }

    fn shutdown(&self, fd: i32, how: u32) -> Outcome<Response> {
        let how = i32::try_from(how).map_err(|_| Failure::Errno(errno::EINVAL))?;
        socket::shutdown(self.get(fd)?.as_fd(), how)?;
        Ok(Response::value(0))
    }

    fn payload(&self, length: u32, most: u32) -> Outcome<Vec<u8>> {
        let mut bytes = vec![0; limited(length, most)? as usize];
        self.door.memory().read(layout::PAYLOAD, &mut bytes)?;
        Ok(bytes)
    }

    /// A response with bytes at `PAYLOAD`.
    fn with_payload(&self, value: i64, bytes: &[u8]) -> Outcome<Response> {
        self.door.memory().write(layout::PAYLOAD, bytes)?;
        Ok(Response { length: bytes.len() as u32, ..Response::value(value) })
    }

    fn option(&self, fd: i32, level: i32, name: i32, length: u32) -> Outcome<Response> {
        let socket = self.get(fd)?;
        let mut value = self.payload(length.min(OPTION_MAX), OPTION_MAX)?;
        if (level, name) == (SOL_SOCKET, SO_ATTACH_FILTER) {
            let count = socket::filter(socket.as_fd(), &mut value)?;
            return self.with_payload(count as i64, value.get(..count * 8).unwrap_or(&[]));
        }
        let length = socket::option(socket.as_fd(), level, name, &mut value)?;
        self.with_payload(0, value.get(..length).unwrap_or(&value))
    }

    fn set_option(&self, fd: i32, level: i32, name: i32, length: u32) -> Outcome<Response> {
        let socket = self.get(fd)?;
        let value = self.payload(length, OPTION_MAX)?;
        socket::set_option(socket.as_fd(), level, name, &value)?;
        Ok(Response::value(0))
    }

    fn name(
        &self,
        fd: i32,
        ask: fn(BorrowedFd<'_>, &mut socket::Address) -> io::Result<usize>,
    ) -> Outcome<Response> {
        let mut address = [0; socket::ADDRESS_MAX];
        let length = ask(self.get(fd)?.as_fd(), &mut address)?;
        Ok(Response { address: self.put_address(&address, length)?, ..Response::value(0) })
    }

    /// Without a descriptor it is about interfaces, which any socket can be asked for.
    fn ioctl(&self, fd: i32, command: u32) -> Outcome<Response> {
        let socket = match fd {
            -1 => Arc::new(socket::socket(AF_INET.cast_signed(), SOCK_DGRAM, 0)?),
            fd => self.get(fd)?,
        };
        if command == LIST_INTERFACES {
            return self.interfaces(socket.as_fd());
        }
        let mut argument = self.payload(ARGUMENT_MAX, ARGUMENT_MAX)?;
        let value = socket::control(socket.as_fd(), command, &mut argument)?;
        self.with_payload(i64::from(value), &argument)
    }

    /// The list of interfaces, as long as the request says; answers its length.
    fn interfaces(&self, socket: BorrowedFd<'_>) -> Outcome<Response> {
        let mut room = [0; size_of::<u32>()];
        self.door.memory().read(layout::PAYLOAD, &mut room)?;
        let mut list = vec![0; u32::from_ne_bytes(room).min(LIST_MAX) as usize];
        let length = socket::interfaces(socket, &mut list)?;
        list.truncate(length);
        self.with_payload(length as i64, &list)
    }

    fn poll(&self, count: u32, wait: u64) -> Outcome<Response> {
        let size = PollEntry::SIZE as u32;
        let bytes = limited(count, layout::PAYLOAD_MAX / size)? * size;
        let bytes = self.payload(bytes, layout::PAYLOAD_MAX)?;
        let (chunks, _) = bytes.as_chunks();
        let mut entries: Vec<_> = chunks.iter().map(|chunk| PollEntry::decode(*chunk)).collect();
        let ready = self.poll_entries(&mut entries, wait)?;
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.encode()).collect();
        self.with_payload(i64::from(ready), &bytes)
    }

    /// Fills in `revents`; the number of entries that have some.
    fn poll_entries(&self, entries: &mut [PollEntry], wait: u64) -> Outcome<u32> {
        let held: Vec<_> = entries.iter().map(|entry| self.sockets.get(entry.fd)).collect();
        let mut set = Vec::new();
        let mut invalid = 0;
        for (entry, socket) in entries.iter_mut().zip(&held) {
            entry.revents = 0;
            match socket {
                Some(socket) => {
                    set.push(PollFd::new(socket, PollFlags::from_bits_retain(entry.events)));
                }
                None if entry.fd < 0 => {}
                None => {
                    entry.revents = PollFlags::NVAL.bits();
                    invalid += 1;
                }
            }
        }
        let wait = if invalid > 0 { 0 } else { wait };
        let deadline = Patience::plain(wait).end();
        if self.door.wait(self.sequence, &mut set, deadline)? == crate::door::Woken::Cancelled {
            return Err(Failure::Cancelled);
        }
        let known = entries.iter_mut().zip(&held).filter(|(_, socket)| socket.is_some());
        for ((entry, _), polled) in known.zip(&set) {
            entry.revents = polled.revents().bits();
        }
        Ok(entries.iter().filter(|entry| entry.revents != 0).count() as u32)
    }
}
