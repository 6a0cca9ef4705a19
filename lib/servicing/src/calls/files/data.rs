//! Reading and writing of remote files, straight between the program's buffers and the mailbox.
use super::ask;
use crate::calls::transfer::Buffers;
use crate::cx::Cx;
use crate::delegate::Lease;
use crate::space::Outcome;
use crate::table::Entry;
use crate::world::add;
use linux_abi::{Errno, nr};
use wire::file::OWN_POSITION;
use wire::{FileRequest, layout};

/// What a call reads or writes, and where.
struct Transfer {
    buffers: Buffers,
    /// A position, or the file's own one.
    at: Option<u64>,
    flags: u32,
}

async fn transfer(cx: &Cx) -> Result<Transfer, Errno> {
    let a = cx.arguments;
    let (position, flags) = match cx.number {
        nr::pread64 | nr::pwrite64 | nr::preadv | nr::pwritev => (Some(a[3]), 0),
        nr::preadv2 | nr::pwritev2 => (Some(a[3]).filter(|at| *at != u64::MAX), a[5] as u32),
        _ => (None, 0),
    };
    let buffers = match cx.number {
        nr::read | nr::pread64 | nr::write | nr::pwrite64 => Buffers::whole(a[1], a[2])?,
        _ => Buffers::vectors(cx, a[1], a[2], Errno::EINVAL).await?,
    };
    if position.is_some_and(|at| at > i64::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    Ok(Transfer { buffers, at: position, flags })
}

/// `read` and its relatives.
pub async fn read(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let Transfer { buffers, at, flags } = transfer(cx).await?;
    Ok(Outcome::Return(read_into(cx, entry, &buffers, at, flags).await? as i64))
}

/// `write` and its relatives.
pub async fn write(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let Transfer { buffers, at, flags } = transfer(cx).await?;
    Ok(Outcome::Return(write_from(cx, entry, &buffers, at, flags).await? as i64))
}

/// Where a part of a transfer lies.
fn place(at: Option<u64>, done: u64) -> u64 {
    at.map_or(OWN_POSITION, |at| at.saturating_add(done))
}

/// Reads until the buffers are full or the file ends; bytes that have been read win over an error.
///
/// # Errors
/// As `read`.
pub async fn read_into(
    cx: &Cx,
    entry: &Entry,
    buffers: &Buffers,
    at: Option<u64>,
    flags: u32,
) -> Result<u64, Errno> {
    let done = in_parts(cx, entry, buffers.total, async |lease, fd, done, length| {
        // What moves the position must have a place to go.
        buffers.prepare(cx, done, length).await?;
        let at = place(at, done);
        let request = FileRequest::Read { fd, at, length: length as u32, flags };
        let response = ask(cx, lease, request).await?;
        let n = (response.value as u64).min(u64::from(response.length)).min(length);
        buffers.scatter(cx, lease, done, n).await?;
        Ok(n)
    });
    let done = done.await?;
    add(&cx.core.counters.bytes_in, done);
    Ok(done)
}

/// Writes all of it, as far as the file takes it; what has been written wins over an error.
///
/// # Errors
/// As `write`.
pub async fn write_from(
    cx: &Cx,
    entry: &Entry,
    buffers: &Buffers,
    at: Option<u64>,
    flags: u32,
) -> Result<u64, Errno> {
    let done = in_parts(cx, entry, buffers.total, async |lease, fd, done, length| {
        buffers.gather(cx, lease, done, length).await?;
        let at = place(at, done);
        let request = FileRequest::Write { fd, at, length: length as u32, flags };
        Ok((ask(cx, lease, request).await?.value as u64).min(length))
    });
    let done = done.await?;
    add(&cx.core.counters.bytes_out, done);
    Ok(done)
}

/// Moves `total` bytes in parts that fit into a mailbox, until one comes out short.
async fn in_parts(
    cx: &Cx,
    entry: &Entry,
    total: u64,
    part: impl AsyncFn(&Lease, i32, u64, u64) -> Result<u64, Errno>,
) -> Result<u64, Errno> {
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    let mut done = 0;
    loop {
        let length = (total - done).min(u64::from(layout::PAYLOAD_MAX));
        match part(&lease, fd, done, length).await {
            Ok(n) => {
                done += n;
                if n < length || done >= total {
                    return Ok(done);
                }
            }
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
    }
}
