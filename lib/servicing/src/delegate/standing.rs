//! Polls that stay out after their call: when a call over both sides has been answered by its local
//! side, the remote half is neither waited for nor cancelled. The next call that asks the same
//! finds it where it is, so that a loop of such calls causes no remote requests at all, and there
//! is nothing to be made up for when a descriptor is closed. Answers that are complete are kept too.
use super::slot::Completion;
use super::{Delegate, Lease, Life};
use crate::wake::Wakes;
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

/// Longest time for which an answer is used again, in nanoseconds.
const HOLDS: u64 = 100_000_000;

/// An answer that says all there is to be said: every event that a `select` asks for has come.
/// It cannot become more, and as long as nothing is done to any socket, less only where Linux may
/// take back what it has told (`select(2)`, "BUGS").
pub struct Answer {
    /// What was asked, with what was found.
    pub entries: Vec<PollEntry>,
    /// Who was asked.
    pub delegate: u32,
    /// What [`Activity`](super::Activity) was when it was asked.
    pub since: u64,
    /// When it was taken in.
    pub at: u64,
}

/// The polls of one process, oldest first, and the answers that can be used again.
#[derive(Default)]
pub struct Standing {
    polls: RefCell<Vec<Kept>>,
    answers: RefCell<Vec<Answer>>,
}

impl core::fmt::Debug for Standing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} polls", self.polls.borrow().len())
    }
}

impl Standing {
    /// Takes out the poll that asks this of this delegate.
    #[must_use]
    pub fn take(&self, entries: &[PollEntry], delegate: &Rc<Delegate>) -> Option<Kept> {
        let mut polls = self.polls.borrow_mut();
        let fits = |k: &Kept| k.entries == entries && Rc::ptr_eq(&k.lease.delegate, delegate);
        let place = polls.iter().position(fits)?;
        Some(polls.remove(place)).filter(|k| k.lease.delegate.life() != Life::Dead)
    }

    /// True while the poll that asks this of this delegate is out, without an answer.
    pub fn is_out(&self, entries: &[PollEntry], delegate: &Rc<Delegate>, wakes: &Wakes) -> bool {
        let polls = self.polls.borrow();
        let fits = |k: &&Kept| k.entries == entries && Rc::ptr_eq(&k.lease.delegate, delegate);
        let Some(kept) = polls.iter().find(fits) else { return false };
        kept.lease.check(wakes);
        delegate.life() != Life::Dead && kept.completion.get().is_none()
    }

    /// Leaves a poll out.
    pub fn keep(&self, kept: Kept) {
        let mut over = Vec::new();
        let mut polls = self.polls.borrow_mut();
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
        let mut polls = self.polls.borrow_mut();
        let (over, rest): (Vec<_>, Vec<_>) =
            polls.drain(..).partition(|k| k.entries.iter().any(|e| e.fd == fd));
        *polls = rest;
        drop(polls);
        drop(over);
    }

    /// Cancels all.
    pub fn clear(&self) {
        let over = self.polls.take();
        drop(over);
        self.answers.borrow_mut().clear();
    }

    /// Keeps an answer.
    pub fn note(&self, answer: Answer) {
        let mut answers = self.answers.borrow_mut();
        // What was asked before the last request never holds again.
        answers.retain(|a| a.since == answer.since && !same(&a.entries, &answer.entries));
        if answers.len() >= LIMIT {
            answers.remove(0);
        }
        answers.push(answer);
    }

    /// Fills in what is known about these entries without asking; false when it has to be asked.
    pub fn recall(
        &self,
        entries: &mut [PollEntry],
        delegate: &Delegate,
        activity: u64,
        now: u64,
    ) -> bool {
        let answers = self.answers.borrow();
        let holds = |a: &&Answer| {
            a.delegate == delegate.id
                && a.since == activity
                && now.saturating_sub(a.at) < HOLDS
                && same(&a.entries, entries)
        };
        let Some(answer) = answers.iter().find(holds) else { return false };
        if delegate.life() == Life::Dead {
            return false;
        }
        entries.copy_from_slice(&answer.entries);
        true
    }
}

/// True when both ask the same.
fn same(a: &[PollEntry], b: &[PollEntry]) -> bool {
    let asked = |e: &PollEntry| (e.fd, e.events);
    a.iter().map(asked).eq(b.iter().map(asked))
}
