//! Events of sockets for programs that want signals (`SIGIO`, `SIGURG`): this process's kernel
//! tells them by its own rules, as signals of this process.
use super::{Call, Failure, Outcome};
use crate::door::Woken;
use crate::hypervisor::Hypervisor;
use guest_sys::signals;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::AsFd;
use wire::{Response, SocketEvent};

impl<H: Hypervisor> Call<'_, H> {
    /// Watches a socket, or not any more.
    pub(super) fn watch(&self, fd: i32, on: bool) -> Outcome<Response> {
        signals::watch(self.get(fd)?.as_fd(), on)?;
        Ok(Response::value(0))
    }

    /// Waits for events of watched sockets.
    pub(super) fn events(&self) -> Outcome<Response> {
        let source = signals::events()?;
        loop {
            let mut found = Vec::new();
            while found.len() < SocketEvent::MOST
                && let Some(event) = signals::next_event(source.as_fd())?
            {
                let fd = event.socket.unwrap_or(SocketEvent::LOST);
                found.push(SocketEvent { fd, code: event.code });
            }
            if !found.is_empty() {
                let bytes: Vec<u8> = found.iter().flat_map(|event| event.encode()).collect();
                return self.with_payload(found.len() as i64, &bytes);
            }
            let mut set = vec![PollFd::new(&source, PollFlags::IN)];
            if self.door.wait(self.sequence, &mut set, None)? == Woken::Cancelled {
                return Err(Failure::Cancelled);
            }
        }
    }
}
