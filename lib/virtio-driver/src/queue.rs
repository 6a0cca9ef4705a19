//! The driver's side of a split virtqueue (virtio 1.2, 2.7) of fixed buffers: descriptor `n`
//! always describes buffer `n`, so that nothing is allocated, and a device that answers nonsense
//! confuses nobody.
use memory::{Memory, OutOfBounds};

/// `flags` of a descriptor: the device writes.
const WRITE: u16 = 2;
/// `flags` of a descriptor: its buffer holds a table of descriptors.
const INDIRECT: u16 = 4;
/// Alignment of the buffers.
const LINE: u64 = 64;

/// Who fills the buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The driver; all buffers are the driver's at first.
    ToDevice,
    /// The device; all buffers are the device's at first.
    FromDevice,
    /// Each begins with a table of descriptors ([`crate::F_INDIRECT`]), and its length is that of the
    /// table; all buffers are the driver's at first.
    Indirect,
}

/// Physical addresses of a queue's parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

/// The DMA memory is too small for the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

impl From<OutOfBounds> for NoRoom {
    fn from(_: OutOfBounds) -> Self {
        NoRoom
    }
}

/// Offsets of a queue's parts from its start.
#[derive(Clone, Copy)]
struct Parts {
    available: u64,
    used: u64,
    buffers: u64,
    end: u64,
}

fn parts(size: u16, buffer: u32) -> Parts {
    let size = u64::from(size);
    let available = 16 * size;
    let used = (available + 6 + 2 * size).next_multiple_of(LINE);
    let buffers = (used + 6 + 8 * size).next_multiple_of(LINE);
    let end = buffers + size * u64::from(buffer).next_multiple_of(LINE);
    Parts { available, used, buffers, end }
}

/// Bytes of DMA memory that a queue of `size` buffers of `buffer` bytes takes.
#[must_use]
pub fn footprint(size: u16, buffer: u32) -> u64 {
    parts(size, buffer).end
}

/// A queue.
pub struct Queue<M> {
    memory: M,
    /// Where it starts in the memory.
    start: u64,
    /// Physical address of that.
    physical: u64,
    parts: Parts,
    size: u16,
    buffer: u32,
    direction: Direction,
    event_idx: bool,
    /// Index of the next entry of the available ring to fill.
    available: u16,
    /// The available index that the device has been shown.
    shown: u16,
    /// Index of the next entry of the used ring to look at.
    used: u16,
    /// One bit a buffer: it is the device's.
    theirs: [u64; 4],
    /// Where the search for one of the driver's own buffers goes on.
    next_own: u16,
}

impl<M: Memory> Queue<M> {
    /// Most buffers of a queue.
    pub const MAX_SIZE: u16 = 256;

    /// A queue of `size` buffers (a power of two, at most [`Queue::MAX_SIZE`]) of `buffer` bytes at `start` of
    /// the DMA memory whose first byte has the physical address `base`.
    ///
    /// # Errors
    /// `NoRoom`.
    pub fn new(
        memory: M,
        base: u64,
        start: u64,
        (size, buffer): (u16, u32),
        direction: Direction,
        event_idx: bool,
    ) -> Result<Self, NoRoom> {
        let parts = parts(size, buffer);
        let sound = size.is_power_of_two() && (2..=Self::MAX_SIZE).contains(&size);
        if !sound || !start.is_multiple_of(LINE) {
            return Err(NoRoom);
        }
        memory::check(start, parts.end, memory.len(), 1)?;
        let mut queue = Self {
            memory,
            start,
            physical: base + start,
            parts,
            size,
            buffer,
            direction,
            event_idx,
            available: 0,
            shown: 0,
            used: 0,
            theirs: [0; 4],
            next_own: 0,
        };
        queue.clear()?;
        Ok(queue)
    }

    fn clear(&mut self) -> Result<(), OutOfBounds> {
        for word in (0..self.parts.buffers).step_by(4) {
            self.memory.store32(self.start + word, 0)?;
        }
        let flags = match self.direction {
            Direction::ToDevice => 0,
            Direction::FromDevice => WRITE,
            Direction::Indirect => INDIRECT,
        };
        for n in 0..self.size {
            let mut raw = [0; 16];
            let address = self.physical + self.buffer_offset(n);
            raw[..8].copy_from_slice(&address.to_le_bytes());
            raw[8..12].copy_from_slice(&self.buffer.to_le_bytes());
            raw[12..14].copy_from_slice(&flags.to_le_bytes());
            self.memory.write(self.start + 16 * u64::from(n), &raw)?;
            if self.direction == Direction::FromDevice {
                self.submit(n, self.buffer);
            }
        }
        Ok(())
    }

    /// Where the parts lie, for the device.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            descriptors: self.physical,
            available: self.physical + self.parts.available,
            used: self.physical + self.parts.used,
        }
    }

    fn buffer_offset(&self, n: u16) -> u64 {
        self.parts.buffers + u64::from(n) * u64::from(self.buffer).next_multiple_of(LINE)
    }

    /// Physical address of buffer `n`.
    #[must_use]
    pub fn address(&self, n: u16) -> u64 {
        self.physical + self.buffer_offset(n)
    }

    fn is_theirs(&self, n: u16) -> bool {
        let word = self.theirs.get(usize::from(n / 64)).copied().unwrap_or(0);
        word & 1 << (n % 64) != 0
    }

    fn give(&mut self, n: u16, theirs: bool) {
        if let Some(word) = self.theirs.get_mut(usize::from(n / 64)) {
            *word = *word & !(1 << (n % 64)) | u64::from(theirs) << (n % 64);
        }
    }

    /// Gives buffer `n`, `length` bytes of it, to the device. It sees that after
    /// [`Queue::publish`].
    pub fn submit(&mut self, n: u16, length: u32) {
        if n >= self.size || self.is_theirs(n) {
            return;
        }
        let slot = u64::from(self.available & (self.size - 1));
        let entry = self.start + self.parts.available + 4 + 2 * slot;
        let descriptor = self.start + 16 * u64::from(n);
        // All inside: `new` has checked the extent of the queue.
        let _ = self.memory.store32(descriptor + 8, length.min(self.buffer));
        let _ = self.memory.write(entry, &n.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        self.give(n, true);
    }

    /// Shows the device what has been submitted; true when it wants a kick for that.
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.shown, self.available);
        if old == new {
            return false;
        }
        let ring = self.start + self.parts.available;
        let flags = self.memory.load32(ring).unwrap_or(0) & 0xffff;
        let _ = self.memory.store32(ring, flags | u32::from(new) << 16);
        self.shown = new;
        // The index must be out before the device's wish is read (virtio 1.2, 2.7.13.4.1).
        self.memory.fence();
        let used = self.start + self.parts.used;
        if self.event_idx {
            // `avail_event` is the low half of the word behind the used ring.
            let event = self.memory.load32(used + 4 + 8 * u64::from(self.size)).unwrap_or(0) as u16;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.memory.load32(used).unwrap_or(0) & 1 == 0
        }
    }

    /// True when the device has given a buffer back that [`Queue::next_used`] has not told yet.
    #[must_use]
    pub fn has_used(&self) -> bool {
        let word = self.memory.load32(self.start + self.parts.used).unwrap_or(0);
        (word >> 16) as u16 != self.used
    }

    /// The next buffer that the device has given back, and how many bytes it wrote. The buffer is
    /// the driver's until it is submitted again.
    pub fn next_used(&mut self) -> Option<(u16, u32)> {
        // At most one turn of the ring: what lies there more often is nonsense.
        for _ in 0..self.size {
            if !self.has_used() {
                return None;
            }
            let slot = u64::from(self.used & (self.size - 1));
            let entry = self.memory.read64(self.start + self.parts.used + 4 + 8 * slot).ok()?;
            self.used = self.used.wrapping_add(1);
            let (n, length) = (entry as u32, (entry >> 32) as u32);
            let known = u16::try_from(n).ok().filter(|n| *n < self.size && self.is_theirs(*n));
            if let Some(n) = known {
                self.give(n, false);
                return Some((n, length.min(self.buffer)));
            }
        }
        None
    }

    /// One of the driver's own buffers, after taking back all that the device has done with.
    pub fn own_buffer(&mut self) -> Option<u16> {
        if self.is_theirs(self.next_own) {
            while self.next_used().is_some() {}
        }
        let mask = self.size - 1;
        let start = self.next_own;
        let n = (0..self.size).map(|i| (start + i) & mask).find(|n| !self.is_theirs(*n))?;
        self.next_own = (n + 1) & mask;
        Some(n)
    }

    /// Copies out of buffer `n`.
    ///
    /// # Errors
    /// `OutOfBounds`: beyond the buffer.
    pub fn read(&self, n: u16, offset: u32, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let at = self.inside(n, offset, into.len())?;
        self.memory.read(at, into)
    }

    /// Copies into buffer `n`.
    ///
    /// # Errors
    /// `OutOfBounds`: beyond the buffer.
    pub fn write(&self, n: u16, offset: u32, from: &[u8]) -> Result<(), OutOfBounds> {
        let at = self.inside(n, offset, from.len())?;
        self.memory.write(at, from)
    }

    fn inside(&self, n: u16, offset: u32, length: usize) -> Result<u64, OutOfBounds> {
        memory::check(n.into(), 1, self.size.into(), 1)?;
        memory::check(offset.into(), length as u64, self.buffer.into(), 1)?;
        Ok(self.start + self.buffer_offset(n) + u64::from(offset))
    }

    /// Asks for an interrupt when the device next gives a buffer back. True when it has done so
    /// meanwhile: then the driver must look again, since there may be no interrupt for it.
    pub fn listen(&mut self) -> bool {
        self.set_wish(self.used, 0);
        self.memory.fence();
        self.has_used()
    }

    /// Asks for no interrupts.
    pub fn quiet(&mut self) {
        // An event index just passed is not passed again for a whole turn of the counter.
        self.set_wish(self.used.wrapping_sub(1), 1);
    }

    fn set_wish(&self, event: u16, flags: u32) {
        let ring = self.start + self.parts.available;
        let _ = if self.event_idx {
            // `used_event` is the low half of the word behind the available ring.
            self.memory.store32(ring + 4 + 2 * u64::from(self.size), event.into())
        } else {
            self.memory.store32(ring, flags | u32::from(self.shown) << 16)
        };
    }
}
