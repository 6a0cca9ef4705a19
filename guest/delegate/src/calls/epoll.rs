//! Epoll instances: real ones of this process's kernel, under descriptor numbers like sockets.
//!
//! Nothing here waits. A relay that waits for an instance has its descriptor polled like a socket's,
//! which takes no event away, and then takes the events: so a wait can be cancelled at any time
//! and no event is lost.
use super::{Call, Failure, Outcome};
use crate::errno;
use crate::hypervisor::Hypervisor;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::os::fd::AsFd;
use wire::{EpollFound, EpollOperation, EpollRequest, Response, layout};

/// Most events that one request takes.
const TAKE_MAX: u32 = layout::PAYLOAD_MAX / EpollFound::SIZE as u32;

impl<H: Hypervisor> Call<'_, H> {
    /// Carries out a request about an epoll instance.
    pub(super) fn epoll(&self, request: EpollRequest) -> Outcome<Response> {
        match request {
            EpollRequest::Create => {
                let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failure)?;
                Ok(Response::value(i64::from(self.sockets.add(epoll))))
            }
            EpollRequest::Duplicate { fd } => {
                let copy = self.get(fd)?.try_clone()?;
                Ok(Response::value(i64::from(self.sockets.add(copy))))
            }
            EpollRequest::Control { epoll, operation, fd, events, cookie } => {
                let (epoll, target) = (self.get(epoll)?, self.get(fd)?);
                let (epoll, target) = (epoll.as_fd(), target.as_fd());
                let events = EventFlags::from_bits_retain(events);
                let data = EventData::new_u64(cookie);
                match operation {
                    EpollOperation::Add => epoll::add(epoll, target, data, events),
                    EpollOperation::Modify => epoll::modify(epoll, target, data, events),
                    EpollOperation::Delete => epoll::delete(epoll, target),
                }
                .map_err(failure)?;
                Ok(Response::value(0))
            }
            EpollRequest::Take { epoll, count } => self.take(epoll, count),
        }
    }

    fn take(&self, epoll: i32, count: u32) -> Outcome<Response> {
        let epoll = self.get(epoll)?;
        if count == 0 {
            return Err(Failure::Errno(errno::EINVAL));
        }
        let mut events = Vec::with_capacity(count.min(TAKE_MAX) as usize);
        let at_once = Timespec::default();
        let room = rustix::buffer::spare_capacity(&mut events);
        let found = epoll::wait(epoll.as_fd(), room, Some(&at_once)).map_err(failure)?;
        let encode = |event: &Event| {
            let Event { flags, data } = *event;
            EpollFound { events: flags.bits(), cookie: data.u64() }.encode()
        };
        let bytes: Vec<u8> = events.iter().flat_map(encode).collect();
        self.with_payload(found as i64, &bytes)
    }
}

fn failure(error: rustix::io::Errno) -> Failure {
    Failure::Errno(i64::from(error.raw_os_error()))
}
