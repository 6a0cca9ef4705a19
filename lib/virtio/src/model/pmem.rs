//! Persistent memory (virtio 1.2, 5.19): tells the guest where it lies; flushes need no work,
//! since nothing of it can be written.
use super::MOST_REQUESTS;
use crate::{Chain, DEVICE_CONFIG, Model, Queue};
use core::ops::Range;
use memory::Memory;

/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`.
const FLUSH: u32 = 0;

/// The model.
#[derive(Debug)]
pub struct Pmem {
    range: Range<u64>,
    chain: Chain,
}

impl Model for Pmem {
    const TYPE: u16 = 27;
    const CLASS: u32 = 0x00_ff00;
    const QUEUES: &'static [u16] = &[64];

    fn configuration(&self, into: &mut [u8; DEVICE_CONFIG]) {
        let size = self.range.end.saturating_sub(self.range.start);
        into[..8].copy_from_slice(&self.range.start.to_le_bytes());
        into[8..16].copy_from_slice(&size.to_le_bytes());
    }
}

impl Pmem {
    /// Memory at these guest-physical addresses.
    #[must_use]
    pub fn new(range: Range<u64>) -> Self {
        Self { range, chain: Chain::new() }
    }

    /// Answers all requests.
    pub fn serve<M: Memory>(&mut self, queues: &mut [Queue], memory: &M) {
        let Some(queue) = queues.first_mut() else { return };
        let mut left = MOST_REQUESTS;
        loop {
            while left > 0 && queue.pop(memory, &mut self.chain) {
                left -= 1;
                let mut kind = [0xff; 4];
                let read = self.chain.read(memory, 0, &mut kind);
                let known = read == Ok(4) && u32::from_le_bytes(kind) == FLUSH;
                let answer = u32::from(!known).to_le_bytes();
                let written = self.chain.write(memory, 0, &answer).unwrap_or(0);
                queue.push(memory, &self.chain, written as u32);
            }
            if !queue.listen(memory) {
                return;
            }
            if left == 0 {
                return queue.give_up();
            }
        }
    }
}
