//! Managers that fail: they loop, never answer, answer what does not help or makes no sense, end; and
//! others that take their regions over.
use crate::env::{
    ABOVE, BELOW, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, SYSTEM, cpus, equal, eventually,
    holds, in_milliseconds, ok, pinned, portal, ram, refused, running, selector, thread, wait_end,
    watch, words_at,
};
use crate::faults::{self, toucher};
use crate::{Outcome, Test};
use abi::{
    Error, Event, FaultMessage, FaultReply, MemRights, NO_DEADLINE, RootSelector, Selector,
    SystemCounter,
};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("failing manager: loops", loops),
    ("failing manager: waits for something else", blocked),
    ("failing manager: puts off for ever", put_off),
    ("failing manager: answers what does not help", useless),
    ("failing manager: nonsense is refused and counted", nonsense),
    ("failing manager: answers too late", late),
    ("failing manager: on another processor", elsewhere),
    ("failing manager: its callers go to another one", replaced),
    ("failing manager: ends, and another one takes over", restarted),
    ("failing manager: ends, and its callers wait for another one", awaited),
    ("region: another manager, malformed calls", malformed),
    ("region: another manager empties it", emptied),
];

const LENGTH: u64 = 8 * PAGE;
/// Reasons for the end of a thread.
const EXIT: u64 = 0;
const REFUSED: u64 = 3;
const MANAGER_GONE: u64 = 4;
const LATE: u64 = 7;

/// What the failing manager does; it serves pages once it is allowed to go on.
static MODE: AtomicU64 = AtomicU64::new(0);
static GO_ON: AtomicU64 = AtomicU64::new(0);
static OFFSET: AtomicU64 = AtomicU64::new(0);
static ASKED: AtomicU64 = AtomicU64::new(0);
/// A portal that nobody answers at.
static SILENCE: AtomicU64 = AtomicU64::new(0);

const LOOP: u64 = 0;
const BLOCK: u64 = 1;
const PUT_OFF: u64 = 2;
const RESUME: u64 = 3;
const OTHER_PAGE: u64 = 4;
const READ_ONLY: u64 = 5;

fn page(fault: &FaultMessage, region_page: u64, rights: MemRights) -> FaultReply {
    let region_offset = (fault.offset & !(PAGE - 1)) ^ (region_page * PAGE);
    let memory_offset = OFFSET.load(Ordering::SeqCst) + region_offset;
    FaultReply::Map { memory: RAM, memory_offset, region_offset, length: PAGE, rights }
}

fn answer(fault: &FaultMessage) -> FaultReply {
    let good = page(fault, 0, READ_WRITE);
    if GO_ON.load(Ordering::SeqCst) != 0 {
        return good;
    }
    match MODE.load(Ordering::SeqCst) {
        LOOP => {
            while GO_ON.load(Ordering::SeqCst) == 0 {}
            good
        }
        BLOCK => {
            let _ = sys::call(Selector(SILENCE.load(Ordering::SeqCst) as u32), [0; 8]);
            good
        }
        PUT_OFF => FaultReply::Later,
        OTHER_PAGE => page(fault, 1, READ_WRITE),
        READ_ONLY => page(fault, 0, MemRights::READ),
        _ => FaultReply::Resume,
    }
}

extern "C" fn failing(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        ASKED.fetch_add(1, Ordering::SeqCst);
        let reply = answer(&FaultMessage::decode(&words));
        next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
    }
}

/// A manager that never answers.
pub fn hung() -> Result<Selector, String> {
    MODE.store(LOOP, Ordering::SeqCst);
    GO_ON.store(0, Ordering::SeqCst);
    thread(0, failing, 0)
}

/// Waits for a call and never answers it.
extern "C" fn silent(_: u64) -> ! {
    let _ = sys::wait(NO_DEADLINE);
    loop {
        let _ = sys::call(Selector(SILENCE.load(Ordering::SeqCst) as u32), [0; 8]);
        sys::yield_now();
    }
}

struct Managed {
    bind: Bind,
    manager: Selector,
}

/// A region with a failing manager, and a limit for faults.
fn managed(mode: u64) -> Result<Managed, String> {
    MODE.store(mode, Ordering::SeqCst);
    GO_ON.store(0, Ordering::SeqCst);
    ASKED.store(0, Ordering::SeqCst);
    OFFSET.store(ram(LENGTH), Ordering::SeqCst);
    let manager = thread(0, failing, 0)?;
    let bind = Bind { portal: portal(manager, 5)?, ..pinned(LENGTH, READ_WRITE) };
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::fault_limit(NONE, 20_000), "limit")?;
    Ok(Managed { bind, manager })
}

impl Managed {
    fn end(self) -> Outcome {
        ok(sys::fault_limit(NONE, 0), "no limit")?;
        ok(sys::region_unbind(SPACE, self.bind.base, LENGTH), "unbind")?;
        let _ = sys::destroy(self.manager);
        Ok(())
    }

    fn page(&self, page: u64) -> u64 {
        self.bind.base + page * PAGE
    }

    /// A thread that writes to a page.
    fn victim(&self, cpu: u32, page: u64, badge: u64) -> Outcome {
        let victim = thread(cpu, toucher, self.page(page))?;
        watch(victim, badge)?;
        ok(sys::create_sc(selector(), victim, BELOW, QUANTUM), "time")
    }
}

pub fn count(counter: SystemCounter) -> Result<u64, String> {
    ok(sys::system_count(SYSTEM, counter), "count")
}

/// Counts for ever.
extern "C" fn counter(at: u64) -> ! {
    let words = words_at(at, PAGE);
    loop {
        words.set(0, words.get(0) + 1);
    }
}

/// Two threads fault and end, each for its own address; somebody else goes on meanwhile.
fn ends_in_time(mode: u64) -> Outcome {
    let managed = managed(mode)?;
    let (work, _) = crate::env::window(PAGE)?;
    let worker = running(0, counter, work, BELOW)?;
    let before = count(SystemCounter::FaultsLate)?;
    let start = rt::time::now().0;
    managed.victim(0, 2, 71)?;
    managed.victim(0, 3, 71)?;
    let ends = [wait_end(71)?, wait_end(71)?];
    equal(ends.map(|end| end[0]), [LATE; 2], "reasons")?;
    let found = ends.map(|end| end[2]);
    let pages = [managed.page(2), managed.page(3)];
    holds(found == pages || found == [pages[1], pages[0]], "addresses")?;
    holds(rt::time::now().0 - start > in_milliseconds(20) - in_milliseconds(0), "not too early")?;
    equal(count(SystemCounter::FaultsLate)?, before + 2, "counted")?;
    let done = words_at(work, PAGE).get(0);
    eventually("others go on", || words_at(work, PAGE).get(0) > done)?;
    ok(sys::destroy(worker), "destroy")?;
    managed.end()
}

fn loops() -> Outcome {
    ends_in_time(LOOP)
}

fn blocked() -> Outcome {
    let nobody = thread(0, silent, 0)?;
    SILENCE.store(u64::from(portal(nobody, 9)?.0), Ordering::SeqCst);
    ends_in_time(BLOCK)?;
    ok(sys::destroy(nobody), "destroy")
}

fn put_off() -> Outcome {
    ends_in_time(PUT_OFF)
}

fn useless() -> Outcome {
    for mode in [RESUME, OTHER_PAGE, READ_ONLY] {
        let managed = managed(mode)?;
        managed.victim(0, 2, 72)?;
        let end = wait_end(72)?;
        equal((end[0], end[2]), (LATE, managed.page(2)), "reason and address")?;
        holds(ASKED.load(Ordering::SeqCst) > 1, "it was asked again")?;
        managed.end()?;
    }
    Ok(())
}

/// What [`speaker`] answers.
static WORDS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// A manager that answers each fault by [`say`]'s words.
pub extern "C" fn speaker(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok(_) = next else { sys::exit(1) };
        let word = |n: usize| WORDS[n].load(Ordering::SeqCst);
        let words = [word(0), word(1), word(2), word(3), word(4), word(5), 0, 0];
        next = sys::reply_wait(0, words, NO_DEADLINE);
    }
}

/// Says what [`speaker`] answers.
pub fn say(answer: &[u64; 6]) {
    for (to, word) in WORDS.iter().zip(answer) {
        to.store(*word, Ordering::SeqCst);
    }
}

/// Answers that no manager of a region of so many bytes may give: of unknown kinds, of what is not memory, not
/// its own, not inside its memory, or not inside its region.
pub fn nonsensical(length: u64) -> [[u64; 6]; 18] {
    let memory = u64::from(RAM.0);
    let offset = ram(length);
    let rights = READ_WRITE.bits();
    let base = sys::mem_info(RAM).map_or(0, |(base, ..)| base);
    [
        [4, 0, 0, 0, 0, 0],
        [3, 0, 0, 0, 0, 0],
        [u64::MAX; 6],
        [1, 0, offset, 0, PAGE, rights],
        [1, 4000, offset, 0, PAGE, rights],
        [1, u64::from(SPACE.0), offset, 0, PAGE, rights],
        [1, memory | 1 << 32, offset, 0, PAGE, rights],
        [1, memory, offset, 0, 0, rights],
        [1, memory, offset, 0, 100, rights],
        [1, memory, offset + 1, 0, PAGE, rights],
        [1, memory, offset, 8, PAGE, rights],
        [1, memory, offset, length, PAGE, rights],
        [1, memory, offset, 0, length + PAGE, rights],
        [1, memory, offset, 0u64.wrapping_sub(PAGE), 2 * PAGE, rights],
        [1, memory, u64::MAX - PAGE + 1, 0, 2 * PAGE, rights],
        [1, memory, 1 << 60, 0, PAGE, rights],
        [1, memory, offset, 0, PAGE, 1 << 20],
        [1, RootSelector::Devices as u64, base, 0, PAGE, rights],
    ]
}

fn nonsense() -> Outcome {
    let manager = thread(0, speaker, 0)?;
    let bind = Bind { portal: portal(manager, 5)?, ..pinned(LENGTH, READ_WRITE) };
    ok(sys::region_bind(bind), "bind")?;
    for (number, answer) in nonsensical(LENGTH).iter().enumerate() {
        let before = count(SystemCounter::FaultsRefused)?;
        say(answer);
        let victim = thread(0, toucher, bind.base)?;
        watch(victim, 73)?;
        ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
        let end = wait_end(73)?;
        let found = (number, end[0], end[2], count(SystemCounter::FaultsRefused)?);
        equal(found, (number, REFUSED, bind.base, before + 1), "number, end, refusals")?;
    }
    ok(sys::region_unbind(SPACE, bind.base, LENGTH), "unbind")?;
    ok(sys::destroy(manager), "destroy")
}

fn late() -> Outcome {
    let managed = managed(LOOP)?;
    managed.victim(0, 2, 74)?;
    equal(wait_end(74)?[0], LATE, "reason")?;
    // The manager answers nobody, and serves the next one.
    GO_ON.store(1, Ordering::SeqCst);
    managed.victim(0, 3, 74)?;
    let end = wait_end(74)?;
    equal((end[0], end[2]), (EXIT, 0x77), "the next one")?;
    equal(ASKED.load(Ordering::SeqCst), 2, "questions")?;
    managed.victim(0, 2, 74)?;
    equal(wait_end(74)?[0], EXIT, "the same page")?;
    equal(ASKED.load(Ordering::SeqCst), 3, "the late answer mapped nothing")?;
    // It loops again when nobody has waited for a while, and waits itself when it is asked.
    GO_ON.store(0, Ordering::SeqCst);
    ok(sys::wait(in_milliseconds(100)), "let nobody wait")?;
    managed.victim(0, 4, 74)?;
    let end = wait_end(74)?;
    equal((end[0], end[2]), (LATE, managed.page(4)), "reason and address")?;
    managed.end()
}

fn elsewhere() -> Outcome {
    let cpu = cpus() as u32 - 1;
    let managed = managed(LOOP)?;
    ok(sys::create_sc(selector(), managed.manager, BELOW, QUANTUM), "time")?;
    managed.victim(cpu, 2, 75)?;
    equal(wait_end(75)?[0], LATE, "reason")?;
    GO_ON.store(1, Ordering::SeqCst);
    managed.victim(cpu, 2, 75)?;
    equal(wait_end(75)?[0], EXIT, "the next one")?;
    managed.end()
}

/// A manager that serves pages, and its portal.
fn good() -> Result<(Selector, Selector), String> {
    faults::prepare(OFFSET.load(Ordering::SeqCst));
    let manager = thread(0, faults::manager, 0)?;
    Ok((manager, portal(manager, 6)?))
}

fn replaced() -> Outcome {
    for mode in [LOOP, PUT_OFF] {
        let managed = managed(mode)?;
        ok(sys::fault_limit(NONE, 0), "no limit")?;
        // One is served, one waits in the queue, or both are put off.
        managed.victim(0, 2, 76)?;
        managed.victim(0, 3, 76)?;
        ok(sys::wait(in_milliseconds(20)), "let them fault")?;
        holds(ASKED.load(Ordering::SeqCst) > 0, "the manager was asked")?;
        let (manager, door) = good()?;
        let (base, length) = (managed.bind.base, LENGTH);
        ok(sys::region_manager(NONE, base, length, door, 1), "another manager")?;
        let ends = [wait_end(76)?, wait_end(76)?];
        equal(ends.map(|end| (end[0], end[2])), [(EXIT, 0x77); 2], "both go on")?;
        equal(faults::asked(), 2, "questions to the new one")?;
        managed.end()?;
        ok(sys::destroy(manager), "destroy")?;
    }
    Ok(())
}

fn restarted() -> Outcome {
    let managed = managed(LOOP)?;
    // On a busy host the manager must not end too late for it to be what ends its caller.
    ok(sys::fault_limit(NONE, 2_000_000), "limit")?;
    managed.victim(0, 2, 77)?;
    eventually("the manager is asked", || ASKED.load(Ordering::SeqCst) > 0)?;
    ok(sys::destroy(managed.manager), "the manager ends")?;
    let end = wait_end(77)?;
    equal((end[0], end[2]), (MANAGER_GONE, managed.page(2)), "reason and address")?;
    let (manager, door) = good()?;
    ok(sys::region_manager(NONE, managed.bind.base, LENGTH, door, 1), "another manager")?;
    managed.victim(0, 2, 77)?;
    let end = wait_end(77)?;
    equal((end[0], end[2]), (EXIT, 0x77), "the next one")?;
    managed.end()?;
    ok(sys::destroy(manager), "destroy")
}

/// Threads fault before and after the end of their manager, on its processor and on another one; all
/// go on when there is a new one, and those who come after that know nothing of it.
fn awaited() -> Outcome {
    for mode in [LOOP, PUT_OFF] {
        let managed = managed(mode)?;
        ok(sys::fault_limit(NONE, 20_000_000), "limit")?;
        managed.victim(0, 2, 78)?;
        managed.victim(0, 3, 78)?;
        ok(sys::wait(in_milliseconds(20)), "let them fault")?;
        holds(ASKED.load(Ordering::SeqCst) > 0, "the manager was asked")?;
        ok(sys::destroy(managed.manager), "the manager ends")?;
        managed.victim(0, 4, 78)?;
        managed.victim(cpus() as u32 - 1, 5, 78)?;
        let nobody = ok(sys::wait(in_milliseconds(20)), "wait")?;
        equal(nobody.0, Event::Timeout, "they wait")?;
        let (manager, door) = good()?;
        ok(sys::create_sc(selector(), manager, ABOVE, QUANTUM), "time")?;
        ok(sys::region_manager(NONE, managed.bind.base, LENGTH, door, 1), "another manager")?;
        for _ in 0..4 {
            let end = wait_end(78)?;
            equal((end[0], end[2]), (EXIT, 0x77), "each goes on")?;
        }
        equal(faults::asked(), 4, "questions to the new one")?;
        managed.end()?;
        ok(sys::destroy(manager), "destroy")?;
    }
    Ok(())
}

fn malformed() -> Outcome {
    let managed = managed(RESUME)?;
    let (base, door) = (managed.bind.base, managed.bind.portal);
    let set = |base, length, door| sys::region_manager(NONE, base, length, door, 0);
    refused(set(base, PAGE, door), Error::NoRegion, "a part of it")?;
    refused(set(base + PAGE, LENGTH, door), Error::NoRegion, "not where it begins")?;
    refused(set(base + 1, LENGTH, door), Error::Unaligned, "not at a page")?;
    refused(set(base, LENGTH, RAM), Error::BadCapability, "memory as a portal")?;
    refused(set(base, LENGTH, Selector(4000)), Error::BadCapability, "no portal")?;
    let other = sys::region_manager(RAM, base, LENGTH, door, 0);
    refused(other, Error::BadCapability, "memory as a space")?;
    let weak = selector();
    ok(sys::cap_copy(door, NONE, weak, 1), "a portal to call only")?;
    refused(set(base, LENGTH, weak), Error::NoRight, "a portal without CONTROL")?;
    refused(sys::fault_limit(RAM, 5), Error::BadCapability, "memory as a space")?;
    managed.end()
}

fn emptied() -> Outcome {
    let managed = managed(RESUME)?;
    GO_ON.store(1, Ordering::SeqCst);
    let words = words_at(managed.bind.base, LENGTH);
    words.set(2 * PAGE, 5);
    equal(ASKED.load(Ordering::SeqCst), 1, "questions")?;
    let quota = ok(sys::space_quota(NONE), "quota")?;
    let door = managed.bind.portal;
    ok(sys::region_manager(NONE, managed.bind.base, LENGTH, door, 1), "the same one")?;
    equal(words.get(2 * PAGE), 5, "contents")?;
    equal(ASKED.load(Ordering::SeqCst), 2, "what was mapped is gone")?;
    ok(sys::region_manager(NONE, managed.bind.base, LENGTH, NONE, 0), "none")?;
    let map = sys::map(SPACE, managed.bind.base, RAM, ram(PAGE), PAGE, READ_WRITE);
    ok(map, "it is pinned")?;
    equal(words.get(0), words_at(managed.bind.base, PAGE).get(0), "no fault")?;
    equal(ASKED.load(Ordering::SeqCst), 2, "nobody is asked")?;
    equal(ok(sys::space_quota(NONE), "quota")?, quota, "quota")?;
    managed.end()
}
