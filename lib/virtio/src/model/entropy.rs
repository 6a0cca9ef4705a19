//! A source of random numbers (virtio 1.2, 5.4).
use super::MOST_REQUESTS;
use crate::{Chain, Model, Queue};
use memory::Memory;

/// Most bytes given for one request; the driver asks again.
const MAX_BYTES: usize = 256;

/// The model.
#[derive(Default, Debug)]
pub struct Entropy {
    chain: Chain,
}

impl Model for Entropy {
    const TYPE: u16 = 4;
    const CLASS: u32 = 0x00_ff00;
    const QUEUES: &'static [u16] = &[8];
}

impl Entropy {
    /// Answers all requests with bytes from `source`.
    pub fn serve<M: Memory>(
        &mut self,
        queues: &mut [Queue],
        memory: &M,
        mut source: impl FnMut(&mut [u8]),
    ) {
        let Some(queue) = queues.first_mut() else { return };
        let mut bytes = [0; MAX_BYTES];
        let mut left = MOST_REQUESTS;
        loop {
            while left > 0 && queue.pop(memory, &mut self.chain) {
                left -= 1;
                let length = self.chain.writable_length().min(MAX_BYTES as u64) as usize;
                let part = &mut bytes[..length];
                source(part);
                let written = self.chain.write(memory, 0, part).unwrap_or(0);
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
