//! Reading and writing: one request a try, data straight between the program's buffers and the
//! mailbox. Only readiness is waited for: a request that moves data never waits, so a signal can
//! never find one half done.
pub use super::buffers::Buffers;
use super::commit::{commit, settled};
use super::connect::finish_fast_open;
use super::netlink;
use super::readiness::{Access as _, Patience, ends_within, wait_ready};
use super::rules::{Peer, peer};
use super::signals::quieten;
use super::socket::{address_in, address_of, address_out};
use crate::bell::Receiver;
use crate::cx::{Cx, Hold};
use crate::space::Outcome;
use crate::table::{Entry, Resource, State};
use crate::world::add;
use alloc::vec::Vec;
use linux_abi::{
    AF_NETLINK, Errno, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK,
    MSG_TRUNC, MSG_WAITALL, POLLIN, POLLOUT, SIGPIPE, SOCK_CLOEXEC, check, nr,
};
use wire::{Request, layout};

/// Flags of sends that only concern the own side.
const OWN_FLAGS: u32 = MSG_DONTWAIT | 0x4000_0000 | SOCK_CLOEXEC | 0x1_0000;

/// The kernel tells when it does not use the data any more.
const MSG_ZEROCOPY: u32 = 0x400_0000;
/// Flags of a look at everything.
const PEEK_ALL: u32 = MSG_PEEK | MSG_WAITALL;
/// Time between two looks, in nanoseconds.
const PEEK_PERIOD: u64 = 5_000_000;

/// What is sent besides the data.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// `MSG_*`.
    pub flags: u32,
    /// Destination, or empty.
    pub address: Vec<u8>,
    /// Ancillary data, or empty.
    pub control: Vec<u8>,
}

/// Sends by the rules of the socket: all of it, where it is a stream that blocks.
///
/// # Errors
/// As `sendmsg`; `SIGPIPE` has been raised where it must be.
pub async fn send(cx: &Cx, entry: &Entry, buffers: &Buffers, extra: &Extra) -> Result<i64, Errno> {
    let hold = cx.hold(entry);
    report_error(&hold.resource)?;
    let mut sent = 0;
    match send_all(cx, &hold, buffers, extra, &mut sent).await {
        Ok(()) => {}
        Err(_) if sent > 0 => {}
        Err(Errno::EPIPE) if hold.resource.is_stream() && extra.flags & MSG_NOSIGNAL == 0 => {
            raise_pipe(cx).await;
            return Err(Errno::EPIPE);
        }
        Err(error) => return Err(error),
    }
    add(&cx.core.counters.bytes_out, sent);
    Ok(sent as i64)
}

/// An error that an earlier call has left.
fn report_error(resource: &Resource) -> Result<(), Errno> {
    resource.error.take().map_or(Ok(()), Err)
}

/// `SIGPIPE` for the calling thread.
pub async fn raise_pipe(cx: &Cx) {
    let thread = cx.local(nr::gettid, [0; 6]).await;
    cx.local(nr::tkill, [thread as u64, SIGPIPE, 0, 0, 0, 0]).await;
}

async fn send_all(
    cx: &Cx,
    hold: &Hold,
    buffers: &Buffers,
    extra: &Extra,
    sent: &mut u64,
) -> Result<(), Errno> {
    let resource = &hold.resource;
    let waits = !resource.nonblocking.get() && extra.flags & MSG_DONTWAIT == 0;
    let room = u64::from(layout::PAYLOAD_MAX);
    if !resource.is_stream() && buffers.total > room {
        return Err(Errno::EMSGSIZE);
    }
    let patience = Patience::from_timeout(resource.send_timeout.get(), cx.core.world.now());
    let (mut flags, mut address) = (extra.flags, extra.address.clone());
    loop {
        let fd = cx.remote_fd(resource)?;
        let lease = cx.worker().await?;
        let length = (buffers.total - *sent).min(room);
        if resource.domain == AF_NETLINK {
            netlink::put_request(cx, &lease, &buffers.copy(cx, netlink::REQUEST_MAX).await?)?;
        } else {
            buffers.gather(cx, &lease, *sent, length).await?;
        }
        let mailbox = lease.mailbox();
        mailbox.memory().write_all(layout::ADDRESS, &address)?;
        mailbox.memory().write_all(layout::CONTROL, &extra.control)?;
        // The urgent byte is the last one of all.
        let urgent = if *sent + length < buffers.total { MSG_OOB } else { 0 };
        let request = Request::Send {
            fd,
            flags: flags & !(OWN_FLAGS | urgent),
            address: address.len() as u32,
            control: extra.control.len() as u32,
            length: length as u32,
            all: false,
            wait: 0,
        };
        let response = cx.ask(&lease, &request).await?;
        drop(lease);
        match check(response.value) {
            Ok(n) => {
                *sent += (n as u64).min(length);
                if *sent >= buffers.total || !resource.is_stream() {
                    return Ok(());
                }
                // One call is told once: what is left is copied.
                flags &= !MSG_ZEROCOPY;
            }
            Err(Errno::EINPROGRESS) if waits && flags & MSG_FASTOPEN != 0 => {
                (flags, address) = finish_fast_open(cx, hold, flags, &address).await?;
            }
            Err(Errno::EAGAIN) if waits => {
                let patience = if *sent > 0 { patience.once_begun() } else { patience };
                wait_ready(cx, resource, POLLOUT, patience).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What a receive brought.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Result of the call.
    pub value: i64,
    /// `msg_flags`.
    pub flags: u32,
    /// Source address.
    pub address: Vec<u8>,
    /// Ancillary data.
    pub control: Vec<u8>,
}

/// Receives into the program's buffers.
///
/// # Errors
/// As `recvmsg`.
pub async fn receive(
    cx: &Cx,
    entry: &Entry,
    buffers: &Buffers,
    flags: u32,
    control: u32,
) -> Result<Received, Errno> {
    let hold = cx.hold(entry);
    let resource = &hold.resource;
    quieten(cx, resource).await?;
    if flags & (MSG_OOB | MSG_ERRQUEUE) == 0 {
        report_error(resource)?;
    }
    // Urgent data and errors are there or not: nobody waits for them (`tcp_recv_urg`).
    let waits = !resource.nonblocking.get() && flags & (MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE) == 0;
    let stream = resource.is_stream() && waits && flags & MSG_PEEK == 0;
    let mark = u64::from(resource.low_water.get());
    // A mark that is never reached asks for all.
    let all = stream && (flags & MSG_WAITALL != 0 || mark > 1 && mark >= buffers.total);
    let patience = Patience::from_timeout(resource.receive_timeout.get(), cx.core.world.now());
    if resource.is_stream() && waits && flags & PEEK_ALL == PEEK_ALL {
        return peek_all(cx, &hold, buffers, (flags, control), patience).await;
    }
    let mut received = Received::default();
    let mut done = 0;
    if stream && mark > 1 && !all {
        wait_ready(cx, resource, POLLIN, patience).await?;
    }
    loop {
        let part = receive_part(cx, &hold, buffers, (flags, control), done).await;
        let patience = if done > 0 { patience.once_begun() } else { patience };
        let result = match part {
            Err(Errno::EAGAIN) if waits => {
                let _receiver = Receiver::new(&resource.signals);
                wait_ready(cx, resource, POLLIN, patience).await.map(|()| None)
            }
            other => other.map(Some),
        };
        match result {
            Ok(None) => continue,
            Ok(Some(next)) => {
                let n = next.value;
                received = next;
                done += n.max(0) as u64;
                if !all || n == 0 || done >= buffers.total {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    if all {
        received.value = done as i64;
    }
    add(&cx.core.counters.bytes_in, done);
    Ok(received)
}

/// Looks at a stream until there is as much as was asked for, or all that will come. That there is more
/// than before is nothing that can be waited for.
async fn peek_all(
    cx: &Cx,
    hold: &Hold,
    buffers: &Buffers,
    how: (u32, u32),
    patience: Patience,
) -> Result<Received, Errno> {
    let target = buffers.total.min(u64::from(layout::PAYLOAD_MAX));
    let mut ended = false;
    loop {
        match receive_part(cx, hold, buffers, how, 0).await {
            Err(Errno::EAGAIN) => wait_ready(cx, &hold.resource, POLLIN, patience).await?,
            Ok(seen) if seen.value > 0 && (seen.value as u64) < target && !ended => {
                match ends_within(cx, &hold.resource, PEEK_PERIOD, patience.once_begun()).await {
                    Ok(end) => ended = end,
                    Err(_) => return Ok(seen),
                }
            }
            other => return other,
        }
    }
}

async fn receive_part(
    cx: &Cx,
    hold: &Hold,
    buffers: &Buffers,
    (flags, control): (u32, u32),
    skip: u64,
) -> Result<Received, Errno> {
    let fd = cx.remote_fd(&hold.resource)?;
    let length = (buffers.total - skip).min(u64::from(layout::PAYLOAD_MAX));
    // What has been taken out of the socket must have a place to go.
    match buffers.prepare(cx, skip, length).await {
        // A datagram is lost where it cannot be stored (`udp_recvmsg`).
        Err(Errno::EFAULT) if !hold.resource.is_stream() => {}
        other => other?,
    }
    let lease = cx.worker().await?;
    let request = Request::Receive {
        fd,
        flags: flags & !(OWN_FLAGS | MSG_WAITALL),
        control: control.min(layout::CONTROL_MAX),
        length: length as u32,
        all: false,
        wait: 0,
    };
    let response = cx.ask(&lease, &request).await?;
    let mut value = check(response.value)?;
    // A stream's data are thrown away with MSG_TRUNC (tcp(7)).
    let discards = hold.resource.is_stream() && flags & (MSG_TRUNC | MSG_ERRQUEUE) == MSG_TRUNC;
    let there = if discards { 0 } else { u64::from(response.length).min(length) };
    if flags & MSG_TRUNC == 0 {
        value = value.min(there as i64);
    }
    buffers.scatter(cx, &lease, skip, there).await?;
    let mut bytes = alloc::vec![0; response.control.min(control).min(layout::CONTROL_MAX) as usize];
    lease.mailbox().memory().read_all(layout::CONTROL, &mut bytes)?;
    let address = address_of(&lease, response.address)?;
    Ok(Received { value, flags: response.flags, address, control: bytes })
}

fn plain(flags: u32) -> Extra {
    Extra { flags, ..Extra::default() }
}

/// `read`.
pub async fn read(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let buffers = Buffers::whole(cx.arguments[1], cx.arguments[2])?;
    if buffers.total == 0 {
        return Ok(Outcome::Return(0));
    }
    Ok(Outcome::Return(receive(cx, entry, &buffers, 0, 0).await?.value))
}

/// `readv`.
pub async fn readv(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let buffers = Buffers::vectors(cx, cx.arguments[1], cx.arguments[2], Errno::EINVAL).await?;
    if buffers.total == 0 {
        return Ok(Outcome::Return(0));
    }
    Ok(Outcome::Return(receive(cx, entry, &buffers, 0, 0).await?.value))
}

/// `recvfrom`.
pub async fn recvfrom(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let buffers = Buffers::one(cx.arguments[1], cx.arguments[2])?;
    let flags = cx.int(3) as u32;
    let received = receive(cx, entry, &buffers, flags, 0).await?;
    address_out(cx, &received.address, cx.arguments[4], cx.arguments[5]).await?;
    Ok(Outcome::Return(received.value))
}

/// `write`.
pub async fn write(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let buffers = Buffers::whole(cx.arguments[1], cx.arguments[2])?;
    Ok(Outcome::Return(send(cx, entry, &buffers, &plain(0)).await?))
}

/// Flags of `preadv2` that Linux 6.1 takes for sockets: `RWF_HIPRI`, `_DSYNC`, `_SYNC`, `_APPEND`,
/// without any effect.
const POSITIONED_FLAGS: u32 = 0x17;

/// `preadv2` and `pwritev2`: sockets have no position.
pub async fn positioned(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    if cx.arguments[3] != u64::MAX {
        return Ok(Outcome::Reflect);
    }
    if cx.int(5) as u32 & !POSITIONED_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if cx.number == nr::preadv2 { readv(cx, entry).await } else { writev(cx, entry).await }
}

/// `writev`.
pub async fn writev(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let buffers = Buffers::vectors(cx, cx.arguments[1], cx.arguments[2], Errno::EINVAL).await?;
    Ok(Outcome::Return(send(cx, entry, &buffers, &plain(0)).await?))
}

/// `sendto`.
pub async fn sendto(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let buffers = Buffers::one(cx.arguments[1], cx.arguments[2])?;
    let address = match cx.arguments[4] {
        0 => Vec::new(),
        at => address_in(cx, at, cx.arguments[5]).await?,
    };
    let extra = Extra { flags: cx.int(3) as u32, address, control: Vec::new() };
    if !destination(cx, entry, &extra.address).await? {
        return Ok(Outcome::Reflect);
    }
    Ok(Outcome::Return(send(cx, entry, &buffers, &extra).await?))
}

/// Commits a socket to where its first datagram goes. False: to the own kernel, or there is
/// nothing to commit to.
///
/// # Errors
/// A destination that a remote socket must not reach.
pub async fn destination(cx: &Cx, entry: &Entry, address: &[u8]) -> Result<bool, Errno> {
    let resource = &entry.resource;
    settled(cx, resource).await?;
    if resource.domain == AF_NETLINK {
        if !address.is_empty() {
            super::netlink::check_peer(address)?;
        }
        return Ok(true);
    }
    if address.is_empty() {
        return Ok(resource.state.get() != State::Undecided);
    }
    match peer(cx, resource, address, Errno::EPERM)? {
        Peer::Unknown => Ok(false),
        Peer::Own => {
            super::commit::become_local(cx, resource);
            Ok(false)
        }
        Peer::Remote => {
            let hold = cx.hold(entry);
            commit(cx, &hold.resource).await?;
            Ok(true)
        }
    }
}
