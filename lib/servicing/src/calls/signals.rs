//! Who gets the signals of a remote socket, and which: `fcntl` and `ioctl` with `F_SETOWN`, `F_SETSIG`,
//! `O_ASYNC` and their relatives.
//!
//! The placeholder is asked first: it keeps owner, signal and flags, and its kernel checks them.
//! What it says then is what the socket's bells get (see [`crate::bell`]).
use crate::bell::{Bell, Tone};
use crate::cx::{Cx, Scratch};
use crate::space::Outcome;
use crate::table::{Entry, Resource, State};
use alloc::rc::Rc;
use linux_abi::{
    Errno, F_DUPFD_CLOEXEC, F_GETOWN_EX, F_GETSIG, F_SETFL, F_SETOWN_EX, F_SETSIG, O_ASYNC,
    O_CLOEXEC, O_NONBLOCK, SIGSET_SIZE, SIGURG, check, nr,
};
use wire::Request;

/// Bytes of `struct f_owner_ex`.
const OWNER: usize = 8;
/// Where in a scratch page the owner lies, and signal sets.
const OWNER_AT: u64 = 0;
const ALL_AT: u64 = 16;
const OLD_AT: u64 = 24;
/// A placeholder's other number while a bell has its own lies from here on.
const HIGH: u64 = 50;
/// Bytes that may wait in a bell before they are read off.
const UNREAD: u32 = 1024;
const SIG_BLOCK: u64 = 0;
const SIG_SETMASK: u64 = 2;

/// A call that says who gets signals, or which.
pub async fn owner_changes(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let hold = cx.hold(entry);
    let result = check(cx.original().await)?;
    hold.resource.signals.concerned.set(true);
    refresh(cx, &hold.resource).await?;
    Ok(Outcome::Return(result))
}

/// `O_ASYNC` is on or off from now on.
pub async fn set_asynchronous(cx: &Cx, resource: &Rc<Resource>, on: bool) -> Result<(), Errno> {
    let signals = &resource.signals;
    if signals.asynchronous.get().is_some() == on {
        return Ok(());
    }
    signals.asynchronous.set(on.then(|| cx.int(0)));
    signals.concerned.set(true);
    refresh(cx, resource).await
}

/// Has a remote socket raise the signals that its program wants. To be called when that changes, when
/// the socket commits, and in a new program that inherits it.
pub async fn refresh(cx: &Cx, resource: &Rc<Resource>) -> Result<(), Errno> {
    let signals = &resource.signals;
    let is_socket = resource.epoll.is_none() && resource.file.is_none();
    if !signals.concerned.get() || !is_socket || !matches!(resource.state.get(), State::Remote(_)) {
        return Ok(());
    }
    let Some(number) = cx.table.number_of(resource) else { return Ok(()) };
    let scratch = cx.scratch()?;
    let placeholder = number as u64;
    let ask = [placeholder, F_GETOWN_EX.into(), scratch.address + OWNER_AT, 0, 0, 0];
    check(cx.local(nr::fcntl, ask).await)?;
    let owner: [u8; OWNER] = cx.array(scratch.address + OWNER_AT).await?;
    let signal = check(cx.local(nr::fcntl, [placeholder, F_GETSIG.into(), 0, 0, 0, 0]).await)?;
    signals.chosen.set(signal != 0);
    let owned = owner[4..] != [0; 4];
    // Only streams have urgent data.
    let wanted =
        [(Tone::Any, signals.asynchronous.get().is_some()), (Tone::Urgent, resource.is_stream())];
    signals.deaf.set(true);
    let mut tuned = Ok(());
    for (tone, _) in wanted.iter().filter(|(_, wanted)| *wanted && owned) {
        tuned = tuned.and(tune_one(cx, resource, *tone, signal as u64, &scratch).await);
    }
    signals.listen(&cx.core);
    tuned?;
    watch(cx, resource, owned && wanted.iter().any(|(_, wanted)| *wanted)).await
}

/// Makes the bell of that tone, if there is none, and tunes it.
async fn tune_one(
    cx: &Cx,
    resource: &Rc<Resource>,
    tone: Tone,
    signal: u64,
    scratch: &Scratch,
) -> Result<(), Errno> {
    let bell = match cx.table.bell(resource, tone) {
        Some(bell) => bell,
        None => make(cx, resource, tone).await?,
    };
    tune(cx, resource, &bell, signal, scratch).await
}

async fn make(cx: &Cx, resource: &Rc<Resource>, tone: Tone) -> Result<Rc<Bell>, Errno> {
    let (fd, port) = cx.connect_wake().await?;
    let bell = Rc::new(Bell { resource: resource.id, tone, fd, port, rung: Default::default() });
    cx.table.bells.borrow_mut().push(bell.clone());
    cx.table.changed();
    let mut bells = resource.signals.bells.borrow_mut();
    bells.retain(|bell| cx.core.wakes.knows(bell.port));
    bells.push(bell.clone());
    Ok(bell)
}

/// Gives a bell the owner that lies in the scratch page, and its signal.
async fn tune(
    cx: &Cx,
    resource: &Resource,
    bell: &Bell,
    signal: u64,
    scratch: &Scratch,
) -> Result<(), Errno> {
    let control = async |fd: u64, command: u32, value: u64| {
        check(cx.local(nr::fcntl, [fd, command.into(), value, 0, 0, 0]).await)
    };
    let fd = bell.fd as u64;
    let signal = if bell.tone == Tone::Urgent { SIGURG } else { signal };
    let ring = u64::from(O_ASYNC | O_NONBLOCK);
    control(fd, F_SETFL, O_NONBLOCK.into()).await?;
    control(fd, F_SETOWN_EX, scratch.address + OWNER_AT).await?;
    control(fd, F_SETSIG, signal).await?;
    // `si_fd` is the number under which `O_ASYNC` was set: for a moment the bell has that number.
    let named =
        resource.signals.asynchronous.get().filter(|_| bell.tone == Tone::Any && signal != 0);
    let entry = named.and_then(|number| Some((number, cx.table.get(number as u64)?)));
    match entry.filter(|(_, entry)| entry.resource.id == resource.id) {
        None => control(fd, F_SETFL, ring).await.map(drop),
        Some((number, entry)) => {
            let number = number as u64;
            let (all, old) = (scratch.address + ALL_AT, scratch.address + OLD_AT);
            cx.write(all, &u64::MAX.to_le_bytes()).await?;
            // A handler that leaves the call here would leave the number to the bell.
            let block = [SIG_BLOCK, all, old, SIGSET_SIZE, 0, 0];
            check(cx.local(nr::rt_sigprocmask, block).await)?;
            let done = match control(number, F_DUPFD_CLOEXEC, HIGH).await {
                Err(error) => Err(error),
                Ok(kept) => {
                    let flags = if entry.close_on_exec { O_CLOEXEC } else { 0 };
                    let stand_in = [fd, number, O_CLOEXEC.into(), 0, 0, 0];
                    let stood_in = check(cx.local(nr::dup3, stand_in).await);
                    let done = control(number, F_SETFL, ring).await.and(stood_in);
                    let back = [kept as u64, number, flags.into(), 0, 0, 0];
                    cx.local(nr::dup3, back).await;
                    cx.local(nr::close, [kept as u64, 0, 0, 0, 0, 0]).await;
                    done
                }
            };
            let restore = [SIG_SETMASK, old, 0, SIGSET_SIZE, 0, 0];
            check(cx.local(nr::rt_sigprocmask, restore).await)?;
            done.map(drop)
        }
    }
}

/// Has the delegate's kernel tell what happens to the socket, or not any more.
async fn watch(cx: &Cx, resource: &Rc<Resource>, on: bool) -> Result<(), Errno> {
    let watcher = resource.signals.watcher.get().and_then(|id| cx.core.delegates.find(id));
    if watcher.is_some() == on {
        return Ok(());
    }
    if let Some(watcher) = watcher {
        let fd = resource.holders.borrow().get(&watcher.id).copied();
        resource.signals.watcher.set(None);
        if let Some(fd) = fd {
            watcher.order(Request::Watch { fd, on });
            cx.core.pump();
        }
        return Ok(());
    }
    let fd = cx.remote_fd(resource)?;
    cx.simple(&Request::Watch { fd, on }).await?;
    if let Some(delegate) = cx.core.delegate(&cx.table) {
        cx.core.watchers.add(&delegate, resource);
        cx.core.pump();
    }
    Ok(())
}

/// Reads off what has been sent to a socket's bells, which nobody else does.
pub async fn quieten(cx: &Cx, resource: &Resource) -> Result<(), Errno> {
    if !resource.signals.concerned.get() {
        return Ok(());
    }
    for tone in [Tone::Any, Tone::Urgent] {
        let Some(bell) = cx.table.bell(resource, tone).filter(|b| b.rung.get() > UNREAD) else {
            continue;
        };
        let scratch = cx.scratch()?;
        let read = [bell.fd as u64, scratch.address, paging::PAGE, 0, 0, 0];
        let n = check(cx.local(nr::read, read).await).unwrap_or(0);
        bell.rung.set(bell.rung.get().saturating_sub(n as u32));
    }
    Ok(())
}

/// Closes the bells of sockets that the process has no more.
pub async fn take_down(cx: &Cx) {
    if cx.table.bells.borrow().is_empty() {
        return;
    }
    for bell in cx.table.take_bells(|bell| cx.table.is_number_unused(bell.resource)) {
        cx.local(nr::close, [bell.fd as u64, 0, 0, 0, 0, 0]).await;
    }
}
