//! Requests of a block device (virtio 1.2, 5.2.6): a fixed number of them, each with its own buffer
//! for header, data and status, so that nothing is allocated and any of them can be under way.
use crate::queue::{Addresses, Direction, NoRoom, Queue};
use memory::{Memory, OutOfBounds};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Kinds of requests.
const READ: u32 = 0;
const WRITE: u32 = 1;
/// Flags of descriptors: another one follows; the device writes.
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
/// Status: done; and what is there before the device has said anything.
const DONE: u8 = 0;
const SILENT: u8 = 0xff;

/// Parts of a buffer: the table of descriptors, the header, the status, the data.
const TABLE_LENGTH: u32 = 3 * 16;
const HEADER: u32 = TABLE_LENGTH;
const HEADER_LENGTH: u32 = 16;
const STATUS: u32 = HEADER + HEADER_LENGTH;
const DATA: u32 = 128;

/// The requests, and the queue that carries them.
pub struct Requests<M> {
    queue: Queue<M>,
    /// Most bytes of data.
    data: u32,
}

impl<M: Memory> Requests<M> {
    /// Bytes of a queue's buffer for so much data.
    #[must_use]
    pub const fn buffer(data: u32) -> u32 {
        DATA + data
    }

    /// `count` requests with up to `data` bytes, at `start` of the DMA memory whose first byte has
    /// the physical address `base`.
    ///
    /// # Errors
    /// `NoRoom`.
    pub fn new(
        memory: M,
        base: u64,
        start: u64,
        (count, data): (u16, u32),
        event_idx: bool,
    ) -> Result<Self, NoRoom> {
        let buffers = (count, Self::buffer(data));
        let queue = Queue::new(memory, base, start, buffers, Direction::Indirect, event_idx)?;
        Ok(Self { queue, data })
    }

    /// Where the queue lies, for the device.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.queue.addresses()
    }

    /// Starts to write to a sector.
    ///
    /// # Errors
    /// `OutOfBounds`: more than the buffer holds.
    pub fn write(&mut self, n: u16, sector: u64, bytes: &[u8]) -> Result<(), OutOfBounds> {
        self.queue.write(n, DATA, bytes)?;
        self.start(n, WRITE, sector, bytes.len() as u32)
    }

    /// Starts to read whole sectors.
    ///
    /// # Errors
    /// `OutOfBounds`: more than the buffer holds.
    pub fn read(&mut self, n: u16, sector: u64, length: u32) -> Result<(), OutOfBounds> {
        self.start(n, READ, sector, length)
    }

    fn start(&mut self, n: u16, kind: u32, sector: u64, length: u32) -> Result<(), OutOfBounds> {
        memory::check(0, length.into(), self.data.into(), 1)?;
        let mut header = [0; HEADER_LENGTH as usize];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.queue.write(n, HEADER, &header)?;
        let data = if kind == READ { NEXT | DEVICE_WRITES } else { NEXT };
        self.describe(n, 0, (HEADER, HEADER_LENGTH), NEXT)?;
        self.describe(n, 1, (DATA, length), data)?;
        self.describe(n, 2, (STATUS, 1), DEVICE_WRITES)?;
        self.again(n)
    }

    /// Starts a request again as it was.
    ///
    /// # Errors
    /// `OutOfBounds`: there is no such request.
    pub fn again(&mut self, n: u16) -> Result<(), OutOfBounds> {
        self.queue.write(n, STATUS, &[SILENT])?;
        self.queue.submit(n, TABLE_LENGTH);
        Ok(())
    }

    fn describe(
        &mut self,
        n: u16,
        index: u16,
        (offset, length): (u32, u32),
        flags: u16,
    ) -> Result<(), OutOfBounds> {
        let mut raw = [0; 16];
        let address = self.queue.address(n) + u64::from(offset);
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&length.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&(index + 1).to_le_bytes());
        self.queue.write(n, u32::from(index) * 16, &raw)
    }

    /// Shows the device what was started; true when it wants a kick for that.
    pub fn publish(&mut self) -> bool {
        self.queue.publish()
    }

    /// A request that has finished, and whether the device did what it was asked to.
    pub fn finished(&mut self) -> Option<(u16, bool)> {
        let (n, _) = self.queue.next_used()?;
        let mut status = [SILENT];
        let read = self.queue.read(n, STATUS, &mut status);
        Some((n, read.is_ok() && status[0] == DONE))
    }

    /// Copies out what a finished request has read.
    ///
    /// # Errors
    /// `OutOfBounds`: more than the buffer holds.
    pub fn received(&self, n: u16, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.queue.read(n, DATA, into)
    }

    /// Asks for an interrupt when a request finishes; true when one has done so meanwhile.
    pub fn listen(&mut self) -> bool {
        self.queue.listen()
    }
}
