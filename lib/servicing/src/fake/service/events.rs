//! What happens to the sockets of the fake delegates.
use super::{Service, Window};
use memory::Memory;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::{Response, SocketEvent, layout};

/// Watched sockets by delegate and descriptor, and events by delegate.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    sockets: BTreeSet<(u32, i32)>,
    events: BTreeMap<u32, VecDeque<SocketEvent>>,
}

impl Watched {
    /// Watched sockets.
    pub fn sockets(&self) -> Vec<(u32, i32)> {
        self.sockets.iter().copied().collect()
    }
}

impl Service {
    pub(super) fn watch(&self, delegate: u32, fd: i32, on: bool) -> i64 {
        let sockets = &mut self.watched.borrow_mut().sockets;
        if on {
            sockets.insert((delegate, fd));
        } else {
            sockets.remove(&(delegate, fd));
        }
        0
    }

    pub(super) fn events(&self, m: &Window, delegate: u32) -> Option<Response> {
        let found = self.watched.borrow_mut().events.remove(&delegate)?;
        let bytes: Vec<u8> = found.iter().flat_map(|event| event.encode()).collect();
        m.write(layout::PAYLOAD, &bytes).unwrap();
        let length = bytes.len() as u32;
        Some(Response { length, ..Response::value(found.len() as i64) })
    }

    /// Something happens to a socket.
    pub fn happens(&self, (delegate, fd): (u32, i32), code: i32) {
        let watched = &mut *self.watched.borrow_mut();
        if watched.sockets.contains(&(delegate, fd)) {
            watched.events.entry(delegate).or_default().push_back(SocketEvent { fd, code });
        }
    }
}
