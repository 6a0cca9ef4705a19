//! The card: two queues, one interrupt.
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use rt::Shared;
use virtio_driver::{Device, Direction, F_EVENT_IDX, Interrupt, Queue, footprint};

/// Bytes of a buffer: the header and a frame.
pub const BUFFER: u32 = 2048;
/// Buffers in each direction; the card offers 256.
const SIZE: u16 = 256;
/// Bytes of `virtio_net_hdr` (virtio 1.2, 5.1.6).
const HEADER: u32 = 12;
/// The configuration holds the card's address.
const F_MAC: u64 = 1 << 5;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// The running card.
pub struct Card {
    device: Device<Shared>,
    receive: Queue<Shared>,
    transmit: Queue<Shared>,
    doorbells: [u64; 2],
    /// A received frame that has not been handed on yet: buffer and length.
    held: Option<(u16, u32)>,
}

/// An Ethernet address.
pub struct Address([u8; 6]);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Card {
    /// Starts the device that the configuration names.
    pub fn open() -> Result<Self, String> {
        let region = |name: &str| Shared::region(name).ok_or(format!("no region '{name}'"));
        let device = Device::find(region("config")?, |n| Shared::region(&format!("bar{n}")))
            .map_err(|e| e.to_string())?;
        let features = device.negotiate(F_EVENT_IDX | F_MAC).map_err(|e| e.to_string())?;
        let event_idx = features & F_EVENT_IDX != 0;
        let queue = |start, direction| {
            let memory = region("dma")?;
            let base = rt::config().region("dma").and_then(|r| r.physical);
            let base = base.ok_or("DMA memory without physical address")?;
            Queue::new(memory, base, start, (SIZE, BUFFER), direction, event_idx)
                .map_err(|_| "too little DMA memory".to_string())
        };
        let mut card = Self {
            receive: queue(0, Direction::FromDevice)?,
            transmit: queue(footprint(SIZE, BUFFER), Direction::ToDevice)?,
            device,
            doorbells: [0; 2],
            held: None,
        };
        card.start()?;
        Ok(card)
    }

    fn start(&mut self) -> Result<(), String> {
        let show = |e: virtio_driver::Error| e.to_string();
        let (address, data) = rt::bind_interrupt()?;
        self.device.set_interrupt(Interrupt { address, data }).map_err(show)?;
        let queues = [(RECEIVE, &self.receive), (TRANSMIT, &self.transmit)];
        for ((number, queue), doorbell) in queues.into_iter().zip(&mut self.doorbells) {
            self.device.set_queue(number, SIZE, queue.addresses()).map_err(show)?;
            *doorbell = self.device.doorbell(number).map_err(show)?;
        }
        self.device.start().map_err(show)?;
        self.transmit.quiet();
        self.flush_received();
        Ok(())
    }

    /// The card's address.
    pub fn address(&self) -> Address {
        let byte = |n| self.device.read(n, 1).unwrap_or(0) as u8;
        Address([byte(0), byte(1), byte(2), byte(3), byte(4), byte(5)])
    }

    /// A buffer for a frame to send.
    pub fn free_buffer(&mut self) -> Option<u16> {
        self.transmit.own_buffer()
    }

    /// Sends a frame from a free buffer; one too long for the buffer is dropped.
    pub fn send(&mut self, buffer: u16, frame: &[u8]) {
        let plain = [0; HEADER as usize];
        let written = self.transmit.write(buffer, 0, &plain).is_ok()
            && self.transmit.write(buffer, HEADER, frame).is_ok();
        if written {
            self.transmit.submit(buffer, HEADER + frame.len() as u32);
        }
    }

    /// Lets the card see what was sent.
    pub fn flush_sent(&mut self) {
        if self.transmit.publish() {
            self.device.kick(TRANSMIT, self.doorbells[1]);
        }
    }

    /// Copies the oldest received frame out; it stays the oldest until
    /// [`Card::done_with_received`].
    pub fn received(&mut self, into: &mut [u8]) -> Option<usize> {
        loop {
            if self.held.is_none() {
                self.held = self.receive.next_used();
            }
            let (buffer, length) = self.held?;
            let length = length.saturating_sub(HEADER) as usize;
            let part = into.get_mut(..length)?;
            if length > 0 && self.receive.read(buffer, HEADER, part).is_ok() {
                return Some(length);
            }
            self.done_with_received();
        }
    }

    /// The buffer of the frame last received may be filled again.
    pub fn done_with_received(&mut self) {
        if let Some((buffer, _)) = self.held.take() {
            self.receive.submit(buffer, BUFFER);
        }
    }

    /// Lets the card see which buffers may be filled again.
    pub fn flush_received(&mut self) {
        if self.receive.publish() {
            self.device.kick(RECEIVE, self.doorbells[0]);
        }
    }

    /// Asks for interrupts: for received frames, unless one is held because its reader is full;
    /// and, when not all frames could be sent, for buffers that become free. True when there is
    /// something to do at once.
    pub fn listen(&mut self, all_sent: bool) -> bool {
        let received = self.held.is_none() && self.receive.listen();
        let free = if all_sent {
            self.transmit.quiet();
            false
        } else {
            self.transmit.listen()
        };
        received || free
    }
}
