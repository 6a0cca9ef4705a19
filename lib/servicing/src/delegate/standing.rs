//! Polls that stay out after their call: when a call over both sides has been answered by its local
//! side, the remote half is neither waited for nor cancelled. The next call that asks the same
//! finds it where it is, so that a loop of such calls causes no remote requests at all, and there
//! is nothing to be made up for when a descriptor is closed.
use super::slot::Completion;
use super::{Delegate, Lease, Life};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use wire::PollEntry;

/// Most of them for one process: each occupies a worker. Beyond, the oldest is cancelled.
const LIMIT: usize = 4;

/// A poll without a time-out that nobody waits for.
pub struct Kept {
    /// What it asks.
    pub entries: Vec<PollEntry>,
    /// Its worker.
    pub lease: Lease,
    /// Its outcome.
    pub completion: Rc<Completion>,
    /// What [`Activity`](super::Activity) was when it was posted: as long as nothing else has been
    /// done to any socket, what it finds ready stays ready.
    pub since: u64,
}

/// The polls of one process, oldest first.
#[derive(Default)]
pub struct Standing(RefCell<Vec<Kept>>);

impl core::fmt::Debug for Standing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} polls", self.0.borrow().len())
    }
}

impl Standing {
    /// Takes out the poll that asks this of this delegate.
    #[must_use]
    pub fn take(&self, entries: &[PollEntry], delegate: &Rc<Delegate>) -> Option<Kept> {
        let mut polls = self.0.borrow_mut();
        let fits = |k: &Kept| k.entries == entries && Rc::ptr_eq(&k.lease.delegate, delegate);
        let place = polls.iter().position(fits)?;
        Some(polls.remove(place)).filter(|k| k.lease.delegate.life() != Life::Dead)
    }

    /// Leaves a poll out.
    pub fn keep(&self, kept: Kept) {
        let mut over = Vec::new();
        let mut polls = self.0.borrow_mut();
        if let Some(place) = polls.iter().position(|k| k.entries == kept.entries) {
            over.push(polls.remove(place));
        }
        if polls.len() >= LIMIT {
            over.push(polls.remove(0));
        }
        polls.push(kept);
        drop(polls);
        // Those are cancelled now.
        drop(over);
    }

    /// Cancels what asks about a socket that is about to be closed: it would stay open as long.
    pub fn forget(&self, fd: i32) {
        let mut polls = self.0.borrow_mut();
        let (over, rest): (Vec<_>, Vec<_>) =
            polls.drain(..).partition(|k| k.entries.iter().any(|e| e.fd == fd));
        *polls = rest;
        drop(polls);
        drop(over);
    }

    /// Cancels all.
    pub fn clear(&self) {
        let over = self.0.take();
        drop(over);
    }
}
