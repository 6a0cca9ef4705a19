//! `sendfile`, `splice` and `copy_file_range` from and to remote files, through memory that is
//! mapped for it. Between files of the two VMs `copy_file_range` fails as between file systems that
//! have nothing in common (`EXDEV`), so that programs read and write.
use super::{FileAction, act, act_for_both, data};
use crate::calls::splice::{Memory, O_RDONLY, O_WRONLY, pipe, room};
use crate::calls::transfer::{Buffers, Extra, send};
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, State};
use linux_abi::{Errno, MAX_RW_COUNT, O_APPEND, check, nr};

/// Bytes that are moved at a time.
const CHUNK: u64 = 128 << 10;
/// `SEEK_SET`, `SEEK_CUR`.
const SEEK_SET: u64 = 0;
const SEEK_CUR: u64 = 1;

/// One end of a movement.
enum End {
    /// A remote file.
    File(Entry),
    /// A remote socket.
    Socket(Entry),
    /// Anything of the program's own kernel.
    Own(u64),
}

impl End {
    fn of(cx: &Cx, fd: u64, file: Option<Entry>) -> Self {
        if let Some(file) = file {
            return Self::File(file);
        }
        let remote = |e: &Entry| matches!(e.resource.state.get(), State::Remote(_));
        match cx.table.get(fd).filter(remote) {
            Some(socket) if socket.resource.epoll.is_none() => Self::Socket(socket),
            _ => Self::Own(fd),
        }
    }

    async fn seek(&self, cx: &Cx, to: u64, whence: u64) -> Result<i64, Errno> {
        match self {
            Self::File(entry) => match act(cx, entry, FileAction::Seek, (to, whence, 0)).await? {
                Outcome::Return(at) => Ok(at),
                Outcome::Reflect | Outcome::Alone(_) => Err(Errno::EIO),
            },
            Self::Socket(_) => Err(Errno::ESPIPE),
            Self::Own(fd) => check(cx.local(nr::lseek, [*fd, to, whence, 0, 0, 0]).await),
        }
    }

    async fn read(&self, cx: &Cx, to: u64, length: u64, at: Option<u64>) -> Result<u64, Errno> {
        match (self, at) {
            (Self::File(entry), _) => {
                data::read_into(cx, entry, &Buffers::one(to, length)?, at, 0).await
            }
            (Self::Socket(_), _) => Err(Errno::EINVAL),
            (Self::Own(fd), Some(at)) => {
                let call = [*fd, to, length, at, 0, 0];
                Ok(check(cx.local(nr::pread64, call).await)? as u64)
            }
            (Self::Own(fd), None) => {
                Ok(check(cx.local(nr::read, [*fd, to, length, 0, 0, 0]).await)? as u64)
            }
        }
    }

    async fn write(&self, cx: &Cx, from: u64, length: u64, at: Option<u64>) -> Result<u64, Errno> {
        match self {
            Self::File(entry) => {
                data::write_from(cx, entry, &Buffers::one(from, length)?, at, 0).await
            }
            Self::Socket(entry) => {
                let buffers = Buffers::one(from, length)?;
                Ok(send(cx, entry, &buffers, &Extra::default()).await? as u64)
            }
            Self::Own(fd) => {
                Ok(check(cx.local(nr::write, [*fd, from, length, 0, 0, 0]).await)? as u64)
            }
        }
    }
}

/// Moves up to `count` bytes from a position of a file. What was moved wins over an error.
async fn pump(
    cx: &Cx,
    (from, at): (&End, u64),
    (to, to_at): (&End, Option<u64>),
    count: u64,
) -> Result<u64, Errno> {
    let memory = Memory::take(cx, CHUNK.min(count)).await?;
    let mut total = 0;
    let result = loop {
        let want = (count - total).min(CHUNK);
        let there = match from.read(cx, memory.address(), want, Some(at + total)).await {
            Ok(0) => break Ok(()),
            Ok(n) => n,
            Err(error) => break Err(error),
        };
        let place = to_at.map(|at| at + total);
        match to.write(cx, memory.address(), there, place).await {
            Ok(n) => {
                total += n;
                if n < there || total >= count {
                    break Ok(());
                }
            }
            Err(error) => break Err(error),
        }
    };
    memory.give(cx).await;
    match result {
        Err(error) if total == 0 => Err(error),
        _ => Ok(total),
    }
}

/// A position behind a pointer, or the file's own one.
async fn position(cx: &Cx, end: &End, at: u64) -> Result<u64, Errno> {
    let position = match at {
        0 => end.seek(cx, 0, SEEK_CUR).await?,
        at => i64::from_le_bytes(cx.array(at).await?),
    };
    u64::try_from(position).map_err(|_| Errno::EINVAL)
}

/// Moves a position on, wherever it is.
async fn moved(cx: &Cx, end: &End, at: u64, position: u64) -> Result<(), Errno> {
    match at {
        0 => end.seek(cx, position, SEEK_SET).await.map(drop),
        at => cx.write(at, &position.to_le_bytes()).await,
    }
}

/// `sendfile`.
pub async fn sendfile(cx: &Cx, to: Option<Entry>, from: Option<Entry>) -> Result<Outcome, Errno> {
    let [to_fd, from_fd, at, count, ..] = cx.arguments;
    let (to, from) = (End::of(cx, to_fd, to), End::of(cx, from_fd, from));
    if let End::File(entry) = &to {
        let flags = act(cx, entry, FileAction::Flags, (0, 0, 0)).await?;
        if matches!(flags, Outcome::Return(flags) if flags & i64::from(O_APPEND) != 0) {
            return Err(Errno::EINVAL);
        }
    }
    let start = match position(cx, &from, at).await {
        // Only files have positions, and `sendfile` takes nothing else as its source.
        Err(Errno::ESPIPE) => return Err(Errno::EINVAL),
        other => other?,
    };
    if count == 0 {
        return Ok(Outcome::Return(0));
    }
    let total = pump(cx, (&from, start), (&to, None), count.min(MAX_RW_COUNT)).await?;
    moved(cx, &from, at, start + total).await?;
    Ok(Outcome::Return(total as i64))
}

/// `splice`: one end is a pipe.
pub async fn splice(cx: &Cx, from: Option<Entry>, to: Option<Entry>) -> Result<Outcome, Errno> {
    let [from_fd, from_at, to_fd, to_at, length, flags] = cx.arguments;
    let flags = flags as u32;
    match (from, to) {
        (Some(from), None) => {
            let pipe = pipe(cx, to_fd, O_RDONLY, flags).await.ok_or(Errno::EINVAL)?;
            if to_at != 0 {
                return Err(Errno::ESPIPE);
            }
            let from = End::File(from);
            let start = position(cx, &from, from_at).await?;
            if length == 0 {
                return Ok(Outcome::Return(0));
            }
            let length = length.min(room(cx, pipe).await?).min(CHUNK);
            let total = pump(cx, (&from, start), (&End::Own(to_fd), None), length).await?;
            moved(cx, &from, from_at, start + total).await?;
            Ok(Outcome::Return(total as i64))
        }
        (None, Some(to)) => {
            pipe(cx, from_fd, O_WRONLY, flags).await.ok_or(Errno::EINVAL)?;
            if from_at != 0 {
                return Err(Errno::ESPIPE);
            }
            let to = End::File(to);
            let start = position(cx, &to, to_at).await?;
            if length == 0 {
                return Ok(Outcome::Return(0));
            }
            let total = from_pipe(cx, from_fd, &to, start, length.min(CHUNK)).await?;
            moved(cx, &to, to_at, start + total).await?;
            Ok(Outcome::Return(total as i64))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// What a pipe holds, or what comes first, goes to a position of a file.
async fn from_pipe(cx: &Cx, pipe: u64, to: &End, at: u64, length: u64) -> Result<u64, Errno> {
    let memory = Memory::take(cx, length).await?;
    let result = match End::Own(pipe).read(cx, memory.address(), length, None).await {
        Ok(0) => Ok(0),
        Ok(n) => to.write(cx, memory.address(), n, Some(at)).await,
        Err(error) => Err(error),
    };
    memory.give(cx).await;
    result
}

/// `copy_file_range`.
pub async fn copy(cx: &Cx, from: Option<Entry>, to: Option<Entry>) -> Result<Outcome, Errno> {
    let [_, from_at, _, to_at, length, flags] = cx.arguments;
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let (Some(from), Some(to)) = (from, to) else { return Err(Errno::EXDEV) };
    let mut positions = [u8::MAX; 16];
    for (n, at) in [from_at, to_at].into_iter().enumerate().filter(|(_, at)| *at != 0) {
        let position: [u8; 8] = cx.array(at).await?;
        if i64::from_le_bytes(position) < 0 {
            return Err(Errno::EINVAL);
        }
        positions[8 * n..8 * n + 8].copy_from_slice(&position);
    }
    let hold = cx.hold(&to);
    let other = cx.remote_fd(&hold.resource)?;
    let numbers = (u64::from(other as u32), length, 0);
    let (value, after) = act_for_both(cx, &from, FileAction::Copy, numbers, &positions).await?;
    for (n, at) in [from_at, to_at].into_iter().enumerate().filter(|(_, at)| *at != 0) {
        cx.write(at, after.get(8 * n..8 * n + 8).ok_or(Errno::EIO)?).await?;
    }
    Ok(Outcome::Return(value))
}
