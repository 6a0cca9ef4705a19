//! A network card (virtio 1.2, 5.1) without offloads: whole frames in and out.
use crate::{Chain, DEVICE_CONFIG, MAX_SIZE, Model, Queue};
use alloc::vec::Vec;
use memory::Memory;

/// Longest frame: MTU 1500, Ethernet header and VLAN tag.
pub const MAX_FRAME: usize = 1518;
/// Bytes of `virtio_net_hdr` in front of a frame (with `VERSION_1`).
const HEADER: usize = 12;
/// Queue that carries frames to the guest.
const RECEIVE: usize = 0;
/// Queue that carries the guest's frames.
const TRANSMIT: usize = 1;

/// The configuration holds the card's address.
const F_MAC: u64 = 1 << 5;
/// The configuration holds the state of the link.
const F_STATUS: u64 = 1 << 16;
/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u8 = 1;

/// The model.
#[derive(Debug)]
pub struct Net {
    address: [u8; 6],
    chain: Chain,
    bytes: Vec<u8>,
}

impl Model for Net {
    const TYPE: u16 = 1;
    const CLASS: u32 = 0x02_0000;
    const QUEUES: &'static [u16] = &[MAX_SIZE, MAX_SIZE];

    fn features(&self) -> u64 {
        F_MAC | F_STATUS
    }

    fn configuration(&self, into: &mut [u8; DEVICE_CONFIG]) {
        into[..6].copy_from_slice(&self.address);
        into[6] = LINK_UP;
    }
}

impl Net {
    /// A card with this Ethernet address.
    #[must_use]
    pub fn new(address: [u8; 6]) -> Self {
        Self { address, chain: Chain::new(), bytes: Vec::new() }
    }

    /// Hands the guest's frames to `sink` until there is none or `sink` answers false: what it
    /// refused stays in the queue, and is offered again next time.
    pub fn output<M: Memory>(
        &mut self,
        queues: &mut [Queue],
        memory: &M,
        mut sink: impl FnMut(&[u8]) -> bool,
    ) {
        let Some(queue) = queues.get_mut(TRANSMIT) else { return };
        queue.quiet(memory);
        loop {
            while queue.pop(memory, &mut self.chain) {
                let length = self.chain.readable_length().saturating_sub(HEADER as u64);
                // Frames that no driver of ours would send are dropped, as a wire does.
                if (14..=MAX_FRAME as u64).contains(&length) {
                    self.bytes.resize(length as usize, 0);
                    let read = self.chain.read(memory, HEADER as u64, &mut self.bytes);
                    if read.is_ok() && !sink(&self.bytes) {
                        queue.undo_pop();
                        return;
                    }
                }
                queue.push(memory, &self.chain, 0);
            }
            if !queue.listen(memory) {
                return;
            }
        }
    }

    /// True when the guest has a buffer for a frame; when not, it is asked for a kick.
    pub fn can_input<M: Memory>(&mut self, queues: &mut [Queue], memory: &M) -> bool {
        let Some(queue) = queues.get_mut(RECEIVE) else { return false };
        queue.has_request(memory) || queue.listen(memory)
    }

    /// Gives a frame to the guest; false when it has no buffer.
    pub fn input<M: Memory>(&mut self, queues: &mut [Queue], memory: &M, frame: &[u8]) -> bool {
        let Some(queue) = queues.get_mut(RECEIVE) else { return false };
        if !queue.pop(memory, &mut self.chain) {
            return false;
        }
        let total = (HEADER + frame.len()) as u64;
        let mut written = 0;
        // A frame too long for its buffer is dropped, and so is one for a buffer outside memory.
        if self.chain.writable_length() >= total {
            let mut header = [0; HEADER];
            // num_buffers
            header[10] = 1;
            let both = self.chain.write(memory, 0, &header).is_ok()
                && self.chain.write(memory, HEADER as u64, frame).is_ok();
            written = if both { total as u32 } else { 0 };
        }
        queue.push(memory, &self.chain, written);
        true
    }
}
