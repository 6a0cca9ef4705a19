//! Ends: of threads, with a report, and of spaces with all that they hold.
use crate::kernel::Kernel;
use crate::machine::{tlb, trace};
use crate::memory::Charged;
use crate::object::{
    Binding, Body, Capability, Notification, Portal, Request, Sc, Serving, Space, State, Thread,
};
use abi::trace::Kind;
use abi::{Access, Detail, EndCause, Event, Message, Obstacle, SpaceKind, ThreadEnd};
use regions::Range;
use scheduling::Id;

/// Most ends that are kept for a reporter that does not come to take them.
const MOST_EVENTS: usize = 64;

/// Ends for which room is made at a time, and the heap bytes that this takes.
const EVENTS_STEP: usize = 8;
const EVENTS_COST: u64 = (EVENTS_STEP * size_of::<(u64, Message)>()) as u64;

/// Why a thread ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reason {
    cause: EndCause,
    detail: Detail,
}

impl Reason {
    /// Nothing beyond that.
    pub const fn of(cause: EndCause) -> Self {
        Self { cause, detail: Detail::None }
    }

    /// An access to an address that nobody resolves, for this is in its way.
    pub const fn obstacle(address: u64, access: Access, obstacle: Obstacle) -> Self {
        Self { cause: EndCause::Fault { address }, detail: Detail::Obstacle(access, obstacle) }
    }

    /// Its manager has refused a fault, or answered nonsense: the manager's status, or the kernel's error.
    pub const fn refused(address: u64, status: u64) -> Self {
        Self { cause: EndCause::Refused { address }, detail: Detail::Status(status) }
    }
}

impl Kernel {
    /// Ends a thread or vCPU: reports, answers those who wait for it, frees it.
    pub fn end_thread(&mut self, id: Id<Thread>, reason: Reason) {
        let Ok(thread) = self.threads.get(id) else { return };
        let (ip, space, cpu) = (thread.ip(), thread.space, thread.cpu);
        let Reason { cause, detail } = reason;
        let end = ThreadEnd { cause, ip, detail };
        if !matches!(cause, EndCause::Exit { code: 0 } | EndCause::Destroyed) {
            let (space, thread, why) = (space.index(), id.index(), end.why());
            crate::log!("space {space} thread {thread} ended at ip {ip:#x}: {why}");
        }
        let by = crate::machine::cpu::id();
        let (code, detail) = cause.encode();
        trace::record(by, Kind::End, id.index(), code, detail);
        self.stop(id, cpu);
        self.withdraw(id);
        let reporter = self.threads.get(id).ok().and_then(|t| t.fault_portal);
        if let Some(portal) = reporter {
            self.report_end(portal, end.encode());
        }
        let Some(thread) = self.threads.remove(id) else { return };
        self.release_thread(id, &thread);
        self.answer_callers(&thread, id);
        if let Ok(space) = self.spaces.get_mut(space) {
            self.memory.credit(&mut space.quota, thread.cost);
            if let Body::Vcpu(part) = thread.body {
                // The pages go back when its processor has let go of it.
                space.quota.credit(crate::vcpu::FRAMES * abi::PAGE_SIZE);
                self.cpus[cpu].graveyard.push(part.vcpu);
            }
        }
    }

    /// Makes sure that no processor executes the thread.
    fn stop(&mut self, id: Id<Thread>, cpu: usize) {
        self.cpus[cpu].choose = true;
        if self.cpus[cpu].current == Some(id) {
            if cpu != crate::machine::cpu::id() {
                tlb::bring_in(cpu);
            }
            self.cpus[cpu].current = None;
        }
    }

    /// Takes a thread out of whatever it waits for, and its time out of the run queues.
    fn withdraw(&mut self, id: Id<Thread>) {
        let Ok(thread) = self.threads.get(id) else { return };
        let (state, cpu, sc) = (thread.state, thread.cpu, thread.sc);
        let mut keep = None;
        match state {
            State::Waiting => self.cpus[cpu].timers.remove(&mut self.threads, id),
            State::Calling { handler, .. } => {
                if self.threads.get(handler).is_ok_and(|h| h.serving == Serving::Caller(id)) {
                    keep = self.leave_handler(id, handler, sc);
                } else {
                    self.leave_queue(id, handler);
                }
            }
            State::Ready | State::PutOff(..) | State::Blocked => {}
        }
        let adopted = self.threads.get_mut(id).ok().and_then(|t| t.adopted.take());
        for sc in [sc, adopted].into_iter().flatten().filter(|sc| Some(*sc) != keep) {
            self.free_sc(sc);
        }
    }

    /// The caller dies while it is served: the handler finishes for nobody, on the caller's time
    /// if it has none of its own.
    fn leave_handler(
        &mut self,
        caller: Id<Thread>,
        handler: Id<Thread>,
        sc: Option<Id<Sc>>,
    ) -> Option<Id<Sc>> {
        let _ = caller;
        let server = self.threads.get_mut(handler).ok()?;
        server.serving = Serving::Lost;
        if server.sc.is_some() {
            self.wake(handler);
            return None;
        }
        let sc = sc?;
        server.adopted = Some(sc);
        if let Ok(sc) = self.scs.get_mut(sc) {
            sc.thread = handler;
        }
        Some(sc)
    }

    /// Gives up references that a thread held.
    fn release_thread(&mut self, id: Id<Thread>, thread: &Thread) {
        if let Some(portal) = thread.fault_portal {
            self.release_portal(portal);
        }
        if let Body::Vcpu(part) = &thread.body {
            for portal in part.portals.iter().flatten() {
                self.release_portal(*portal);
            }
        }
        if let Some(bound) = thread.notification
            && let Ok(notification) = self.notifications.get_mut(bound)
            && notification.bound == Some(id)
        {
            notification.bound = None;
        }
    }

    /// Tells those who called a thread that it has gone.
    fn answer_callers(&mut self, thread: &Thread, id: Id<Thread>) {
        if let Serving::Caller(caller) = thread.serving {
            self.answer_gone(caller);
        }
        let mut queued = thread.queue.map(|(first, _)| first);
        while let Some(caller) = queued {
            queued = self.threads.get_mut(caller).ok().and_then(|t| t.next.take());
            self.answer_gone(caller);
        }
        self.leave_put_off(id);
    }

    fn answer_gone(&mut self, caller: Id<Thread>) {
        if let Ok(State::Calling { handler, request }) = self.threads.get(caller).map(|c| c.state) {
            self.fail_request(caller, handler, &request);
        }
    }

    /// Reports the end of a thread, or that a vCPU waited too long, through its fault portal.
    pub fn report_end(&mut self, portal: Id<Portal>, words: Message) {
        let Ok(portal) = self.portals.get(portal).copied() else { return };
        let Ok(thread) = self.threads.get_mut(portal.handler) else { return };
        if matches!(thread.state, State::Waiting) {
            let cpu = thread.cpu;
            self.cpus[cpu].timers.remove(&mut self.threads, portal.handler);
            self.finish_wait(portal.handler, Event::ThreadEnd(portal.badge), Some(&words));
            return;
        }
        let (space, count, room) = (thread.space, thread.events.len(), thread.events.capacity());
        if count == MOST_EVENTS || (count == room && self.charge(space, EVENTS_COST).is_err()) {
            crate::log!("thread {}: too many ends to report", portal.handler.index());
            return;
        }
        let Ok(thread) = self.threads.get_mut(portal.handler) else { return };
        if count == room {
            thread.cost += EVENTS_COST;
            thread.events.reserve_exact(EVENTS_STEP);
        }
        thread.events.push_back((portal.badge, words));
    }

    /// Frees a scheduling context.
    pub fn free_sc(&mut self, id: Id<Sc>) {
        let Ok(sc) = self.scs.get(id).copied() else { return };
        self.cpus[sc.cpu].choose = true;
        if self.cpus[sc.cpu].sc == Some(id) {
            self.cpus[sc.cpu].sc = None;
        } else if sc.active {
            self.cpus[sc.cpu].queue.remove(&mut self.scs, id);
        }
        self.scs.remove(id);
        self.credit(sc.payer, scheduling::Arena::<Sc>::COST);
    }

    /// Gives heap bytes back to a space, if it still exists.
    pub fn credit(&mut self, space: Id<Space>, bytes: u64) {
        match self.spaces.get_mut(space) {
            Ok(space) => self.memory.credit(&mut space.quota, bytes),
            Err(_) => self.memory.heap.credit(bytes),
        }
    }

    /// One reference to a portal less.
    pub fn release_portal(&mut self, id: Id<Portal>) {
        let Ok(portal) = self.portals.get_mut(id) else { return };
        portal.references -= 1;
        if portal.references == 0 {
            let payer = portal.payer;
            self.portals.remove(id);
            self.credit(payer, scheduling::Arena::<Portal>::COST);
        }
    }

    /// One reference to a notification less.
    pub fn release_notification(&mut self, id: Id<Notification>) {
        let Ok(notification) = self.notifications.get_mut(id) else { return };
        notification.references -= 1;
        if notification.references == 0 {
            self.free_notification(id);
        }
    }

    fn free_notification(&mut self, id: Id<Notification>) {
        let Some(notification) = self.notifications.remove(id) else { return };
        if let Some(thread) = notification.bound.and_then(|b| self.threads.get_mut(b).ok()) {
            thread.notification = None;
        }
        for cpu in &mut self.cpus {
            for irq in cpu.irqs.iter_mut().filter(|i| i.is_some_and(|i| i.notification == id)) {
                *irq = None;
            }
        }
        self.credit(notification.payer, scheduling::Arena::<Notification>::COST);
    }

    /// Gives up what a capability refers to.
    pub fn release_capability(&mut self, capability: &Capability) {
        match capability {
            Capability::Portal(id, _) => self.release_portal(*id),
            Capability::Notification(id, _) => self.release_notification(*id),
            _ => {}
        }
    }

    /// Gives up what a region refers to. `space` is where the region was.
    pub fn release_binding(&mut self, space: Id<Space>, region: Range, binding: &Binding) {
        if let Some(portal) = binding.portal {
            self.release_portal(portal);
        }
        let Some(manager) = binding.manager else { return };
        self.forget_window(space, region, binding);
        let Ok(space) = self.spaces.get_mut(space) else { return };
        if let Some(at) = space.managers.iter().position(|(id, _)| *id == manager) {
            space.managers[at].1 -= 1;
            if space.managers[at].1 == 0 {
                space.managers.swap_remove(at);
                if space.managers.capacity() > 4 * space.managers.len() {
                    space.managers.shrink_to(2 * space.managers.len());
                }
            }
        }
    }

    /// Ends a space: its threads, what it pays for, its mappings; before it, all spaces that got their
    /// quota from it, and theirs. Leaf after leaf: the kernel's stack is not as deep as they may be.
    pub fn end_space(&mut self, id: Id<Space>) {
        let mut at = id;
        loop {
            if let Some(child) = self.spaces.find(|s| s.parent == Some(at)) {
                at = child;
                continue;
            }
            let parent = self.spaces.get(at).ok().and_then(|s| s.parent);
            self.end_childless(at);
            match parent {
                Some(parent) if at != id => at = parent,
                _ => return,
            }
        }
    }

    fn end_childless(&mut self, id: Id<Space>) {
        while let Some(thread) = self.threads.find(|t| t.space == id) {
            self.end_thread(thread, Reason::of(EndCause::Destroyed));
        }
        self.free_paid_by(id);
        let Ok(space) = self.spaces.get_mut(id) else { return };
        let table = core::mem::take(&mut space.table);
        let regions = core::mem::take(&mut space.regions);
        for capability in table.iter() {
            self.release_capability(&capability);
        }
        for (region, binding) in regions.iter() {
            if let Some(portal) = binding.portal {
                self.release_portal(portal);
            }
            self.forget_window(id, region, binding);
        }
        self.end_windows(id);
        let Some(mut space) = self.spaces.remove(id) else { return };
        tlb::retire(space.root(), 0);
        let native = space.kind == SpaceKind::Native;
        let mut frames = Charged { pool: &mut self.memory.frames, quota: &mut space.quota };
        space.tables.clear(native, &mut frames);
        // What is left in use is heap: the space itself, its tables of capabilities and regions.
        self.memory.heap.credit(space.quota.used);
        if let Some(parent) = space.parent.and_then(|p| self.spaces.get_mut(p).ok()) {
            parent.quota.credit(space.quota.limit);
        }
    }

    /// Frees portals, notifications and scheduling contexts that a space pays for, whoever still
    /// names them.
    fn free_paid_by(&mut self, id: Id<Space>) {
        while let Some(portal) = self.portals.find(|p| p.payer == id) {
            self.portals.remove(portal);
            self.credit(id, scheduling::Arena::<Portal>::COST);
        }
        while let Some(notification) = self.notifications.find(|n| n.payer == id) {
            self.free_notification(notification);
        }
        while let Some(sc) = self.scs.find(|s| s.payer == id) {
            if let Ok(thread) = self.scs.get(sc).map(|s| s.thread)
                && let Ok(thread) = self.threads.get_mut(thread)
            {
                thread.sc = thread.sc.filter(|s| *s != sc);
                thread.adopted = thread.adopted.filter(|s| *s != sc);
            }
            self.free_sc(sc);
        }
    }

    /// A request whose class nobody handles.
    pub fn end_unhandled(&mut self, id: Id<Thread>, request: &Request) {
        if let Request::Exit { class, .. } = request {
            self.end_thread(id, Reason::of(EndCause::Unhandled { class: *class as u64 }));
        }
    }
}
