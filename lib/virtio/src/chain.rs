//! One request of the guest: a chain of buffers, already taken out of its ring.
use alloc::vec::Vec;
use memory::{Memory, OutOfBounds};

/// A buffer in guest memory; not yet checked to lie inside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
}

/// The buffers of one descriptor chain: first those that the device reads, then those that it
/// writes (virtio 1.2, 2.7.4.2). Kept and filled again by [`Queue::pop`](crate::Queue::pop), so
/// that no request costs an allocation.
#[derive(Default, Debug)]
pub struct Chain {
    pub(crate) head: u16,
    pub(crate) readable: Vec<Span>,
    pub(crate) writable: Vec<Span>,
}

impl Chain {
    /// An empty chain, to be filled.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: 0, readable: Vec::new(), writable: Vec::new() }
    }

    /// Bytes that the device may read.
    #[must_use]
    pub fn readable_length(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable_length(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies readable bytes from `skip` on into `into`; answers how many there were.
    ///
    /// # Errors
    /// `OutOfBounds`: a buffer is not inside the guest's memory.
    pub fn read<M: Memory>(
        &self,
        memory: &M,
        skip: u64,
        into: &mut [u8],
    ) -> Result<usize, OutOfBounds> {
        let mut done = 0;
        for span in pieces(&self.readable, skip, into.len()) {
            let Some(part) = into.get_mut(done..done + span.length as usize) else { break };
            memory.read(span.address, part)?;
            done += part.len();
        }
        Ok(done)
    }

    /// Copies `from` into the writable bytes from `skip` on; answers how many fitted.
    ///
    /// # Errors
    /// `OutOfBounds`: a buffer is not inside the guest's memory.
    pub fn write<M: Memory>(
        &self,
        memory: &M,
        skip: u64,
        from: &[u8],
    ) -> Result<usize, OutOfBounds> {
        let mut done = 0;
        for span in pieces(&self.writable, skip, from.len()) {
            let Some(part) = from.get(done..done + span.length as usize) else { break };
            memory.write(span.address, part)?;
            done += part.len();
        }
        Ok(done)
    }
}

fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.length)).sum()
}

/// The parts of `spans` that hold bytes `skip .. skip + length` of their concatenation.
fn pieces(spans: &[Span], skip: u64, length: usize) -> impl Iterator<Item = Span> {
    let mut skip = skip;
    let mut left = length;
    spans.iter().filter_map(move |span| {
        let skipped = skip.min(u64::from(span.length));
        skip -= skipped;
        // Both fit: they are no more than the span's own length.
        let rest = span.length - skipped as u32;
        let length = rest.min(u32::try_from(left).unwrap_or(u32::MAX));
        left -= length as usize;
        // An address that wraps around is out of any memory's bounds.
        let address = span.address.saturating_add(skipped);
        (length > 0).then_some(Span { address, length })
    })
}
