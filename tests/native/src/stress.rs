//! Much at once, on all processors: calls, faults, signals, and ends of whoever takes part, at
//! random moments. Afterwards everything must be back.
use crate::ends::Program;
use crate::env::{
    Body, NONE, QUANTUM, SPACE, SYSTEM, cpus, equal, holds, in_milliseconds, ok, reuse_from,
    selector, word, words_at,
};
use crate::faults::served;
use crate::illegal::Blob;
use crate::ipc::adder;
use crate::{Outcome, Test};
use abi::{Event, Selector, SystemCounter, ThreadArgs};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys;

pub const TESTS: &[Test] = &[("everything at once", everything)];

/// How long it lasts, in milliseconds.
const TIME: u64 = 1500;
const SERVERS: usize = 4;
const HELPERS: usize = 12;
const STACK: usize = 8 << 10;

/// Portals of the servers, for the clients to choose from.
static DOORS: [AtomicU64; SERVERS] = [const { AtomicU64::new(0) }; SERVERS];
/// Notifications to signal, and the managed region.
static BELL: AtomicU64 = AtomicU64::new(0);
static REGION: AtomicU64 = AtomicU64::new(0);
static REGION_LENGTH: AtomicU64 = AtomicU64::new(0);
/// What was done.
static CALLS: AtomicU64 = AtomicU64::new(0);
static TOUCHES: AtomicU64 = AtomicU64::new(0);

/// Numbers from a seed.
pub struct Random(pub u64);

impl Random {
    /// The next one below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
    }
}

/// Calls any server, whatever comes of it.
extern "C" fn client(seed: u64) -> ! {
    let mut random = Random(seed);
    loop {
        let door = DOORS[random.below(SERVERS as u64) as usize].load(Ordering::Relaxed);
        if sys::call(Selector(door as u32), [50; 8]).is_ok() {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
        if random.below(4) == 0 {
            let _ = sys::signal(Selector(BELL.load(Ordering::Relaxed) as u32), 1);
        }
        if random.below(8) == 0 {
            let _ = sys::wait(rt::time::now().0 + random.below(200_000));
        }
    }
}

/// Touches pages that come and go.
extern "C" fn toucher(seed: u64) -> ! {
    let mut random = Random(seed);
    let (base, length) = (REGION.load(Ordering::Relaxed), REGION_LENGTH.load(Ordering::Relaxed));
    let words = words_at(base, length);
    loop {
        words.set(random.below(length / 8) * 8, 1);
        TOUCHES.fetch_add(1, Ordering::Relaxed);
    }
}

/// A thread on one of a fixed set of stacks.
pub struct Helper {
    stack: u64,
    slot: Selector,
    sc: Selector,
    lives: bool,
}

impl Helper {
    /// None yet.
    pub fn new() -> Self {
        let stack = alloc::vec![0u64; STACK / 8].leak();
        Self { stack: stack.as_ptr().addr() as u64, slot: selector(), sc: selector(), lives: false }
    }

    /// Starts it, with time of its own where a priority is given.
    pub fn start(&mut self, body: Body, cpu: u32, argument: u64, priority: Option<u8>) -> Outcome {
        let to = self.slot;
        let top = self.stack + STACK as u64 - 16;
        let args = ThreadArgs { entry: body as *const () as u64, stack: top, argument };
        ok(sys::create_thread(to, SPACE, cpu, args), "create thread")?;
        if let Some(priority) = priority {
            ok(sys::create_sc(self.sc, to, priority, QUANTUM), "create scheduling context")?;
        }
        self.lives = true;
        Ok(())
    }

    /// The selector of the thread.
    pub fn slot(&self) -> Selector {
        self.slot
    }

    /// Ends it, if it lives.
    pub fn end(&mut self) {
        if core::mem::take(&mut self.lives) {
            let _ = sys::destroy(self.slot);
            let _ = sys::cap_drop(NONE, self.slot);
            let _ = sys::cap_drop(NONE, self.sc);
        }
    }
}

struct Stress {
    random: Random,
    servers: Vec<(Helper, Selector)>,
    helpers: Vec<Helper>,
}

impl Stress {
    fn cpu(&mut self) -> u32 {
        self.random.below(cpus()) as u32
    }

    fn restart_server(&mut self) -> Outcome {
        let (index, cpu) = (self.random.below(SERVERS as u64) as usize, self.cpu());
        let priority = [None, Some(60), Some(140)][self.random.below(3) as usize];
        let (server, door) = &mut self.servers[index];
        server.end();
        let _ = sys::cap_drop(NONE, *door);
        server.start(adder, cpu, 0, priority)?;
        ok(sys::create_portal(*door, server.slot, 1), "portal")?;
        DOORS[index].store(u64::from(door.0), Ordering::Relaxed);
        Ok(())
    }

    fn restart_helper(&mut self) -> Outcome {
        let (index, cpu) = (self.random.below(HELPERS as u64) as usize, self.cpu());
        let body: Body = if self.random.below(3) == 0 { toucher } else { client };
        let (seed, priority) = (self.random.below(1 << 40) + 1, 20 + self.random.below(60) as u8);
        self.helpers[index].end();
        self.helpers[index].start(body, cpu, seed, Some(priority))
    }

    fn step(&mut self) -> Outcome {
        let (base, length) =
            (REGION.load(Ordering::Relaxed), REGION_LENGTH.load(Ordering::Relaxed));
        match self.random.below(10) {
            0 => self.restart_server()?,
            1..=4 => self.restart_helper()?,
            5..=6 => ok(sys::unmap(SPACE, base, length), "unmap")?,
            7 => {
                let cpu = self.cpu();
                let first = selector();
                let program = Program::new(Blob::Spinner, cpu, 0)?;
                program.start(30)?;
                let _ = sys::wait(rt::time::now().0 + self.random.below(300_000));
                ok(sys::destroy(program.space), "destroy space")?;
                for slot in first.0..=selector().0 {
                    let _ = sys::cap_drop(NONE, Selector(slot));
                }
                reuse_from(first);
            }
            _ => {
                let _ = sys::wait(rt::time::now().0 + self.random.below(2_000_000));
            }
        }
        Ok(())
    }
}

fn state() -> Result<u64, String> {
    ok(sys::system_count(SYSTEM, SystemCounter::Objects), "objects")
}

fn everything() -> Outcome {
    let before = state()?;
    let bell = selector();
    ok(sys::create_notification(bell), "create")?;
    BELL.store(u64::from(bell.0), Ordering::Relaxed);
    let (server, base, length) = served()?;
    // Faults come from all processors, so the manager needs time of its own.
    ok(sys::create_sc(selector(), server, 145, QUANTUM), "time")?;
    REGION.store(base, Ordering::Relaxed);
    REGION_LENGTH.store(length, Ordering::Relaxed);
    let seed = rt::time::now().0 | 1;
    let mut stress = Stress {
        random: Random(seed),
        servers: (0..SERVERS).map(|_| (Helper::new(), selector())).collect(),
        helpers: (0..HELPERS).map(|_| Helper::new()).collect(),
    };
    let time = word("stress").and_then(|w| w.parse().ok()).unwrap_or(TIME);
    let end = in_milliseconds(time);
    let mut steps = 0;
    while rt::time::now().0 < end {
        stress.step().map_err(|why| alloc::format!("seed {seed}, step {steps}: {why}"))?;
        steps += 1;
    }
    for (server, door) in &mut stress.servers {
        server.end();
        let _ = sys::cap_drop(NONE, *door);
    }
    stress.helpers.iter_mut().for_each(Helper::end);
    ok(sys::region_unbind(SPACE, base, length), "unbind")?;
    ok(sys::destroy(server), "destroy")?;
    ok(sys::cap_drop(NONE, bell), "drop")?;
    holds(CALLS.load(Ordering::Relaxed) > 0, "some calls succeeded")?;
    holds(TOUCHES.load(Ordering::Relaxed) > 0, "some pages were touched")?;
    // `served` leaves its portal to whoever wants it.
    let leftover = state()? - before;
    holds(leftover <= 1, "objects came back")?;
    equal(ok(sys::wait(0), "wait")?.0, Event::Timeout, "nothing is left to do")?;
    let (calls, touches) = (CALLS.load(Ordering::Relaxed), TOUCHES.load(Ordering::Relaxed));
    rt::log!("{steps} steps, {calls} calls, {touches} pages touched");
    Ok(())
}
