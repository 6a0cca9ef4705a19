//! Sending and receiving, straight between socket and mailbox.

use super::{Call, Failure, Outcome, Patience, limited};
use crate::errno;
use crate::hypervisor::Hypervisor;
use guest_sys::socket::{self, Received};
use memory::Memory;
use rustix::event::PollFlags;
use std::os::fd::OwnedFd;
use wire::{Request, Response, layout};

const MSG_PEEK: u32 = 0x2;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_WAITALL: u32 = 0x100;
const MSG_NOSIGNAL: u32 = 0x4000;
const MSG_ZEROCOPY: u32 = 0x400_0000;

/// What a request's flags become: waiting is not the kernel's business here, and a signal for a
/// broken connection is that of the trusted process.
fn flags_of(flags: u32) -> i32 {
    const NOT_PASSED_ON: u32 = MSG_WAITALL | MSG_ZEROCOPY;
    ((flags & !NOT_PASSED_ON) | MSG_DONTWAIT | MSG_NOSIGNAL).cast_signed()
}

/// A part that was transferred wins over whatever came afterwards, except that nobody is there.
fn part(done: u32, failure: Failure) -> Outcome<()> {
    if done > 0 && !matches!(failure, Failure::Gone(_)) { Ok(()) } else { Err(failure) }
}

impl<H: Hypervisor> Call<'_, H> {
    pub(super) fn send(&self, request: &Request) -> Outcome<Response> {
        let Request::Send { fd, flags, address, control, length, all, wait } = *request else {
            return Err(Failure::Errno(errno::EINVAL));
        };
        let socket = self.get(fd)?;
        let address = self.address(address)?;
        let mut control = vec![0; limited(control, layout::CONTROL_MAX)? as usize];
        self.door.memory().read(layout::CONTROL, &mut control)?;
        limited(length, layout::PAYLOAD_MAX)?;
        let mut patience = Patience::sending(wait);
        let mut sent = 0;
        loop {
            let piece =
                self.door.memory().piece(layout::PAYLOAD + u64::from(sent), length - sent)?;
            let mut copy =
                vec![0; if flags & MSG_ZEROCOPY == 0 { 0 } else { (length - sent) as usize }];
            self.door.memory().read(layout::PAYLOAD + u64::from(sent), &mut copy)?;
            // Ancillary data goes with the first byte.
            let control = if sent == 0 { control.as_slice() } else { &[] };
            let outcome = self.patiently(&socket, PollFlags::OUT, &mut patience, |socket| {
                if flags & MSG_ZEROCOPY == 0 {
                    return socket::send_piece(socket, &piece, &address, control, flags_of(flags));
                }
                // The kernel may go on using what is sent, and the next request fills the mailbox anew.
                socket::send_pinned(socket, &copy, &address, control, flags_of(flags))
            });
            match outcome {
                Ok(bytes) => sent += (bytes as u32).min(length - sent),
                Err(failure) => {
                    part(sent, failure)?;
                    break;
                }
            }
            if !all || sent >= length {
                break;
            }
        }
        Ok(Response::value(i64::from(sent)))
    }

    pub(super) fn receive(&self, request: &Request) -> Outcome<Response> {
        let Request::Receive { fd, flags, control, length, all, wait } = *request else {
            return Err(Failure::Errno(errno::EINVAL));
        };
        let socket = self.get(fd)?;
        limited(length, layout::PAYLOAD_MAX)?;
        let mut ancillary = vec![0; limited(control, layout::CONTROL_MAX)? as usize];
        let mut patience = Patience::receiving(wait);
        let mut source = [0; socket::ADDRESS_MAX];
        let mut sink = Sink { source: &mut source, ancillary: &mut ancillary };
        let first = self.receive_once(&socket, 0, length, flags, &mut patience, &mut sink)?;
        let mut got = (first.length as u32).min(length);
        // What is only looked at comes again: then there is no going on.
        while all && flags & MSG_PEEK == 0 && got < length && first.length > 0 {
            let mut rest = Sink { source: &mut [0; socket::ADDRESS_MAX], ancillary: &mut [] };
            match self.receive_once(&socket, got, length, flags, &mut patience, &mut rest) {
                Ok(Received { length: 0, .. }) => break,
                Ok(next) => got += (next.length as u32).min(length - got),
                Err(failure) => {
                    part(got, failure)?;
                    break;
                }
            }
        }
        let value = if got > first.length as u32 { i64::from(got) } else { first.length as i64 };
        self.received(&first, value, got, &source, &ancillary)
    }

    fn receive_once(
        &self,
        socket: &OwnedFd,
        from: u32,
        length: u32,
        flags: u32,
        patience: &mut Patience,
        sink: &mut Sink<'_>,
    ) -> Outcome<Received> {
        let memory = self.door.memory();
        let mut piece = memory.piece(layout::PAYLOAD + u64::from(from), length - from)?;
        self.patiently(socket, PollFlags::IN, patience, |socket| {
            socket::receive_piece(socket, &mut piece, sink.source, sink.ancillary, flags_of(flags))
        })
    }

    fn received(
        &self,
        first: &Received,
        value: i64,
        length: u32,
        source: &socket::Address,
        ancillary: &[u8],
    ) -> Outcome<Response> {
        let ancillary = ancillary.get(..first.control).unwrap_or(ancillary);
        self.door.memory().write(layout::CONTROL, ancillary)?;
        Ok(Response {
            value,
            cancelled: false,
            flags: first.flags.cast_unsigned(),
            address: self.put_address(source, first.address)?,
            control: ancillary.len() as u32,
            length,
        })
    }
}

/// Where the parts of a message go that are no data.
struct Sink<'a> {
    source: &'a mut socket::Address,
    ancillary: &'a mut [u8],
}
