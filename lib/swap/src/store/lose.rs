//! Pages that are given up.
use super::{Page, Swap};
use crate::{Disk, Spaces};
use memory::Memory;

impl<M: Memory, S: Spaces, D: Disk> Swap<M, S, D> {
    /// Gives up what is left of a lost page: it is fresh from now on.
    pub fn forget(&mut self, page: u32) {
        if self.state(page) == Some(Page::Lost) {
            self.set(page, Page::Fresh);
        }
    }

    /// Has a page be lost, as if it had not come back from the disk. False when a request for it is under way, or there is no such page:
    /// then it is as it was.
    pub fn lose(&mut self, page: u32) -> bool {
        let state = match self.state(page) {
            None | Some(Page::Reading(_) | Page::Writing(_)) => return false,
            Some(Page::Lost) => return true,
            Some(state) => state,
        };
        if let Page::Resident(number) = state {
            self.unmap(number);
        }
        // Only then is its place another page's.
        self.set(page, Page::Lost);
        self.counters.lost += 1;
        match state {
            Page::Resident(number) => {
                if let Some(slot) = self.frames.get(number).slot {
                    self.slots.release(slot);
                }
                self.frames.give(number);
            }
            Page::Packed(chain) => {
                self.chunks.release(chain);
                self.packed -= 1;
            }
            Page::Away(slot) => self.slots.release(slot),
            _ => {}
        }
        true
    }
}
