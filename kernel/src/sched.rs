//! Scheduling. The run queues hold scheduling contexts. The thread that a context leads to is its
//! own, or, while that one waits for a reply, the handler that serves it, and so on: a call lends
//! the caller's time, and callers that queue help the handler to finish.
//!
//! A context is *active* when it is current on its processor or in that processor's queue. It need
//! not be while nothing that it leads to can run; whatever makes a thread ready again calls
//! [`Kernel::wake`].
use crate::kernel::Kernel;
use crate::machine::apic::{self, Ipi};
use crate::machine::cpu::ticks;
use crate::object::{Sc, Serving, State, Thread};
use abi::Event;
use scheduling::Id;
use scheduling::lend::{Use, follow};

/// Longest chain of threads that wait for each other. Calls that would make one longer are refused.
pub const LONGEST_CHAIN: usize = 16;

impl Kernel {
    /// The thread that a thread's time goes to; `None` when nothing on its processor can run.
    #[inline]
    pub fn tip(&self, thread: Id<Thread>, cpu: usize) -> Option<Id<Thread>> {
        follow(thread, LONGEST_CHAIN, |thread| {
            let Ok(t) = self.threads.get(*thread) else { return Use::Waits };
            match t.state {
                State::Ready if t.cpu == cpu => Use::Runs,
                State::Calling { handler, .. } => Use::Lends(handler),
                _ => Use::Waits,
            }
        })
    }

    /// The thread that runs next on a processor, and its scheduling context as the current one.
    #[inline]
    pub fn pick(&mut self, cpu: usize) -> Option<Id<Thread>> {
        loop {
            let highest = self.cpus[cpu].queue.highest();
            if let Some(id) = self.cpus[cpu].sc {
                let sc = self.scs.get(id).ok().copied();
                let tip = sc.and_then(|sc| self.tip(sc.thread, cpu));
                match (sc, tip) {
                    (Some(sc), Some(tip)) if highest.is_none_or(|h| h <= sc.priority) => {
                        return Some(tip);
                    }
                    (Some(_), Some(_)) => self.preempt(cpu, id),
                    _ => self.retire_current(cpu, id),
                }
                continue;
            }
            let id = self.cpus[cpu].queue.pop(&mut self.scs)?;
            if let Ok(sc) = self.scs.get_mut(id) {
                self.cpus[cpu].slice_end = sc.slice.end(ticks());
                self.cpus[cpu].sc = Some(id);
            }
        }
    }

    /// Puts the current context back to the front of its list; it keeps what is left to it.
    fn preempt(&mut self, cpu: usize, id: Id<Sc>) {
        let end = self.cpus[cpu].slice_end;
        if let Ok(sc) = self.scs.get_mut(id) {
            let front = sc.slice.interrupt(end, ticks());
            self.cpus[cpu].queue.push(&mut self.scs, id, front);
        }
        self.cpus[cpu].sc = None;
    }

    /// The current context leads to nothing that can run: it leaves the processor.
    fn retire_current(&mut self, cpu: usize, id: Id<Sc>) {
        if let Ok(sc) = self.scs.get_mut(id) {
            sc.active = false;
            sc.slice.renew();
        }
        self.cpus[cpu].sc = None;
    }

    /// The rest of the current quantum is given up.
    pub fn rotate(&mut self, cpu: usize) {
        self.cpus[cpu].choose = true;
        let Some(id) = self.cpus[cpu].sc.take() else { return };
        if let Ok(sc) = self.scs.get_mut(id) {
            sc.slice.renew();
            self.cpus[cpu].queue.push(&mut self.scs, id, false);
        }
    }

    /// Makes a context active. Another processor is told when it should look.
    pub fn activate(&mut self, id: Id<Sc>) {
        let Ok(sc) = self.scs.get_mut(id) else { return };
        if sc.active {
            return;
        }
        sc.active = true;
        let (cpu, priority) = (sc.cpu, sc.priority);
        self.cpus[cpu].queue.push(&mut self.scs, id, false);
        self.cpus[cpu].choose = true;
        if cpu != crate::machine::cpu::id() {
            let running = self.cpus[cpu].sc.and_then(|c| self.scs.get(c).ok());
            // At the same priority its timer may have to be set to the end of the quantum.
            if running.is_none_or(|r| r.priority <= priority) {
                apic::signal(cpu, Ipi::Wake);
            }
        }
    }

    /// A thread can run again: so can its own time, and that of those who wait for it.
    pub fn wake(&mut self, id: Id<Thread>) {
        self.wake_chain(id, 0);
    }

    fn wake_chain(&mut self, id: Id<Thread>, depth: usize) {
        let Ok(thread) = self.threads.get(id) else { return };
        let (sc, adopted, serving) = (thread.sc, thread.adopted, thread.serving);
        let mut queued = thread.queue.map(|(first, _)| first);
        for sc in [sc, adopted].into_iter().flatten() {
            self.activate(sc);
        }
        if depth >= LONGEST_CHAIN {
            return;
        }
        if let Serving::Caller(caller) = serving {
            self.wake_chain(caller, depth + 1);
        }
        while let Some(caller) = queued {
            self.wake_chain(caller, depth + 1);
            queued = self.threads.get(caller).ok().and_then(|t| t.next);
        }
    }

    /// Sets the timer to the next deadline, or to the end of the quantum when somebody else could
    /// use the processor. A timer that fires too early is set again; so it is left alone when it
    /// already fires early enough.
    #[inline]
    pub fn arm_timer(&mut self, number: usize) {
        let cpu = &mut self.cpus[number];
        let mut wanted = cpu.timers.first().unwrap_or(u64::MAX).min(cpu.watch);
        if let Some(id) = cpu.sc
            && let Some(highest) = cpu.queue.highest()
            && self.scs.get(id).is_ok_and(|sc| sc.priority == highest)
        {
            wanted = wanted.min(cpu.slice_end);
        }
        if wanted < cpu.armed {
            cpu.armed = wanted;
            apic::arm(Some(wanted.saturating_sub(ticks())));
        }
    }

    /// The timer fired.
    pub fn timer(&mut self, number: usize) {
        let now = ticks();
        self.cpus[number].armed = u64::MAX;
        while let Some(thread) = self.cpus[number].timers.take_expired(&mut self.threads, now) {
            self.finish_wait(thread, Event::Timeout, None);
        }
        if now >= self.cpus[number].watch {
            self.watch(number, now);
        }
        if now >= self.cpus[number].slice_end {
            self.rotate(number);
        }
    }
}
