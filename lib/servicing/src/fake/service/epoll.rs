//! Epoll instances of the fake delegates.
use super::{Service, Sock, Sockets, Window, open};
use crate::fake::instance::{Instance, Level};
use memory::Memory;
use wire::{EpollFound, EpollRequest, Response, layout};

/// What a descriptor says of itself.
pub fn level(sockets: &Sockets, delegate: u32, fd: i32) -> Option<Level> {
    let socket = sockets.get(&(delegate, fd))?;
    let fd = socket.alias.unwrap_or(fd);
    let socket = sockets.get(&(delegate, fd)).filter(|s| !s.closed)?;
    if let Some(instance) = &socket.instance {
        let ready = instance.is_ready(&|file| level(sockets, delegate, file as i32));
        return Some((u32::from(ready), 0));
    }
    let readable = !socket.received.is_empty() || socket.eof || !socket.backlog.is_empty();
    Some((u32::from(readable) | if socket.slow { 0 } else { 4 }, socket.arrivals))
}

impl Service {
    pub(super) fn epoll(
        &self,
        m: &Window,
        sockets: &mut Sockets,
        delegate: u32,
        request: &EpollRequest,
    ) -> Option<Response> {
        let value = match *request {
            EpollRequest::Create => {
                let instance = Some(Instance::default());
                self.add(sockets, delegate, Sock { instance, ..Sock::default() })
            }
            EpollRequest::Duplicate { fd } => {
                self.add(sockets, delegate, Sock { alias: Some(fd), ..Sock::default() })
            }
            EpollRequest::Control { epoll, operation, fd, events, cookie } => {
                if open(sockets, delegate, fd).is_none() {
                    return Some(Response::value(-9));
                }
                let instance = open(sockets, delegate, epoll)?.instance.as_mut()?;
                instance.control(operation as u64, fd as u64, fd, events, cookie)
            }
            EpollRequest::Take { epoll, count } => {
                let mut instance = open(sockets, delegate, epoll)?.instance.take()?;
                let of = |file| level(sockets, delegate, file as i32);
                let found = instance.take(count as usize, &of);
                open(sockets, delegate, epoll)?.instance = Some(instance);
                let mut bytes = Vec::new();
                for (events, cookie) in &found {
                    bytes.extend(EpollFound { events: *events, cookie: *cookie }.encode());
                }
                m.write(layout::PAYLOAD, &bytes).unwrap();
                let length = bytes.len() as u32;
                return Some(Response { length, ..Response::value(found.len() as i64) });
            }
        };
        Some(Response::value(value))
    }

    pub(super) fn add(&self, sockets: &mut Sockets, delegate: u32, sock: Sock) -> i64 {
        self.next.set(self.next.get() + 1);
        let fd = 20 + self.next.get() as i32;
        sockets.insert((delegate, fd), sock);
        i64::from(fd)
    }
}
