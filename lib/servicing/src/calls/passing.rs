//! Sockets that more than one process comes to have, other than by `fork`: made before a `fork` and
//! committed after it, passed over local sockets (`SCM_RIGHTS`), or taken (`pidfd_getfd`). The
//! guest's kernel moves the placeholder; here the delegates follow.
//!
//! A descriptor that is on its way belongs to nobody who lives for sure. The dispatcher keeps the
//! remote socket meanwhile. The placeholder is known again by its cookie (`SO_COOKIE`), which
//! no other socket ever has.
use super::messages::{Rights, rights};
use super::socket::{descriptor, put};
use super::vouch::vouch;
use crate::core::Core;
use crate::cx::Cx;
use crate::delegate::{Delegate, Life};
use crate::space::Outcome;
use crate::table::{Entry, Resource, State, Table};
use crate::world::Kind;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{Errno, MSG_CMSG_CLOEXEC, MSG_PEEK, SOL_SOCKET, check, nr};
use wire::Request;

const SO_PEERCRED: u64 = 17;
const SO_COOKIE: u64 = 57;
const KCMP_FILE: u64 = 0;
/// The dispatcher, among holders of a resource and as a source of descriptors.
const DISPATCHER: u32 = 0;
/// Most descriptors on their way.
const LIMIT: usize = 256;

/// A descriptor on its way.
#[derive(Clone, Debug)]
pub struct Passing {
    cookie: u64,
    resource: Rc<Resource>,
    count: u32,
}

/// Makes a delegate hold a remote socket that another one holds.
async fn hand_over(cx: &Cx, resource: &Resource, to: &Rc<Delegate>) -> Result<(), Errno> {
    if resource.holders.borrow().contains_key(&to.id) {
        return Ok(());
    }
    let holders = resource.holders.borrow().clone();
    let source = holders.iter().find_map(|(id, fd)| Some((cx.core.delegates.pid(*id)?, *fd)));
    let (pid, fd) = source.ok_or(Errno::ECONNRESET)?;
    let completion = to.order(Request::Fetch { pid, fd });
    let number = descriptor(cx.completed(&completion).await?.value)?;
    resource.holders.borrow_mut().insert(to.id, number);
    Ok(())
}

/// A socket has just committed: all others who have it get it, too.
pub async fn share(cx: &Cx, resource: &Resource) {
    let has = |t: &Rc<Table>| {
        let entries = t.entries.borrow();
        t.id != cx.table.id && entries.values().any(|e| e.resource.id == resource.id)
    };
    let tables: Vec<_> = cx.core.tables().into_iter().filter(has).collect();
    let mut delegates: Vec<_> = tables.iter().filter_map(|t| cx.core.delegate(t)).collect();
    if cx.core.passing.borrow().iter().any(|p| p.resource.id == resource.id) {
        delegates.extend(cx.core.delegates.dispatcher());
    }
    for delegate in delegates {
        if let Err(error) = hand_over(cx, resource, &delegate).await {
            cx.core.world.log(format_args!(
                "{}[{}]: a socket of several processes is lost to one of them: {}",
                cx.space.name.borrow(),
                cx.space.id,
                error.name(),
            ));
        }
    }
}

/// Enters a descriptor that came from another process.
async fn receive(cx: &Cx, fd: i32, resource: &Rc<Resource>, close_on_exec: bool) {
    put(cx, fd, Entry { resource: resource.clone(), close_on_exec }).await;
    if !matches!(resource.state.get(), State::Remote(_)) {
        return;
    }
    if vouch(cx).is_err() {
        return;
    }
    // Where this fails, the program learns of a connection that is lost.
    if let Some(delegate) = cx.core.delegate(&cx.table).filter(|d| d.life() != Life::Dead) {
        let _ = hand_over(cx, resource, &delegate).await;
    }
    // Its signals must not depend on processes that had it before.
    if let Err(error) = super::signals::refresh(cx, resource).await {
        cx.core.world.log(format_args!(
            "{}[{}]: a socket that came from elsewhere raises no signals here: {}",
            cx.space.name.borrow(),
            cx.space.id,
            error.name(),
        ));
    }
}

async fn cookie(cx: &Cx, fd: i32) -> Result<u64, Errno> {
    let scratch = cx.scratch()?;
    let (at, length) = (scratch.address, scratch.address + 8);
    cx.write(length, &8u32.to_le_bytes()).await?;
    let ask = [fd as u64, SOL_SOCKET as u64, SO_COOKIE, at, length, 0];
    check(cx.local(nr::getsockopt, ask).await)?;
    Ok(u64::from_le_bytes(cx.array(at).await?))
}

/// True when the other end of a local socket is known to be an untrusted process.
async fn goes_to_a_stranger(cx: &Cx) -> Result<bool, Errno> {
    let scratch = cx.scratch()?;
    let (at, length) = (scratch.address, scratch.address + 16);
    cx.write(length, &12u32.to_le_bytes()).await?;
    let ask = [cx.arguments[0], SOL_SOCKET as u64, SO_PEERCRED, at, length, 0];
    check(cx.local(nr::getsockopt, ask).await)?;
    let pid = i32::from_le_bytes(cx.array(at).await?);
    if pid <= 0 || cx.core.tables().iter().any(|t| t.pid.get() == pid) {
        return Ok(false);
    }
    // Whoever made the socket may be gone, and the other end with somebody else.
    Ok(cx.local(nr::kill, [pid as u64, 0, 0, 0, 0, 0]).await == 0)
}

/// `sendmsg` and `sendmmsg` on a local socket, with descriptors of sockets that are not local.
pub async fn send(cx: &Cx, descriptors: Vec<i32>) -> Result<Outcome, Errno> {
    if goes_to_a_stranger(cx).await.unwrap_or(false) {
        cx.note(Kind::Refused);
        cx.core.world.log(format_args!(
            "{}[{}]: a remote descriptor is not passed to an untrusted process: {}",
            cx.space.name.borrow(),
            cx.space.id,
            Errno::EPERM.name(),
        ));
        return Err(Errno::EPERM);
    }
    let mut sent = Vec::new();
    for fd in descriptors {
        let Some(entry) = cx.table.get(fd as u64) else { continue };
        if entry.resource.file.is_some() {
            // Its placeholder is like all others: whoever receives it could not tell which it is.
            super::log_refusal(cx, Errno::EPERM);
            return Err(Errno::EPERM);
        }
        let cookie = cookie(cx, fd).await?;
        dispatch(cx, cookie, &entry.resource).await?;
        sent.push(cookie);
    }
    let result = cx.original().await;
    if result < 0 {
        for cookie in sent {
            arrived(&cx.core, cookie);
        }
    }
    Ok(Outcome::Return(result))
}

/// Notes that a socket is on its way; false when it was already.
fn note(core: &Core, cookie: u64, resource: &Rc<Resource>) -> Result<bool, Errno> {
    let mut passing = core.passing.borrow_mut();
    if let Some(known) = passing.iter_mut().find(|p| p.cookie == cookie) {
        known.count += 1;
        return Ok(false);
    }
    if passing.len() >= LIMIT {
        return Err(Errno::ETOOMANYREFS);
    }
    passing.push(Passing { cookie, resource: resource.clone(), count: 1 });
    Ok(true)
}

/// Puts a socket on its way.
async fn dispatch(cx: &Cx, cookie: u64, resource: &Rc<Resource>) -> Result<(), Errno> {
    if !note(&cx.core, cookie, resource)? {
        return Ok(());
    }
    if matches!(resource.state.get(), State::Remote(_)) {
        let dispatcher = cx.core.delegates.dispatcher().ok_or(Errno::ENETDOWN)?;
        hand_over(cx, resource, &dispatcher).await?;
    }
    Ok(())
}

/// One of the messages that carry a socket has arrived.
fn arrived(core: &Core, cookie: u64) {
    let mut passing = core.passing.borrow_mut();
    let Some(place) = passing.iter().position(|p| p.cookie == cookie) else { return };
    let Some(one) = passing.get_mut(place) else { return };
    one.count -= 1;
    if one.count == 0 {
        let over = passing.swap_remove(place);
        drop(passing);
        let_go(core, &over.resource);
    }
}

fn let_go(core: &Core, resource: &Resource) {
    let kept = resource.holders.borrow_mut().remove(&DISPATCHER);
    if let (Some(fd), Some(dispatcher)) = (kept, core.delegates.dispatcher()) {
        dispatcher.order(Request::Close { fd });
    }
}

/// Nobody is left who could receive.
pub fn forget(core: &Core) {
    for passing in core.passing.take() {
        let_go(core, &passing.resource);
    }
}

/// `recvmsg` and `recvmmsg` on a local socket: when they come back, descriptors may be on their way, whatever was known
/// when they began to wait.
pub async fn receive_messages(cx: &Cx) -> Result<Outcome, Errno> {
    let result = check(cx.original().await)?;
    if cx.core.passing.borrow().is_empty() {
        return Ok(Outcome::Return(result));
    }
    let (count, flags) = match cx.number {
        nr::recvmmsg => (result as u64, cx.int(3) as u32),
        _ => (1, cx.int(2) as u32),
    };
    for n in 0..count {
        let Ok(Rights(descriptors)) = rights(cx, n).await else { continue };
        for fd in descriptors {
            let Ok(cookie) = cookie(cx, fd).await else { continue };
            let found = cx.core.passing.borrow().iter().find(|p| p.cookie == cookie).cloned();
            let Some(found) = found else { continue };
            receive(cx, fd, &found.resource, flags & MSG_CMSG_CLOEXEC != 0).await;
            if flags & MSG_PEEK == 0 {
                arrived(&cx.core, cookie);
            }
        }
    }
    Ok(Outcome::Return(result))
}

/// `pidfd_getfd`: whose descriptor it was is found by comparing files.
pub async fn take(cx: &Cx) -> Result<Outcome, Errno> {
    let fd = check(cx.original().await)?;
    let target = cx.arguments[1];
    for table in cx.core.tables() {
        let Some(entry) = table.get(target) else { continue };
        let (own, other) = (cx.table.pid.get() as u64, table.pid.get() as u64);
        let compare = [own, other, KCMP_FILE, fd as u64, target, 0];
        if other != 0 && cx.local(nr::kcmp, compare).await == 0 {
            // `pidfd_getfd` always sets FD_CLOEXEC.
            receive(cx, fd as i32, &entry.resource, true).await;
            break;
        }
    }
    Ok(Outcome::Return(fd))
}
