//! Files of the service VM in place of the compute VM's: paths that the policy maps, and what was
//! opened there. `doc/decisions/remote-files.md` says how a path is resolved and what differs.
//!
//! Reading order: `view` (what a process has of it), `paths` (whose file a path means), `names`
//! (calls about paths), `open`, `data`, `state` (calls about open files), `locks`, `moving`,
//! `mapping`.
mod data;
mod locks;
mod mapping;
mod moving;
mod names;
mod open;
mod paths;
mod state;
mod view;

use super::readiness::Access as _;
use crate::cx::Cx;
use crate::delegate::Lease;
use crate::space::Outcome;
use crate::table::{Entry, State, Table};
use crate::world::Kind;
use alloc::vec::Vec;
use linux_abi::{Errno, check, nr};
use wire::{FileAction, FileRequest, Request, Response, layout};

pub use locks::end as end_locks;
pub use view::{OpenFile, View};

/// True for calls that are looked at in processes whose program has remote files.
#[must_use]
pub fn concerns_paths(number: u64) -> bool {
    matches!(number, nr::umask | nr::getcwd | nr::fchdir)
        || linux_abi::call(number).is_some_and(|call| call.paths().next().is_some())
}

/// The remote file that a descriptor stands for.
fn file(table: &Table, fd: u64) -> Option<Entry> {
    table.get(fd).filter(|entry| entry.resource.file.is_some())
}

/// Carries a call out that concerns remote files. `None`: it does not.
pub async fn serve(cx: &Cx) -> Result<Option<Outcome>, Errno> {
    let (a, call) = (cx.arguments, linux_abi::call(cx.number));
    if let Some(call) = call.filter(|call| call.paths().next().is_some()) {
        let begins = |(directory, _): (Option<usize>, usize)| {
            directory.and_then(|n| a.get(n)).is_some_and(|fd| file(&cx.table, *fd).is_some())
        };
        if !cx.table.view.is_active() && !call.paths().any(begins) {
            return Ok(None);
        }
        let outcome = names::serve(cx).await?;
        // A program that starts is not only a path.
        let own = Some(Outcome::Reflect).filter(|_| cx.number != nr::execve);
        return Ok(outcome.or(own));
    }
    // A number is a descriptor only where the call takes one.
    let [first, second, third, fifth] = [0, 1, 2, 4].map(|place| {
        call.filter(|call| call.descriptors().any(|n| n == place))?;
        file(&cx.table, a[place])
    });
    match cx.number {
        nr::umask if cx.table.view.is_active() => return view::umask(cx).await.map(Some),
        nr::getcwd => return view::current(cx).await.map(Some),
        nr::fchdir => return view::enter_open(cx, first).await.map(Some),
        nr::sendfile if first.is_some() || second.is_some() => {
            return moving::sendfile(cx, first, second).await.map(Some);
        }
        nr::splice if first.is_some() || third.is_some() => {
            return moving::splice(cx, first, third).await.map(Some);
        }
        nr::copy_file_range if first.is_some() || third.is_some() => {
            return moving::copy(cx, first, third).await.map(Some);
        }
        nr::mmap => return mapping::map(cx, fifth).await,
        // As for all files that cannot be waited for.
        nr::epoll_ctl if third.is_some() => return Err(Errno::EPERM),
        _ => {}
    }
    let Some(entry) = first else { return Ok(None) };
    with_file(cx, &entry).await
}

/// Calls about the remote file in their first argument.
async fn with_file(cx: &Cx, entry: &Entry) -> Result<Option<Outcome>, Errno> {
    let a = cx.arguments;
    Ok(Some(match cx.number {
        nr::close | nr::dup | nr::dup2 | nr::dup3 | nr::close_range => return Ok(None),
        nr::read | nr::pread64 | nr::readv | nr::preadv | nr::preadv2 => {
            data::read(cx, entry).await?
        }
        nr::write | nr::pwrite64 | nr::writev | nr::pwritev | nr::pwritev2 => {
            data::write(cx, entry).await?
        }
        nr::lseek => act(cx, entry, FileAction::Seek, (a[1], u64::from(a[2] as u32), 0)).await?,
        nr::fstat => state::status(cx, entry, a[1]).await?,
        nr::fstatfs => state::file_system(cx, entry).await?,
        nr::getdents | nr::getdents64 => state::entries(cx, entry).await?,
        nr::fsync | nr::fdatasync | nr::sync_file_range | nr::syncfs => {
            let data_only = u64::from(cx.number != nr::fsync);
            act(cx, entry, FileAction::Sync, (data_only, 0, 0)).await?
        }
        nr::ftruncate => act(cx, entry, FileAction::Truncate, (a[1], 0, 0)).await?,
        nr::fallocate => act(cx, entry, FileAction::Allocate, (a[2], a[3], a[1] as u32)).await?,
        nr::fchmod => {
            state::writable(entry)?;
            act(cx, entry, FileAction::Mode, (a[1] & 0o7777, 0, 0)).await?
        }
        nr::fchown => {
            state::writable(entry)?;
            let ids = (a[1] & 0xffff_ffff, a[2] & 0xffff_ffff, 0);
            act(cx, entry, FileAction::Owner, ids).await?
        }
        nr::flock => locks::whole(cx, entry).await?,
        nr::fcntl => return state::control(cx, entry).await,
        nr::ioctl => state::ioctl(cx, entry).await?,
        nr::fadvise64 | nr::readahead => Outcome::Return(0),
        nr::fgetxattr | nr::fsetxattr | nr::flistxattr | nr::fremovexattr => {
            return Err(Errno::EOPNOTSUPP);
        }
        nr::epoll_ctl | nr::epoll_wait | nr::epoll_pwait | nr::epoll_pwait2 => {
            return Err(Errno::EINVAL);
        }
        number if is_about_sockets(number) => return Err(Errno::ENOTSOCK),
        _ => return refuse(cx, Errno::EOPNOTSUPP),
    }))
}

const fn is_about_sockets(number: u64) -> bool {
    matches!(
        number,
        nr::connect
            | nr::accept
            | nr::accept4
            | nr::sendto
            | nr::recvfrom
            | nr::sendmsg
            | nr::recvmsg
            | nr::sendmmsg
            | nr::recvmmsg
            | nr::shutdown
            | nr::bind
            | nr::listen
            | nr::getsockname
            | nr::getpeername
            | nr::setsockopt
            | nr::getsockopt
    )
}

/// A call that is not carried out, with one line about it.
fn refuse<T>(cx: &Cx, error: Errno) -> Result<T, Errno> {
    cx.note(Kind::Refused);
    super::log_refusal(cx, error);
    Err(error)
}

/// Asks a worker about files.
async fn ask(cx: &Cx, lease: &Lease, request: FileRequest) -> Result<Response, Errno> {
    let response = cx.ask(lease, &Request::File(request)).await?;
    check(response.value)?;
    Ok(response)
}

/// An action on an open file without data: its result.
async fn act(
    cx: &Cx,
    entry: &Entry,
    action: FileAction,
    (a, b, c): (u64, u64, u32),
) -> Result<Outcome, Errno> {
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let request = Request::File(FileRequest::Act { fd, action, a, b, c });
    Ok(Outcome::Return(cx.simple(&request).await?))
}

/// An action on an open file that is answered with data.
async fn act_for_data(
    cx: &Cx,
    entry: &Entry,
    action: FileAction,
    numbers: (u64, u64, u32),
) -> Result<Vec<u8>, Errno> {
    act_with_data(cx, entry, action, numbers, &[]).await
}

/// An action on an open file that takes data, and may be answered with some.
async fn act_with_data(
    cx: &Cx,
    entry: &Entry,
    action: FileAction,
    numbers: (u64, u64, u32),
    data: &[u8],
) -> Result<Vec<u8>, Errno> {
    Ok(act_for_both(cx, entry, action, numbers, data).await?.1)
}

/// The same for one that has a result as well.
async fn act_for_both(
    cx: &Cx,
    entry: &Entry,
    action: FileAction,
    (a, b, c): (u64, u64, u32),
    data: &[u8],
) -> Result<(i64, Vec<u8>), Errno> {
    let hold = cx.hold(entry);
    let fd = cx.remote_fd(&hold.resource)?;
    let lease = cx.worker().await?;
    lease.mailbox().memory().write_all(layout::PAYLOAD, data)?;
    let response = ask(cx, &lease, FileRequest::Act { fd, action, a, b, c }).await?;
    Ok((response.value, answered(&lease, &response)?))
}

/// The data of a response.
fn answered(lease: &Lease, response: &Response) -> Result<Vec<u8>, Errno> {
    if response.length > layout::PAYLOAD_MAX {
        return Err(Errno::EIO);
    }
    let mut bytes = alloc::vec![0; response.length as usize];
    lease.mailbox().memory().read_all(layout::PAYLOAD, &mut bytes)?;
    Ok(bytes)
}

/// Enters a file that the delegate has opened.
fn opened(cx: &Cx, remote: i32, delegate: u32, file: OpenFile) -> Entry {
    let resource = crate::table::Resource { file: Some(file), ..cx.core.resource(0, 0, 0) };
    resource.state.set(State::Remote(remote));
    resource.holders.borrow_mut().insert(delegate, remote);
    Entry { resource: alloc::rc::Rc::new(resource), close_on_exec: false }
}
