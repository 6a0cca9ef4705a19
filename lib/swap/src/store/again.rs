//! A manager goes on where another one has ended, by the notes of that one.
use super::{Damage, Page, Pending, Swap};
use crate::notes::Place;
use crate::seal::{Label, TAG};
use crate::slots::Written;
use crate::{Disk, Spaces};
use alloc::vec::Vec;
use memory::Memory;

impl<M: Memory, S: Spaces, D: Disk> Swap<M, S, D> {
    /// Takes over what the notes tell of. Nothing of it is mapped any more. Returns what is lost: what
    /// the notes say makes no sense there.
    pub(super) fn take_over(&mut self) -> Vec<Damage> {
        let mut damages = Vec::new();
        for page in 0..self.pages.len() as u32 {
            let place = self.notes.get(page);
            let found = self.find(page, place);
            let state = found.unwrap_or(Page::Lost);
            if let Some(there) = self.pages.get_mut(page as usize) {
                *there = state;
            }
            if state == Page::Lost {
                self.notes.set(page, Place::Lost);
                let slot = if let Place::Disk { slot, .. } = place { slot } else { 0 };
                damages.push(Damage { page, slot, forged: place != Place::Lost });
            }
        }
        self.frames.claimed();
        self.chunks.claimed();
        self.slots.claimed();
        self.counters.lost = damages.len() as u64;
        damages
    }

    /// What a page's notes mean, if nobody else has been given that place.
    fn find(&mut self, page: u32, place: Place) -> Option<Page> {
        match place {
            Place::Fresh => Some(Page::Fresh),
            Place::Lost => None,
            Place::Frame(frame) => {
                // Whether it was written to since it came from the disk is not known.
                self.frames.claim(frame, page).then_some(Page::Resident(frame))
            }
            Place::Chain { head, length } => {
                let notes = &self.notes;
                let whole = self.chunks.claim(head, page, length, |chunk| notes.next(chunk));
                self.packed += u32::from(whole);
                whole.then_some(Page::Packed(head))
            }
            Place::Disk { slot, length, version, request } => {
                let written = Written { page, version, length };
                if version == 0 || !self.slots.claim(slot, written) {
                    return None;
                }
                match request {
                    None => Some(Page::Away(slot)),
                    Some(request) => self.write_again(request, slot, written),
                }
            }
        }
    }

    /// What was being written may not have arrived. Its request's buffer still has it.
    fn write_again(&mut self, request: u16, slot: u32, written: Written) -> Option<Page> {
        let Written { page, version, length } = written;
        let free = self.requests.get(usize::from(request)).is_some_and(Option::is_none);
        let end = TAG + usize::from(length);
        self.disk.received(request, self.record.get_mut(..end)?);
        let mut copy = self.record.clone();
        let label = Label { page, slot, version };
        if !free || self.sealer.open(label, copy.get_mut(..end)?).is_err() {
            // It may have arrived nevertheless; that will be seen.
            return Some(Page::Away(slot));
        }
        self.begin(request, Pending { page, slot, frame: None, failures: 0 });
        // The same bytes for the same place: the number of the sealing is not used for anything else.
        self.disk.write(request, slot, self.record.get(..end)?);
        Some(Page::Writing(request))
    }
}
