//! Channels between native programs.
use crate::{Shared, sys};
use abi::Selector;
use ring::{Consumer, Producer};

/// One end of a channel.
pub struct Channel {
    /// Records to the other side.
    pub tx: Producer<Shared>,
    /// Records from the other side.
    pub rx: Consumer<Shared>,
    peer: Selector,
    peer_bits: u64,
    own_bits: u64,
}

impl Channel {
    /// The program's end of the channel of that name; `None` when it has none.
    #[must_use]
    pub fn open(name: &str) -> Option<Self> {
        let end = crate::config().channel(name)?;
        let memory = Shared::of_channel(end);
        let half = end.length / 2;
        let (to, from) = if end.first { (0, half) } else { (half, 0) };
        Some(Self {
            tx: Producer::new(memory, to, half).ok()?,
            rx: Consumer::new(memory, from, half).ok()?,
            peer: Selector(end.peer),
            peer_bits: end.peer_bits,
            own_bits: end.own_bits,
        })
    }

    /// Wakes the other side.
    pub fn notify(&self) {
        // The other side may be gone; what it does not get, it does not miss.
        let _ = sys::signal(self.peer, self.peer_bits);
    }

    /// True when `bits` of a notification speak of this channel.
    #[must_use]
    pub fn is_meant(&self, bits: u64) -> bool {
        bits & self.own_bits != 0
    }
}
