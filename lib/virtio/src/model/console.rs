//! A console with one port (virtio 1.2, 5.3).
use crate::{Chain, MAX_SIZE, Model, Queue};
use alloc::vec::Vec;
use memory::Memory;

/// Most bytes that are taken from one request; Linux sends up to 32 KiB.
const MAX_OUTPUT: usize = 64 * 1024;
/// Requests of output for one interrupt. Linux's console driver looks for each of them itself
/// until it is done, with interrupts off: what comes afterwards is for nothing.
const COALESCE: u16 = 64;
/// Queue that carries bytes to the guest.
const RECEIVE: usize = 0;
/// Queue that carries the guest's output.
const TRANSMIT: usize = 1;

/// The model.
#[derive(Default, Debug)]
pub struct Console {
    chain: Chain,
    bytes: Vec<u8>,
    /// Bytes of the queue's first request that have been handed on already.
    done: usize,
}

impl Model for Console {
    const TYPE: u16 = 3;
    const CLASS: u32 = 0x07_8000;
    const QUEUES: &'static [u16] = &[64, MAX_SIZE];

    fn reset(&mut self) {
        self.done = 0;
    }
}

impl Console {
    /// Hands the guest's output to `sink`, request by request, until there is none or `sink`
    /// takes fewer bytes than it is offered: the rest stays in the queue for the next time.
    pub fn output<M: Memory>(
        &mut self,
        queues: &mut [Queue],
        memory: &M,
        mut sink: impl FnMut(&[u8]) -> usize,
    ) {
        let Some(queue) = queues.get_mut(TRANSMIT) else { return };
        queue.coalesce(COALESCE);
        queue.quiet(memory);
        loop {
            while queue.pop(memory, &mut self.chain) {
                let length = self.chain.readable_length().min(MAX_OUTPUT as u64) as usize;
                self.bytes.resize(length, 0);
                let read = self.chain.read(memory, 0, &mut self.bytes);
                // A buffer outside the guest's memory carries no output.
                let end = read.unwrap_or(0);
                let rest = self.bytes.get(self.done..end).unwrap_or(&[]);
                if !rest.is_empty() {
                    let taken = sink(rest).min(rest.len());
                    if taken < rest.len() {
                        self.done += taken;
                        queue.undo_pop();
                        return;
                    }
                }
                self.done = 0;
                queue.push(memory, &self.chain, 0);
            }
            if !queue.listen(memory) {
                return;
            }
        }
    }

    /// Gives input to the guest; answers how many bytes its buffers took.
    pub fn input<M: Memory>(&mut self, queues: &mut [Queue], memory: &M, bytes: &[u8]) -> usize {
        let Some(queue) = queues.get_mut(RECEIVE) else { return 0 };
        let mut done = 0;
        while let Some(rest) = bytes.get(done..)
            && !rest.is_empty()
        {
            if !queue.pop(memory, &mut self.chain) {
                // Only now is a kick of interest: there is input that waits for buffers.
                if !queue.listen(memory) {
                    break;
                }
                continue;
            }
            let written = self.chain.write(memory, 0, rest).unwrap_or(0);
            queue.push(memory, &self.chain, written as u32);
            done += written;
        }
        done
    }
}
