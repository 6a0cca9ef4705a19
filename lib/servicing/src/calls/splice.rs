//! `splice` and `sendfile` between pipes and files of the program's own kernel and remote sockets.
//!
//! What the kernel refuses before anything moves, it refuses of placeholders as well: such calls
//! are left to it. `tee`, `vmsplice` and `copy_file_range` never take a socket, so all of them are.
use super::transfer::{Buffers, Extra, raise_pipe, receive, send};
use crate::cx::{Cx, Scratch};
use crate::space::Outcome;
use crate::table::{Entry, State};
use linux_abi::{
    Errno, F_GETFL, FIONREAD, MAP_ANONYMOUS, MAP_PRIVATE, MAX_RW_COUNT, MSG_MORE, O_ACCMODE,
    O_CLOEXEC, O_NONBLOCK, POLLERR, POLLOUT, PROT_READ, PROT_WRITE, PollFd, check, nr,
};
use paging::PAGE;

const SPLICE_NONBLOCK: u32 = 2;
const SPLICE_MORE: u32 = 4;
/// All flags that there are.
const SPLICE_ALL: u32 = 15;
/// `fcntl` that only pipes know.
const F_GETPIPE_SZ: u64 = 1032;
/// Open for reading alone.
pub const O_RDONLY: u32 = 0;
/// Open for writing alone.
pub const O_WRONLY: u32 = 1;
/// Most bytes that one call moves: what a pipe holds by default.
const CHUNK: u64 = 64 << 10;

/// `splice`.
pub async fn splice(cx: &Cx) -> Result<Outcome, Errno> {
    let [from, from_at, to, to_at, length, flags] = cx.arguments;
    let remote = |fd: u64| {
        let entry = cx.table.get(fd)?;
        matches!(entry.resource.state.get(), State::Remote(_) | State::Dead).then_some(entry)
    };
    let flags = flags as u32;
    if flags & !SPLICE_ALL != 0 || length == 0 || from_at != 0 || to_at != 0 {
        return Ok(Outcome::Reflect);
    }
    match (remote(from), remote(to)) {
        (Some(socket), None) => match pipe(cx, to, O_RDONLY, flags).await {
            Some(pipe) => from_socket(cx, &socket, pipe, length).await,
            None => Ok(Outcome::Reflect),
        },
        (None, Some(socket)) => match pipe(cx, from, O_WRONLY, flags).await {
            Some(_) => to_socket(cx, &socket, length).await,
            None => Ok(Outcome::Reflect),
        },
        _ => Ok(Outcome::Reflect),
    }
}

/// A pipe of the program's kernel.
#[derive(Clone, Copy)]
pub struct Pipe {
    fd: u64,
    size: u64,
    nonblocking: bool,
}

/// The pipe behind a descriptor that is not open for `wrong` alone; `own` are the call's flags.
pub async fn pipe(cx: &Cx, fd: u64, wrong: u32, own: u32) -> Option<Pipe> {
    let size = check(cx.local(nr::fcntl, [fd, F_GETPIPE_SZ, 0, 0, 0, 0]).await).ok()?;
    let flags = check(cx.local(nr::fcntl, [fd, u64::from(F_GETFL), 0, 0, 0, 0]).await).ok()?;
    let flags = flags as u32;
    let nonblocking = (flags & O_NONBLOCK | own & SPLICE_NONBLOCK) != 0;
    (flags & O_ACCMODE != wrong).then_some(Pipe { fd, size: size as u64, nonblocking })
}

/// Memory for data on their way: a scratch page, or a mapping.
pub enum Memory {
    Page(Scratch),
    Mapping(u64, u64),
}

impl Memory {
    pub async fn take(cx: &Cx, length: u64) -> Result<Self, Errno> {
        if length <= PAGE {
            return Ok(Self::Page(cx.scratch()?));
        }
        let (rights, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
        let map = [0, length, rights, flags, u64::MAX, 0];
        let address = check(cx.local(nr::mmap, map).await)?;
        Ok(Self::Mapping(address as u64, length))
    }

    pub fn address(&self) -> u64 {
        match self {
            Self::Page(scratch) => scratch.address,
            Self::Mapping(address, _) => *address,
        }
    }

    pub async fn give(self, cx: &Cx) {
        if let Self::Mapping(address, length) = self {
            cx.local(nr::munmap, [address, length, 0, 0, 0, 0]).await;
        }
    }
}

/// Waits until a pipe has room; how many bytes it takes for sure.
pub async fn room(cx: &Cx, pipe: Pipe) -> Result<u64, Errno> {
    let scratch = cx.scratch()?;
    let at = scratch.address;
    let entry = PollFd { fd: pipe.fd as i32, events: POLLOUT, revents: 0 };
    cx.write(at, &entry.encode()).await?;
    cx.write(at + 16, &[0; 16]).await?;
    let time = if pipe.nonblocking { at + 16 } else { 0 };
    if check(cx.local(nr::ppoll, [at, 1, time, 0, 0, 0]).await)? == 0 {
        return Err(Errno::EAGAIN);
    }
    if PollFd::decode(cx.array(at).await?).revents & POLLERR != 0 {
        // Nobody reads.
        raise_pipe(cx).await;
        return Err(Errno::EPIPE);
    }
    cx.write(at, &[0; 4]).await?;
    check(cx.local(nr::ioctl, [pipe.fd, u64::from(FIONREAD), at, 0, 0, 0]).await)?;
    let queued = u32::from_le_bytes(cx.array(at).await?);
    // A pipe that is writable takes a page at once (`PIPE_BUF`).
    Ok(if queued == 0 { pipe.size } else { PAGE })
}

async fn from_socket(cx: &Cx, socket: &Entry, pipe: Pipe, length: u64) -> Result<Outcome, Errno> {
    let length = length.min(room(cx, pipe).await?).min(CHUNK);
    let memory = Memory::take(cx, length).await?;
    let result = carry(cx, socket, pipe, memory.address(), length).await;
    memory.give(cx).await;
    Ok(Outcome::Return(result?))
}

/// What has been taken out of the socket goes into the pipe.
async fn carry(cx: &Cx, socket: &Entry, pipe: Pipe, at: u64, length: u64) -> Result<i64, Errno> {
    let got = receive(cx, socket, &Buffers::one(at, length)?, 0, 0).await?.value;
    let mut written = 0;
    while written < got {
        let rest = [pipe.fd, at + written as u64, (got - written) as u64, 0, 0, 0];
        match check(cx.local(nr::write, rest).await) {
            Ok(n) if n > 0 => written += n,
            // Somebody else has filled it meanwhile, or a handler ran.
            Err(Errno::EAGAIN | Errno::EINTR) => {
                room(cx, Pipe { nonblocking: false, ..pipe }).await?;
            }
            Ok(_) => return Err(Errno::EIO),
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// What has been sent is taken out of the pipe, and nothing else: data are duplicated first.
async fn to_socket(cx: &Cx, socket: &Entry, length: u64) -> Result<Outcome, Errno> {
    let scratch = cx.scratch()?;
    let pair = [scratch.address, u64::from(O_CLOEXEC), 0, 0, 0, 0];
    check(cx.local(nr::pipe2, pair).await)?;
    let ends: [u8; 8] = cx.array(scratch.address).await?;
    let end = |b: &[u8]| b.try_into().map_or(u64::MAX, |b| u64::from(u32::from_le_bytes(b)));
    let (read, write) = (end(&ends[..4]), end(&ends[4..]));
    let result = match Memory::take(cx, length.min(CHUNK)).await {
        Ok(memory) => {
            let buffer = (memory.address(), length.min(CHUNK));
            let result = duplicate(cx, socket, (read, write), buffer).await;
            memory.give(cx).await;
            result
        }
        Err(error) => Err(error),
    };
    for fd in [read, write] {
        cx.local(nr::close, [fd, 0, 0, 0, 0, 0]).await;
    }
    Ok(Outcome::Return(result?))
}

async fn duplicate(
    cx: &Cx,
    socket: &Entry,
    (read, write): (u64, u64),
    (at, length): (u64, u64),
) -> Result<i64, Errno> {
    let [from, .., flags] = cx.arguments;
    let flags = flags as u32;
    let tee = [from, write, length, u64::from(flags & SPLICE_NONBLOCK), 0, 0];
    let there = check(cx.local(nr::tee, tee).await)? as u64;
    if there == 0 {
        return Ok(0);
    }
    let copied = check(cx.local(nr::read, [read, at, there.min(length), 0, 0, 0]).await)?;
    let more = if flags & SPLICE_MORE != 0 { MSG_MORE } else { 0 };
    let extra = Extra { flags: more, ..Extra::default() };
    let sent = send(cx, socket, &Buffers::one(at, copied as u64)?, &extra).await?;
    check(cx.local(nr::read, [from, at, sent as u64, 0, 0, 0]).await)?;
    Ok(sent)
}

/// Bytes that `sendfile` moves at a time.
const FILE_CHUNK: u64 = 128 << 10;

/// `sendfile` from a local file to a remote socket: read by the program's own kernel into memory
/// that is mapped for it, then sent.
pub async fn sendfile(cx: &Cx) -> Result<Outcome, Errno> {
    let [to, from, offset_at, count, ..] = cx.arguments;
    let source = cx.table.get(from);
    let Some(entry) = cx.table.get(to) else { return sendfile_from_socket(cx, source).await };
    // From a socket to another one nothing is sent: what the kernel says of placeholders holds.
    if !matches!(entry.resource.state.get(), State::Remote(_)) || source.is_some() {
        return Ok(Outcome::Reflect);
    }
    let mut offset = match offset_at {
        0 => None,
        at => Some(i64::from_le_bytes(cx.array(at).await?)),
    };
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let rights = PROT_READ | PROT_WRITE;
    let map = [0, FILE_CHUNK, rights, flags, u64::MAX, 0];
    let buffer = check(cx.local(nr::mmap, map).await)? as u64;
    let mut total = 0u64;
    let result = loop {
        let want = (count.min(MAX_RW_COUNT) - total).min(FILE_CHUNK);
        let read = match offset {
            Some(at) => cx.local(nr::pread64, [from, buffer, want, at as u64, 0, 0]).await,
            None => cx.local(nr::read, [from, buffer, want, 0, 0, 0]).await,
        };
        let length = match check(read) {
            Ok(0) => break Ok(()),
            Ok(n) => n as u64,
            Err(error) => break Err(error),
        };
        let sent = match Buffers::one(buffer, length) {
            Ok(buffers) => send(cx, &entry, &buffers, &Extra::default()).await,
            Err(error) => Err(error),
        };
        let n = *sent.as_ref().unwrap_or(&0) as u64;
        total += n;
        offset = offset.map(|at| at.saturating_add(n as i64));
        if n < length && offset.is_none() {
            // The file's own position goes back to what has been sent.
            let back = (n as i64 - length as i64) as u64;
            cx.local(nr::lseek, [from, back, 1, 0, 0, 0]).await;
        }
        match sent {
            Ok(_) if n < length || total >= count.min(MAX_RW_COUNT) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    cx.local(nr::munmap, [buffer, FILE_CHUNK, 0, 0, 0, 0]).await;
    if let (Some(offset), true) = (offset, offset_at != 0) {
        cx.write(offset_at, &offset.to_le_bytes()).await?;
    }
    if total == 0 {
        result?;
    }
    Ok(Outcome::Return(total as i64))
}

/// From a socket data go to a pipe only; all else the kernel refuses.
async fn sendfile_from_socket(cx: &Cx, source: Option<Entry>) -> Result<Outcome, Errno> {
    let [to, _, offset_at, count, ..] = cx.arguments;
    let remote = |e: &Entry| matches!(e.resource.state.get(), State::Remote(_) | State::Dead);
    let socket = source.filter(|e| remote(e) && offset_at == 0 && count > 0);
    let Some(socket) = socket else { return Ok(Outcome::Reflect) };
    match pipe(cx, to, O_RDONLY, 0).await {
        Some(pipe) => from_socket(cx, &socket, pipe, count).await,
        None => Ok(Outcome::Reflect),
    }
}
