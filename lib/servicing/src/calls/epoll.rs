//! `epoll_create`, `epoll_ctl` and `epoll_wait` with their variants. What is local is registered by
//! the program's own call in the instance of its own kernel; what is remote, in an instance of the
//! delegate. [`wait`] looks at both.
mod wait;

use super::log_refusal;
use super::socket::{descriptor, put};
use crate::cx::Cx;
use crate::epoll::{Epoll, Item, Place};
use crate::space::Outcome;
use crate::table::{Entry, Resource, State};
use crate::world::Kind;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_abi::{
    EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP, EpollEvent, Errno, O_CLOEXEC, check, nr,
};
use wire::{EpollOperation, EpollRequest, Request};

pub use wait::wait;

/// `epoll_create` and `epoll_create1`: the local half is what the program gets.
pub async fn create(cx: &Cx) -> Result<Outcome, Errno> {
    let fd = check(cx.original().await)?;
    let close_on_exec = cx.number == nr::epoll_create1 && cx.int(0) as u32 & O_CLOEXEC != 0;
    let resource = Rc::new(cx.core.epoll());
    put(cx, fd as i32, Entry { resource, close_on_exec }).await;
    Ok(Outcome::Return(fd))
}

/// `epoll_ctl`.
pub async fn control(cx: &Cx) -> Result<Outcome, Errno> {
    let target = cx.table.get(cx.arguments[2]);
    let instance = cx.table.get(cx.arguments[0]).filter(|e| e.resource.epoll.is_some());
    let (Some(instance), Some(target)) = (&instance, &target) else {
        if let (Some(epoll), true) = (epoll_of(&instance), cx.int(1) == 1) {
            epoll.has_local.set(true);
        }
        return match target.map(|e| e.resource.state.get()) {
            Some(State::Remote(_) | State::Dead) if instance.is_none() => unknown(cx).await,
            _ => Ok(Outcome::Reflect),
        };
    };
    let hold = cx.hold(instance);
    let resource = &hold.resource;
    if target.resource.has_two_halves() {
        return nested(cx, resource, target).await;
    }
    match target.resource.state.get() {
        State::Local => {
            if let Some(epoll) = &resource.epoll {
                epoll.has_local.set(true);
            }
            Ok(Outcome::Reflect)
        }
        State::Undecided => undecided(cx, resource, target, None).await.map(Outcome::Return),
        State::Remote(_) | State::Dead => remote(cx, resource, target).await,
    }
}

fn epoll_of(entry: &Option<Entry>) -> Option<&Epoll> {
    entry.as_ref()?.resource.epoll.as_ref()
}

/// A remote socket is to be registered in an instance that the relay has not seen made: its own
/// kernel says what is wrong with the number; if nothing is, it is not covered.
async fn unknown(cx: &Cx) -> Result<Outcome, Errno> {
    let [epoll, _, fd, ..] = cx.arguments;
    let delete = u64::from(EpollOperation::Delete as u32);
    match check(cx.local(nr::epoll_ctl, [epoll, delete, fd, 0, 0, 0]).await) {
        Err(error) if error != Errno::ENOENT => Err(error),
        _ => {
            cx.note(Kind::Refused);
            log_refusal(cx, Errno::EPERM);
            Err(Errno::EPERM)
        }
    }
}

fn operation(cx: &Cx) -> Result<EpollOperation, Errno> {
    EpollOperation::of(cx.int(1) as u32).ok_or(Errno::EINVAL)
}

/// The program's `struct epoll_event`, where the operation has one.
async fn event_in(cx: &Cx) -> Result<EpollEvent, Errno> {
    if operation(cx) == Ok(EpollOperation::Delete) {
        return Ok(EpollEvent::default());
    }
    Ok(EpollEvent::decode(cx.array(cx.arguments[3]).await?))
}

/// A registration that the program's own kernel has, under another name than the program's if there is one, and
/// that may move later.
async fn undecided(
    cx: &Cx,
    instance: &Resource,
    target: &Entry,
    alias: Option<u64>,
) -> Result<i64, Errno> {
    let Some(epoll) = &instance.epoll else { return Err(Errno::EINVAL) };
    let event = event_in(cx).await?;
    let result = match alias {
        None => cx.original().await,
        Some(data) => {
            let scratch = cx.scratch()?;
            cx.write(scratch.address, &EpollEvent { data, ..event }.encode()).await?;
            let [instance, operation, fd, ..] = cx.arguments;
            cx.local(nr::epoll_ctl, [instance, operation, fd, scratch.address, 0, 0]).await
        }
    };
    let result = check(result)?;
    let (fd, key) = (cx.int(2), (target.resource.id, cx.int(2)));
    match operation(cx)? {
        EpollOperation::Add => {
            epoll.has_local.set(true);
            epoll.add(&target.resource, fd, event, Place::Local);
        }
        EpollOperation::Modify => epoll.change(key, |item| item.modify(event)),
        EpollOperation::Delete => {
            epoll.remove(key);
        }
    }
    epoll.change(key, |item| item.alias = alias);
    Ok(result)
}

/// A registration in the delegate.
async fn remote(cx: &Cx, instance: &Resource, target: &Entry) -> Result<Outcome, Errno> {
    let Some(epoll) = &instance.epoll else { return Err(Errno::EINVAL) };
    let operation = operation(cx)?;
    let event = event_in(cx).await?;
    cx.note(Kind::Remote);
    let socket = cx.hold(target);
    let key = (target.resource.id, cx.int(2));
    let known = epoll.get(key).filter(|item| item.resource.strong_count() > 0);
    match (operation, known) {
        (EpollOperation::Add, Some(_)) => Err(Errno::EEXIST),
        (EpollOperation::Add, None) => {
            register(cx, instance, &socket.resource, key.1, event).await?;
            Ok(Outcome::Return(0))
        }
        (_, None) => Err(Errno::ENOENT),
        (_, Some(item)) => {
            let fd = cx.remote_fd(item.copy.as_deref().unwrap_or(&socket.resource));
            if let (Place::Remote, Ok(half), Ok(fd)) = (item.place, cx.remote_fd(instance), fd) {
                ask(cx, half, operation, fd, event.events, item.cookie).await?;
            }
            match operation {
                EpollOperation::Modify => {
                    if event.events & EPOLLEXCLUSIVE != 0 {
                        return Err(Errno::EINVAL);
                    }
                    epoll.change(key, |item| item.modify(event));
                }
                _ => {
                    epoll.remove(key);
                    drop_copy(cx, item.copy.as_deref()).await;
                }
            }
            Ok(Outcome::Return(0))
        }
    }
}

async fn ask(
    cx: &Cx,
    epoll: i32,
    operation: EpollOperation,
    fd: i32,
    events: u32,
    cookie: u64,
) -> Result<(), Errno> {
    // Nobody there could keep the machine awake.
    let events = events & !EPOLLWAKEUP;
    let request = EpollRequest::Control { epoll, operation, fd, events, cookie };
    cx.simple(&Request::Epoll(request)).await.map(|_| ())
}

/// Registers a remote socket, which is not registered under this number yet.
async fn register(
    cx: &Cx,
    instance: &Resource,
    socket: &Rc<Resource>,
    fd: i32,
    event: EpollEvent,
) -> Result<(), Errno> {
    let Some(epoll) = &instance.epoll else { return Err(Errno::EINVAL) };
    let Ok(remote) = cx.remote_fd(socket) else {
        // What is lost reports an error, as a connection that was reset does.
        epoll.add(socket, fd, event, Place::Lost);
        return Ok(());
    };
    let half = half(cx, instance).await?;
    // The kernel tells registrations apart by their descriptors, and duplicates in the program
    // are one descriptor of the delegate.
    let taken = epoll.of(socket.id).iter().any(|i| i.place == Place::Remote && i.copy.is_none());
    let copy = if taken { Some(copy_of(cx, remote).await?) } else { None };
    let cookie = epoll.add(socket, fd, event, Place::Remote);
    let own = copy.as_ref().map_or(Ok(remote), |copy| cx.remote_fd(copy));
    let asked = match own {
        Ok(own) => ask(cx, half, EpollOperation::Add, own, event.events, cookie).await,
        Err(error) => Err(error),
    };
    if let Err(error) = asked {
        epoll.remove((socket.id, fd));
        drop_copy(cx, copy.as_deref()).await;
        return Err(error);
    }
    epoll.change((socket.id, fd), |item| item.copy = copy);
    Ok(())
}

/// One more descriptor of a delegate's socket.
async fn copy_of(cx: &Cx, fd: i32) -> Result<Rc<Resource>, Errno> {
    let lease = cx.worker().await?;
    let request = Request::Epoll(EpollRequest::Duplicate { fd });
    let copy = descriptor(cx.ask(&lease, &request).await?.value)?;
    let resource = cx.core.resource(0, 0, 0);
    resource.state.set(State::Remote(copy));
    resource.holders.borrow_mut().insert(lease.delegate.id, copy);
    Ok(Rc::new(resource))
}

async fn drop_copy(cx: &Cx, copy: Option<&Resource>) {
    let Some((_, fd)) = copy.and_then(|copy| cx.core.unused(&cx.table, copy)) else { return };
    // Whatever the delegate says, it is not used any more.
    let _ = cx.simple(&Request::Close { fd }).await;
}

/// The remote half, which is made if there is none.
async fn half(cx: &Cx, instance: &Resource) -> Result<i32, Errno> {
    if let Ok(fd) = cx.remote_fd(instance) {
        return Ok(fd);
    }
    let Some(epoll) = &instance.epoll else { return Err(Errno::EINVAL) };
    let mut made: Vec<Rc<Resource>> = Vec::new();
    let fd = make_half(cx, instance, epoll).await?;
    // Instances that it is registered in need one, too.
    let mut todo = outer(cx, instance);
    while let Some(next) = todo.pop() {
        if cx.remote_fd(&next).is_ok() || made.len() > DEPTH {
            continue;
        }
        if let Some(epoll) = &next.epoll {
            make_half(cx, &next, epoll).await?;
        }
        todo.extend(outer(cx, &next));
        made.push(next);
    }
    join(cx, instance).await?;
    for inner in &made {
        join(cx, inner).await?;
    }
    Ok(fd)
}

/// Linux nests instances five deep.
const DEPTH: usize = 64;

async fn make_half(cx: &Cx, instance: &Resource, epoll: &Epoll) -> Result<i32, Errno> {
    epoll.lose();
    let lease = cx.worker().await?;
    let made = cx.ask(&lease, &Request::Epoll(EpollRequest::Create)).await?;
    let fd = descriptor(made.value)?;
    {
        let mut holders = instance.holders.borrow_mut();
        holders.clear();
        holders.insert(lease.delegate.id, fd);
    }
    instance.state.set(State::Remote(fd));
    for wake in epoll.waiters() {
        cx.core.wakes.ring(&*cx.core.world, &wake);
    }
    Ok(fd)
}

/// The instances of this process in whose local half an instance is registered.
fn outer(cx: &Cx, inner: &Resource) -> Vec<Rc<Resource>> {
    let entries = cx.table.entries.borrow();
    let mut found: Vec<Rc<Resource>> = Vec::new();
    for entry in entries.values() {
        let Some(epoll) = &entry.resource.epoll else { continue };
        let has = epoll.of(inner.id).iter().any(|item| item.place == Place::Local);
        if has && !found.iter().any(|f| f.id == entry.resource.id) {
            found.push(entry.resource.clone());
        }
    }
    found
}

/// Registers the remote half of an instance wherever the local one is.
async fn join(cx: &Cx, inner: &Resource) -> Result<(), Errno> {
    for resource in outer(cx, inner) {
        let Some(epoll) = &resource.epoll else { continue };
        let (half, fd) = (cx.remote_fd(&resource)?, cx.remote_fd(inner)?);
        for item in epoll.of(inner.id).iter().filter(|i| i.place == Place::Local) {
            let taken = |i: &Item| i.place == Place::Both && i.copy.is_none();
            let taken = epoll.of(inner.id).iter().any(taken);
            let copy = if taken { Some(copy_of(cx, fd).await?) } else { None };
            let own = copy.as_ref().map_or(Ok(fd), |copy| cx.remote_fd(copy))?;
            let (events, cookie) = (item.event.events, item.cookie);
            if let Err(error) = ask(cx, half, EpollOperation::Add, own, events, cookie).await {
                drop_copy(cx, copy.as_deref()).await;
                return Err(error);
            }
            epoll.change((inner.id, item.fd), |item| {
                item.place = Place::Both;
                item.copy = copy;
            });
        }
    }
    Ok(())
}

/// One instance in another, or a listener in both VMs: each half in its half. Its own kernel goes first and says what is
/// wrong.
async fn nested(cx: &Cx, instance: &Resource, target: &Entry) -> Result<Outcome, Errno> {
    let Some(epoll) = &instance.epoll else { return Err(Errno::EINVAL) };
    let key = (target.resource.id, cx.int(2));
    let before = epoll.get(key);
    let once = event_in(cx).await?.events & EPOLLONESHOT != 0;
    let alias = once.then(|| cx.core.world.random());
    let result = undecided(cx, instance, target, alias).await?;
    epoll.has_nested.set(true);
    let inner = cx.hold(target);
    let Ok(fd) = cx.remote_fd(&inner.resource) else { return Ok(Outcome::Return(result)) };
    cx.note(Kind::Both);
    let operation = operation(cx)?;
    match (operation, before.filter(|item| item.place == Place::Both)) {
        (EpollOperation::Add, _) => {
            half(cx, instance).await?;
            join(cx, &inner.resource).await?;
        }
        (_, Some(item)) => {
            let half = cx.remote_fd(instance)?;
            let events = event_in(cx).await?.events;
            let own = item.copy.as_ref().map_or(Ok(fd), |copy| cx.remote_fd(copy))?;
            ask(cx, half, operation, own, events, item.cookie).await?;
            if operation == EpollOperation::Delete {
                drop_copy(cx, item.copy.as_deref()).await;
            }
        }
        (_, None) => {}
    }
    Ok(Outcome::Return(result))
}

/// A socket has become remote: so do its registrations.
///
/// # Errors
/// What the delegate's kernel says.
pub async fn committed(cx: &Cx, socket: &Resource) -> Result<(), Errno> {
    if socket.both.get() {
        for instance in outer(cx, socket) {
            instance.epoll.as_ref().inspect(|epoll| epoll.has_nested.set(true));
            half(cx, &instance).await?;
        }
        return join(cx, socket).await;
    }
    let instances: Vec<(i32, Entry)> = {
        let entries = cx.table.entries.borrow();
        let epolls = entries.iter().filter(|(_, entry)| entry.resource.epoll.is_some());
        epolls.map(|(fd, entry)| (*fd, entry.clone())).collect()
    };
    for (number, entry) in instances {
        let Some(epoll) = &entry.resource.epoll else { continue };
        for item in epoll.of(socket.id).iter().filter(|i| i.place == Place::Local) {
            let Some(resource) = item.resource.upgrade() else { continue };
            let delete = u64::from(EpollOperation::Delete as u32);
            let call = [number as u64, delete, item.fd as u64, 0, 0, 0];
            cx.local(nr::epoll_ctl, call).await;
            epoll.remove((socket.id, item.fd));
            let held = cx.hold(&entry);
            register(cx, &held.resource, &resource, item.fd, item.event).await?;
        }
    }
    Ok(())
}
