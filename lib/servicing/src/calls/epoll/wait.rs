//! `epoll_wait`, `epoll_pwait` and `epoll_pwait2`.
//!
//! Waiting takes no event away: in its own kernel the thread polls the local half and its wake
//! socket, and a worker of the delegate polls the remote half. Only then events are taken, without
//! waiting, from both. So an event is taken for a thread that gets it, whatever interrupts waits.
use super::super::poll::time_in;
use super::super::readiness::{Access, RemotePoll};
use crate::cx::{Cx, Scratch};
use crate::epoll::Epoll;
use crate::space::{Back, Outcome};
use crate::table::{Entry, Resource, State};
use crate::wake::WakeLease;
use crate::world::{Kind, add};
use alloc::vec::Vec;
use linux_abi::{
    EPOLL_EVENTS_MAX, EpollEvent, Errno, POLLIN, PollFd, SIGSET_SIZE, TimeSpec, check, nr,
};
use wire::{EpollFound, EpollRequest, PollEntry, Request, WAIT_FOREVER, layout};

/// Most remote events that one call takes.
const REMOTE_MAX: usize = 1024;
/// Where the time of a `ppoll` lies in a scratch page.
const TIME_AT: u64 = 64;
/// Where a time of zero lies in a scratch page.
const ZERO_AT: u64 = 128;

/// One call.
struct Wait<'c> {
    cx: &'c Cx,
    instance: &'c Resource,
    epoll: &'c Epoll,
    scratch: Scratch,
    /// Where the program wants its events.
    at: u64,
    max: usize,
}

/// The call.
pub async fn wait(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let hold = cx.hold(entry);
    let Some(epoll) = &hold.resource.epoll else { return Ok(Outcome::Reflect) };
    let [_, at, _, time, mask, size] = cx.arguments;
    let max = usize::try_from(cx.int(2)).unwrap_or(0);
    if max == 0 || max > EPOLL_EVENTS_MAX {
        // Its own kernel says so.
        return Ok(Outcome::Reflect);
    }
    let timeout = match cx.number {
        nr::epoll_pwait2 => time_in(cx, time).await?,
        _ => u64::try_from(time as i32).ok().map(|ms| ms * 1_000_000),
    };
    let mask = if cx.number == nr::epoll_wait { 0 } else { mask };
    if mask != 0 {
        if size != SIGSET_SIZE {
            return Err(Errno::EINVAL);
        }
        cx.array::<8>(mask).await?;
    }
    let both = hold.resource.state.get() != State::Undecided || epoll.has_lost();
    if !both && timeout == Some(0) && !epoll.has_aliases() {
        return Ok(Outcome::Reflect);
    }
    let instance = &*hold.resource;
    let wait = Wait { cx, instance, epoll, scratch: cx.scratch()?, at, max };
    let deadline = timeout.map(|t| cx.core.world.now().saturating_add(t));
    if both || timeout == Some(0) {
        cx.note(if epoll.has_local.get() { Kind::Both } else { Kind::Remote });
        let ready = wait.take().await?;
        if ready > 0 || timeout == Some(0) {
            return Ok(Outcome::Return(ready as i64));
        }
    }
    wait.sleep(deadline, mask).await.map(|ready| Outcome::Return(ready as i64))
}

impl Wait<'_> {
    /// The remote half's descriptor, while there is one. Where its delegate is gone, what was
    /// registered there is lost from now on.
    fn half(&self) -> Option<i32> {
        match self.instance.state.get() {
            State::Undecided => None,
            _ => match self.cx.remote_fd(self.instance) {
                Ok(fd) => Some(fd),
                Err(_) => {
                    self.instance.state.set(State::Undecided);
                    self.epoll.lose();
                    None
                }
            },
        }
    }

    /// Takes events from both halves without waiting.
    async fn take(&self) -> Result<usize, Errno> {
        let local_first = self.epoll.has_nested.get() || self.epoll.local_first.get();
        self.epoll.local_first.set(!self.epoll.local_first.get());
        let mut ready = 0;
        if local_first {
            ready += self.take_local(0).await?;
        }
        let result = self.take_remote(ready).await;
        match result {
            Ok(n) => ready += n,
            Err(error) if ready == 0 => return Err(error),
            Err(_) => {}
        }
        if !local_first && ready < self.max {
            match self.take_local(ready).await {
                Ok(n) => ready += n,
                Err(error) if ready == 0 => return Err(error),
                Err(_) => {}
            }
        }
        Ok(ready)
    }

    /// Has the program's kernel write its events behind the first `have`.
    async fn take_local(&self, have: usize) -> Result<usize, Errno> {
        let cx = self.cx;
        if !self.epoll.has_local.get() {
            return Ok(0);
        }
        let [fd, ..] = cx.arguments;
        let at = self.at.wrapping_add((have * EpollEvent::SIZE) as u64);
        let room = (self.max - have) as u64;
        let call = match cx.number {
            nr::epoll_pwait2 => {
                let zero = self.scratch.address + ZERO_AT;
                cx.write(zero, &TimeSpec::from_nanoseconds(0).encode()).await?;
                [fd, at, room, zero, 0, SIGSET_SIZE]
            }
            _ => [fd, at, room, 0, 0, SIGSET_SIZE],
        };
        let found = check(cx.local(cx.number, call).await)? as usize;
        if found == 0 || !self.epoll.has_aliases() {
            return Ok(found);
        }
        let bytes = cx.bytes(at, found.min(self.max) * EpollEvent::SIZE).await?;
        let (chunks, _) = bytes.as_chunks();
        let told = chunks.iter().map(|chunk| EpollEvent::decode(*chunk)).collect();
        let told = self.epoll.told_locally(told);
        let bytes: Vec<u8> = told.iter().flat_map(|e| e.encode()).collect();
        cx.write(at, &bytes).await?;
        Ok(told.len())
    }

    /// Takes events of the delegate and of what is lost, and writes them behind the first `have`.
    async fn take_remote(&self, have: usize) -> Result<usize, Errno> {
        let cx = self.cx;
        let room = (self.max - have).min(REMOTE_MAX);
        if room == 0 {
            return Ok(0);
        }
        let at = self.at.wrapping_add((have * EpollEvent::SIZE) as u64);
        let half = self.half();
        // What is taken must be told: there is no way back.
        if half.is_some() {
            cx.prepare(at, room * EpollEvent::SIZE).await?;
        }
        let mut events = self.epoll.lost(room);
        if let (Some(fd), true) = (half, events.len() < room) {
            let known =
                if self.epoll.has_nested.get() { self.written(have).await? } else { Vec::new() };
            self.take_found(fd, room - events.len(), &known, &mut events).await?;
        }
        let bytes: Vec<u8> = events.iter().flat_map(|e| e.encode()).collect();
        cx.write(at, &bytes).await?;
        Ok(events.len())
    }

    async fn take_found(
        &self,
        fd: i32,
        room: usize,
        known: &[u64],
        events: &mut Vec<EpollEvent>,
    ) -> Result<(), Errno> {
        let cx = self.cx;
        let lease = cx.worker().await?;
        let request = EpollRequest::Take { epoll: fd, count: room as u32 };
        let response = cx.ask(&lease, &Request::Epoll(request)).await?;
        let found = (check(response.value)? as usize).min(room);
        for n in 0..found {
            let mut bytes = [0; EpollFound::SIZE];
            let at = layout::PAYLOAD + (n * EpollFound::SIZE) as u64;
            lease.mailbox().memory().read_all(at, &mut bytes)?;
            let found = EpollFound::decode(bytes);
            match self.epoll.told(found.events, found.cookie) {
                // The other half of an instance in this one has said the same.
                Some((event, true)) if known.contains(&event.data) => {}
                Some((event, _)) => events.push(event),
                None => {}
            }
        }
        Ok(())
    }

    /// The data of the events that are already there.
    async fn written(&self, have: usize) -> Result<Vec<u64>, Errno> {
        let bytes = self.cx.bytes(self.at, have * EpollEvent::SIZE).await?;
        let (chunks, _) = bytes.as_chunks();
        Ok(chunks.iter().map(|chunk| EpollEvent::decode(*chunk).data).collect())
    }

    /// Waits for either half.
    async fn sleep(&self, deadline: Option<u64>, mask: u64) -> Result<usize, Errno> {
        let lease = self.cx.wake().await?;
        let result = self.sleep_on(&lease, deadline, mask).await;
        self.epoll.leave(lease.wake());
        result
    }

    /// Has the remote half watched, if there is one; where there is none, its making wakes.
    async fn watch_remote(
        &self,
        before: Option<RemotePoll>,
        lease: &WakeLease,
    ) -> Result<Option<RemotePoll>, Errno> {
        let (cx, wake) = (self.cx, lease.wake());
        let Some(fd) = self.half() else {
            self.epoll.expect(wake);
            return Ok(None);
        };
        cx.note(if self.epoll.has_local.get() { Kind::Both } else { Kind::Remote });
        let entry = PollEntry { fd, events: POLLIN, revents: 0 };
        let poll = match before {
            Some(mut poll) => {
                poll.again(cx, &[entry]).await?;
                poll
            }
            None => {
                let poll = RemotePoll::start(cx, &[entry], WAIT_FOREVER).await?;
                poll.spin(cx);
                poll
            }
        };
        poll.arm(wake);
        Ok(Some(poll))
    }

    async fn sleep_on(
        &self,
        lease: &WakeLease,
        deadline: Option<u64>,
        mask: u64,
    ) -> Result<usize, Errno> {
        let (cx, wake) = (self.cx, lease.wake());
        let mut remote: Option<RemotePoll> = None;
        let mut in_vain = false;
        loop {
            remote = self.watch_remote(remote.take(), lease).await?;
            if remote.as_ref().is_some_and(|poll| poll.is_done(cx)) {
                remote = None;
                let ready = self.take().await?;
                if ready > 0 {
                    return Ok(ready);
                }
                if in_vain {
                    // The program's kernel has its say between any two looks.
                    self.poll_local(lease, Some(0), 0).await?;
                }
                in_vain = true;
                continue;
            }
            if wake.outstanding.get() > 0 {
                cx.drain(wake, &self.scratch).await?;
                continue;
            }
            let left = deadline.map(|d| d.saturating_sub(cx.core.world.now()));
            let (result, local) = self.poll_local(lease, left, mask).await?;
            let done = remote.as_ref().is_some_and(|poll| poll.is_done(cx));
            if done {
                cx.core.woke_up(wake.rung.get());
            }
            if local || done {
                if remote.take().is_some() && !done {
                    add(&cx.core.counters.cancellations, 1);
                }
                let ready = self.take().await?;
                if ready > 0 {
                    return Ok(ready);
                }
            } else if result == 0 {
                return Ok(0);
            }
        }
    }

    /// Polls the local half and the wake socket: the call's result, and whether the local half
    /// may have events. What Linux restarts of a `ppoll` is `EINTR` of an `epoll_wait`
    /// (`signal(7)`).
    async fn poll_local(
        &self,
        lease: &WakeLease,
        timeout: Option<u64>,
        mask: u64,
    ) -> Result<(i64, bool), Errno> {
        let (cx, at) = (self.cx, self.scratch.address);
        let wake = PollFd { fd: lease.wake().fd, events: POLLIN, revents: 0 };
        let half = PollFd { fd: cx.int(0), events: POLLIN, revents: 0 };
        cx.write(at, &wake.encode()).await?;
        let mut count = 1;
        if self.epoll.has_local.get() || self.half().is_none() {
            cx.write(at + PollFd::SIZE as u64, &half.encode()).await?;
            count = 2;
        }
        let mut time = 0;
        if let Some(timeout) = timeout {
            time = at + TIME_AT;
            cx.write(time, &TimeSpec::from_nanoseconds(timeout).encode()).await?;
        }
        let result = match cx.local_once(nr::ppoll, [at, count, time, mask, SIGSET_SIZE, 0]).await {
            Back::Restart => return Err(Errno::EINTR),
            Back::Result(result) => check(result)?,
        };
        if count == 1 {
            return Ok((result, false));
        }
        let found = PollFd::decode(cx.array(at + PollFd::SIZE as u64).await?);
        Ok((result, found.revents != 0))
    }
}
