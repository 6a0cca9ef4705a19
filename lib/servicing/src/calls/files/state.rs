//! What is asked and set of open remote files.
use super::{act, act_for_data, locks, refuse};
use crate::calls::transfer::Buffers;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use alloc::vec::Vec;
use linux_abi::{
    AT_SYMLINK_NOFOLLOW, Errno, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETLK, F_GETOWN,
    F_GETSIG, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETFD, F_SETFL, F_SETLK, F_SETLKW,
    F_SETOWN, F_SETSIG, FD_CLOEXEC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, O_NONBLOCK, check, nr,
};
use wire::file::{FILE_SYSTEM_SIZE, STATUS_SIZE, STATUSX_SIZE, TIMES_SIZE};
use wire::{FileAction, Request, layout};

/// `FICLONE` and `FICLONERANGE`: no file system in common.
const CLONES: [u32; 2] = [0x4004_9409, 0x4020_940d];
/// `F_SETPIPE_SZ`, `F_GETPIPE_SZ`.
const PIPE_SIZES: [u32; 2] = [1031, 1032];
/// `UTIME_NOW` is one more.
const UTIME_OMIT: u64 = 0x3fff_fffe;
/// Set in the minor number of a device, so that no file of the service VM passes for one of the
/// compute VM: inode numbers are the same where both have their root image from.
const DEVICE_MARK: u32 = 1 << 19;
/// The same in the device number of `struct stat` (`new_encode_dev`).
const DEVICE_MARK_ENCODED: u8 = 1 << 7;

/// # Errors
/// `EROFS` where the policy does not let the file be changed.
pub fn writable(entry: &Entry) -> Result<(), Errno> {
    let write = entry.resource.file.as_ref().is_some_and(|f| f.write);
    if write { Ok(()) } else { Err(Errno::EROFS) }
}

/// Hands a `struct stat` to the program.
pub async fn status_out(cx: &Cx, mut bytes: Vec<u8>, to: u64) -> Result<Outcome, Errno> {
    if bytes.len() != STATUS_SIZE {
        return Err(Errno::EIO);
    }
    // st_dev is the first field.
    if let Some(byte) = bytes.get_mut(3) {
        *byte |= DEVICE_MARK_ENCODED;
    }
    cx.write(to, &bytes).await?;
    Ok(Outcome::Return(0))
}

/// Hands a `struct statx` to the program.
pub async fn statusx_out(cx: &Cx, mut bytes: Vec<u8>, to: u64) -> Result<Outcome, Errno> {
    /// Highest used byte of the field `stx_dev_minor`.
    const MARKED: usize = 140 + 2;
    if bytes.len() != STATUSX_SIZE {
        return Err(Errno::EIO);
    }
    if let Some(byte) = bytes.get_mut(MARKED) {
        *byte |= (DEVICE_MARK >> 16) as u8;
    }
    cx.write(to, &bytes).await?;
    Ok(Outcome::Return(0))
}

/// Bytes of a file.
pub async fn size(cx: &Cx, entry: &Entry) -> Result<u64, Errno> {
    /// Where `st_size` lies in a `struct stat`.
    const SIZE_AT: usize = 48;
    let bytes = act_for_data(cx, entry, FileAction::Status, (0, 0, 0)).await?;
    let size = bytes.get(SIZE_AT..).and_then(|b| b.first_chunk::<8>()).ok_or(Errno::EIO)?;
    Ok(u64::from_le_bytes(*size))
}

/// `fstat`.
pub async fn status(cx: &Cx, entry: &Entry, to: u64) -> Result<Outcome, Errno> {
    let bytes = act_for_data(cx, entry, FileAction::Status, (0, 0, 0)).await?;
    status_out(cx, bytes, to).await
}

/// Calls about paths with an empty one: the descriptor itself is meant.
pub async fn by_empty_path(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let a = cx.arguments;
    let flags_at = match cx.number {
        nr::newfstatat | nr::faccessat2 | nr::utimensat => 3,
        nr::statx => 2,
        nr::fchownat => 4,
        _ => return Err(Errno::ENOENT),
    };
    let flags = cx.int(flags_at) as u32;
    if flags & linux_abi::AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    match cx.number {
        nr::newfstatat => status(cx, entry, a[2]).await,
        nr::statx => {
            let flags = flags & !(linux_abi::AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
            let numbers = (u64::from(flags), u64::from(a[3] as u32), 0);
            let bytes = act_for_data(cx, entry, FileAction::StatusX, numbers).await?;
            statusx_out(cx, bytes, a[4]).await
        }
        nr::utimensat => times_of(cx, entry).await,
        nr::fchownat => {
            writable(entry)?;
            let ids = (a[2] & 0xffff_ffff, a[3] & 0xffff_ffff, 0);
            act(cx, entry, FileAction::Owner, ids).await
        }
        _ => refuse(cx, Errno::EOPNOTSUPP),
    }
}

/// Two times of a call as two `struct timespec`; `None` is now. `scale` is how many nanoseconds
/// the second number of a pair counts.
pub async fn times(cx: &Cx, at: u64, scale: u64) -> Result<Option<[u8; TIMES_SIZE]>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let mut bytes: [u8; TIMES_SIZE] = cx.array(at).await?;
    if scale != 1 {
        let (words, _) = bytes.as_chunks_mut::<8>();
        for word in words.iter_mut().skip(1).step_by(2) {
            let fraction = u64::from_le_bytes(*word);
            // No fraction of a second may pass for one of the special values.
            if fraction >= UTIME_OMIT / scale {
                return Err(Errno::EINVAL);
            }
            *word = (fraction * scale).to_le_bytes();
        }
    }
    Ok(Some(bytes))
}

/// The two whole seconds of `utime`.
pub async fn seconds(cx: &Cx, at: u64) -> Result<Option<[u8; TIMES_SIZE]>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let seconds: [u8; 16] = cx.array(at).await?;
    let mut out = [0; TIMES_SIZE];
    out[..8].copy_from_slice(&seconds[..8]);
    out[16..24].copy_from_slice(&seconds[8..]);
    Ok(Some(out))
}

/// `utimensat` and `futimesat` of an open file.
pub async fn times_of(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let scale = if cx.number == nr::utimensat { 1 } else { 1000 };
    set_times(cx, entry, times(cx, cx.arguments[2], scale).await?).await
}

async fn set_times(
    cx: &Cx,
    entry: &Entry,
    times: Option<[u8; TIMES_SIZE]>,
) -> Result<Outcome, Errno> {
    writable(entry)?;
    let data = times.as_ref().map_or(&[][..], |t| t.as_slice());
    let any = u32::from(times.is_some());
    super::act_with_data(cx, entry, FileAction::Times, (0, 0, any), data).await?;
    Ok(Outcome::Return(0))
}

/// Hands a `struct statfs` to the program.
pub async fn file_system_out(cx: &Cx, bytes: Vec<u8>, to: u64) -> Result<Outcome, Errno> {
    if bytes.len() != FILE_SYSTEM_SIZE {
        return Err(Errno::EIO);
    }
    cx.write(to, &bytes).await?;
    Ok(Outcome::Return(0))
}

/// `fstatfs`.
pub async fn file_system(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let bytes = act_for_data(cx, entry, FileAction::FileSystem, (0, 0, 0)).await?;
    file_system_out(cx, bytes, cx.arguments[1]).await
}

/// `getdents64` and `getdents`.
pub async fn entries(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let room = u64::from(cx.arguments[2] as u32).min(u64::from(layout::PAYLOAD_MAX));
    let buffers = Buffers::one(cx.arguments[1], room)?;
    // The position moves.
    buffers.prepare(cx, 0, room).await?;
    let newer = u64::from(cx.number == nr::getdents64);
    let numbers = (newer, 0, room as u32);
    let list = act_for_data(cx, entry, FileAction::Entries, numbers).await?;
    let list = list.get(..(room as usize).min(list.len())).unwrap_or(&list);
    cx.write(cx.arguments[1], list).await?;
    Ok(Outcome::Return(list.len() as i64))
}

/// `fcntl`. `None`: the placeholder answers.
pub async fn control(cx: &Cx, entry: &Entry) -> Result<Option<Outcome>, Errno> {
    let value = cx.arguments[2];
    let nonblocking = &entry.resource.nonblocking;
    Ok(Some(match cx.int(1) as u32 {
        F_DUPFD | F_DUPFD_CLOEXEC | F_GETFD | F_SETFD => return Ok(None),
        F_GETFL => {
            let Outcome::Return(flags) = act(cx, entry, FileAction::Flags, (0, 0, 0)).await? else {
                return Err(Errno::EIO);
            };
            let own = if nonblocking.get() { O_NONBLOCK } else { 0 };
            Outcome::Return(flags & !i64::from(O_NONBLOCK) | i64::from(own))
        }
        F_SETFL => {
            let outcome = act(cx, entry, FileAction::SetFlags, (value, 0, 0)).await?;
            nonblocking.set(value as u32 & O_NONBLOCK != 0);
            outcome
        }
        command @ (F_GETLK | F_SETLK | F_SETLKW | F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW) => {
            locks::record(cx, entry, command).await?
        }
        // No signal is ever raised for a regular file.
        F_GETOWN | F_SETOWN | F_GETSIG | F_SETSIG => Outcome::Return(0),
        command if PIPE_SIZES.contains(&command) => return Err(Errno::EBADF),
        _ => return Err(Errno::EINVAL),
    }))
}

/// `ioctl`.
pub async fn ioctl(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    match cx.int(1) as u32 {
        command @ (FIOCLEX | FIONCLEX) => {
            // The placeholder takes no `ioctl`.
            let on = command == FIOCLEX;
            let flag = u64::from(if on { FD_CLOEXEC } else { 0 });
            let set = [cx.arguments[0], u64::from(F_SETFD), flag, 0, 0, 0];
            let result = check(cx.local(nr::fcntl, set).await)?;
            cx.table.set_close_on_exec(cx.int(0), on);
            Ok(Outcome::Return(result))
        }
        FIONBIO => {
            let on = i32::from_le_bytes(cx.array(cx.arguments[2]).await?);
            entry.resource.nonblocking.set(on != 0);
            Ok(Outcome::Return(0))
        }
        command @ FIONREAD => {
            let hold = cx.hold(entry);
            let fd = cx.remote_fd(&hold.resource)?;
            let lease = cx.worker().await?;
            let response = cx.ask(&lease, &Request::Ioctl { fd, command }).await?;
            check(response.value)?;
            let bytes = super::answered(&lease, &response)?;
            cx.write(cx.arguments[2], bytes.get(..4).ok_or(Errno::EIO)?).await?;
            Ok(Outcome::Return(0))
        }
        command if CLONES.contains(&command) => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::ENOTTY),
    }
}
