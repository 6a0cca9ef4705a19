//! `open` and its relatives.
use super::paths::Target;
use super::{OpenFile, ask, opened, view};
use crate::calls::socket::{descriptor, put};
use crate::calls::vouch::vouch;
use crate::cx::Cx;
use crate::space::Outcome;
use linux_abi::{
    AT_FDCWD, Errno, O_ACCMODE, O_ASYNC, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW,
    O_NONBLOCK, O_PATH, O_TMPFILE, O_TRUNC, check, nr,
};
use wire::FileRequest;

/// All flags that there are (`VALID_OPEN_FLAGS`); `open` ignores others.
const ALL_FLAGS: u32 = 0o37_777_703;
/// Flags that mean something together with `O_PATH`.
const PATH_FLAGS: u32 = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
/// `RESOLVE_NO_XDEV`, `_NO_MAGICLINKS`, `_NO_SYMLINKS`: passed on.
const RESOLVE_PASSED: u64 = 7;
/// `RESOLVE_CACHED`: may fail at any time.
const RESOLVE_CACHED: u64 = 0x20;
/// Bytes of the first version of `struct open_how`.
const HOW_SIZE: u64 = 24;

/// How a file is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct How {
    flags: u32,
    mode: u32,
    resolve: u32,
}

async fn how(cx: &Cx) -> Result<How, Errno> {
    let plain = |flags: u32, mode: u32| {
        let flags = flags & ALL_FLAGS;
        let flags = if flags & O_PATH != 0 { flags & PATH_FLAGS } else { flags };
        let makes = flags & O_CREAT != 0 || flags & O_TMPFILE == O_TMPFILE;
        How { flags, mode: if makes { mode & 0o7777 } else { 0 }, resolve: 0 }
    };
    match cx.number {
        nr::creat => Ok(plain(O_CREAT | O_TRUNC | 1, cx.int(1) as u32)),
        nr::open => Ok(plain(cx.int(1) as u32, cx.int(2) as u32)),
        nr::openat => Ok(plain(cx.int(2) as u32, cx.int(3) as u32)),
        _ => {
            if cx.arguments[3] != HOW_SIZE {
                return Err(if cx.arguments[3] < HOW_SIZE { Errno::EINVAL } else { Errno::E2BIG });
            }
            let bytes: [u8; HOW_SIZE as usize] = cx.array(cx.arguments[2]).await?;
            let (words, _) = bytes.as_chunks::<8>();
            let [flags, mode, resolve] =
                [0, 1, 2].map(|n| words.get(n).map_or(0, |word| u64::from_le_bytes(*word)));
            if flags & !u64::from(ALL_FLAGS) != 0 {
                return Err(Errno::EINVAL);
            }
            if resolve & RESOLVE_CACHED != 0 {
                return Err(Errno::EAGAIN);
            }
            // What keeps a path below its directory counts from the entry: not the same.
            if resolve & !RESOLVE_PASSED != 0 {
                return super::refuse(cx, Errno::EINVAL);
            }
            let mode = u32::try_from(mode).map_err(|_| Errno::EINVAL)?;
            Ok(How { flags: flags as u32, mode, resolve: resolve as u32 })
        }
    }
}

/// Opens a remote file.
pub async fn open(cx: &Cx, target: &Target) -> Result<Outcome, Errno> {
    let mut how = how(cx).await?;
    let path_only = how.flags & O_PATH != 0;
    let changes = !path_only
        && (how.flags & O_ACCMODE != 0
            || how.flags & O_TRUNC != 0
            || how.flags & O_TMPFILE == O_TMPFILE);
    if changes {
        target.writable()?;
    }
    let makes = how.flags & O_CREAT != 0;
    let must_be_there = makes && !target.may_write();
    if must_be_there {
        how = How { flags: how.flags & !O_CREAT, mode: 0, ..how };
    }
    if how.mode != 0 {
        how.mode = view::masked(cx, how.mode).await;
    }
    // Whoever has no descriptor left changes nothing: it comes first where something is made.
    let early = if makes || changes { Some(placeholder(cx, how.flags).await?) } else { None };
    let outcome = open_remote(cx, target, how).await;
    let outcome = match outcome {
        Err(Errno::ENOENT) if must_be_there => Err(Errno::EROFS),
        Ok((fd, delegate)) if must_be_there && how.flags & O_EXCL != 0 => {
            drop(opened_as(cx, target, how, (fd, delegate)).1);
            Err(Errno::EEXIST)
        }
        other => other,
    };
    let remote = match outcome {
        Ok(remote) => remote,
        Err(error) => {
            if let Some(fd) = early {
                cx.local(nr::close, [fd, 0, 0, 0, 0, 0]).await;
            }
            return Err(error);
        }
    };
    let (entry, hold) = opened_as(cx, target, how, remote);
    let fd = match early {
        Some(fd) => fd,
        None => placeholder(cx, how.flags).await?,
    };
    put(cx, fd as i32, entry).await;
    drop(hold);
    Ok(Outcome::Return(fd as i64))
}

/// The entry of a file that the delegate has opened; it is closed again with the hold, unless a
/// descriptor stands for it by then.
fn opened_as(
    cx: &Cx,
    target: &Target,
    how: How,
    (fd, delegate): (i32, u32),
) -> (crate::table::Entry, crate::cx::Hold) {
    let file = OpenFile { path: target.path.clone(), write: target.may_write() };
    let mut entry = opened(cx, fd, delegate, file);
    entry.close_on_exec = how.flags & O_CLOEXEC != 0;
    entry.resource.nonblocking.set(how.flags & O_NONBLOCK != 0);
    let hold = cx.hold(&entry);
    (entry, hold)
}

async fn open_remote(cx: &Cx, target: &Target, how: How) -> Result<(i32, u32), Errno> {
    vouch(cx)?;
    let lease = cx.worker().await?;
    let place = target.put(&lease, &[])?;
    let flags = how.flags & !(O_ASYNC | O_CLOEXEC);
    let request = FileRequest::Open { place, flags, mode: how.mode, resolve: how.resolve };
    let response = ask(cx, &lease, request).await?;
    Ok((descriptor(response.value)?, lease.delegate.id))
}

/// A descriptor of the program's own kernel under whose number the file goes. Nothing can be read
/// or written by it, whoever comes to have it.
async fn placeholder(cx: &Cx, flags: u32) -> Result<u64, Errno> {
    let scratch = cx.scratch()?;
    let flags = u64::from(O_PATH | flags & O_CLOEXEC);
    let mut result = Err(Errno::ENOENT);
    // There is no device in some roots (`chroot`).
    for name in [&b"/dev/null\0"[..], b"/\0"] {
        cx.write(scratch.address, name).await?;
        let open = [AT_FDCWD as u32 as u64, scratch.address, flags, 0, 0, 0];
        result = check(cx.local(nr::openat, open).await);
        if !matches!(result, Err(Errno::ENOENT | Errno::ENOTDIR)) {
            break;
        }
    }
    Ok(result? as u64)
}
