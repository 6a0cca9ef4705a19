//! Calls about paths.
use super::paths::{self, Meaning, Target, resolve};
use super::{file, open, refuse, state, view};
use crate::cx::Cx;
use crate::space::Outcome;
use alloc::vec::Vec;
use linux_abi::{
    AT_EACCESS, AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, Errno,
    PATH_MAX, RENAME_EXCHANGE, RENAME_NOREPLACE, S_IFMT, S_IFREG, check, nr,
};
use paging::PAGE;
use wire::PathAction;
use wire::file::TIMES_SIZE;

/// The bit of `access` that asks for writing (`W_OK`).
const WRITE_ACCESS: u32 = 2;
/// Flags of `statx` and its like about synchronisation and automatic mounts.
const SYNC_FLAGS: u32 = 0x6000 | AT_NO_AUTOMOUNT;
const AT_NO_AUTOMOUNT: u32 = 0x800;

/// Carries out a call that looks up paths, in a process that has remote files.
pub async fn serve(cx: &Cx) -> Result<Option<Outcome>, Errno> {
    let places: Vec<_> = linux_abi::call(cx.number).into_iter().flat_map(|c| c.paths()).collect();
    let mut meanings = Vec::new();
    for (directory, place) in &places {
        let at = cx.arguments.get(*place).copied().unwrap_or(0);
        let directory = directory.map(|n| cx.int(n));
        // Without a path the two that set times are about the descriptor (`futimens`).
        if at == 0
            && let nr::utimensat | nr::futimesat = cx.number
            && let Some(entry) = directory.and_then(|fd| file(&cx.table, fd as u64))
        {
            return state::times_of(cx, &entry).await.map(Some);
        }
        // Whatever cannot be read, the kernel refuses.
        let Ok(path) = cx.string(at, PATH_MAX).await else { return own(cx, None).await };
        if path.is_empty()
            && let Some(entry) = directory.and_then(|fd| file(&cx.table, fd as u64))
        {
            return state::by_empty_path(cx, &entry).await.map(Some);
        }
        meanings.push(resolve(cx, directory, &path).await?);
    }
    if cx.number == nr::execve {
        return match meanings.first() {
            Some(Meaning::Remote(_)) => refuse(cx, Errno::EACCES),
            Some(Meaning::OwnAt(_)) => Err(Errno::ENOENT),
            _ => Ok(None),
        };
    }
    match meanings.as_slice() {
        [Meaning::Remote(target)] => one(cx, target).await.map(Some),
        [Meaning::Remote(from), Meaning::Remote(to)] => two(cx, from, to).await.map(Some),
        [Meaning::Remote(_), _] | [_, Meaning::Remote(_)] => Err(Errno::EXDEV),
        _ => {
            let elsewhere = places.iter().zip(meanings).filter_map(|((_, place), meaning)| {
                if let Meaning::OwnAt(path) = meaning { Some((*place, path)) } else { None }
            });
            own(cx, Some(elsewhere.collect())).await
        }
    }
}

/// The program's own kernel carries it out, with some paths spelled differently.
async fn own(cx: &Cx, paths: Option<Vec<(usize, Vec<u8>)>>) -> Result<Option<Outcome>, Errno> {
    let paths = paths.unwrap_or_default();
    let moves = matches!(cx.number, nr::chdir | nr::chroot | nr::pivot_root);
    if paths.is_empty() && !moves {
        return Ok(None);
    }
    let mut arguments = cx.arguments;
    let mut memory = Vec::new();
    for (place, mut path) in paths {
        path.push(0);
        if path.len() as u64 > PAGE {
            return Err(Errno::ENAMETOOLONG);
        }
        let scratch = cx.scratch()?;
        cx.write(scratch.address, &path).await?;
        if let Some(argument) = arguments.get_mut(place) {
            *argument = scratch.address;
        }
        memory.push(scratch);
    }
    let result = check(cx.local(cx.number, arguments).await)?;
    if cx.number == nr::chdir {
        cx.table.view.moved(None);
    } else if moves {
        cx.table.view.forget();
    }
    Ok(Some(Outcome::Return(result)))
}

fn unless_follow(flags: u32) -> u32 {
    flags & AT_SYMLINK_NOFOLLOW
}

/// Flags besides these are none of the call's.
fn known(flags: u32, all: u32) -> Result<u32, Errno> {
    if flags & !all != 0 { Err(Errno::EINVAL) } else { Ok(flags) }
}

/// One remote path.
async fn one(cx: &Cx, target: &Target) -> Result<Outcome, Errno> {
    let a = cx.arguments;
    let [b, c, d, e] = [1, 2, 3, 4].map(|n| cx.int(n) as u32);
    match cx.number {
        nr::open | nr::creat | nr::openat | nr::openat2 => open::open(cx, target).await,
        nr::chdir => view::enter(cx, target).await,
        nr::stat => status(cx, target, 0, a[1]).await,
        nr::lstat => status(cx, target, AT_SYMLINK_NOFOLLOW, a[1]).await,
        nr::newfstatat => {
            let all = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
            status(cx, target, unless_follow(known(d, all)?), a[2]).await
        }
        nr::statx => {
            let flags = known(c, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | SYNC_FLAGS)?;
            let flags = flags & !AT_EMPTY_PATH;
            let bytes = target.for_data(cx, PathAction::StatusX, (flags, d)).await?;
            state::statusx_out(cx, bytes, a[4]).await
        }
        nr::access => access(cx, target, b, 0).await,
        nr::faccessat => access(cx, target, c, 0).await,
        nr::faccessat2 => {
            let all = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_EACCESS;
            access(cx, target, c, unless_follow(known(d, all)?)).await
        }
        nr::readlink => read_link(cx, target, a[1], c).await,
        nr::readlinkat => read_link(cx, target, a[2], d).await,
        nr::statfs => {
            let bytes = target.for_data(cx, PathAction::FileSystem, (0, 0)).await?;
            state::file_system_out(cx, bytes, a[1]).await
        }
        nr::mkdir => make(cx, target, PathAction::MakeDirectory, b).await,
        nr::mkdirat => make(cx, target, PathAction::MakeDirectory, c).await,
        nr::mknod => node(cx, target, b).await,
        nr::mknodat => node(cx, target, c).await,
        nr::rmdir => remove(cx, target, AT_REMOVEDIR).await,
        nr::unlink => remove(cx, target, 0).await,
        nr::unlinkat => remove(cx, target, known(c, AT_REMOVEDIR)?).await,
        nr::symlink | nr::symlinkat => symlink(cx, target).await,
        _ => change(cx, target, [b, c, d, e]).await,
    }
}

/// Calls that change a file of the service VM, but no name.
async fn change(cx: &Cx, target: &Target, [b, c, d, e]: [u32; 4]) -> Result<Outcome, Errno> {
    let a = cx.arguments;
    match cx.number {
        nr::chmod | nr::fchmodat => {
            target.writable()?;
            let mode = if cx.number == nr::chmod { b } else { c };
            target.simple(cx, PathAction::Mode, mode & 0o7777, 0).await
        }
        nr::chown => owner(cx, target, (b, c), 0).await,
        nr::lchown => owner(cx, target, (b, c), AT_SYMLINK_NOFOLLOW).await,
        nr::fchownat => {
            let flags = known(e, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
            owner(cx, target, (c, d), unless_follow(flags)).await
        }
        nr::utimensat => {
            let flags = known(d, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
            times(cx, target, state::times(cx, a[2], 1).await?, unless_follow(flags)).await
        }
        nr::futimesat => times(cx, target, state::times(cx, a[2], 1000).await?, 0).await,
        nr::utimes => times(cx, target, state::times(cx, a[1], 1000).await?, 0).await,
        nr::utime => times(cx, target, state::seconds(cx, a[1]).await?, 0).await,
        nr::truncate => {
            target.writable()?;
            let length = a[1].to_le_bytes();
            target.with_data(cx, PathAction::Truncate, (0, 0), &length).await
        }
        nr::getxattr
        | nr::lgetxattr
        | nr::setxattr
        | nr::lsetxattr
        | nr::listxattr
        | nr::llistxattr
        | nr::removexattr
        | nr::lremovexattr => Err(Errno::EOPNOTSUPP),
        _ => refuse(cx, Errno::EOPNOTSUPP),
    }
}

/// Two remote paths.
async fn two(cx: &Cx, from: &Target, to: &Target) -> Result<Outcome, Errno> {
    let flags = match cx.number {
        nr::renameat2 | nr::linkat => cx.int(4) as u32,
        _ => 0,
    };
    match cx.number {
        nr::rename | nr::renameat | nr::renameat2 => {
            known(flags, RENAME_NOREPLACE | RENAME_EXCHANGE)?;
            from.movable(cx)?;
            to.movable(cx)?;
            from.writable()?;
            to.writable()?;
            if !from.has_entry_of(to) {
                return Err(Errno::EXDEV);
            }
            paths::both(cx, PathAction::Rename, (from, to), flags).await
        }
        nr::link | nr::linkat => {
            let flags = known(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)? & AT_SYMLINK_FOLLOW;
            to.movable(cx)?;
            to.writable()?;
            if !from.has_entry_of(to) {
                return Err(Errno::EXDEV);
            }
            paths::both(cx, PathAction::Link, (from, to), flags).await
        }
        _ => refuse(cx, Errno::EOPNOTSUPP),
    }
}

async fn status(cx: &Cx, target: &Target, flags: u32, to: u64) -> Result<Outcome, Errno> {
    let bytes = target.for_data(cx, PathAction::Status, (flags, 0)).await?;
    state::status_out(cx, bytes, to).await
}

async fn access(cx: &Cx, target: &Target, mode: u32, flags: u32) -> Result<Outcome, Errno> {
    let outcome = target.simple(cx, PathAction::Access, mode, flags).await?;
    if mode & WRITE_ACCESS != 0 {
        target.writable()?;
    }
    Ok(outcome)
}

async fn read_link(cx: &Cx, target: &Target, to: u64, room: u32) -> Result<Outcome, Errno> {
    let room = i32::try_from(room).ok().filter(|n| *n > 0).ok_or(Errno::EINVAL)?;
    let bytes = target.for_data(cx, PathAction::ReadLink, (0, room as u32)).await?;
    let bytes = bytes.get(..room as usize).unwrap_or(&bytes);
    cx.write(to, bytes).await?;
    Ok(Outcome::Return(bytes.len() as i64))
}

/// A new name: what is there already is said before what may not be changed, as by Linux.
async fn creatable(cx: &Cx, target: &Target) -> Result<(), Errno> {
    if target.may_write() {
        return Ok(());
    }
    match target.for_data(cx, PathAction::Status, (AT_SYMLINK_NOFOLLOW, 0)).await {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) => Err(Errno::EROFS),
        Err(error) => Err(error),
    }
}

async fn make(cx: &Cx, target: &Target, action: PathAction, mode: u32) -> Result<Outcome, Errno> {
    creatable(cx, target).await?;
    let mode = view::masked(cx, mode).await;
    target.simple(cx, action, mode, 0).await
}

/// Regular files only: nobody opens a device or a pipe there.
async fn node(cx: &Cx, target: &Target, mode: u32) -> Result<Outcome, Errno> {
    match mode & S_IFMT {
        0 | S_IFREG => make(cx, target, PathAction::MakeFile, mode).await,
        _ => refuse(cx, Errno::EPERM),
    }
}

async fn remove(cx: &Cx, target: &Target, flags: u32) -> Result<Outcome, Errno> {
    target.movable(cx)?;
    target.writable()?;
    target.simple(cx, PathAction::Remove, flags, 0).await
}

async fn symlink(cx: &Cx, target: &Target) -> Result<Outcome, Errno> {
    let text = cx.string(cx.arguments[0], PATH_MAX).await?;
    if text.is_empty() {
        return Err(Errno::ENOENT);
    }
    creatable(cx, target).await?;
    target.movable(cx)?;
    target.with_data(cx, PathAction::Symlink, (0, 0), &text).await
}

async fn owner(
    cx: &Cx,
    target: &Target,
    (user, group): (u32, u32),
    flags: u32,
) -> Result<Outcome, Errno> {
    target.writable()?;
    let mut ids = [0; 8];
    ids[..4].copy_from_slice(&user.to_le_bytes());
    ids[4..].copy_from_slice(&group.to_le_bytes());
    target.with_data(cx, PathAction::Owner, (flags, 0), &ids).await
}

async fn times(
    cx: &Cx,
    target: &Target,
    times: Option<[u8; TIMES_SIZE]>,
    flags: u32,
) -> Result<Outcome, Errno> {
    target.writable()?;
    let data = times.as_ref().map_or(&[][..], |t| t.as_slice());
    target.with_data(cx, PathAction::Times, (flags, 0), data).await
}
