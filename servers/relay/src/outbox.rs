//! A channel that never loses a record: what finds no room waits here for the reader's signal.
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::RefCell;
use rt::Channel;

/// Most records that wait; beyond that the other side is taken for dead and the oldest go.
const LIMIT: usize = 65_536;

struct State {
    channel: Channel,
    waiting: VecDeque<Vec<u8>>,
    unsaid: bool,
}

/// An end of a channel with room for what can't be sent yet.
pub struct Outbox(RefCell<State>);

impl Outbox {
    /// Opens the channel of that name.
    ///
    /// # Panics
    /// When the configuration has no such channel.
    pub fn open(name: &str) -> Self {
        let Some(channel) = Channel::open(name) else {
            panic!("no channel '{name}' in the configuration");
        };
        Self(RefCell::new(State { channel, waiting: VecDeque::new(), unsaid: false }))
    }

    /// Sends a record, in order.
    pub fn send(&self, record: &[u8]) {
        let mut state = self.0.borrow_mut();
        if state.waiting.is_empty() && state.channel.tx.push(record).is_ok() {
            state.unsaid = true;
            return;
        }
        if state.waiting.len() == LIMIT {
            state.waiting.pop_front();
        }
        state.waiting.push_back(record.into());
    }

    /// Receives a record.
    pub fn receive(&self, into: &mut [u8]) -> Option<usize> {
        let mut state = self.0.borrow_mut();
        loop {
            match state.channel.rx.pop(into) {
                Ok(found) => return found,
                Err(ring::Corrupt) => rt::log!("nonsense in a channel: skipped"),
            }
        }
    }

    /// Sends what waits and signals once for the batch.
    pub fn flush(&self) {
        let state = &mut *self.0.borrow_mut();
        while let Some(record) = state.waiting.front() {
            if state.channel.tx.push(record).is_err() {
                break;
            }
            state.waiting.pop_front();
            state.unsaid = true;
        }
        let room = state.channel.rx.writer_waits();
        if core::mem::take(&mut state.unsaid) || room {
            state.channel.notify();
        }
    }
}
