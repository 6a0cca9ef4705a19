//! The real sockets and files of a delegate, under their descriptor numbers. Nothing else in the
//! process can be named by a request.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The table. A call under way keeps its socket open, whoever closes the number meanwhile, as in
/// any process with threads.
#[derive(Debug, Default)]
pub struct Sockets {
    table: Mutex<BTreeMap<RawFd, Arc<OwnedFd>>>,
}

/// The table, locked; for a fork.
pub type Locked<'a> = MutexGuard<'a, BTreeMap<RawFd, Arc<OwnedFd>>>;

impl Sockets {
    /// A table of inherited sockets.
    #[must_use]
    pub fn of(sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        let entries = sockets.into_iter().map(|socket| (socket.as_raw_fd(), Arc::new(socket)));
        Self { table: Mutex::new(entries.collect()) }
    }

    /// Locks the table, so that it is whole while a child is made.
    pub fn lock(&self) -> Locked<'_> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a new socket; its number.
    pub fn add(&self, socket: OwnedFd) -> RawFd {
        let number = socket.as_raw_fd();
        self.lock().insert(number, Arc::new(socket));
        number
    }

    /// The socket of a number, if it is one.
    #[must_use]
    pub fn get(&self, number: RawFd) -> Option<Arc<OwnedFd>> {
        self.lock().get(&number).cloned()
    }

    /// Takes a number out of the table; the socket closes when no call uses it any more.
    #[must_use]
    pub fn remove(&self, number: RawFd) -> Option<Arc<OwnedFd>> {
        self.lock().remove(&number)
    }
}
