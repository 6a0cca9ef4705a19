//! The commonest traps by the shortest way: a portal call or a page fault that goes to a handler that
//! waits, and the reply to it, on one processor, while nothing else is to be done. Whatever does not
//! fit is left untouched to the general code (`calls`, `ipc`, `fault`), of which this is a special
//! case.
use crate::fault::{PAGE_FAULT, access_to_nothing, needed};
use crate::kernel::{Cpu, Kernel};
use crate::machine::cpu::ticks;
use crate::machine::entry::{Delivery, Entered, FrameHandle, fault_address};
use crate::object::{Body, Capability, Notification, Request, Serving, State, Thread};
use abi::{CallNumber, Event, FaultMessage, FaultReply, NO_DEADLINE, ObjRights, SpaceAddr};
use scheduling::{Arena, Id};

const CALL: u64 = CallNumber::Call as u64;
const REPLY_WAIT: u64 = CallNumber::ReplyWait as u64;

/// How a thread leaves the kernel by the short way.
#[derive(Clone, Copy, Debug)]
pub enum Leave {
    /// It goes on with its registers as they are in its frame.
    Resume(FrameHandle),
    /// Its call ends with a message.
    Deliver(Delivery),
}

impl Kernel {
    /// Handles a trap if it is one of those, and tells who goes on.
    #[inline(always)]
    pub fn fast(&mut self, number: usize, entered: Entered) -> Option<Leave> {
        let cpu = self.cpus.get(number)?;
        let current = cpu.current?;
        // Both at once: neither is likely.
        if cpu.choose | cpu.traced {
            return None;
        }
        match entered.call() {
            Some((CALL, selector)) => self.fast_send(number, current, selector).map(Leave::Deliver),
            Some((REPLY_WAIT, status)) => self.fast_reply(number, current, status),
            None if entered.is_exception(PAGE_FAULT) => {
                self.fast_fault(number, current).map(Leave::Resume)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn fast_send(&mut self, number: usize, id: Id<Thread>, selector: u64) -> Option<Delivery> {
        let cpu = self.cpus.get_mut(number)?;
        let table = &self.spaces.get(cpu.space).ok()?.table;
        let Ok(Capability::Portal(portal, rights)) = table.look_up(selector) else { return None };
        let portal = self.portals.get(*portal).ok().filter(|_| rights.contains(ObjRights::USE))?;
        let (handler, badge) = (portal.handler, portal.badge);
        let (caller, server) = self.threads.get_two_mut(id, handler).ok()?;
        if !is_ready_for_request(server, number) {
            return None;
        }
        let (Body::Native(from), Body::Native(to)) = (&caller.body, &server.body) else {
            return None;
        };
        let (from, to) = (from.handle(), to.handle());
        server.state = State::Ready;
        server.serving = Serving::Caller(id);
        caller.state = State::Calling { handler, request: Request::Call(badge) };
        cpu.go_on(handler, server, &mut self.counters);
        Some(Delivery { to, from, status: 0, first: Event::Call(badge).encode() })
    }

    #[inline(always)]
    fn fast_reply(&mut self, number: usize, id: Id<Thread>, status: u64) -> Option<Leave> {
        let cpu = self.cpus.get_mut(number)?;
        let serves = |server: &Thread| match server.serving {
            Serving::Caller(caller) => Some(caller),
            _ => None,
        };
        let (server, to, caller) = self.threads.get_with_other(id, serves).ok()?;
        if !has_only_this_to_do(server, cpu, &self.notifications) || caller.cpu != number {
            return None;
        }
        let State::Calling { request: Request::Call(_), .. } = caller.state else {
            return self.fast_fault_reply(number, (id, to), status).map(Leave::Resume);
        };
        let (Body::Native(from), Body::Native(back)) = (&server.body, &caller.body) else {
            return None;
        };
        let delivery = Delivery { to: back.handle(), from: from.handle(), status, first: 0 };
        server.state = State::Waiting;
        server.serving = Serving::None;
        caller.state = State::Ready;
        cpu.go_on(to, caller, &mut self.counters);
        Some(Leave::Deliver(delivery))
    }

    /// The reply of a manager to a fault.
    #[inline(never)]
    fn fast_fault_reply(
        &mut self,
        number: usize,
        (id, to): (Id<Thread>, Id<Thread>),
        status: u64,
    ) -> Option<FrameHandle> {
        let (server, caller) = self.threads.get_two_mut(id, to).ok()?;
        let (Body::Native(from), Body::Native(back)) = (&server.body, &caller.body) else {
            return None;
        };
        let &State::Calling { request: Request::Fault { address, state: false, .. }, .. } =
            &caller.state
        else {
            return None;
        };
        let (frame, reply) = (back.handle(), FaultReply::decode(&from.message())?);
        if status != 0 || !matches!(reply, FaultReply::Map { .. }) {
            return None;
        }
        let (manager, client) = (server.space, (caller.space, caller.asked));
        let access = caller.tried;
        // What can't be carried out has changed nothing, and will come out the same by the long way.
        let helps = self.resolve(client, manager, (address, access), reply).ok()?;
        let (server, caller) = self.threads.get_two_mut(id, to).ok()?;
        server.state = State::Waiting;
        server.serving = Serving::None;
        caller.state = State::Ready;
        caller.again = !helps;
        self.cpus.get_mut(number)?.go_on(to, caller, &mut self.counters);
        Some(frame)
    }

    #[inline(never)]
    fn fast_fault(&mut self, number: usize, id: Id<Thread>) -> Option<FrameHandle> {
        let address = fault_address();
        let cpu = self.cpus.get_mut(number)?;
        let space = self.spaces.get_mut(cpu.space).ok()?;
        let patience = space.patience;
        let (range, binding) = space.regions.find_near(SpaceAddr(address))?;
        let thread = self.threads.get(id).ok().filter(|thread| !thread.again)?;
        let Body::Native(from) = &thread.body else { return None };
        let access = access_to_nothing(from.error)?;
        if !binding.rights.contains(needed(access)) {
            return None;
        }
        if let Some(view) = binding.view() {
            let (space, frame) = (cpu.space, from.handle());
            // Otherwise the long way will find what there is to find.
            if !self.fill_from_window(space, range, view, SpaceAddr(address), access) {
                return None;
            }
            self.counters.entries += 1;
            return Some(frame);
        }
        let portal = self.portals.get(binding.portal?).ok()?;
        let (handler, badge) = (portal.handler, portal.badge);
        let (thread, server) = self.threads.get_two_mut(id, handler).ok()?;
        let now = ticks();
        // The long way knows whether there is time left, and has it watched.
        let watched = cpu.watch <= now.saturating_add(patience);
        if !watched || !is_ready_for_request(server, number) {
            return None;
        }
        let (Body::Native(from), Body::Native(to)) = (&thread.body, &mut server.body) else {
            return None;
        };
        // Only a request that has to wait is told from the thread's own notes.
        let message = FaultMessage {
            tag: binding.tag,
            offset: address - range.base.0,
            access,
            ip: from.rip,
            region_length: range.length,
            page_hint: u64::from(binding.hint),
            lost: binding.window.lost(),
        };
        to.set_message(&message.encode());
        to.rax = 0;
        to.args[0] = Event::Fault(badge).encode();
        let frame = to.handle();
        server.state = State::Ready;
        server.serving = Serving::Caller(id);
        thread.asked = (range, binding.tag);
        thread.since = now;
        thread.tried = access;
        let request = Request::Fault { badge, address: SpaceAddr(address), state: false };
        thread.state = State::Calling { handler, request };
        self.counters.faults += 1;
        cpu.go_on(handler, server, &mut self.counters);
        Some(frame)
    }
}

/// True when a handler waits on this processor, without a deadline.
#[inline(always)]
fn is_ready_for_request(server: &Thread, cpu: usize) -> bool {
    matches!(server.state, State::Waiting) && server.timer.is_none() && server.cpu == cpu
}

/// True when a handler that replies and waits without a deadline will wait, and the processor goes
/// back to its caller: the time that it runs on was lent to it. Else it may have to run on.
#[inline(always)]
fn has_only_this_to_do(server: &Thread, cpu: &Cpu, bells: &Arena<Notification>) -> bool {
    let Body::Native(frame) = &server.body else { return false };
    let more = !server.events.is_empty() | server.queue.is_some() | server.adopted.is_some();
    !more
        && !Id::same(server.sc, cpu.sc)
        && frame.args[9] == NO_DEADLINE
        && server.notification.is_none_or(|bell| bells.get(bell).is_ok_and(|n| n.bits == 0))
}
