//! One stream of the host link and the channel behind it.
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use hostlink::Stream;
use rt::{Channel, log};

/// Most bytes that wait for a slow reader; beyond that they are dropped, and the host is told.
/// Agents and their peers never get there: they give credit.
const MAX_WAITING: usize = 1 << 20;

/// Streams that have a channel, and its name.
pub const STREAMS: [(Stream, &str); 5] = [
    (Stream::ConsoleCompute, "console-compute"),
    (Stream::ConsoleService, "console-service"),
    (Stream::AgentCompute, "agent-compute"),
    (Stream::AgentService, "agent-service"),
    (Stream::Relay, "relay"),
];

/// A stream.
pub struct Joined {
    /// Which one.
    pub stream: Stream,
    channel: Channel,
    /// Frames from the host that found no room in the channel.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Bytes dropped so far.
    dropped: u64,
    /// Something was sent, and the other side does not know yet.
    unsaid: bool,
}

impl Joined {
    /// Opens the channel of a stream.
    pub fn open(stream: Stream, name: &str) -> Option<Self> {
        let channel = Channel::open(name)?;
        Some(Self {
            stream,
            channel,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            unsaid: false,
        })
    }

    /// The next record for the host.
    pub fn take(&mut self, into: &mut [u8]) -> Option<usize> {
        loop {
            match self.channel.rx.pop(into) {
                Ok(found) => return found,
                Err(ring::Corrupt) => log!("{:?}: nonsense in the channel: skipped", self.stream),
            }
        }
    }

    /// True when there is something for the host.
    pub fn has_output(&self) -> bool {
        !self.channel.rx.is_empty()
    }

    /// Takes a frame from the host. When that was too much, answers how many bytes were dropped
    /// so far.
    pub fn give(&mut self, payload: Vec<u8>) -> Option<u64> {
        if self.waiting.is_empty() && self.channel.tx.push(&payload).is_ok() {
            self.unsaid = true;
            return None;
        }
        let length = payload.len();
        if self.waiting_bytes + length > MAX_WAITING || length > self.channel.tx.longest() {
            self.dropped += length as u64;
            return Some(self.dropped);
        }
        self.waiting_bytes += length;
        self.waiting.push_back(payload);
        None
    }

    /// Ends a turn: sends what waited and finds room now, and tells the other side what it must
    /// know.
    pub fn flush(&mut self) {
        while let Some(payload) = self.waiting.front()
            && self.channel.tx.push(payload).is_ok()
        {
            self.waiting_bytes -= payload.len();
            self.waiting.pop_front();
            self.unsaid = true;
        }
        let room = self.channel.rx.writer_waits();
        if core::mem::take(&mut self.unsaid) || room {
            self.channel.notify();
        }
    }
}
