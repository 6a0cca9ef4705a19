//! The device's side of a split virtqueue (virtio 1.2, 2.7) whose rings the guest may fill with
//! anything.
use crate::chain::{Chain, Span};
use crate::notes::{Reader, Writer};
use memory::{Memory, OutOfBounds};

/// Largest queue that the models offer.
pub const MAX_SIZE: u16 = 256;
/// Most buffers in one chain, indirect ones included. Linux uses up to `MAX_SKB_FRAGS + 2`.
const MAX_BUFFERS: usize = 256;

const DESCRIPTOR: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// `flags` of the used ring: the guest need not kick.
const NO_NOTIFY: u16 = 1;
/// `flags` of the available ring: the device need not interrupt.
const NO_INTERRUPT: u16 = 1;

/// The guest's rings make no sense; the device needs a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

impl From<OutOfBounds> for Broken {
    fn from(_: OutOfBounds) -> Self {
        Broken
    }
}

/// Where the guest put the three parts of a queue, as it wrote it to the registers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Layout {
    /// Number of descriptors, a power of two.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

impl Layout {
    fn is_sound(&self, max: u16) -> bool {
        self.size.is_power_of_two()
            && self.size <= max
            && self.descriptors.is_multiple_of(16)
            && self.available.is_multiple_of(2)
            && self.used.is_multiple_of(4)
    }

    /// `used_event`: at which used index the guest wants an interrupt.
    fn used_event(&self) -> Result<u64, Broken> {
        self.available.checked_add(4 + 2 * u64::from(self.size)).ok_or(Broken)
    }

    /// `avail_event`: at which available index the device wants a kick.
    fn avail_event(&self) -> Result<u64, Broken> {
        self.used.checked_add(4 + 8 * u64::from(self.size)).ok_or(Broken)
    }
}

/// A queue of a device.
#[derive(Debug)]
pub struct Queue {
    /// Largest size that the device offers.
    max: u16,
    /// What the guest's registers say.
    pub(crate) layout: Layout,
    enabled: bool,
    event_idx: bool,
    /// Index of the next entry of the available ring to take.
    next_available: u16,
    /// The guest's available index as last read.
    seen_available: u16,
    /// Index of the next entry of the used ring to fill.
    next_used: u16,
    /// The used index that the guest has been shown.
    shown_used: u16,
    /// The used index up to which interrupts have been decided.
    decided_used: u16,
    /// Requests given back for which one interrupt is enough.
    coalesce: u16,
    broken: bool,
}

impl Queue {
    /// A queue that offers `max` descriptors, after reset.
    #[must_use]
    pub fn new(max: u16) -> Self {
        Self {
            max,
            layout: Layout { size: max, ..Layout::default() },
            enabled: false,
            event_idx: false,
            next_available: 0,
            seen_available: 0,
            next_used: 0,
            shown_used: 0,
            decided_used: 0,
            coalesce: 1,
            broken: false,
        }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    /// The guest enables the queue.
    pub fn enable(&mut self, event_idx: bool) {
        self.enabled = true;
        self.event_idx = event_idx;
        self.broken = !self.layout.is_sound(self.max);
    }

    /// Notes everything.
    pub(crate) fn note(&self, notes: &mut Writer) {
        let Layout { size, descriptors, available, used } = self.layout;
        let words = [descriptors, available, used];
        words.into_iter().for_each(|word| notes.put(word));
        let short = [
            size,
            self.next_available,
            self.seen_available,
            self.next_used,
            self.shown_used,
            self.decided_used,
            self.coalesce,
        ];
        short.into_iter().for_each(|word| notes.put(word.into()));
        [self.enabled, self.event_idx, self.broken].into_iter().for_each(|f| notes.put(f.into()));
    }

    /// Takes up what was noted. Positions need no check: each use of one is checked against the guest's rings.
    pub(crate) fn recall(&mut self, notes: &mut Reader<'_>) -> Option<()> {
        let (descriptors, available, used) = (notes.next()?, notes.next()?, notes.next()?);
        self.layout = Layout { size: notes.small()?, descriptors, available, used };
        self.next_available = notes.small()?;
        self.seen_available = notes.small()?;
        self.next_used = notes.small()?;
        self.shown_used = notes.small()?;
        self.decided_used = notes.small()?;
        self.coalesce = notes.small::<u16>()?.max(1);
        (self.enabled, self.event_idx, self.broken) = (notes.flag()?, notes.flag()?, notes.flag()?);
        self.broken |= self.enabled && !self.layout.is_sound(self.max);
        Some(())
    }

    /// The device has been kept busy for longer than any driver would: that is nonsense too.
    pub(crate) fn give_up(&mut self) {
        self.broken = true;
    }

    /// True once the guest has enabled the queue.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// True when the guest's rings made no sense.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes the next request into `chain`; false when there is none, and for ever after the
    /// rings have been found [`Broken`].
    pub fn pop<M: Memory>(&mut self, memory: &M, chain: &mut Chain) -> bool {
        if !self.enabled || self.broken {
            return false;
        }
        let taken = self.try_pop(memory, chain);
        self.broken = taken.is_err();
        taken.unwrap_or(false)
    }

    /// Puts the request just popped back; it will be popped again.
    pub fn undo_pop(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
    }

    /// True when there is a request to pop.
    pub fn has_request<M: Memory>(&mut self, memory: &M) -> bool {
        self.enabled && !self.broken && self.pending(memory) == Ok(true)
    }

    /// Gives a request back, `written` bytes of its writable buffers having been filled. The
    /// guest sees it after [`Queue::publish`].
    pub fn push<M: Memory>(&mut self, memory: &M, chain: &Chain, written: u32) {
        self.push_head(memory, chain.head, written);
    }

    fn push_head<M: Memory>(&mut self, memory: &M, head: u16, written: u32) {
        let slot = u64::from(self.next_used & (self.layout.size - 1));
        let mut entry = [0; 8];
        entry[..4].copy_from_slice(&u32::from(head).to_le_bytes());
        entry[4..].copy_from_slice(&written.to_le_bytes());
        let stored = match self.layout.used.checked_add(4 + 8 * slot) {
            Some(address) => memory.write(address, &entry).is_ok(),
            None => false,
        };
        self.broken |= !stored;
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the guest what has been given back; true when it wants an interrupt for that.
    pub fn publish<M: Memory>(&mut self, memory: &M) -> bool {
        if !self.enabled || self.broken || self.shown_used == self.next_used {
            return false;
        }
        let wanted = self.try_publish(memory);
        self.broken |= wanted.is_err();
        wanted.unwrap_or(false)
    }

    /// Makes one interrupt do for up to `count` requests given back (at most half a queue, so that
    /// a driver out of descriptors hears of it). For queues whose driver does not wait for them.
    pub fn coalesce(&mut self, count: u16) {
        self.coalesce = count.min(self.layout.size / 2).max(1);
    }

    /// Asks the guest not to kick while the device looks at the queue anyway. With `EVENT_IDX`
    /// nothing has to be done: the old event index lies behind.
    pub fn quiet<M: Memory>(&mut self, memory: &M) {
        if self.enabled && !self.broken && !self.event_idx {
            self.broken |= self.set_used_flags(memory, NO_NOTIFY).is_err();
        }
    }

    /// Asks the guest to kick for the next request. True when requests have arrived meanwhile:
    /// the device must look again, since there may be no kick for them.
    pub fn listen<M: Memory>(&mut self, memory: &M) -> bool {
        if !self.enabled || self.broken {
            return false;
        }
        let more = self.try_listen(memory);
        self.broken |= more.is_err();
        more.unwrap_or(false)
    }

    fn try_listen<M: Memory>(&mut self, memory: &M) -> Result<bool, Broken> {
        if self.event_idx {
            let event = self.layout.avail_event()?;
            memory.write(event, &self.next_available.to_le_bytes())?;
        } else {
            self.set_used_flags(memory, 0)?;
        }
        memory.fence();
        self.pending(memory)
    }

    fn set_used_flags<M: Memory>(&self, memory: &M, flags: u16) -> Result<(), Broken> {
        let word = u32::from(flags) | u32::from(self.shown_used) << 16;
        Ok(memory.store32(self.layout.used, word)?)
    }

    /// Reads the guest's available index, where the last one known is used up.
    fn pending<M: Memory>(&mut self, memory: &M) -> Result<bool, Broken> {
        if self.seen_available == self.next_available {
            let address = self.layout.available;
            self.seen_available = if address.is_multiple_of(4) {
                (memory.load32(address)? >> 16) as u16
            } else {
                memory.read16(address.checked_add(2).ok_or(Broken)?)?
            };
        }
        let count = self.seen_available.wrapping_sub(self.next_available);
        if count > self.layout.size {
            return Err(Broken);
        }
        Ok(count > 0)
    }

    fn try_pop<M: Memory>(&mut self, memory: &M, chain: &mut Chain) -> Result<bool, Broken> {
        if !self.pending(memory)? {
            return Ok(false);
        }
        let slot = u64::from(self.next_available & (self.layout.size - 1));
        let entry = self.layout.available.checked_add(4 + 2 * slot).ok_or(Broken)?;
        chain.head = memory.read16(entry)?;
        chain.readable.clear();
        chain.writable.clear();
        let table = Table { address: self.layout.descriptors, count: self.layout.size.into() };
        walk(memory, table, chain)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(true)
    }

    fn try_publish<M: Memory>(&mut self, memory: &M) -> Result<bool, Broken> {
        let new = self.next_used;
        // Flags are cleared or set by `quiet` and `listen`; with EVENT_IDX they are zero.
        let flags = if self.event_idx { 0 } else { memory.read16(self.layout.used)? };
        memory.store32(self.layout.used, u32::from(flags & NO_NOTIFY) | u32::from(new) << 16)?;
        self.shown_used = new;
        let passed = new.wrapping_sub(self.decided_used);
        if passed < self.coalesce {
            return Ok(false);
        }
        self.decided_used = new;
        // The index must be out before the guest's wish is read (virtio 1.2, 2.7.7.2).
        memory.fence();
        if self.event_idx {
            let event = memory.read16(self.layout.used_event()?)?;
            // True when `event` is one of the indices just passed.
            Ok(new.wrapping_sub(event).wrapping_sub(1) < passed)
        } else {
            Ok(memory.read16(self.layout.available)? & NO_INTERRUPT == 0)
        }
    }
}

/// A descriptor table: the queue's own, or an indirect one.
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    count: u32,
}

struct Descriptor {
    span: Span,
    flags: u16,
    next: u16,
}

impl Table {
    fn get<M: Memory>(&self, memory: &M, index: u16) -> Result<Descriptor, Broken> {
        if u32::from(index) >= self.count {
            return Err(Broken);
        }
        let mut raw = [0; DESCRIPTOR as usize];
        let at = self.address.checked_add(DESCRIPTOR * u64::from(index)).ok_or(Broken)?;
        memory.read(at, &mut raw)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = raw;
        Ok(Descriptor {
            span: Span {
                address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
                length: u32::from_le_bytes([l0, l1, l2, l3]),
            },
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }

    /// The table that an indirect descriptor describes.
    fn indirect(span: Span) -> Result<Self, Broken> {
        let count = span.length / DESCRIPTOR as u32;
        if count == 0 || !span.length.is_multiple_of(DESCRIPTOR as u32) {
            return Err(Broken);
        }
        Ok(Self { address: span.address, count })
    }
}

/// Collects the buffers of the chain that starts at `chain.head`.
fn walk<M: Memory>(memory: &M, queue: Table, chain: &mut Chain) -> Result<(), Broken> {
    let mut table = queue;
    let mut index = chain.head;
    let mut inside = false;
    // A chain that visits more buffers than there can be goes round in a circle.
    for _ in 0..=MAX_BUFFERS {
        let descriptor = table.get(memory, index)?;
        if descriptor.flags & INDIRECT != 0 {
            if inside || descriptor.flags & NEXT != 0 {
                return Err(Broken);
            }
            table = Table::indirect(descriptor.span)?;
            index = 0;
            inside = true;
            continue;
        }
        if descriptor.flags & WRITE != 0 {
            chain.writable.push(descriptor.span);
        } else if chain.writable.is_empty() {
            chain.readable.push(descriptor.span);
        } else {
            return Err(Broken);
        }
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next;
    }
    Err(Broken)
}
