//! The commonest calls by the shortest way: a portal call to a handler that waits, and the reply to
//! it, on one processor, while nothing else is to be done. Whatever does not fit is left untouched
//! to the general code (`calls`, `ipc`), of which this is a special case.
use crate::kernel::Kernel;
use crate::machine::entry::FrameHandle;
use crate::machine::trace;
use crate::object::{Body, Capability, Request, Serving, State, Thread};
use abi::{CallNumber, Event, NO_DEADLINE, ObjRights, Selector};
use scheduling::Id;

const CALL: u64 = CallNumber::Call as u64;
const REPLY_WAIT: u64 = CallNumber::ReplyWait as u64;

impl Kernel {
    /// Carries out a call if it is one of those. The frame is that of the thread to go on with.
    #[inline(always)]
    pub fn fast_call(&mut self, cpu: usize, number: u64, first: u64) -> Option<FrameHandle> {
        let state = self.cpus.get(cpu)?;
        let current = state.current?;
        if state.choose || !trace::is_off() {
            return None;
        }
        match number {
            CALL => self.fast_send(cpu, current, first),
            REPLY_WAIT => self.fast_reply(cpu, current, first),
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
        Some(cpu.go_on(handler, (server.space, server.root), to.handle(), &mut self.counters))
    }

    /// Only when the time that the handler runs on was lent to it: else it may have to run on.
    #[inline(always)]
    fn fast_reply(&mut self, number: usize, id: Id<Thread>, status: u64) -> Option<FrameHandle> {
        let cpu = self.cpus.get_mut(number)?;
        let Serving::Caller(to) = self.threads.get(id).ok()?.serving else { return None };
        let (server, caller) = self.threads.get_two_mut(id, to).ok()?;
        let State::Calling { request: Request::Call(_), .. } = caller.state else { return None };
        let idle = server.events.is_empty() && server.queue.is_none() && server.adopted.is_none();
        if !idle || caller.cpu != number || server.sc == cpu.sc {
            return None;
        }
        if let Some(bell) = server.notification
            && self.notifications.get(bell).is_ok_and(|n| n.bits != 0)
        {
            return None;
        }
        let (Body::Native(from), Body::Native(back)) = (&server.body, &mut caller.body) else {
            return None;
        };
        if from.args[9] != NO_DEADLINE {
            return None;
        }
        back.copy_message(from);
        back.rax = status;
        server.state = State::Waiting;
        server.serving = Serving::None;
        caller.state = State::Ready;
        Some(cpu.go_on(to, (caller.space, caller.root), back.handle(), &mut self.counters))
    }
}
