//! `poll` and `select` over descriptors on both sides. Both halves run at once; the first side
//! that is ready wins. The remote half then stays out for the next call (see
//! [`Standing`](crate::delegate::Standing)), the local one ends by waking the thread out of it.
mod undecided;

use super::readiness::{RemotePoll, recall};
use super::split::{Side, Split, side};
use crate::cx::{Cx, Hold, Scratch};
use crate::space::{Back, Outcome};
use crate::wake::WakeLease;
use crate::world::{Kind, add};
use alloc::vec::Vec;
use linux_abi::{Errno, POLLERR, POLLIN, PollFd, SIGSET_SIZE, TimeSpec, check, nr};
use paging::PAGE;
use undecided::Undecided;
use wire::WAIT_FOREVER;

/// Most entries of one call.
pub(super) const ENTRIES_MAX: u64 = 16384;
/// Where the time lies in a scratch page; entries lie below, the drain buffer above.
const TIME_AT: u64 = PAGE - 128;
/// Entries that fit below.
const SCRATCH_ENTRIES: usize = (TIME_AT / 8) as usize;

/// A signal mask for the time of the wait, as the program passed it.
#[derive(Clone, Copy, Default)]
pub(super) struct Mask {
    /// Where it lies.
    pub address: u64,
    /// Its bytes.
    pub size: u64,
    /// The relay's own descriptor of signals among the entries.
    pub ear: Option<i32>,
}

/// Memory in the process for a local `ppoll`.
struct Room {
    scratch: Scratch,
    /// A mapping of its own, for many entries: address and length.
    mapped: Option<(u64, u64)>,
}

impl Room {
    async fn new(cx: &Cx, entries: usize) -> Result<Self, Errno> {
        let scratch = cx.scratch()?;
        let mut mapped = None;
        if entries > SCRATCH_ENTRIES {
            let length = (entries as u64 * 8).next_multiple_of(PAGE);
            let flags = linux_abi::MAP_PRIVATE | linux_abi::MAP_ANONYMOUS;
            let rights = linux_abi::PROT_READ | linux_abi::PROT_WRITE;
            let map = [0, length, rights, flags, u64::MAX, 0];
            mapped = Some((check(cx.local(nr::mmap, map).await)? as u64, length));
        }
        Ok(Self { scratch, mapped })
    }

    fn entries(&self) -> u64 {
        self.mapped.map_or(self.scratch.address, |(address, _)| address)
    }

    async fn end(self, cx: &Cx) {
        if let Some((address, length)) = self.mapped {
            cx.local(nr::munmap, [address, length, 0, 0, 0, 0]).await;
        }
    }
}

/// Waits on both sides. `None`: nothing of it is remote, the program's kernel can do it alone.
pub(super) async fn wait(
    cx: &Cx,
    entries: &mut [PollFd],
    timeout: Option<u64>,
    mask: Mask,
) -> Result<Option<usize>, Errno> {
    wait_on(cx, entries, timeout, mask, false).await
}

/// The same; `looked`: the local side has been looked at just now, and nothing is ready.
pub(super) async fn wait_on(
    cx: &Cx,
    entries: &mut [PollFd],
    timeout: Option<u64>,
    mask: Mask,
    looked: bool,
) -> Result<Option<usize>, Errno> {
    let deadline = timeout.map(|t| cx.core.world.now().saturating_add(t));
    let mut times = Times { left: timeout, deadline, first: true };
    loop {
        let (ready, again) = wait_once(cx, entries, times, mask, looked && times.first).await?;
        if ready != Some(0) || !again || times.left == Some(0) {
            return Ok(ready);
        }
        let left = deadline.map(|d| d.saturating_sub(cx.core.world.now()));
        times = Times { left, first: false, ..times };
    }
}

/// How long a wait has.
#[derive(Clone, Copy)]
struct Times {
    left: Option<u64>,
    deadline: Option<u64>,
    /// Nothing has been waited for yet.
    first: bool,
}

/// The same, until another thread makes something remote, which the second value says.
async fn wait_once(
    cx: &Cx,
    entries: &mut [PollFd],
    times: Times,
    mask: Mask,
    looked: bool,
) -> Result<(Option<usize>, bool), Errno> {
    let timeout = times.left;
    let mut split = Split::new(entries, |fd| match mask.ear {
        Some(ear) if ear == fd => Side::Local,
        _ => side(cx, fd),
    });
    // What is still to be reported of an earlier call counts as an error, and is always told.
    for place in &split.remote_places {
        let Some(entry) = entries.get_mut(*place) else { continue };
        let found = cx.table.get(entry.fd as u64);
        if found.is_some_and(|e| e.resource.error.get().is_some()) {
            entry.revents = POLLERR;
        }
    }
    let answered = entries.iter().any(|e| e.revents != 0);
    let undecided = Undecided::new(cx, entries, &split);
    let own = split.remote.is_empty() && !answered;
    if own && times.first && (undecided.is_empty() || timeout == Some(0)) {
        return Ok((None, false));
    }
    cx.note(if split.local.is_empty() { Kind::Remote } else { Kind::Both });
    let _holds: Vec<Hold> = split
        .remote_places
        .iter()
        .filter_map(|place| cx.table.get(entries.get(*place)?.fd as u64))
        .map(|entry| cx.hold(&entry))
        .collect();
    let known = !answered && is_select(cx) && recall(cx, &mut split.remote);
    let room = if split.local.is_empty() && (answered || known || timeout == Some(0)) {
        None
    } else {
        Some(Room::new(cx, split.local.len() + 1).await?)
    };
    let result = if known {
        look_local(cx, &mut split, room.as_ref()).await
    } else if answered || timeout == Some(0) {
        look(cx, &mut split, room.as_ref()).await
    } else {
        match &room {
            Some(room) if own => undecided.wait(cx, &mut split, room, times.deadline, mask).await,
            Some(room) => sleep(cx, &mut split, room, (times, &undecided), mask, looked).await,
            None => Err(Errno::EIO),
        }
    };
    if let Some(room) = room {
        room.end(cx).await;
    }
    result?;
    Ok((Some(split.merge(entries)), undecided.changed()))
}

/// Looks at both sides without waiting.
async fn look(cx: &Cx, split: &mut Split, room: Option<&Room>) -> Result<(), Errno> {
    if !split.remote.is_empty() {
        let remote = RemotePoll::start(cx, &split.remote, 0).await?;
        remote.soon(cx).await?;
        remote.take(cx, &mut split.remote);
    }
    look_local(cx, split, room).await
}

async fn look_local(cx: &Cx, split: &mut Split, room: Option<&Room>) -> Result<(), Errno> {
    let Some(room) = room.filter(|_| !split.local.is_empty()) else { return Ok(()) };
    match poll_local(cx, split, room, None, Some(0), Mask::default()).await? {
        Back::Result(result) => check(result).map(|_| ()),
        Back::Restart => Ok(()),
    }
}

/// Has the program's kernel poll the local half, and the wake socket with it.
async fn poll_local(
    cx: &Cx,
    split: &mut Split,
    room: &Room,
    wake: Option<&WakeLease>,
    timeout: Option<u64>,
    mask: Mask,
) -> Result<Back, Errno> {
    let mut bytes = Vec::with_capacity((split.local.len() + 1) * PollFd::SIZE);
    split.local.iter().for_each(|e| bytes.extend(PollFd { revents: 0, ..*e }.encode()));
    if let Some(lease) = wake {
        bytes.extend(PollFd { fd: lease.wake().fd, events: POLLIN, revents: 0 }.encode());
    }
    cx.write(room.entries(), &bytes).await?;
    let mut time = 0;
    if let Some(timeout) = timeout {
        time = room.scratch.address + TIME_AT;
        cx.write(time, &TimeSpec::from_nanoseconds(timeout).encode()).await?;
    }
    let count = (bytes.len() / PollFd::SIZE) as u64;
    let size = if mask.address == 0 { SIGSET_SIZE } else { mask.size };
    let call = [room.entries(), count, time, mask.address, size, 0];
    let back = cx.local_once(nr::ppoll, call).await;
    if matches!(back, Back::Result(n) if n >= 0) {
        cx.read(room.entries(), &mut bytes).await?;
        for (entry, chunk) in split.local.iter_mut().zip(bytes.chunks_exact(PollFd::SIZE)) {
            let mut raw = [0; PollFd::SIZE];
            raw.copy_from_slice(chunk);
            entry.revents = PollFd::decode(raw).revents;
        }
    }
    Ok(back)
}

/// The first look at both sides. `None`: something is ready. Otherwise the remote half stays out.
///
/// Where an earlier call has left the remote half out, the local side alone decides what is ready
/// now: the delegate would have told. Otherwise it is asked while the local side is looked at, and
/// its answer is waited for: a local side that is always ready must not hide the remote one.
///
/// With a mask that may let a pending signal in, what is ready comes first, too.
async fn begin(
    cx: &Cx,
    split: &mut Split,
    room: &Room,
    mask: Mask,
    looked: bool,
) -> Result<Option<RemotePoll>, Errno> {
    if split.local.is_empty() && mask.address == 0 {
        let remote = RemotePoll::start(cx, &split.remote, WAIT_FOREVER).await?;
        let done = remote.spin(cx);
        if done {
            remote.take(cx, &mut split.remote);
        }
        return Ok((!done).then_some(remote));
    }
    let ready = |split: &Split| split.local.iter().any(|e| e.revents != 0);
    let Some(remote) = RemotePoll::adopt(cx, &split.remote) else {
        let first = RemotePoll::start(cx, &split.remote, 0).await?;
        look_local(cx, split, Some(room)).await?;
        first.soon(cx).await?;
        if first.take(cx, &mut split.remote) > 0 {
            return Ok(None);
        }
        drop(first);
        let remote = RemotePoll::start(cx, &split.remote, WAIT_FOREVER).await?;
        return Ok((!ready(split)).then_some(remote));
    };
    if !looked {
        look_local(cx, split, Some(room)).await?;
    }
    if remote.is_done(cx) {
        remote.take(cx, &mut split.remote);
        return Ok(None);
    }
    if ready(split) {
        add(&cx.core.counters.cancellations, 1);
        return Ok(None);
    }
    Ok(Some(remote))
}

/// Waits in the program's kernel until the local half is ready, the wake socket says something, or the time is over: the
/// call's result. `None`: that may have changed before it could wait, so look again.
async fn wait_local(
    cx: &Cx,
    split: &mut Split,
    room: &Room,
    (lease, deadline): (&WakeLease, Option<u64>),
    mask: Mask,
) -> Result<Option<i64>, Errno> {
    if lease.wake().outstanding.get() > 0 {
        cx.drain(lease.wake(), &room.scratch).await?;
        return Ok(None);
    }
    let left = deadline.map(|d| d.saturating_sub(cx.core.world.now()));
    match poll_local(cx, split, room, Some(lease), left, mask).await? {
        Back::Restart => Ok(None),
        Back::Result(result) => check(result).map(Some),
    }
}

/// Runs both halves until one is ready.
async fn sleep(
    cx: &Cx,
    split: &mut Split,
    room: &Room,
    (times, undecided): (Times, &Undecided),
    mask: Mask,
    looked: bool,
) -> Result<(), Errno> {
    let Some(mut remote) = begin(cx, split, room, mask, looked).await? else { return Ok(()) };
    let deadline = times.deadline;
    let lease = cx.wake().await?;
    loop {
        remote.again(cx, &split.remote).await?;
        remote.arm(lease.wake());
        undecided.arm(lease.wake());
        if undecided.changed() {
            return Ok(());
        }
        if remote.is_done(cx) {
            remote.take(cx, &mut split.remote);
            return look_local(cx, split, Some(room)).await;
        }
        let waited = wait_local(cx, split, room, (&lease, deadline), mask).await?;
        let Some(result) = waited else { continue };
        let local = split.local.iter().any(|e| e.revents != 0);
        if remote.is_done(cx) {
            cx.core.woke_up(lease.wake().rung.get());
            remote.take(cx, &mut split.remote);
            return Ok(());
        }
        if result == 0 {
            // An answer may take longer than the program waits: what is ready is told all the same.
            drop(remote);
            let last = RemotePoll::start(cx, &split.remote, 0).await?;
            last.soon(cx).await?;
            last.take(cx, &mut split.remote);
            return Ok(());
        }
        if local {
            // What is still out stays out when `remote` goes; nobody waits for that.
            add(&cx.core.counters.cancellations, 1);
            return Ok(());
        }
    }
}

/// `poll` and `ppoll`.
pub async fn poll(cx: &Cx) -> Result<Outcome, Errno> {
    let [at, count, time, mask, size, _] = cx.arguments;
    let count = u64::from(count as u32);
    if count > ENTRIES_MAX {
        return Err(Errno::EINVAL);
    }
    let bytes = cx.bytes(at, count as usize * PollFd::SIZE).await?;
    let mut entries = Vec::with_capacity(count as usize);
    for chunk in bytes.chunks_exact(PollFd::SIZE) {
        let mut raw = [0; PollFd::SIZE];
        raw.copy_from_slice(chunk);
        entries.push(PollFd::decode(raw));
    }
    let (timeout, mask) = if cx.number == nr::poll {
        let milliseconds = u64::try_from(time as i32).ok();
        (milliseconds.map(|ms| ms * 1_000_000), Mask::default())
    } else {
        (time_in(cx, time).await?, Mask { address: mask, size, ear: None })
    };
    let start = cx.core.world.now();
    let result = wait(cx, &mut entries, timeout, mask).await;
    if cx.number == nr::ppoll && !matches!(result, Ok(None)) {
        time_out(cx, time, timeout, start).await?;
    }
    let Some(ready) = result? else { return Ok(Outcome::Reflect) };
    for (n, entry) in entries.iter().enumerate() {
        let revents_at = at.wrapping_add((n * PollFd::SIZE) as u64 + 6);
        cx.write(revents_at, &entry.revents.to_le_bytes()).await?;
    }
    Ok(Outcome::Return(ready as i64))
}

/// A `struct timespec` of the program, or none.
pub(super) async fn time_in(cx: &Cx, at: u64) -> Result<Option<u64>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let time = TimeSpec::decode(&cx.array(at).await?);
    time.to_nanoseconds().map(Some).ok_or(Errno::EINVAL)
}

/// Linux tells what is left of the time.
pub(super) async fn time_out(
    cx: &Cx,
    at: u64,
    timeout: Option<u64>,
    start: u64,
) -> Result<(), Errno> {
    if let (Some(timeout), true) = (timeout, at != 0) {
        let left = timeout.saturating_sub(cx.core.world.now().saturating_sub(start));
        cx.write(at, &TimeSpec::from_nanoseconds(left).encode()).await?;
    }
    Ok(())
}

fn is_select(cx: &Cx) -> bool {
    matches!(cx.number, nr::select | nr::pselect6)
}

#[cfg(test)]
mod tests;
