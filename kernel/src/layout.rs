//! Who gets which part of physical memory at boot.
use crate::machine::boot::{BootData, Range};
use abi::{HostPhys, LARGE_PAGE_SIZE, PAGE_SIZE};

/// Below this everything is left to the firmware and the trampoline of started processors.
const LOW: u64 = 1 << 20;
/// The boot page tables reach this far; kernel memory comes from below.
const REACH: u64 = 4 << 30;
/// Kernel memory: this part of RAM, within bounds.
const KERNEL_PART: u64 = 16;
const LEAST_KERNEL: u64 = 8 << 20;
const MOST_KERNEL: u64 = 512 << 20;

/// Takes page-aligned pieces from the start of a range.
#[derive(Clone, Copy, Debug)]
pub struct Carver(Range);

impl Carver {
    /// Takes `length` bytes, rounded up to pages.
    pub fn take(&mut self, length: u64) -> Option<HostPhys> {
        let start = self.0.start;
        let end = start.checked_add(length.next_multiple_of(PAGE_SIZE))?;
        if end > self.0.end {
            return None;
        }
        self.0.start = end;
        Some(HostPhys(start))
    }

    /// What is left, from the next large page on.
    pub fn rest(&self) -> Range {
        Range { start: self.0.start.next_multiple_of(LARGE_PAGE_SIZE).min(self.0.end), ..self.0 }
    }
}

/// The parts.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Kernel memory: heap and frames.
    pub kernel: Range,
    /// Where the root program's own memory comes from.
    pub carver: Carver,
    /// End of the highest RAM.
    pub ram_end: u64,
    /// All RAM, in bytes.
    pub ram: u64,
}

fn pages(range: Range) -> Range {
    Range { start: range.start.next_multiple_of(PAGE_SIZE), end: range.end / PAGE_SIZE * PAGE_SIZE }
}

/// Largest piece of `range` that avoids the taken ones. Few pieces are taken, so trying each end
/// of each as a start will do.
fn largest_free(range: Range, taken: &[Range]) -> Range {
    let mut best = Range::default();
    let starts = core::iter::once(range.start).chain(taken.iter().map(|t| t.end));
    for start in starts {
        let start = start.max(range.start).next_multiple_of(PAGE_SIZE);
        let inside = taken.iter().any(|t| t.start <= start && start < t.end);
        if start >= range.end || inside {
            continue;
        }
        let end = taken.iter().filter(|t| t.start > start).map(|t| t.start).min();
        let end = end.unwrap_or(range.end).min(range.end) / PAGE_SIZE * PAGE_SIZE;
        if end > start && end - start > best.end - best.start {
            best = Range { start, end };
        }
    }
    best
}

/// Divides RAM up. `image`: where the kernel is. `None` when there is too little.
pub fn divide(boot: &BootData, image: Range) -> Option<Layout> {
    let archive = boot.archive.unwrap_or_default();
    let archive = Range {
        start: archive.start / PAGE_SIZE * PAGE_SIZE,
        end: archive.end.next_multiple_of(PAGE_SIZE),
    };
    let taken = [Range { start: 0, end: LOW }, image, archive];
    let ram: u64 = boot.ram().iter().map(|r| r.end - r.start).sum();
    let ram_end = boot.ram().iter().map(|r| r.end).max()?;
    let best = |reach: u64| {
        boot.ram()
            .iter()
            .map(|r| pages(Range { start: r.start, end: r.end.min(reach) }))
            .filter(|r| r.start < r.end)
            .map(|r| largest_free(r, &taken))
            .max_by_key(|r| r.end - r.start)
    };
    let low = best(REACH)?;
    let size = (ram / KERNEL_PART).clamp(LEAST_KERNEL, MOST_KERNEL).next_multiple_of(PAGE_SIZE);
    if low.end - low.start < size {
        return None;
    }
    let kernel = Range { start: low.start, end: low.start + size };
    let low = Range { start: kernel.end, end: low.end };
    let anywhere = best(u64::MAX)?;
    let rest = if anywhere.start >= REACH && anywhere.end - anywhere.start > low.end - low.start {
        anywhere
    } else {
        low
    };
    Some(Layout { kernel, carver: Carver(rest), ram_end, ram })
}
