//! The states of all pages.
//!
//! A page is *fresh* (zeros, nothing is stored), *resident* in a frame, *packed* (compressed, in
//! memory), *away* (sealed, on the disk), on its way to or from there, or *lost*. Whoever waits for a
//! request waits for its end and then faults again: there is no list of who waits for what.
mod again;
mod evict;
mod finish;
mod lose;

use crate::chunks::Chunks;
use crate::frames::Frames;
use crate::notes::{Notes, Place};
use crate::seal::{KEY, Sealer, TAG};
use crate::slots::Slots;
use crate::{Disk, PAGE, SLOT, Spaces};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use memory::Memory;

/// Most pages that are read along with one that is needed.
const READ_AHEAD: usize = 7;

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    Fresh,
    Resident(u32),
    Packed(u32),
    /// A request writes it.
    Writing(u16),
    /// A request reads it.
    Reading(u16),
    Away(u32),
    Lost,
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pending {
    page: u32,
    slot: u32,
    /// Where the page goes that is read; `None` for a write.
    frame: Option<u32>,
    failures: u8,
}

/// The answer to a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Show this frame.
    Map {
        /// Number of the frame.
        frame: u32,
        /// It may be written; otherwise the write has to fault.
        write: bool,
    },
    /// Try again when a request has finished.
    Later,
    /// What was in the page is lost: the disk did not give back what had been written.
    Lost,
    /// Memory, compressed memory and disk are full.
    Full,
    /// There is no such page.
    Outside,
}

/// A page that was lost just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The page.
    pub page: u32,
    /// Where it was on the disk.
    pub slot: u32,
    /// True when the disk returned something else; false when it reported errors.
    pub forged: bool,
}

/// How much there is of everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Pages that are believed in.
    pub pages: u32,
    /// Frames, at the start of the memory.
    pub frames: u32,
    /// Chunks for compressed pages, behind the frames.
    pub chunks: u32,
}

/// Events since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Faults.
    pub faults: u64,
    /// Answered with "later".
    pub later: u64,
    /// Pages that came back out of compressed memory.
    pub unpacked: u64,
    /// Pages that came back from the disk.
    pub read: u64,
    /// Of these, pages that nobody had asked for yet.
    pub read_ahead: u64,
    /// Pages evicted because they were zero, or equal to their copy on the disk.
    pub dropped: u64,
    /// Pages compressed.
    pub packed: u64,
    /// Pages written to the disk.
    pub written: u64,
    /// Pages lost.
    pub lost: u64,
}

/// What is where now, in pages unless the text says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Frames in use.
    pub resident: u32,
    /// Most frames that ever were in use.
    pub resident_most: u32,
    /// Frames there are.
    pub quota: u32,
    /// Mappings in all spaces together.
    pub shown: u32,
    /// Pages in compressed memory.
    pub packed: u32,
    /// Bytes of compressed memory in use.
    pub packed_bytes: u64,
    /// Places of the disk in use.
    pub away: u32,
    /// Requests under way.
    pub under_way: u32,
}

/// The pages of one manager.
pub struct Swap<M, S, D> {
    memory: M,
    /// The spaces that show pages.
    pub spaces: S,
    /// The disk.
    pub disk: D,
    pages: Vec<Page>,
    frames: Frames,
    chunks: Chunks,
    packed: u32,
    shown: u32,
    slots: Slots,
    sealer: Sealer,
    requests: Vec<Option<Pending>>,
    notes: Notes<M>,
    counters: Counters,
    /// Contents of the page that is worked on, and its compressed or sealed form.
    plain: Box<[u8; PAGE]>,
    record: Box<[u8; SLOT]>,
    scratch: Vec<u8>,
}

impl<M: Memory, S: Spaces, D: Disk> Swap<M, S, D> {
    /// All pages are fresh, unless there are `notes` of a manager that kept them before, in the same memory: then it goes on where
    /// that one has ended, with its key, and tells what is lost. `memory` is long enough for [`Swap::bytes`].
    pub fn new(
        (memory, notes): (M, Option<M>),
        sizes: Sizes,
        spaces: S,
        disk: D,
        key: &[u8; KEY],
    ) -> (Self, Vec<Damage>) {
        let chunks = Chunks::new(u64::from(sizes.frames) * PAGE as u64, sizes.chunks);
        let room = lz4_flex::block::get_maximum_output_size(PAGE);
        let notes = Notes::new(notes, sizes);
        let inherited = notes.inherited();
        let (key, version) = inherited.unwrap_or((*key, 0));
        let mut swap = Self {
            memory,
            pages: vec![Page::Fresh; sizes.pages as usize],
            frames: Frames::new(sizes.frames),
            chunks,
            packed: 0,
            shown: 0,
            slots: Slots::new(disk.slots()),
            sealer: Sealer::new(&key, version),
            requests: vec![None; usize::from(disk.requests())],
            notes,
            counters: Counters::default(),
            plain: Box::new([0; PAGE]),
            record: Box::new([0; SLOT]),
            scratch: vec![0; room],
            spaces,
            disk,
        };
        let damages = if inherited.is_some() { swap.take_over() } else { Vec::new() };
        swap.notes.begin(&key);
        (swap, damages)
    }

    /// Bytes of memory that frames and chunks take.
    #[must_use]
    pub const fn bytes(sizes: Sizes) -> u64 {
        sizes.frames as u64 * PAGE as u64 + sizes.chunks as u64 * Chunks::SIZE as u64
    }

    /// Events since the start.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What is where now.
    pub fn now(&self) -> Now {
        let (resident, resident_most) = self.frames.used();
        let used = self.chunks.count() - self.chunks.free();
        Now {
            resident,
            resident_most,
            quota: self.frames.count(),
            shown: self.shown,
            packed: self.packed,
            packed_bytes: u64::from(used) * Chunks::SIZE as u64,
            away: self.slots.used(),
            under_way: self.requests.iter().flatten().count() as u32,
        }
    }

    fn state(&self, page: u32) -> Option<Page> {
        self.pages.get(page as usize).copied()
    }

    fn set(&mut self, page: u32, state: Page) {
        if let Some(place) = self.pages.get_mut(page as usize) {
            *place = state;
            self.note(page, state);
        }
    }

    /// Writes down where a page is; what is being read is still on the disk.
    fn note(&self, page: u32, state: Page) {
        let on_disk = |slot, request| {
            let written = self.slots.written(slot)?;
            Some(Place::Disk { slot, length: written.length, version: written.version, request })
        };
        let place = match state {
            Page::Fresh => Some(Place::Fresh),
            Page::Resident(frame) => Some(Place::Frame(frame)),
            Page::Packed(head) => {
                Some(Place::Chain { head, length: self.chunks.length(head) as u16 })
            }
            Page::Writing(request) => {
                let pending = self.requests.get(usize::from(request)).copied().flatten();
                pending.and_then(|pending| on_disk(pending.slot, Some(request)))
            }
            Page::Reading(_) => None,
            Page::Away(slot) => on_disk(slot, None),
            Page::Lost => Some(Place::Lost),
        };
        if let Some(place) = place {
            self.notes.set(page, place);
        }
    }

    /// An access to a page in a space, below [`crate::MOST_SPACES`], which can't go on.
    pub fn fault(&mut self, page: u32, space: u8, write: bool) -> Answer {
        self.counters.faults += 1;
        let answer = match self.state(page) {
            None => Answer::Outside,
            Some(Page::Resident(frame)) => self.show(frame, space, write),
            Some(Page::Writing(_) | Page::Reading(_)) => Answer::Later,
            Some(Page::Lost) => Answer::Lost,
            Some(Page::Fresh | Page::Packed(_) | Page::Away(_)) => self.bring(page, space, write),
        };
        self.counters.later += u64::from(answer == Answer::Later);
        answer
    }

    /// A resident page is shown; written pages are no longer what is on the disk.
    fn show(&mut self, number: u32, space: u8, write: bool) -> Answer {
        let Some(frame) = self.frames.get_mut(number) else { return Answer::Outside };
        if write {
            frame.dirty = true;
            if let Some(slot) = frame.slot.take() {
                self.slots.release(slot);
            }
        }
        self.shown += u32::from(frame.spaces & 1 << space == 0);
        frame.spaces |= 1 << space;
        Answer::Map { frame: number, write: frame.dirty }
    }

    fn bring(&mut self, page: u32, space: u8, write: bool) -> Answer {
        let Some(frame) = self.take_frame() else {
            let waits = self.requests.iter().any(Option::is_some);
            return if waits { Answer::Later } else { Answer::Full };
        };
        // Making room may have moved this very page.
        let answer = match self.state(page) {
            Some(Page::Fresh) => {
                self.plain.fill(0);
                self.settle(page, frame, None, false)
            }
            Some(Page::Packed(chain)) => self.unpack(page, frame, chain),
            Some(Page::Away(slot)) => self.fetch(page, frame, slot),
            _ => None,
        };
        match answer {
            Some(Answer::Map { frame, .. }) => self.show(frame, space, write),
            Some(other) => other,
            None => {
                self.frames.give(frame);
                Answer::Later
            }
        }
    }

    /// What is in `plain` becomes the page's contents in a frame.
    fn settle(&mut self, page: u32, frame: u32, slot: Option<u32>, dirty: bool) -> Option<Answer> {
        let at = u64::from(frame) * PAGE as u64;
        self.memory.write(at, &*self.plain).ok()?;
        self.frames.fill(frame, page, slot, dirty);
        self.set(page, Page::Resident(frame));
        Some(Answer::Map { frame, write: dirty })
    }

    fn unpack(&mut self, page: u32, frame: u32, chain: u32) -> Option<Answer> {
        let length = self.chunks.load(&self.memory, chain, &mut *self.record)?;
        self.chunks.release(chain);
        self.packed -= 1;
        self.counters.unpacked += 1;
        if !self.expand(0, length) {
            // The own memory is not what it was: nobody else writes there.
            return self.broken(page, frame);
        }
        self.settle(page, frame, None, true)
    }

    fn broken(&mut self, page: u32, frame: u32) -> Option<Answer> {
        self.frames.give(frame);
        self.set(page, Page::Lost);
        self.counters.lost += 1;
        Some(Answer::Lost)
    }

    /// Makes `plain` out of `length` bytes of `record`: a whole page, or a compressed one.
    fn expand(&mut self, start: usize, length: usize) -> bool {
        let Some(stored) = self.record.get(start..start + length) else { return false };
        if length == PAGE {
            self.plain.copy_from_slice(stored);
            return true;
        }
        matches!(lz4_flex::block::decompress_into(stored, &mut *self.plain), Ok(PAGE))
    }

    /// Starts to read a page, and those that left memory just after it, as far as that costs nobody
    /// anything: frames are free, and half of the requests stay free for others.
    fn fetch(&mut self, page: u32, frame: u32, slot: u32) -> Option<Answer> {
        self.start_reading(page, frame, slot)?;
        for next in (slot + 1..).take(READ_AHEAD) {
            let under_way = self.requests.iter().flatten().count();
            let Some(written) = self.slots.written(next) else { break };
            if self.state(written.page) != Some(Page::Away(next)) {
                continue;
            }
            if under_way >= self.requests.len() / 2 {
                break;
            }
            let Some(frame) = self.frames.take() else { break };
            if self.start_reading(written.page, frame, next).is_none() {
                self.frames.give(frame);
                break;
            }
            self.counters.read_ahead += 1;
        }
        Some(Answer::Later)
    }

    fn start_reading(&mut self, page: u32, frame: u32, slot: u32) -> Option<()> {
        let request = self.free_request()?;
        let length = TAG + usize::from(self.slots.written(slot)?.length);
        self.begin(request, Pending { page, slot, frame: Some(frame), failures: 0 });
        self.set(page, Page::Reading(request));
        self.disk.read(request, slot, length);
        Some(())
    }

    fn free_request(&self) -> Option<u16> {
        self.requests.iter().position(Option::is_none).map(|n| n as u16)
    }

    fn begin(&mut self, request: u16, pending: Pending) {
        if let Some(place) = self.requests.get_mut(usize::from(request)) {
            *place = Some(pending);
        }
    }
}
