//! Where offenders are tried: each is run to its end, and then everybody else must be as before. A line of
//! the log for each act is what `doc/illegal-acts.md` is made from, and what the kernel's own report is
//! held against.
use crate::Outcome;
use crate::env::{
    BELOW, Body, NONE, QUANTUM, SPACE, SYSTEM, THREAD, equal, eventually, ok, running, selector,
    wait_end_of,
};
use crate::illegal as i;
use abi::{EndCause, Selector, SystemCounter, ThreadArgs, ThreadEnd};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys;

/// Priority of offenders: above the bystander, as badly behaved ones would choose.
const PRIORITY: u8 = BELOW + 10;
const STACK: u64 = 16 << 10;
const BADGE: u64 = 99;

static TURNS: AtomicU64 = AtomicU64::new(0);

/// Somebody who has done nothing wrong.
extern "C" fn bystander(_: u64) -> ! {
    loop {
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Objects, bytes of kernel memory, and the quota that is left.
pub type State = [u64; 3];

/// What the kernel holds now.
pub fn state() -> Result<State, String> {
    let count = |counter| ok(sys::system_count(SYSTEM, counter), "count");
    Ok([
        count(SystemCounter::Objects)?,
        count(SystemCounter::KernelBytes)?,
        ok(sys::space_quota(NONE), "quota")?,
    ])
}

/// One line of the list of illegal acts: what kind, which, and what comes of it.
pub fn note(group: &str, name: &str, how: &str) {
    rt::log!("act|{group}|{name}|{how}");
}

/// One stack for all offenders: they come one after the other.
pub struct Court {
    /// Top of the offenders' stack.
    pub stack: u64,
    offender: Selector,
    time: Selector,
    portal: Selector,
    witness: Selector,
    before: State,
}

impl Court {
    /// With a bystander.
    pub fn new() -> Result<Self, String> {
        let stack = vec![0u64; STACK as usize / 8].leak();
        let stack = (stack.as_ptr().addr() as u64 + STACK - 8) & !15;
        let witness = running(0, bystander, 0, BELOW)?;
        let (offender, time, portal) = (selector(), selector(), selector());
        let mut court = Self { stack, offender, time, portal, witness, before: [0; 3] };
        // What is made at the first time and kept.
        court.end_of(i::undefined, 0, stack)?;
        court.start(i::spin, 0, stack, BELOW)?;
        ok(sys::destroy(offender), "kill")?;
        court.finish()?;
        court.before = state()?;
        Ok(court)
    }

    fn start(&self, body: Body, argument: u64, stack: u64, priority: u8) -> Outcome {
        let entry = body as *const () as u64;
        let args = ThreadArgs { entry, stack, argument };
        ok(sys::create_thread(self.offender, SPACE, 0, args), "thread")?;
        ok(sys::create_portal(self.portal, THREAD, BADGE), "portal")?;
        ok(sys::fault_portal(self.offender, self.portal), "fault portal")?;
        ok(sys::create_sc(self.time, self.offender, priority, QUANTUM), "time")
    }

    fn finish(&self) -> Result<ThreadEnd, String> {
        let end = wait_end_of(BADGE)?;
        for slot in [self.offender, self.portal, self.time] {
            ok(sys::cap_drop(NONE, slot), "drop")?;
        }
        ThreadEnd::decode(&end).ok_or_else(|| "a cause that there is not".into())
    }

    fn end_of(&self, body: Body, argument: u64, stack: u64) -> Result<ThreadEnd, String> {
        self.start(body, argument, stack, PRIORITY)?;
        self.finish()
    }

    /// Everybody else is as before.
    pub fn nothing_else(&self) -> Outcome {
        equal(state()?, self.before, "objects, bytes and quota afterwards")?;
        let turns = TURNS.load(Ordering::Relaxed);
        eventually("the bystander goes on", || TURNS.load(Ordering::Relaxed) > turns)
    }

    /// Runs a body that must end as `fits` says. Its line tells what the kernel's report, the line
    /// before, has to name: the instruction, and the cause.
    pub fn try_on(
        &self,
        stack: u64,
        act: (&str, &str, &str),
        (body, argument): (Body, u64),
        fits: &dyn Fn(EndCause) -> bool,
    ) -> Result<ThreadEnd, String> {
        let (group, name, how) = act;
        let end = self.end_of(body, argument, stack)?;
        if !fits(end.cause) {
            return Err(format!("{group}, {name}: {end}"));
        }
        rt::log!("act|{group}|{name}|{how}|{:#x}|{}", end.ip, end.why());
        self.nothing_else().map_err(|why| format!("{group}, {name}: {why}"))?;
        Ok(end)
    }

    /// The same on the usual stack.
    pub fn try_act(
        &self,
        act: (&str, &str, &str),
        what: (Body, u64),
        fits: &dyn Fn(EndCause) -> bool,
    ) -> Result<ThreadEnd, String> {
        self.try_on(self.stack, act, what, fits)
    }

    /// Runs a body that would go on for ever, at the bystander's priority, then kills it.
    pub fn kill(&self, act: (&str, &str, &str), body: Body) -> Outcome {
        let (group, name, how) = act;
        self.start(body, 0, self.stack, BELOW)?;
        let turns = TURNS.load(Ordering::Relaxed);
        let on = || TURNS.load(Ordering::Relaxed) > turns + 1000;
        eventually("the bystander goes on beside it", on)?;
        ok(sys::destroy(self.offender), "kill")?;
        equal(self.finish()?.cause, EndCause::Destroyed, name)?;
        note(group, name, how);
        self.nothing_else()
    }

    /// Closes it.
    pub fn close(self) -> Outcome {
        ok(sys::destroy(self.witness), "destroy")
    }
}
