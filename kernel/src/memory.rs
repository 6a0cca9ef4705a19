//! Memory capabilities and the accounting of kernel memory.
use crate::machine::FramePool;
use crate::machine::boot::Range;
use crate::machine::table::FrameSource;
use abi::{Error, HostPhys, PAGE_SIZE};
use alloc::vec::Vec;
pub use captable::{MemoryRange, Quota};

/// What must not be mapped through the capability to devices: RAM, and the local APIC.
#[derive(Debug)]
pub struct Forbidden(Vec<Range>);

impl Forbidden {
    /// Nothing is forbidden yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Forbids a range.
    pub fn add(&mut self, range: Range) {
        self.0.push(range);
    }

    /// True when no byte of the range is forbidden.
    pub fn allows(&self, memory: &MemoryRange) -> bool {
        let (start, end) = (memory.base.0, memory.base.0 + memory.length);
        self.0.iter().all(|r| end <= r.start || r.end <= start)
    }
}

/// The kernel's memory as a whole. Quotas can be promised generously: this is checked too.
#[derive(Debug)]
pub struct KernelMemory {
    /// Frames for page tables.
    pub frames: FramePool,
    /// Frames at the start.
    pub frames_total: u64,
    /// Heap bytes that may be charged; the heap is larger, for fragments.
    pub heap: Quota,
}

impl KernelMemory {
    /// None.
    pub const fn new() -> Self {
        Self { frames: FramePool::new(), frames_total: 0, heap: Quota { limit: 0, used: 0 } }
    }

    /// Charges heap bytes to a quota.
    ///
    /// # Errors
    /// `Quota`.
    pub fn charge(&mut self, quota: &mut Quota, bytes: u64) -> Result<(), Error> {
        self.heap.charge(bytes)?;
        quota.charge(bytes).inspect_err(|_| self.heap.credit(bytes))
    }

    /// Gives heap bytes back.
    pub fn credit(&mut self, quota: &mut Quota, bytes: u64) {
        self.heap.credit(bytes);
        quota.credit(bytes);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.heap.used + (self.frames_total - self.frames.available()) * PAGE_SIZE
    }
}

/// Frames that are charged to a quota.
pub struct Charged<'a> {
    /// Where they come from.
    pub pool: &'a mut FramePool,
    /// Who pays.
    pub quota: &'a mut Quota,
}

impl FrameSource for Charged<'_> {
    fn take(&mut self) -> Option<HostPhys> {
        self.quota.charge(PAGE_SIZE).ok()?;
        let frame = self.pool.take();
        if frame.is_none() {
            self.quota.credit(PAGE_SIZE);
        }
        frame
    }

    fn give(&mut self, frame: HostPhys) {
        self.pool.give(frame);
        self.quota.credit(PAGE_SIZE);
    }
}

impl FrameSource for FramePool {
    fn take(&mut self) -> Option<HostPhys> {
        FramePool::take(self)
    }

    fn give(&mut self, frame: HostPhys) {
        FramePool::give(self, frame);
    }
}
