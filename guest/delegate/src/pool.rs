//! Memory for mailboxes: one file in memory, made by the dispatcher and shared by all delegates.
//!
//! The hypervisor writes to a mailbox by physical address. A delegate can be killed at any moment,
//! and until the hypervisor has heard of that it may still write; so the pages must not go back to
//! the kernel with the process. They belong to the file, which lives as long as the dispatcher.
//!
//! Who owns which place is kept by the kernel: a record lock (`fcntl(2)`) per place, which ends
//! with its process, however that ends. A thread that ends gives its place back to its process.

use guest_sys::mailbox::{Mailbox, lock_byte};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::layout::LENGTH;

/// Places in the pool: the most threads of delegates at a time. Memory is taken only for places
/// that have been used.
pub const PLACES: u32 = 4096;

/// The pool, as one process sees it.
#[derive(Debug)]
pub struct Pool {
    file: Arc<OwnedFd>,
    /// Places in use by this process; record locks do not tell its threads apart.
    own: Mutex<BTreeSet<u32>>,
}

/// One mailbox's memory; the place is free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    // The mapping goes before the place is given back.
    memory: Mailbox,
    place: u32,
    pool: Arc<Pool>,
}

impl Pool {
    /// A new pool, for a dispatcher.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `ftruncate(2)`.
    pub fn new() -> io::Result<Arc<Self>> {
        let file = memfd_create("mailboxes", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, LENGTH * u64::from(PLACES))?;
        Ok(Self::of_file(file))
    }

    /// A pool on a file that exists, with nothing of this process in it.
    #[must_use]
    pub fn of_file(file: OwnedFd) -> Arc<Self> {
        Arc::new(Self { file: Arc::new(file), own: Mutex::default() })
    }

    /// The pool as a new child process sees it: with nothing of its own in it.
    #[must_use]
    pub fn inherited(&self) -> Arc<Self> {
        Arc::new(Self { file: self.file.clone(), own: Mutex::default() })
    }

    /// Number of the file's descriptor.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn own(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_place(&self) -> io::Result<u32> {
        let mut own = self.own();
        for place in (0..PLACES).filter(|place| !own.contains(place)).collect::<Vec<_>>() {
            if lock_byte(self.file.as_fd(), u64::from(place))? {
                own.insert(place);
                return Ok(place);
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Memory for one mailbox.
    ///
    /// # Errors
    /// No place is left, or as `mmap(2)`.
    pub fn slot(self: &Arc<Self>) -> io::Result<Slot> {
        let place = self.take_place()?;
        let length = usize::try_from(LENGTH).map_err(|_| io::ErrorKind::InvalidInput)?;
        match Mailbox::of_file(self.file.as_fd(), LENGTH * u64::from(place), length) {
            Ok(memory) => Ok(Slot { memory, place, pool: self.clone() }),
            Err(error) => {
                self.own().remove(&place);
                Err(error)
            }
        }
    }
}

impl Slot {
    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Mailbox {
        &self.memory
    }

    /// Its place in the pool.
    #[must_use]
    pub fn place(&self) -> u32 {
        self.place
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The lock on the byte stays: the process will need the place again, or end.
        self.pool.own().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_sys::fork::fork;

    #[test]
    fn places_of_this_and_other_processes_are_respected_until_they_end() {
        let pool = Pool::new().expect("pool");
        let first = pool.slot().expect("slot");
        let second = pool.slot().expect("slot");
        assert_ne!(first.place(), second.place());
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        let child = |_| {
            // The child shares the file but not the places.
            let place = pool.inherited().take_place().unwrap_or(u32::MAX);
            let _ = rustix::io::write(&write, &place.to_ne_bytes());
            0
        };
        let pid = fork(child).expect("fork");
        let mut bytes = [0; 4];
        rustix::io::read(&read, &mut bytes).expect("read");
        assert_eq!(u32::from_ne_bytes(bytes), 2);
        let pid = rustix::process::Pid::from_raw(pid);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).expect("child");
        drop(first);
        assert_eq!(pool.slot().expect("slot").place(), 0);
        drop(second);
    }
}
