//! Reading and writing: one request a try, data straight between the program's buffers and the
//! mailbox. Only readiness is waited for: a request that moves data never waits, so a signal can
//! never find one half done.
use super::readiness::{Access as _, Patience, wait_ready};
use super::socket::{address_in, address_of, address_out, commit};
use crate::cx::{Cx, Hold};
use crate::delegate::Lease;
use crate::space::Outcome;
use crate::table::{Entry, State};
use crate::world::add;
use alloc::vec::Vec;
use linux_abi::{
    Errno, IOV_MAX, IoVec, MAX_RW_COUNT, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB,
    MSG_PEEK, MSG_TRUNC, MSG_WAITALL, POLLIN, POLLOUT, POLLPRI, SIGPIPE, SOCK_CLOEXEC,
    TASK_SIZE_MAX, check, nr,
};
use wire::{Request, layout};

/// Bytes that are copied at a time.
const CHUNK: usize = 16 << 10;
/// Flags of sends that only concern the own side.
const OWN_FLAGS: u32 = MSG_DONTWAIT | 0x4000_0000 | SOCK_CLOEXEC | 0x1_0000;

/// The program's buffers.
#[derive(Clone, Debug)]
pub struct Buffers {
    parts: Vec<IoVec>,
    /// Bytes in all of them.
    pub total: u64,
}

impl Buffers {
    /// A single one, cut down to what one call transfers.
    ///
    /// # Errors
    /// `EFAULT` for a range that is not the user's.
    pub fn one(base: u64, length: u64) -> Result<Self, Errno> {
        let length = length.min(MAX_RW_COUNT);
        let part = IoVec { base, length };
        Self::check(&part)?;
        Ok(Self { parts: alloc::vec![part], total: length })
    }

    /// One buffer of `read` or `write`, which refuse a length that leaves user memory; others cut
    /// it to the most that is moved at once first.
    ///
    /// # Errors
    /// `EFAULT` when it lies outside user memory.
    pub fn whole(base: u64, length: u64) -> Result<Self, Errno> {
        Self::check(&IoVec { base, length })?;
        Self::one(base, length)
    }

    fn check(part: &IoVec) -> Result<(), Errno> {
        match part.base.checked_add(part.length) {
            Some(end) if end <= TASK_SIZE_MAX || part.length == 0 => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Copies an array of `struct iovec` in; `too_many` is the error for more than `IOV_MAX`.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` for a negative length, `too_many`.
    pub async fn vectors(cx: &Cx, at: u64, count: u64, too_many: Errno) -> Result<Self, Errno> {
        if count > IOV_MAX {
            return Err(too_many);
        }
        let bytes = cx.bytes(at, count as usize * IoVec::SIZE).await?;
        let mut parts = Vec::with_capacity(count as usize);
        let mut total = 0u64;
        for chunk in bytes.chunks_exact(IoVec::SIZE) {
            let mut raw = [0; IoVec::SIZE];
            raw.copy_from_slice(chunk);
            let mut part = IoVec::decode(&raw);
            if part.length > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            part.length = part.length.min(MAX_RW_COUNT - total);
            Self::check(&part)?;
            total += part.length;
            parts.push(part);
        }
        Ok(Self { parts, total })
    }

    /// The pieces of `skip .. skip + length`, as (address, length).
    fn pieces(&self, skip: u64, length: u64) -> impl Iterator<Item = (u64, usize)> + '_ {
        let mut before = 0u64;
        let end = skip.saturating_add(length);
        self.parts.iter().filter_map(move |part| {
            let start = before.max(skip);
            let stop = (before + part.length).min(end);
            let piece =
                (start < stop).then(|| (part.base + (start - before), (stop - start) as usize));
            before += part.length;
            piece
        })
    }

    /// Copies `length` bytes from `skip` on into a mailbox.
    async fn gather(&self, cx: &Cx, lease: &Lease, skip: u64, length: u64) -> Result<(), Errno> {
        let mut chunk = alloc::vec![0; CHUNK.min(length as usize)];
        let mut at = layout::PAYLOAD;
        for (mut address, mut left) in self.pieces(skip, length) {
            while left > 0 {
                let n = left.min(chunk.len());
                let Some(part) = chunk.get_mut(..n) else { return Err(Errno::EIO) };
                cx.read(address, part).await?;
                lease.mailbox().memory().write_all(at, part)?;
                (address, left, at) = (address + n as u64, left - n, at + n as u64);
            }
        }
        Ok(())
    }

    /// Copies `length` bytes out of a mailbox to `skip` and on.
    async fn scatter(&self, cx: &Cx, lease: &Lease, skip: u64, length: u64) -> Result<(), Errno> {
        let mut chunk = alloc::vec![0; CHUNK.min(length as usize)];
        let mut at = layout::PAYLOAD;
        for (mut address, mut left) in self.pieces(skip, length) {
            while left > 0 {
                let n = left.min(chunk.len());
                let Some(part) = chunk.get_mut(..n) else { return Err(Errno::EIO) };
                lease.mailbox().memory().read_all(at, part)?;
                cx.write(address, part).await?;
                (address, left, at) = (address + n as u64, left - n, at + n as u64);
            }
        }
        Ok(())
    }

    /// Makes `length` bytes from `skip` on writable.
    async fn prepare(&self, cx: &Cx, skip: u64, length: u64) -> Result<(), Errno> {
        for (address, part) in self.pieces(skip, length) {
            cx.prepare(address, part).await?;
        }
        Ok(())
    }
}

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
    loop {
        let fd = cx.remote_fd(resource)?;
        let lease = cx.worker().await?;
        let length = (buffers.total - *sent).min(room);
        buffers.gather(cx, &lease, *sent, length).await?;
        let mailbox = lease.mailbox();
        mailbox.memory().write_all(layout::ADDRESS, &extra.address)?;
        mailbox.memory().write_all(layout::CONTROL, &extra.control)?;
        let request = Request::Send {
            fd,
            flags: extra.flags & !OWN_FLAGS,
            address: extra.address.len() as u32,
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
    let waits = !resource.nonblocking.get() && flags & MSG_DONTWAIT == 0;
    let all = waits && flags & (MSG_WAITALL | MSG_PEEK) == MSG_WAITALL && resource.is_stream();
    let patience = Patience::from_timeout(resource.receive_timeout.get(), cx.core.world.now());
    let mut received = Received::default();
    let mut done = 0;
    loop {
        let part = receive_part(cx, &hold, buffers, (flags, control), done).await;
        let patience = if done > 0 { patience.once_begun() } else { patience };
        let result = match part {
            Err(Errno::EAGAIN) if waits && flags & MSG_ERRQUEUE == 0 => {
                let events = if flags & MSG_OOB != 0 { POLLPRI } else { POLLIN };
                wait_ready(cx, resource, events, patience).await.map(|()| None)
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
    buffers.prepare(cx, skip, length).await?;
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
    let there = u64::from(response.length).min(length);
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
    use super::rules::{Peer, peer};
    let resource = &entry.resource;
    if address.is_empty() {
        return Ok(resource.state.get() != State::Undecided);
    }
    match peer(cx, resource, address, Errno::EPERM)? {
        Peer::Unknown => Ok(false),
        Peer::Own => {
            resource.state.set(State::Local);
            Ok(false)
        }
        Peer::Remote => {
            let hold = cx.hold(entry);
            commit(cx, &hold.resource).await?;
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_exactly_what_is_asked(
            lengths in proptest::collection::vec(0u64..50, 0..10),
            skip in 0u64..300,
            length in 0u64..300,
        ) {
            let mut parts = Vec::new();
            let mut bytes = Vec::new();
            for (n, length) in lengths.iter().enumerate() {
                let base = 0x1000 * (n as u64 + 1);
                parts.push(IoVec { base, length: *length });
                bytes.extend((0..*length).map(|k| base + k));
            }
            let buffers = Buffers { parts, total: bytes.len() as u64 };
            let got: Vec<u64> = buffers
                .pieces(skip, length)
                .flat_map(|(at, n)| (0..n as u64).map(move |k| at + k))
                .collect();
            let end = (skip + length).min(bytes.len() as u64) as usize;
            let expected = bytes.get(skip as usize..end).unwrap_or(&[]);
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn ranges_outside_user_memory_are_faults() {
        assert!(Buffers::one(0xffff_8000_0000_0000, 1).is_err());
        assert!(Buffers::one(u64::MAX, 2).is_err());
        assert_eq!(Buffers::one(0x1000, u64::MAX).map(|b| b.total), Ok(MAX_RW_COUNT));
        assert!(Buffers::whole(0x1000, u64::MAX).is_err());
        assert_eq!(Buffers::whole(0x1000, 1 << 40).map(|b| b.total), Ok(MAX_RW_COUNT));
    }
}
