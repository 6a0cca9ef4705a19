//! The frames of the resident quota, and the clock that chooses whose page has to go.
use crate::Spaces;
use alloc::vec;
use alloc::vec::Vec;

/// Belongs to no page.
const NONE: u32 = u32::MAX;
/// After so many pages in use, the next one goes anyway: nobody should wait for longer.
const LONGEST_SEARCH: usize = 512;

/// A frame with a page.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The page; `u32::MAX` for none.
    pub page: u32,
    /// Where an equal copy of it is on the disk.
    pub slot: Option<u32>,
    /// The spaces that show it.
    pub spaces: u8,
    /// It may differ from that copy or, where there is none, from zeros.
    pub dirty: bool,
}

const EMPTY: Frame = Frame { page: NONE, slot: None, spaces: 0, dirty: false };

/// All frames.
#[derive(Debug)]
pub struct Frames {
    frames: Vec<Frame>,
    free: Vec<u32>,
    hand: usize,
    /// Fewest frames that were ever free.
    least_free: usize,
}

impl Frames {
    /// `count` free frames.
    pub fn new(count: u32) -> Self {
        // The lowest first.
        let free: Vec<u32> = (0..count).rev().collect();
        let least_free = free.len();
        Self { frames: vec![EMPTY; count as usize], free, hand: 0, least_free }
    }

    /// All frames.
    pub fn count(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Frames in use, and the most that ever were.
    pub fn used(&self) -> (u32, u32) {
        let all = self.frames.len();
        ((all - self.free.len()) as u32, (all - self.least_free) as u32)
    }

    /// A free frame.
    pub fn take(&mut self) -> Option<u32> {
        let frame = self.free.pop();
        self.least_free = self.least_free.min(self.free.len());
        frame
    }

    /// Gives a frame back.
    pub fn give(&mut self, frame: u32) {
        if let Some(place) = self.frames.get_mut(frame as usize) {
            *place = EMPTY;
            self.free.push(frame);
        }
    }

    /// A page lives in a frame from now on.
    pub fn fill(&mut self, frame: u32, page: u32, slot: Option<u32>, dirty: bool) {
        if let Some(place) = self.frames.get_mut(frame as usize) {
            *place = Frame { page, slot, spaces: 0, dirty };
        }
    }

    /// A page is said to live in a frame: true when nobody else does. [`Frames::claimed`] follows.
    pub fn claim(&mut self, frame: u32, page: u32) -> bool {
        let free = self.frames.get(frame as usize).is_some_and(|frame| frame.page == NONE);
        if free {
            self.fill(frame, page, None, true);
        }
        free
    }

    /// Frames that nobody has claimed are free.
    pub fn claimed(&mut self) {
        let frames = (0..).zip(&self.frames).filter(|(_, frame)| frame.page == NONE);
        self.free = frames.map(|(number, _)| number).collect();
        self.free.reverse();
        self.least_free = self.free.len();
    }

    /// What is in a frame.
    pub fn get(&self, frame: u32) -> Frame {
        self.frames.get(frame as usize).copied().unwrap_or(EMPTY)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, frame: u32) -> Option<&mut Frame> {
        self.frames.get_mut(frame as usize)
    }

    /// A frame whose page was not used since the hand came by last (second chance).
    pub fn choose(&mut self, spaces: &mut impl Spaces) -> Option<u32> {
        let count = self.frames.len();
        let mut in_use = 0;
        // Twice round finds one, if there is any: the first time clears the marks.
        for _ in 0..2 * count {
            let at = self.hand % count;
            self.hand = at + 1;
            let frame = self.frames.get(at)?;
            if frame.page == NONE {
                continue;
            }
            if in_use >= LONGEST_SEARCH || !spaces.used(frame.page, frame.spaces) {
                return Some(at as u32);
            }
            in_use += 1;
        }
        None
    }
}
