//! 4 KiB frames of kernel memory, for page tables and guest control blocks.
use super::phys;
use abi::{HostPhys, PAGE_SIZE};

/// Free frames; each holds the address of the next one in its first word.
#[derive(Debug)]
pub struct FramePool {
    next: u64,
    free: u64,
}

impl FramePool {
    /// No frame at all.
    pub const fn new() -> Self {
        Self { next: 0, free: 0 }
    }

    /// Takes over a page-aligned range of RAM that nothing else uses.
    pub fn add(&mut self, start: HostPhys, length: u64) {
        for index in (0..length / PAGE_SIZE).rev() {
            self.give(HostPhys(start.0 + index * PAGE_SIZE));
        }
    }

    /// Free frames.
    pub fn available(&self) -> u64 {
        self.free
    }

    /// A zeroed frame.
    pub fn take(&mut self) -> Option<HostPhys> {
        if self.free == 0 {
            return None;
        }
        let frame = HostPhys(self.next);
        self.next = phys::read64(frame);
        self.free -= 1;
        phys::zero(frame, PAGE_SIZE);
        Some(frame)
    }

    /// Takes a frame back. Its first word never looks like a present page-table entry.
    pub fn give(&mut self, frame: HostPhys) {
        phys::write64(frame, self.next);
        self.next = frame.0;
        self.free += 1;
    }
}
