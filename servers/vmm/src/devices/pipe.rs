//! A channel as the devices use it: sends now, signals once per batch.
use alloc::vec::Vec;
use ring::MAX_RECORD;
use rt::Channel;

/// The monitor's end of a channel, or of nothing where the system has none of that name.
pub struct Pipe {
    channel: Option<Channel>,
    /// Records were sent, or room was made, and the other side does not know yet.
    unsaid: bool,
    /// The last record received, and how much of it has been used.
    record: Vec<u8>,
    length: usize,
    used: usize,
}

impl Pipe {
    /// Opens the channel of that name.
    pub fn open(name: &str) -> Self {
        let channel = Channel::open(name);
        if channel.is_none() {
            rt::log!("no channel '{name}': what would go there is dropped");
        }
        Self { channel, unsaid: false, record: alloc::vec![0; MAX_RECORD], length: 0, used: 0 }
    }

    /// True when these bits of the monitor's notification speak of this channel.
    pub fn is_meant(&self, bits: u64) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_meant(bits))
    }

    /// Sends one record; false when there is no room: the other side signals when there is.
    pub fn send(&mut self, record: &[u8]) -> bool {
        // Where nobody listens everything is dropped, so that the guest does not hang.
        let Some(channel) = &mut self.channel else { return true };
        let sent = channel.tx.push(record).is_ok();
        self.unsaid |= sent;
        sent
    }

    /// Sends bytes as records of a size that leaves room for others; answers how many went.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> usize {
        let Some(channel) = &self.channel else { return bytes.len() };
        let most = (channel.tx.longest() / 2).clamp(1, 16 * 1024);
        let mut sent = 0;
        for part in bytes.chunks(most) {
            if !self.send(part) {
                break;
            }
            sent += part.len();
        }
        sent
    }

    /// What is left of the oldest record, if any. It stays until [`Pipe::consume`] has used it up.
    pub fn received(&mut self) -> Option<&[u8]> {
        let channel = self.channel.as_mut()?;
        while self.used >= self.length {
            match channel.rx.pop(&mut self.record) {
                Ok(Some(length)) => (self.length, self.used) = (length, 0),
                Ok(None) => return None,
                Err(ring::Corrupt) => rt::log!("nonsense in a channel: skipped"),
            }
        }
        self.record.get(self.used..self.length)
    }

    /// So many bytes of what [`Pipe::received`] answered have been used.
    pub fn consume(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Tells the other side what it does not know yet. To be called at the end of a batch.
    pub fn flush(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        let room = channel.rx.writer_waits();
        if core::mem::take(&mut self.unsaid) || room {
            channel.notify();
        }
    }
}
