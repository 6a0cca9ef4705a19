//! What happens when a disk request has finished.
use super::{Damage, Page, Pending, Swap};
use crate::seal::{Label, TAG};
use crate::{Disk, Spaces};
use memory::Memory;

/// A request that failed so often is given up.
const MOST_FAILURES: u8 = 3;

impl<M: Memory, S: Spaces, D: Disk> Swap<M, S, D> {
    /// A request has finished; `good` unless the disk reported an error. Those who wait can try
    /// again. Tells which page was lost, if one was.
    pub fn finished(&mut self, request: u16, good: bool) -> Option<Damage> {
        let place = self.requests.get_mut(usize::from(request))?;
        let pending = place.as_mut()?;
        if !good {
            pending.failures += 1;
            if pending.failures < MOST_FAILURES {
                self.disk.again(request);
                return None;
            }
        }
        let pending = place.take()?;
        match (good, pending.frame) {
            (true, None) => {
                self.set(pending.page, Page::Away(pending.slot));
                None
            }
            (true, Some(frame)) => self.arrived(request, pending, frame),
            (false, _) => Some(self.damaged(pending, false)),
        }
    }

    /// A page has been read; whether it is the right one is to be seen.
    fn arrived(&mut self, request: u16, pending: Pending, frame: u32) -> Option<Damage> {
        let Pending { page, slot, .. } = pending;
        let Some(written) = self.slots.written(slot) else {
            return Some(self.damaged(pending, false));
        };
        let length = usize::from(written.length);
        let record = &mut self.record[..TAG + length];
        self.disk.received(request, record);
        let label = Label { page, slot, version: written.version };
        let opened = self.sealer.open(label, record).is_ok();
        if !opened || !self.expand(TAG, length) {
            return Some(self.damaged(pending, true));
        }
        self.counters.read += 1;
        if self.settle(page, frame, Some(slot), false).is_none() {
            return Some(self.damaged(pending, false));
        }
        None
    }

    /// A page can't be had any more.
    fn damaged(&mut self, pending: Pending, forged: bool) -> Damage {
        let Pending { page, slot, frame, .. } = pending;
        if let Some(frame) = frame {
            self.frames.give(frame);
        }
        self.slots.release(slot);
        self.set(page, Page::Lost);
        self.counters.lost += 1;
        Damage { page, slot, forged }
    }
}
