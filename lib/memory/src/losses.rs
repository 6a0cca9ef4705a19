//! Memory of which pages can be lost, because whoever keeps them elsewhere did not get them back.
use crate::{Memory, OutOfBounds};
use core::sync::atomic::{AtomicU32, Ordering, fence};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Where the bits begin. Before them is the number of lost pages, 32 bits.
const BITS: u64 = 64;

/// Which pages of a memory are lost: a bit each. The memory's manager writes it, others only read.
#[derive(Clone, Copy, Debug)]
pub struct Losses<M>(M);

/// Bytes that tell of so many pages.
#[must_use]
pub const fn length(pages: u64) -> u64 {
    BITS + pages.div_ceil(32) * 4
}

fn place(page: u64) -> (u64, u32) {
    ((page / 32).saturating_mul(4).saturating_add(BITS), 1 << (page % 32))
}

impl<M: Memory> Losses<M> {
    /// What this memory, of [`length`] bytes, says. All zeros say that nothing is lost.
    #[must_use]
    pub const fn new(memory: M) -> Self {
        Self(memory)
    }

    /// True when any page is lost.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.load32(0) != Ok(0)
    }

    /// True when that page is.
    #[must_use]
    pub fn is_lost(&self, page: u64) -> bool {
        let (at, bit) = place(page);
        self.any() && self.0.load32(at).is_ok_and(|word| word & bit != 0)
    }

    /// Says that a page is lost, or no longer. One thread at a time; pages beyond the end are ignored.
    pub fn set(&self, page: u64, lost: bool) {
        let (at, bit) = place(page);
        let (Ok(count), Ok(word)) = (self.0.load32(0), self.0.load32(at)) else { return };
        if (word & bit != 0) == lost {
            return;
        }
        // Who finds a count looks at the bits: there is one while any bit is set.
        if lost {
            let _ = self.0.store32(0, count + 1);
        }
        let _ = self.0.store32(at, word ^ bit);
        if !lost {
            let _ = self.0.store32(0, count.saturating_sub(1));
        }
    }

    /// Says of all pages whether they are lost, whatever was said before. Of none that is lost before and afterwards, the opposite is said in between.
    pub fn renew(&self, lost: impl Fn(u64) -> bool) {
        let mut count = 0;
        let _ = self.0.store32(0, u32::MAX);
        for at in (BITS..self.0.len()).step_by(4) {
            let first = (at - BITS) / 4 * 32;
            let bits = (0..32).filter(|n| lost(first + n)).fold(0u32, |word, n| word | 1 << n);
            count += bits.count_ones();
            let _ = self.0.store32(at, bits);
        }
        let _ = self.0.store32(0, count);
    }
}

/// Memory of which pages can be lost: accesses to these are refused like those outside of it. What is shown in
/// place of a lost page has no meaning, and nobody sees it who uses this.
#[derive(Clone, Copy, Debug)]
pub struct Guarded<M, L> {
    memory: M,
    losses: Option<Losses<L>>,
    refused: &'static AtomicU32,
}

impl<M: Memory, L: Memory> Guarded<M, L> {
    /// `memory`, of which `losses` tells. Without that nothing is ever lost. Accesses that are refused because of it are
    /// counted in `refused`.
    pub const fn new(memory: M, losses: Option<Losses<L>>, refused: &'static AtomicU32) -> Self {
        Self { memory, losses, refused }
    }

    /// True when the page at that address is lost.
    #[must_use]
    pub fn is_lost(&self, address: u64) -> bool {
        self.losses.as_ref().is_some_and(|losses| losses.is_lost(address / PAGE))
    }

    /// Accesses that were refused because a page is lost.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// After an access: whether it touched a lost page. Whether it does is known at the latest when the access has been
    /// made, for the manager says so before it lets it go on.
    fn check(&self, offset: u64, length: u64) -> Result<(), OutOfBounds> {
        let Some(losses) = &self.losses else { return Ok(()) };
        fence(Ordering::Acquire);
        if !losses.any() || length == 0 {
            return Ok(());
        }
        let last = offset.saturating_add(length - 1) / PAGE;
        if (offset / PAGE..=last).any(|page| losses.is_lost(page)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(OutOfBounds { offset, length });
        }
        Ok(())
    }
}

impl<M: Memory, L: Memory> Memory for Guarded<M, L> {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.memory.read(offset, into)?;
        self.check(offset, into.len() as u64)
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        self.memory.write(offset, from)?;
        self.check(offset, from.len() as u64)
    }

    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        let value = self.memory.load32(offset)?;
        self.check(offset, 4)?;
        Ok(value)
    }

    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.memory.store32(offset, value)?;
        self.check(offset, 4)
    }

    fn read64(&self, offset: u64) -> Result<u64, OutOfBounds> {
        let value = self.memory.read64(offset)?;
        self.check(offset, 8)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fake;
    use std::boxed::Box;

    fn guarded() -> (Guarded<Fake, Fake>, Losses<Fake>) {
        let told = Fake::new(length(40) as usize);
        let refused = Box::leak(Box::new(AtomicU32::new(0)));
        let memory = Fake::new(40 * PAGE as usize);
        (Guarded::new(memory, Some(Losses::new(told.clone())), refused), Losses::new(told))
    }

    #[test]
    fn what_is_lost_is_refused_and_its_neighbours_are_not() {
        let (memory, losses) = guarded();
        losses.set(33, true);
        let at = 33 * PAGE;
        assert_eq!(memory.read(at - 8, &mut [0; 8]), Ok(()));
        assert_eq!(
            memory.read(at - 8, &mut [0; 9]),
            Err(OutOfBounds { offset: at - 8, length: 9 })
        );
        assert_eq!(
            memory.write(at + PAGE - 1, &[1]),
            Err(OutOfBounds { offset: at + PAGE - 1, length: 1 })
        );
        assert_eq!(memory.write(at + PAGE, &[1]), Ok(()));
        assert!(memory.load32(at).is_err() && memory.store32(at, 1).is_err());
        assert!(memory.read64(at + 8).is_err() && memory.read16(at).is_err());
        assert_eq!(memory.refused(), 6);
        assert!(memory.is_lost(at + 5) && !memory.is_lost(at + PAGE));
    }

    #[test]
    fn what_was_lost_and_is_found_again_can_be_used() {
        let (memory, losses) = guarded();
        losses.set(0, true);
        losses.set(0, true);
        losses.set(39, true);
        losses.set(0, false);
        assert!(losses.any());
        assert_eq!(memory.read(0, &mut [0; 16]), Ok(()));
        losses.set(39, false);
        assert!(!losses.any());
        losses.set(12, true);
        losses.renew(|page| page == 33 || page == 38);
        assert!(!losses.is_lost(12) && losses.is_lost(33) && losses.is_lost(38));
        losses.set(33, false);
        losses.set(38, false);
        assert!(!losses.any());
        // One that ended while it wrote may have left this.
        losses.0.store32(0, 77).unwrap();
        losses.renew(|_| false);
        assert!(!losses.any());
    }

    #[test]
    fn pages_that_nobody_tells_of_are_there() {
        let (memory, losses) = guarded();
        losses.set(1000, true);
        losses.set(u64::MAX, true);
        assert!(!losses.any());
        assert!(memory.read(40 * PAGE, &mut [0]).is_err(), "outside");
        assert_eq!(memory.refused(), 0);
    }
}
