//! A set of polled descriptors, divided between the two sides and put together again.
use super::readiness::dead_events;
use crate::cx::Cx;
use crate::table::State;
use alloc::vec::Vec;
use linux_abi::{POLLNVAL, PollFd};
use wire::PollEntry;

/// Who answers for an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Nobody: it is negative.
    Ignored,
    /// The program's own kernel.
    Local,
    /// A delegate, under this number.
    Remote(i32),
    /// Either: an epoll instance, or a listener in both VMs, under this number of a delegate.
    Both(i32),
    /// Nobody any more.
    Lost,
    /// Nobody: the program does not have it.
    NotOpen,
}

/// A poll divided between the two sides.
#[derive(Debug, Default)]
pub struct Split {
    /// The program's kernel's part.
    pub local: Vec<PollFd>,
    /// Where it belongs.
    pub local_places: Vec<usize>,
    /// The delegate's part.
    pub remote: Vec<PollEntry>,
    /// Where it belongs.
    pub remote_places: Vec<usize>,
}

impl Split {
    /// Divides; what is lost or not open is answered in `entries` at once.
    pub fn new(entries: &mut [PollFd], side: impl Fn(i32) -> Side) -> Self {
        let mut split = Self::default();
        for (place, entry) in entries.iter_mut().enumerate() {
            let (fd, events) = (entry.fd, entry.events);
            entry.revents = 0;
            let side = side(fd);
            if let Side::Local | Side::Both(_) = side {
                split.local.push(*entry);
                split.local_places.push(place);
            }
            match side {
                Side::Ignored | Side::Local => {}
                Side::Remote(fd) | Side::Both(fd) => {
                    split.remote.push(PollEntry { fd, events, revents: 0 });
                    split.remote_places.push(place);
                }
                Side::Lost => entry.revents = dead_events(events),
                Side::NotOpen => entry.revents = POLLNVAL,
            }
        }
        split
    }

    /// Puts both sides' answers together; answers how many entries are ready.
    pub fn merge(&self, entries: &mut [PollFd]) -> usize {
        let local = self.local_places.iter().zip(self.local.iter().map(|e| e.revents));
        let remote = self.remote_places.iter().zip(self.remote.iter().map(|e| e.revents));
        for (place, revents) in local.chain(remote) {
            if let Some(entry) = entries.get_mut(*place) {
                entry.revents |= revents;
            }
        }
        entries.iter().filter(|e| e.revents != 0).count()
    }
}

/// Who answers for a descriptor.
pub fn side(cx: &Cx, fd: i32) -> Side {
    if fd < 0 {
        return Side::Ignored;
    }
    if cx.table.is_hidden(fd) {
        return Side::NotOpen;
    }
    let Some(entry) = cx.table.get(fd as u64) else { return Side::Local };
    match entry.resource.state.get() {
        State::Undecided | State::Local => Side::Local,
        State::Remote(_) | State::Dead => match cx.remote_fd(&entry.resource) {
            Ok(fd) if entry.resource.has_two_halves() => Side::Both(fd),
            Ok(fd) => Side::Remote(fd),
            Err(_) => Side::Lost,
        },
    }
}
