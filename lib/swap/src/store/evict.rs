//! How pages leave their frames.
use super::{Page, Pending, Swap};
use crate::seal::{Label, TAG};
use crate::slots::Written;
use crate::{Disk, PAGE, Spaces};
use memory::Memory;

/// Pages evicted at a time, so that what it costs to begin is shared.
const BATCH: u32 = 16;
/// A compressed page that takes more than this is stored as it is.
const WORTH_IT: usize = 3584;
/// One part in so many of compressed memory is kept free while the disk is idle.
const RESERVE: u32 = 16;

impl<M: Memory, S: Spaces, D: Disk> Swap<M, S, D> {
    /// A free frame, made if need be; `None` when a request has to finish first, or all is full.
    pub(super) fn take_frame(&mut self) -> Option<u32> {
        if let Some(frame) = self.frames.take() {
            return Some(frame);
        }
        // With few frames a whole batch would be all of them.
        for _ in 0..BATCH.min(self.frames.count() / 4).max(1) {
            let Some(victim) = self.frames.choose(&mut self.spaces) else { break };
            if !self.put_away(victim) {
                break;
            }
        }
        self.make_room(self.chunks.count() / RESERVE);
        self.frames.take()
    }

    /// Nobody sees the page in a frame any more.
    pub(super) fn unmap(&mut self, number: u32) {
        let Some(frame) = self.frames.get_mut(number) else { return };
        let spaces = core::mem::take(&mut frame.spaces);
        if spaces != 0 {
            self.spaces.unmap(frame.page, spaces);
            self.shown -= spaces.count_ones();
        }
    }

    /// Frees a frame: its page is dropped, compressed, or written.
    fn put_away(&mut self, number: u32) -> bool {
        self.unmap(number);
        let frame = self.frames.get(number);
        let page = frame.page;
        if !frame.dirty {
            self.counters.dropped += 1;
            let state = frame.slot.map_or(Page::Fresh, Page::Away);
            return self.leave(number, page, state);
        }
        let at = u64::from(number) * PAGE as u64;
        if self.memory.read(at, &mut *self.plain).is_err() {
            return false;
        }
        if self.plain.iter().all(|byte| *byte == 0) {
            self.counters.dropped += 1;
            return self.leave(number, page, Page::Fresh);
        }
        let length = self.compress();
        if length == PAGE && self.write_out(page, length) {
            self.frames.give(number);
            return true;
        }
        if let Some(chain) = self.pack(page, length) {
            return self.leave(number, page, Page::Packed(chain));
        }
        let written = length < PAGE && self.write_out(page, length);
        if written {
            self.frames.give(number);
        }
        written
    }

    fn leave(&mut self, number: u32, page: u32, state: Page) -> bool {
        self.set(page, state);
        self.frames.give(number);
        true
    }

    /// Puts what is in `plain`, compressed if that is worth it, behind the place for a tag in
    /// `record`: how many bytes.
    fn compress(&mut self) -> usize {
        let body = &mut self.record[TAG..];
        match lz4_flex::block::compress_into(&*self.plain, &mut self.scratch) {
            Ok(length) if length <= WORTH_IT => {
                body[..length].copy_from_slice(&self.scratch[..length]);
                length
            }
            _ => {
                body[..PAGE].copy_from_slice(&*self.plain);
                PAGE
            }
        }
    }

    /// Stores `length` bytes of `record` in compressed memory.
    fn pack(&mut self, page: u32, length: usize) -> Option<u32> {
        if !self.chunks.fits(length) {
            // What makes room needs `record` itself.
            let mut kept = [0; PAGE];
            kept[..length].copy_from_slice(&self.record[TAG..TAG + length]);
            self.make_room(length.div_ceil(crate::Chunks::SIZE) as u32);
            self.record[TAG..TAG + length].copy_from_slice(&kept[..length]);
        }
        let stored = self.record.get(TAG..TAG + length)?;
        let chain = self.chunks.store(&self.memory, page, stored)?;
        self.chunks.links(chain).for_each(|(chunk, next)| self.notes.link(chunk, next));
        self.packed += 1;
        self.counters.packed += 1;
        Some(chain)
    }

    /// Writes the oldest compressed pages out until so many chunks are free, as far as requests
    /// and places are.
    fn make_room(&mut self, chunks: u32) {
        while self.chunks.free() < chunks && self.free_request().is_some() && !self.slots.full() {
            let Some((chain, page)) = self.chunks.oldest() else { return };
            let body = &mut self.record[TAG..TAG + PAGE];
            let Some(length) = self.chunks.load(&self.memory, chain, body) else { return };
            if !self.write_out(page, length) {
                return;
            }
            self.chunks.release(chain);
            self.packed -= 1;
        }
    }

    /// Seals what is in `record` and starts to write it. The page has left its frame or chain when
    /// this is true.
    fn write_out(&mut self, page: u32, length: usize) -> bool {
        let Some(request) = self.free_request() else { return false };
        let version = self.sealer.next_version();
        self.notes.version(version);
        let Some(slot) = self.slots.take(Written { page, version, length: length as u16 }) else {
            return false;
        };
        let record = &mut self.record[..TAG + length];
        if self.sealer.seal(Label { page, slot, version }, record).is_err() {
            self.slots.release(slot);
            return false;
        }
        self.begin(request, Pending { page, slot, frame: None, failures: 0 });
        self.disk.write(request, slot, &self.record[..TAG + length]);
        self.set(page, Page::Writing(request));
        self.counters.written += 1;
        true
    }
}
