//! Calls in service that are not, and whose threads may come back all the same: those that a child of `fork` has
//! from its parent, because a signal's handler made it, and those of handlers so deep that they were
//! given up. Nothing has happened yet for which the steps of such a call would be needed, so it
//! begins anew, or has been interrupted.
use crate::cpu::Saved;
use crate::space::{Back, Op, Space, Via};
use alloc::vec::Vec;
use linux_abi::{Errno, nr};

/// Most of them for one process. Beyond, the oldest is forgotten.
const MOST: usize = 64;

/// One call.
#[derive(Clone, Debug)]
pub struct Left {
    fs: u64,
    rsp: u64,
    tag: u64,
    /// The registers at the call.
    pub saved: Saved,
    /// It waits: what interrupts its helper interrupts it.
    waits: bool,
}

impl Left {
    fn of(fs: u64, op: &Op) -> Option<Self> {
        let out = op.exchange.out.get().filter(|out| out.via == Via::Gate)?;
        let waits = matches!(out.number, nr::read | nr::ppoll) || out.number == op.saved.number();
        Some(Self { fs, rsp: op.rsp, tag: op.tag, saved: op.saved, waits })
    }

    /// What it ends with, if it does not begin anew.
    #[must_use]
    pub fn ends(&self, back: Back) -> Option<i64> {
        let interrupted = Errno::EINTR.result();
        (self.waits && back == Back::Result(interrupted)).then_some(interrupted)
    }
}

impl Space {
    /// The calls that a thread has in service, as its child will have them.
    #[must_use]
    pub fn outer(&self, fs: u64) -> Vec<Left> {
        let threads = self.threads.borrow();
        let contexts = threads.iter().filter(|t| t.fs == fs).flat_map(|t| &t.contexts);
        let own = contexts.flat_map(|c| &c.ops).filter_map(|op| Left::of(fs, op));
        let left = self.left.borrow();
        own.chain(left.iter().filter(|left| left.fs == fs).cloned()).collect()
    }

    /// Keeps the place of a call that is given up.
    pub fn give_up(&self, fs: u64, op: &Op) {
        let mut left = self.left.borrow_mut();
        left.extend(Left::of(fs, op));
        let surplus = left.len().saturating_sub(MOST);
        left.drain(..surplus);
    }

    /// Takes out the call that comes back with this stack pointer and tag.
    pub fn take_left(&self, fs: u64, rsp: u64, tag: u64) -> Option<Left> {
        let mut left = self.left.borrow_mut();
        let place = left.iter().rposition(|l| (l.fs, l.rsp, l.tag) == (fs, rsp, tag))?;
        Some(left.remove(place))
    }
}
