//! Faults that take long. Each space says how long a fault of its threads may remain unresolved; a
//! manager that loops, waits for something, or answers what does not help, costs a thread no more
//! time than that. That a manager puts a fault off
//! ([`FaultReply::Later`](abi::FaultReply)) does not change that.
//!
//! Setting the timer for each fault would cost more than most faults. So each processor knows when to
//! look next at faults that wait ([`Cpu::watch`](crate::kernel::Cpu)); a fault only makes sure that
//! this is early enough. Whoever looks and finds nobody waiting, looks no more.
//!
//! A fault whose manager has ended waits as long, for another manager to be named
//! ([`CallNumber::RegionManager`](abi::CallNumber)).
use crate::end::Reason;
use crate::kernel::Kernel;
use crate::machine::cpu::ticks;
use crate::object::{Body, Request, Serving, Space, State, Thread};
use abi::{Access, Detail, EndCause, SpaceAddr, ThreadEnd};
use regions::Range;
use scheduling::Id;

/// The access that a thread waits for its manager to resolve.
fn waits_for(thread: &Thread) -> Option<(SpaceAddr, Access)> {
    match thread.state {
        State::Calling { request: Request::Fault { address, .. }, .. }
        | State::PutOff(_, address) => Some((address, thread.tried)),
        _ => None,
    }
}

impl Kernel {
    /// Ticks of the time-stamp counter in some microseconds.
    pub fn ticks_of(&self, microseconds: u64) -> u64 {
        let ticks = u128::from(microseconds) * u128::from(self.tsc_khz) / 1000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// A thread faults. Unless the answer to its last fault did not help it, this is another one.
    pub fn begin_fault(&mut self, id: Id<Thread>) {
        if let Ok(thread) = self.threads.get_mut(id)
            && !thread.again
        {
            thread.since = ticks();
        }
    }

    /// A thread's fault was resolved without its manager.
    pub fn end_fault(&mut self, id: Id<Thread>) {
        if let Ok(thread) = self.threads.get_mut(id) {
            thread.again = false;
        }
    }

    /// When the patience with a thread's fault ends.
    fn due(&self, thread: &Thread) -> u64 {
        let patience = self.spaces.get(thread.space).map_or(u64::MAX, |space| space.patience);
        thread.since.saturating_add(patience)
    }

    /// False when there is no time left for a thread's fault; else it will be noticed in time.
    pub fn has_time(&mut self, id: Id<Thread>) -> bool {
        let Ok(thread) = self.threads.get(id) else { return true };
        let (due, number) = (self.due(thread), thread.cpu);
        let cpu = &mut self.cpus[number];
        if due < cpu.watch {
            cpu.watch = due;
            // The timer has to be set.
            cpu.choose = true;
        }
        due > ticks()
    }

    /// Ends what waits for too long on a processor, and finds out when to look next.
    pub fn watch(&mut self, number: usize, now: u64) {
        loop {
            let late = |thread: &Thread| {
                let waits = waits_for(thread).filter(|_| thread.cpu == number);
                waits.filter(|_| self.due(thread) <= now)
            };
            let found = self.threads.iter().find_map(|(id, thread)| Some((id, late(thread)?)));
            let Some((id, (address, access))) = found else { break };
            let orphan = self.threads.get(id).is_ok_and(|thread| self.is_orphan(thread));
            self.withdraw_request(id);
            if orphan {
                self.end_thread(id, Reason::of(EndCause::ManagerGone { address: address.0 }));
            } else {
                self.give_up(id, address, access);
            }
        }
        let waiting =
            self.threads.iter().filter(|(_, t)| t.cpu == number && waits_for(t).is_some());
        self.cpus[number].watch =
            waiting.map(|(_, thread)| self.due(thread)).min().unwrap_or(u64::MAX);
    }

    /// A fault is not resolved in time.
    pub fn give_up(&mut self, id: Id<Thread>, at: SpaceAddr, access: Access) {
        self.counters.faults_late += 1;
        let address = at.0;
        let Ok(thread) = self.threads.get_mut(id) else { return };
        if thread.vcpu().is_none() {
            return self.end_thread(id, Reason::of(EndCause::Late { address }));
        }
        let (portal, ip) = (thread.fault_portal, thread.ip());
        crate::log!("nested fault at {address:#x} not resolved by its manager in time");
        if let Some(portal) = portal {
            self.report_end(
                portal,
                ThreadEnd { cause: EndCause::Late { address }, ip, detail: Detail::None }.encode(),
            );
        }
        self.report_to_monitor(id, address, access);
    }

    /// A thread does not wait for its manager any more. The manager goes on with what it did, but not
    /// on the thread's time; its answer goes nowhere.
    fn withdraw_request(&mut self, id: Id<Thread>) {
        let Ok(thread) = self.threads.get_mut(id) else { return };
        let (state, cpu) = (thread.state, thread.cpu);
        match state {
            State::PutOff(..) => {}
            State::Calling { handler, .. } => {
                self.cpus[cpu].choose = true;
                match self.threads.get_mut(handler) {
                    Ok(server) if server.serving == Serving::Caller(id) => {
                        server.serving = Serving::Lost;
                        if let Some(own) = server.sc {
                            self.activate(own);
                        }
                    }
                    _ => self.leave_queue(id, handler),
                }
            }
            _ => return,
        }
        if let Ok(thread) = self.threads.get_mut(id) {
            thread.state = State::Ready;
        }
    }

    /// A manager puts a fault off: the thread waits, but for no reply.
    pub fn put_off(&mut self, id: Id<Thread>, address: SpaceAddr) {
        if let Ok(thread) = self.threads.get_mut(id)
            && let State::Calling { handler, .. } = thread.state
        {
            thread.state = State::PutOff(handler, address);
            thread.again = true;
        }
    }

    /// True when a program waits for a manager that has ended.
    fn is_orphan(&self, thread: &Thread) -> bool {
        let gone = matches!(thread.state, State::PutOff(by, _) if self.threads.get(by).is_err());
        gone && matches!(thread.body, Body::Native(_))
    }

    /// A thread's fault was in the hands of a manager that has ended, or would go to one. It waits for
    /// another manager as long as its space says; false when it says nothing.
    pub fn orphan(&mut self, id: Id<Thread>, handler: Id<Thread>, address: SpaceAddr) -> bool {
        let Ok(thread) = self.threads.get(id) else { return false };
        if self.due(thread) == u64::MAX || !self.has_time(id) {
            return false;
        }
        if let Ok(thread) = self.threads.get_mut(id) {
            thread.state = State::PutOff(handler, address);
            thread.again = true;
            self.cpus[thread.cpu].choose = true;
        }
        true
    }

    /// The manager whose handler this was has ended: the faults that it has put off are orphans.
    pub fn leave_put_off(&mut self, handler: Id<Thread>) {
        loop {
            let found = self.threads.iter().find_map(|(id, t)| match t.state {
                State::PutOff(by, at) if by == handler && self.due(t) == u64::MAX => Some((id, at)),
                _ => None,
            });
            let Some((id, address)) = found else { break };
            self.end_thread(id, Reason::of(EndCause::ManagerGone { address: address.0 }));
        }
    }

    /// A thread whose fault a handler has put off, and the address.
    pub fn put_off_by(&self, handler: Id<Thread>) -> Option<(Id<Thread>, SpaceAddr)> {
        self.threads.iter().find_map(|(id, thread)| match thread.state {
            State::PutOff(by, address) if by == handler => Some((id, address)),
            _ => None,
        })
    }

    /// Lets all threads go on whose faults a handler has put off.
    pub fn retry_faults(&mut self, handler: Id<Thread>) {
        while let Some((id, _)) = self.put_off_by(handler) {
            self.try_again(id);
        }
    }

    /// A thread makes its access again.
    fn try_again(&mut self, id: Id<Thread>) {
        self.withdraw_request(id);
        self.wake(id);
    }

    /// Threads whose faults in a range wait for an answer make their accesses again, as if for the
    /// first time.
    pub fn ask_anew(&mut self, space: Id<Space>, range: Range) {
        let inside = |t: &Thread| {
            t.space == space && waits_for(t).is_some_and(|(at, _)| range.contains(at.0))
        };
        while let Some(id) = self.threads.find(inside) {
            self.try_again(id);
            if let Ok(thread) = self.threads.get_mut(id) {
                thread.again = false;
            }
        }
    }
}
