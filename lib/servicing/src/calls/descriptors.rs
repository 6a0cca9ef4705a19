//! Calls about descriptors themselves. The program's own kernel carries them out on the
//! placeholders; here is only kept up what the numbers stand for.
use super::files::end_locks;
use super::signals;
use super::socket::put;
use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::Entry;
use linux_abi::{
    CLOSE_RANGE_CLOEXEC, Errno, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFL, F_SETFD, F_SETFL, F_SETOWN,
    F_SETOWN_EX, F_SETSIG, FD_CLOEXEC, O_ASYNC, O_CLOEXEC, O_NONBLOCK, check, nr,
};
use wire::Request;

/// `close`: the remote socket first, so that its port is free when the program goes on.
pub async fn close(cx: &Cx) -> Result<Outcome, Errno> {
    let Some(entry) = cx.table.remove(cx.int(0)) else { return Ok(Outcome::Reflect) };
    if let Some((_, fd)) = cx.core.unused(&cx.table, &entry.resource) {
        // Whatever the delegate says, the placeholder must be closed.
        let _ = cx.simple(&Request::Close { fd }).await;
    }
    end_locks(cx, &entry).await;
    signals::take_down(cx).await;
    Ok(Outcome::Reflect)
}

/// `close_range`, split around the relay's own descriptors.
pub async fn close_range(cx: &Cx) -> Result<Outcome, Errno> {
    let [first, last, flags] = [0, 1, 2].map(|n| cx.int(n) as u32);
    if first > last {
        return Ok(Outcome::Reflect);
    }
    let mut own = alloc::vec::Vec::new();
    for fd in cx.table.hidden() {
        own.extend(u32::try_from(fd).ok().filter(|fd| (first..=last).contains(fd)));
    }
    own.sort_unstable();
    let mut from = first;
    for hidden in own {
        if hidden > from {
            let part = [u64::from(from), u64::from(hidden - 1), u64::from(flags), 0, 0, 0];
            check(cx.local(nr::close_range, part).await)?;
        }
        from = hidden + 1;
    }
    if from <= last {
        let part = [u64::from(from), u64::from(last), u64::from(flags), 0, 0, 0];
        check(cx.local(nr::close_range, part).await)?;
    }
    let closed = cx.table.take_range(first, last, flags & CLOSE_RANGE_CLOEXEC != 0);
    for entry in &closed {
        end_locks(cx, entry).await;
    }
    cx.core.release(&cx.table, closed);
    signals::take_down(cx).await;
    Ok(Outcome::Return(0))
}

/// Enters what `dup` made: `to` stands for the same as `entry`.
async fn follow(cx: &Cx, to: i64, entry: &Entry, close_on_exec: bool) -> Result<Outcome, Errno> {
    let fd = check(to)?;
    put(cx, fd as i32, Entry { resource: entry.resource.clone(), close_on_exec }).await;
    signals::take_down(cx).await;
    Ok(Outcome::Return(fd))
}

/// `dup`.
pub async fn dup(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let fd = cx.original().await;
    follow(cx, fd, entry, false).await
}

/// `dup2` and `dup3`: what the new number stood for is closed.
pub async fn dup_onto(cx: &Cx) -> Result<Outcome, Errno> {
    let (from, to) = (cx.table.get(cx.arguments[0]), cx.int(1));
    if from.is_none() && cx.table.get(cx.arguments[1]).is_none() {
        return Ok(Outcome::Reflect);
    }
    let fd = check(cx.original().await)?;
    if cx.int(0) == to {
        return Ok(Outcome::Return(fd));
    }
    let close_on_exec = cx.number == nr::dup3 && cx.int(2) as u32 & O_CLOEXEC != 0;
    let replaced = cx.table.get(cx.arguments[1]);
    match from {
        Some(entry) => {
            let outcome = follow(cx, fd, &entry, close_on_exec).await;
            if let Some(replaced) = replaced {
                end_locks(cx, &replaced).await;
            }
            outcome
        }
        None => {
            let old = cx.table.remove(to);
            if let Some(old) = &old {
                end_locks(cx, old).await;
            }
            cx.core.release(&cx.table, old);
            signals::take_down(cx).await;
            Ok(Outcome::Return(fd))
        }
    }
}

/// `fcntl`.
pub async fn fcntl(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let value = cx.arguments[2] as u32;
    match cx.int(1) as u32 {
        command @ (F_DUPFD | F_DUPFD_CLOEXEC) => {
            let fd = cx.original().await;
            follow(cx, fd, entry, command == F_DUPFD_CLOEXEC).await
        }
        F_SETFD => {
            cx.table.set_close_on_exec(cx.int(0), value & FD_CLOEXEC != 0);
            Ok(Outcome::Reflect)
        }
        F_SETFL | F_GETFL if entry.resource.listens_in_both.get() => {
            let hold = cx.hold(entry);
            super::both::flags(cx, &hold.resource).await
        }
        F_SETFL => {
            let hold = cx.hold(entry);
            let result = check(cx.original().await)?;
            hold.resource.nonblocking.set(value & O_NONBLOCK != 0);
            signals::set_asynchronous(cx, &hold.resource, value & O_ASYNC != 0).await?;
            Ok(Outcome::Return(result))
        }
        F_SETOWN | F_SETOWN_EX | F_SETSIG if !entry.is_local() => {
            signals::owner_changes(cx, entry).await
        }
        _ => Ok(Outcome::Reflect),
    }
}
