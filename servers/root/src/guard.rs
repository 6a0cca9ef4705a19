//! Managers that loop or wait for something are noticed before anybody's fault is too late: each of their threads is
//! called every now and then, and whatever the answer is, one comes. Only a manager that neither answers nor
//! ends leaves its caller waiting.
//!
//! For each thread of a manager there is an *asker* on its processor, which calls it and so may wait for ever,
//! and for each processor a *guard*, which goes before everybody there and counts how
//! often it found the answer missing ([`backing::attention`]). Both are threads of the root server. The guard tells
//! the first thread, which has the manager started again.
use crate::boot::Builder;
use crate::restart::Failures;
use crate::{Failure, own};
use abi::{Event, MESSAGE_WORDS, NO_DEADLINE, RootSelector, Selector, ThreadArgs};
use alloc::vec;
use alloc::vec::Vec;
use backing::attention::{Attention, Look, MOST, MOST_AT_WORK, PERIOD_US};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::{log, sys, time};
use spin::Once;

/// Words of a stack.
const STACK: usize = 2048;
/// The badge of the portals through which managers are called; no space has that number.
const BADGE: u64 = 63;
/// How much higher than their manager askers and guards stand.
const ASKER: u8 = 1;
const GUARD: u8 = 2;
/// Microseconds of a quantum.
const QUANTUM_US: u64 = 1000;

/// One thread of a manager, and its asker.
struct Asked {
    program: usize,
    cpu: u32,
    priority: u8,
    /// How often it may be found without an answer.
    most: u32,
    portal: Selector,
    /// Signalled when the manager is to be asked.
    bell: Selector,
    /// Questions and answers so far.
    questions: AtomicU64,
    answers: AtomicU64,
    /// How often the manager had been started again at the last question.
    generation: AtomicU64,
}

impl Asked {
    fn has_answered(&self) -> bool {
        self.answers.load(Ordering::SeqCst) == self.questions.load(Ordering::SeqCst)
    }
}

/// All of them; their numbers are the bits by which guards tell of them.
static ALL: Once<Vec<Asked>> = Once::new();
/// How often each program was started again, as the first thread knows.
static GENERATIONS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
/// The first thread's notification.
static TOLD: AtomicU64 = AtomicU64::new(0);

fn all() -> &'static [Asked] {
    ALL.get().map_or(&[], Vec::as_slice)
}

/// A thread of the root server, which does not run yet.
pub fn thread(
    builder: &mut Builder,
    cpu: u32,
    body: extern "C" fn(u64) -> !,
    argument: u64,
) -> Result<Selector, Failure> {
    let stack = vec![0u64; STACK].leak();
    let top = stack.as_ptr().addr() as u64 + 8 * STACK as u64;
    let to = builder.selector();
    // As behind a call: the return address is missing.
    let args = ThreadArgs { entry: body as *const () as u64, stack: (top & !15) - 8, argument };
    sys::create_thread(to, own(RootSelector::Space), cpu, args)
        .map_err(Failure::kernel("a thread of the root server"))?;
    Ok(to)
}

impl Builder {
    /// Begins to watch all managers that are started again when they fail.
    pub fn watch_managers(&mut self) -> Result<(), Failure> {
        let bell = self.selector();
        sys::create_notification(bell)
            .and_then(|()| sys::bind_notification(own(RootSelector::Thread), bell))
            .map_err(Failure::kernel("the guards' bell"))?;
        TOLD.store(bell.0.into(), Ordering::SeqCst);
        let mut list = Vec::new();
        for n in 0..self.programs.len() {
            let watched = self.description.programs[n].restart;
            let cpus: Vec<u32> = self.programs[n].threads.iter().map(|t| t.cpu).collect();
            for cpu in cpus.into_iter().filter(|_| watched) {
                list.push(self.asked(n, cpu)?);
            }
        }
        let list = ALL.call_once(|| list);
        for (number, asked) in (0..).zip(list) {
            let thread = thread(self, asked.cpu, ask, number)?;
            sys::bind_notification(thread, asked.bell).map_err(Failure::kernel("an asker"))?;
            self.run(thread, asked.priority.saturating_add(ASKER))?;
        }
        for cpu in 0..self.info.cpus {
            let here = list.iter().filter(|asked| asked.cpu == cpu);
            let Some(highest) = here.map(|asked| asked.priority).max() else { continue };
            let thread = thread(self, cpu, guard, cpu.into())?;
            self.run(thread, highest.saturating_add(GUARD))?;
        }
        Ok(())
    }

    fn asked(&mut self, program: usize, cpu: u32) -> Result<Asked, Failure> {
        let portal = self.portal_on(program, cpu, BADGE)?;
        let bell = self.selector();
        sys::create_notification(bell).map_err(Failure::kernel("an asker's bell"))?;
        let zero = || AtomicU64::new(0);
        let (questions, answers, generation) = (zero(), zero(), zero());
        let priority = self.programs[program].priority;
        let monitors = self.machines.iter().any(|machine| machine.monitor == program);
        let most = if monitors { MOST_AT_WORK } else { MOST };
        Ok(Asked { program, cpu, priority, most, portal, bell, questions, answers, generation })
    }

    /// Lets a thread of the root server run.
    pub fn run(&mut self, thread: Selector, priority: u8) -> Result<(), Failure> {
        let context = self.selector();
        sys::create_sc(context, thread, priority, QUANTUM_US)
            .map_err(Failure::kernel("time for a thread of the root server"))
    }

    /// Guards have told of managers that do not answer.
    pub fn silent(&mut self, bits: u64, failures: &mut Failures) {
        for (number, asked) in all().iter().enumerate() {
            let n = asked.program;
            // Whoever was started again meanwhile was not meant.
            let now = asked.generation.load(Ordering::SeqCst) == failures.generations[n];
            if bits & 1 << number == 0 || !now {
                continue;
            }
            let name = &self.programs[n].config.name;
            log!("error: manager '{name}' does not answer on processor {}", asked.cpu);
            self.failed(n, failures);
        }
    }
}

/// Program `n` was started again.
pub fn started_again(n: usize, generation: u64) {
    if let Some(place) = GENERATIONS.get(n) {
        place.store(generation, Ordering::SeqCst);
    }
}

/// Calls a manager whenever its guard says so. A refusal is an answer, and so is that it has ended,
/// which others notice.
extern "C" fn ask(number: u64) -> ! {
    loop {
        let _ = sys::wait(NO_DEADLINE);
        if let Some(asked) = all().get(number as usize) {
            let question = asked.questions.load(Ordering::SeqCst);
            let _ = sys::call(asked.portal, [0; MESSAGE_WORDS]);
            asked.answers.store(question, Ordering::SeqCst);
        }
    }
}

/// Looks, for ever, at the managers' threads on its processor.
extern "C" fn guard(cpu: u64) -> ! {
    let mut here: Vec<(u64, &Asked, Attention)> = (0..)
        .zip(all())
        .filter(|(_, asked)| u64::from(asked.cpu) == cpu)
        .map(|(number, asked)| (number, asked, Attention::new(asked.most)))
        .collect();
    let period = time::microseconds(PERIOD_US);
    let mut due = time::now().get() + period;
    loop {
        while !matches!(sys::wait(due), Ok((Event::Timeout, _))) {}
        let now = time::now().get();
        let late = time::to_microseconds(now.saturating_sub(due));
        due = now + period;
        // Who stands below one that does not answer may only be waiting for the processor.
        let waited_for = here.iter().filter(|(_, asked, _)| !asked.has_answered());
        let highest = waited_for.map(|(_, asked, _)| asked.priority).max().unwrap_or(0);
        for (number, asked, attention) in &mut here {
            if asked.has_answered() || asked.priority == highest {
                look(*number, asked, attention, late);
            }
        }
    }
}

fn look(number: u64, asked: &Asked, attention: &mut Attention, late_us: u64) {
    match attention.look(asked.has_answered(), late_us) {
        Look::Answered => {
            let generation = GENERATIONS.get(asked.program).map_or(0, |g| g.load(Ordering::SeqCst));
            asked.generation.store(generation, Ordering::SeqCst);
            asked.questions.fetch_add(1, Ordering::SeqCst);
            let _ = sys::signal(asked.bell, 1);
        }
        Look::Waits => {}
        Look::Silent => {
            let _ = sys::signal(Selector(TOLD.load(Ordering::SeqCst) as u32), 1 << number);
        }
    }
}
