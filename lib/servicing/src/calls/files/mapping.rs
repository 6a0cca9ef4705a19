//! `mmap` of remote files: a private copy of their content, as it is now.
//!
//! Behind the end of the file the pages are zero instead of faults, and what others write later is
//! not seen. Shared mappings that can be written, and executable ones, are refused.
use super::data;
use crate::calls::transfer::Buffers;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use linux_abi::{
    Errno, MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE, MAP_TYPE, O_ACCMODE,
    PROT_EXEC, PROT_READ, PROT_WRITE, check, nr,
};
use paging::PAGE;

/// Write only.
const O_WRONLY: i64 = 1;

/// `mmap`. `None`: not of a remote file.
pub async fn map(cx: &Cx, entry: Option<Entry>) -> Result<Option<Outcome>, Errno> {
    let [address, length, rights, flags, _, offset] = cx.arguments;
    let Some(entry) = entry.filter(|_| flags & MAP_ANONYMOUS == 0) else { return Ok(None) };
    if rights & PROT_EXEC != 0 {
        // As from a file system without programs (`MS_NOEXEC`).
        return super::refuse(cx, Errno::EPERM);
    }
    match flags & MAP_TYPE {
        MAP_PRIVATE => {}
        MAP_SHARED | MAP_SHARED_VALIDATE if rights & PROT_WRITE == 0 => {}
        MAP_SHARED | MAP_SHARED_VALIDATE => return super::refuse(cx, Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    if offset % PAGE != 0 || length == 0 {
        return Err(Errno::EINVAL);
    }
    let access = super::act(cx, &entry, wire::FileAction::Flags, (0, 0, 0)).await?;
    if matches!(access, Outcome::Return(flags) if flags & i64::from(O_ACCMODE) == O_WRONLY) {
        return Err(Errno::EACCES);
    }
    let flags = flags & !MAP_TYPE | MAP_PRIVATE | MAP_ANONYMOUS;
    let map = [address, length, PROT_READ | PROT_WRITE, flags, u64::MAX, 0];
    let at = check(cx.local(nr::mmap, map).await)? as u64;
    let filled = fill(cx, &entry, at, length, offset).await;
    let protected = match filled {
        Ok(()) if rights != PROT_READ | PROT_WRITE => {
            check(cx.local(nr::mprotect, [at, length, rights, 0, 0, 0]).await).map(drop)
        }
        other => other,
    };
    if let Err(error) = protected {
        cx.local(nr::munmap, [at, length, 0, 0, 0, 0]).await;
        return Err(error);
    }
    Ok(Some(Outcome::Return(at as i64)))
}

/// Copies the content, up to its end. Pages behind it are never touched.
async fn fill(cx: &Cx, entry: &Entry, at: u64, length: u64, offset: u64) -> Result<(), Errno> {
    let size = super::state::size(cx, entry).await?;
    let there = size.saturating_sub(offset).min(length);
    let mut done = 0;
    while done < there {
        let buffers = Buffers::one(at + done, there - done)?;
        let n = data::read_into(cx, entry, &buffers, Some(offset + done), 0).await?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(())
}
