//! The commonest traps by the shortest way: a portal call or a page fault that goes to a handler that
//! waits, and the reply to it, on one processor, while nothing else is to be done. Whatever does not
//! fit is left untouched to the general code (`calls`, `ipc`, `fault`), of which this is a special
//! case.
use crate::fault::{ERROR_PRESENT, PAGE_FAULT, access, needed};
use crate::kernel::{Cpu, Kernel};
use crate::machine::entry::{FrameHandle, Trap, fault_address};
use crate::machine::trace;
use crate::object::{Body, Capability, Notification, Request, Serving, State, Thread};
use abi::{
    CallNumber, Event, FaultMessage, FaultReply, NO_DEADLINE, ObjRights, Selector, SpaceAddr,
};
use scheduling::{Arena, Id};

const CALL: u64 = CallNumber::Call as u64;
const REPLY_WAIT: u64 = CallNumber::ReplyWait as u64;

impl Kernel {
    /// Handles a trap if it is one of those. The frame is that of the thread to go on with.
    #[inline(always)]
    pub fn fast(&mut self, cpu: usize, trap: Trap) -> Option<FrameHandle> {
        let state = self.cpus.get(cpu)?;
        let current = state.current?;
        if state.choose || !trace::is_off() {
            return None;
        }
        match trap {
            Trap::Call { number: CALL, first } => self.fast_send(cpu, current, first),
            Trap::Call { number: REPLY_WAIT, first } => self.fast_reply(cpu, current, first),
            Trap::Exception(PAGE_FAULT) => self.fast_fault(cpu, current),
            _ => None,
        }
    }

    #[inline(always)]
    fn fast_send(&mut self, number: usize, id: Id<Thread>, selector: u64) -> Option<FrameHandle> {
        let cpu = self.cpus.get_mut(number)?;
        let selector = Selector(u32::try_from(selector).ok()?);
        let table = &self.spaces.get(cpu.space).ok()?.table;
        let Ok(Capability::Portal(portal, rights)) = table.get(selector) else { return None };
        let portal = self.portals.get(portal).ok().filter(|_| rights.contains(ObjRights::USE))?;
        let (handler, badge) = (portal.handler, portal.badge);
        let (caller, server) = self.threads.get_two_mut(id, handler).ok()?;
        let ready = matches!(server.state, State::Waiting) && server.timer.is_none();
        if !ready || server.cpu != number {
            return None;
        }
        let (Body::Native(from), Body::Native(to)) = (&caller.body, &mut server.body) else {
            return None;
        };
        to.copy_message(from);
        to.rax = 0;
        to.args[0] = Event::Call(badge).encode();
        server.state = State::Ready;
        server.serving = Serving::Caller(id);
        caller.state = State::Calling { handler, request: Request::Call(badge) };
        cpu.go_on(handler, (server.space, server.root), &mut self.counters);
        Some(to.handle())
    }

    #[inline(always)]
    fn fast_reply(&mut self, number: usize, id: Id<Thread>, status: u64) -> Option<FrameHandle> {
        let cpu = self.cpus.get_mut(number)?;
        let Serving::Caller(to) = self.threads.get(id).ok()?.serving else { return None };
        let (server, caller) = self.threads.get_two_mut(id, to).ok()?;
        if !has_only_this_to_do(server, cpu, &self.notifications) || caller.cpu != number {
            return None;
        }
        let (Body::Native(from), Body::Native(back)) = (&server.body, &mut caller.body) else {
            return None;
        };
        let before = caller.state;
        let State::Calling { request, .. } = before else { return None };
        let (manager, client) = (server.space, (caller.space, caller.asked));
        let (root, frame) = (caller.root, back.handle());
        let fault = match request {
            Request::Call(_) => {
                back.copy_message(from);
                back.rax = status;
                None
            }
            Request::Fault { address, state: false, .. } if status == 0 => {
                let reply = FaultReply::decode(&from.message())?;
                Some((address, Some(reply).filter(|reply| *reply != FaultReply::Later)?))
            }
            _ => return None,
        };
        server.state = State::Waiting;
        server.serving = Serving::None;
        caller.state = State::Ready;
        if let Some((address, reply)) = fault
            && self.resolve(client, manager, address, reply).is_err()
        {
            return self.not_replied(id, to, before);
        }
        let cpu = self.cpus.get_mut(number)?;
        cpu.go_on(to, (client.0, root), &mut self.counters);
        Some(frame)
    }

    /// The manager's answer can't be carried out. That has changed nothing, and will happen again by
    /// the long way.
    #[cold]
    fn not_replied(
        &mut self,
        handler: Id<Thread>,
        caller: Id<Thread>,
        before: State,
    ) -> Option<FrameHandle> {
        let (server, thread) = self.threads.get_two_mut(handler, caller).ok()?;
        server.state = State::Ready;
        server.serving = Serving::Caller(caller);
        thread.state = before;
        None
    }

    #[inline(always)]
    fn fast_fault(&mut self, number: usize, id: Id<Thread>) -> Option<FrameHandle> {
        let address = fault_address();
        let cpu = self.cpus.get_mut(number)?;
        let regions = &mut self.spaces.get_mut(cpu.space).ok()?.regions;
        let (range, binding) = regions.find_near(SpaceAddr(address))?;
        let Body::Native(from) = &self.threads.get(id).ok()?.body else { return None };
        let access = access(from.error).filter(|_| from.error & ERROR_PRESENT == 0)?;
        if !binding.rights.contains(needed(access)) {
            return None;
        }
        if let Some(view) = binding.view() {
            let (space, frame) = (cpu.space, from.handle());
            // Otherwise the long way will find the same.
            let mapped = self.map_window(space, range, view, SpaceAddr(address), access);
            self.counters.entries += u64::from(mapped);
            return mapped.then_some(frame);
        }
        let portal = self.portals.get(binding.portal?).ok()?;
        let (handler, badge) = (portal.handler, portal.badge);
        let (thread, server) = self.threads.get_two_mut(id, handler).ok()?;
        let ready = matches!(server.state, State::Waiting) && server.timer.is_none();
        if !ready || server.cpu != number {
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
        };
        to.set_message(&message.encode());
        to.rax = 0;
        to.args[0] = Event::Fault(badge).encode();
        server.state = State::Ready;
        server.serving = Serving::Caller(id);
        thread.asked = range;
        let request = Request::Fault { badge, address: SpaceAddr(address), state: false };
        thread.state = State::Calling { handler, request };
        self.counters.faults += 1;
        cpu.go_on(handler, (server.space, server.root), &mut self.counters);
        Some(to.handle())
    }
}

/// True when a handler that replies and waits without a deadline will wait, and the processor goes
/// back to its caller: the time that it runs on was lent to it. Else it may have to run on.
#[inline(always)]
fn has_only_this_to_do(server: &Thread, cpu: &Cpu, bells: &Arena<Notification>) -> bool {
    let Body::Native(frame) = &server.body else { return false };
    server.events.is_empty()
        && server.queue.is_none()
        && server.adopted.is_none()
        && server.sc != cpu.sc
        && frame.args[9] == NO_DEADLINE
        && server.notification.is_none_or(|bell| bells.get(bell).is_ok_and(|n| n.bits == 0))
}
