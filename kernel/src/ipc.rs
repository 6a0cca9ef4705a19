//! Requests and replies: portal calls, faults and VM exits all travel this way. A request blocks
//! its thread until the handler behind the portal replies; a busy handler's callers queue.
use crate::end::Reason;
use crate::kernel::Kernel;
use crate::machine::cpu::ticks;
use crate::object::{Portal, Request, Sc, Serving, State, Thread};
use crate::sched::LONGEST_CHAIN;
use abi::{EndCause, Error, Event, Message, NO_DEADLINE};
use scheduling::Id;

/// What a wait led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// Something was there already, or the deadline has passed.
    No,
    /// The thread waits; its own time, if it has any.
    Yes(Option<Id<Sc>>),
}

impl Kernel {
    /// True when a request of `from` to `handler` would close a circle of threads that wait for
    /// each other, or make the chain too long.
    pub fn would_deadlock(&self, from: Id<Thread>, handler: Id<Thread>) -> bool {
        let mut at = handler;
        for _ in 0..LONGEST_CHAIN {
            if at == from {
                return true;
            }
            match self.threads.get(at).map(|t| t.state) {
                Ok(State::Calling { handler, .. }) => at = handler,
                _ => return false,
            }
        }
        true
    }

    /// Blocks `from` until `handler` has served the request.
    #[inline(always)]
    pub fn send(&mut self, from: Id<Thread>, handler: Id<Thread>, request: Request) {
        let Ok(caller) = self.threads.get_mut(from) else { return };
        caller.state = State::Calling { handler, request };
        let number = caller.cpu;
        let Ok(server) = self.threads.get_mut(handler) else { return };
        let (server_cpu, timer) = (server.cpu, server.timer);
        let waiting = matches!(server.state, State::Waiting);
        if waiting {
            if timer.is_some() {
                self.cpus[server_cpu].timers.remove(&mut self.threads, handler);
            }
            self.deliver(from, handler, &request);
        } else {
            self.enqueue(from, handler);
        }
        let cpu = &mut self.cpus[number];
        if waiting && server_cpu == number && cpu.current == Some(from) {
            // The handler goes on at once, on the time that the caller was running on.
            cpu.current = Some(handler);
            return;
        }
        cpu.choose = true;
        if server_cpu != number {
            // The caller's time does not reach the other processor; the handler's own has to do.
            self.wake(handler);
        }
    }

    /// The commonest request: the running thread calls a handler that waits on the same processor
    /// without a deadline. False when it is not so; nothing has happened then.
    #[inline(always)]
    pub fn call_waiting(
        &mut self,
        cpu: usize,
        from: Id<Thread>,
        portal: &Portal,
        words: &Message,
    ) -> bool {
        let Ok(server) = self.threads.get_mut(portal.handler) else { return false };
        let ready = matches!(server.state, State::Waiting) && server.timer.is_none();
        if !ready || server.cpu != cpu {
            return false;
        }
        server.state = State::Ready;
        server.serving = Serving::Caller(from);
        if let Some(frame) = server.frame() {
            frame.rax = 0;
            frame.args[0] = Event::Call(portal.badge).encode();
            frame.set_message(words);
        }
        let request = Request::Call(portal.badge);
        if let Ok(caller) = self.threads.get_mut(from) {
            caller.state = State::Calling { handler: portal.handler, request };
        }
        self.cpus[cpu].current = Some(portal.handler);
        true
    }

    #[cold]
    fn enqueue(&mut self, from: Id<Thread>, handler: Id<Thread>) {
        let Ok(server) = self.threads.get_mut(handler) else { return };
        let last = match server.queue {
            None => {
                server.queue = Some((from, from));
                None
            }
            Some((first, last)) => {
                server.queue = Some((first, from));
                Some(last)
            }
        };
        if let Some(last) = last.and_then(|l| self.threads.get_mut(l).ok()) {
            last.next = Some(from);
        }
    }

    fn dequeue(&mut self, handler: Id<Thread>) -> Option<Id<Thread>> {
        let (first, last) = self.threads.get(handler).ok()?.queue?;
        let next = self.threads.get_mut(first).ok()?.next.take();
        self.threads.get_mut(handler).ok()?.queue = next.map(|n| (n, last));
        Some(first)
    }

    /// Takes a caller out of the middle of a queue.
    pub fn leave_queue(&mut self, caller: Id<Thread>, handler: Id<Thread>) {
        let Some((first, last)) = self.threads.get(handler).ok().and_then(|h| h.queue) else {
            return;
        };
        let (mut previous, mut at) = (None, Some(first));
        while let Some(id) = at.filter(|id| *id != caller) {
            previous = Some(id);
            at = self.threads.get(id).ok().and_then(|t| t.next);
        }
        if at.is_none() {
            return;
        }
        let next = self.threads.get_mut(caller).ok().and_then(|t| t.next.take());
        if let Some(previous) = previous.and_then(|p| self.threads.get_mut(p).ok()) {
            previous.next = next;
        }
        let first = if previous.is_none() { next } else { Some(first) };
        let last = if next.is_none() { previous } else { Some(last) };
        if let Ok(server) = self.threads.get_mut(handler) {
            server.queue = first.zip(last);
        }
    }

    /// Hands a request to a handler that waits.
    #[inline(always)]
    fn deliver(&mut self, from: Id<Thread>, handler: Id<Thread>, request: &Request) {
        let (event, words) = match *request {
            Request::Call(badge) => {
                let Ok(caller) = self.threads.get_mut(from) else { return };
                let words = caller.frame().map_or([0; 8], |f| f.message());
                (Event::Call(badge), words)
            }
            _ => self.describe(from, request),
        };
        let Ok(server) = self.threads.get_mut(handler) else { return };
        server.state = State::Ready;
        server.serving = Serving::Caller(from);
        if let Some(frame) = server.frame() {
            frame.rax = 0;
            frame.args[0] = event.encode();
            frame.set_message(&words);
        }
    }

    fn describe(&mut self, from: Id<Thread>, request: &Request) -> (Event, Message) {
        match *request {
            Request::Call(badge) => (Event::Call(badge), [0; 8]),
            Request::Fault { badge, .. } => {
                let words = self.threads.get(from).map_or([0; 8], |t| t.fault.encode());
                (Event::Fault(badge), words)
            }
            Request::Exit { badge, class } => {
                (Event::Exit(badge), self.exit_message(from, class).encode())
            }
        }
    }

    /// Ends a wait with something other than a request.
    pub fn finish_wait(&mut self, id: Id<Thread>, event: Event, words: Option<&Message>) {
        let Ok(thread) = self.threads.get_mut(id) else { return };
        thread.state = State::Ready;
        if let Some(frame) = thread.frame() {
            frame.rax = 0;
            frame.args[0] = event.encode();
            if let Some(words) = words {
                frame.set_message(words);
            }
        }
        if let Some(sc) = thread.sc {
            self.activate(sc);
        }
    }

    /// `Wait`: what is there already is delivered at once, ends of threads first, then
    /// notifications, then callers.
    #[inline(always)]
    pub fn wait(&mut self, id: Id<Thread>, deadline: u64) -> Result<Waits, Error> {
        let thread = self.threads.get_mut(id)?;
        if matches!(thread.serving, Serving::Caller(_)) {
            return Err(Error::BadState);
        }
        thread.serving = Serving::None;
        let adopted = thread.adopted.take();
        let (has_events, queued) = (!thread.events.is_empty(), thread.queue.is_some());
        let notification = thread.notification;
        if let Some(sc) = adopted {
            self.free_sc(sc);
        }
        if has_events && self.deliver_end(id) {
            return Ok(Waits::No);
        }
        if let Some(bound) = notification
            && let Ok(n) = self.notifications.get_mut(bound)
            && n.bits != 0
        {
            let bits = core::mem::take(&mut n.bits);
            self.finish_wait(id, Event::Notification, Some(&[bits, 0, 0, 0, 0, 0, 0, 0]));
            return Ok(Waits::No);
        }
        if queued && let Some(caller) = self.dequeue(id) {
            if let Ok(State::Calling { request, .. }) = self.threads.get(caller).map(|c| c.state) {
                self.deliver(caller, id, &request);
            }
            return Ok(Waits::No);
        }
        let thread = self.threads.get_mut(id)?;
        thread.state = State::Waiting;
        let sc = thread.sc;
        if deadline != NO_DEADLINE {
            self.set_deadline(id, deadline)?;
        }
        Ok(Waits::Yes(sc))
    }

    #[cold]
    fn set_deadline(&mut self, id: Id<Thread>, deadline: u64) -> Result<(), Error> {
        if deadline <= ticks() {
            self.finish_wait(id, Event::Timeout, None);
            return Ok(());
        }
        let cpu = self.threads.get(id)?.cpu;
        self.cpus[cpu].choose = true;
        self.cpus[cpu].timers.insert(&mut self.threads, id, deadline);
        Ok(())
    }

    #[cold]
    fn deliver_end(&mut self, id: Id<Thread>) -> bool {
        let Some((badge, words)) = self.threads.get_mut(id).ok().and_then(|t| t.events.pop_front())
        else {
            return false;
        };
        self.finish_wait(id, Event::ThreadEnd(badge), Some(&words));
        true
    }

    /// Answers the request that `handler` serves. Returns the caller, if it is on the same
    /// processor and can go on.
    #[inline(always)]
    pub fn reply(
        &mut self,
        handler: Id<Thread>,
        status: u64,
        words: &Message,
    ) -> Result<Option<Id<Thread>>, Error> {
        let server = self.threads.get_mut(handler)?;
        let (cpu, manager) = (server.cpu, server.space);
        let caller = match server.serving {
            Serving::None => return Err(Error::BadState),
            Serving::Lost => return Ok(None),
            Serving::Caller(caller) => caller,
        };
        server.serving = Serving::None;
        let thread = self.threads.get_mut(caller)?;
        let State::Calling { request, .. } = thread.state else { return Ok(None) };
        let other_cpu = thread.cpu != cpu;
        match request {
            Request::Call(_) => {
                thread.state = State::Ready;
                if let Some(frame) = thread.frame() {
                    frame.rax = status;
                    frame.set_message(words);
                }
            }
            Request::Fault { address, state, .. } => {
                self.fault_reply(caller, manager, (address, state), status, words);
            }
            Request::Exit { .. } => self.exit_reply(caller, status),
        }
        if other_cpu {
            self.wake(caller);
            return Ok(None);
        }
        if let Request::Call(_) = request {
            return Ok(Some(caller));
        }
        let ready = |thread: &Thread| matches!(thread.state, State::Ready);
        Ok(Some(caller).filter(|caller| self.threads.get(*caller).is_ok_and(ready)))
    }

    /// A thread has begun to wait, maybe after a reply to `caller`, who can go on. If nothing else
    /// happened, the caller does so at once: what the processor runs on was lent by it, unless it
    /// is the handler's own time.
    #[inline(always)]
    pub fn after_wait(
        &mut self,
        number: usize,
        caller: Option<Id<Thread>>,
        waits: &Result<Waits, Error>,
    ) {
        let cpu = &mut self.cpus[number];
        match (waits, caller) {
            (Ok(Waits::Yes(own)), Some(caller)) if !cpu.choose && *own != cpu.sc => {
                cpu.current = Some(caller);
            }
            _ => cpu.choose = true,
        }
    }

    /// Answers a request whose handler has gone.
    #[cold]
    pub fn fail_request(&mut self, caller: Id<Thread>, handler: Id<Thread>, request: &Request) {
        match request {
            Request::Call(_) => {
                if let Ok(thread) = self.threads.get_mut(caller) {
                    thread.state = State::Ready;
                    if let Some(frame) = thread.frame() {
                        frame.rax = Error::Gone as u64;
                    }
                }
                self.wake(caller);
            }
            Request::Fault { address, .. } => {
                if !self.orphan(caller, handler, *address) {
                    self.end_thread(
                        caller,
                        Reason::of(EndCause::ManagerGone { address: address.0 }),
                    );
                }
            }
            Request::Exit { class, .. } => {
                self.end_thread(caller, Reason::of(EndCause::MonitorGone { class: *class as u64 }));
            }
        }
    }
}
