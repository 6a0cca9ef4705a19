//! Regions that go to their manager's successor, wherever they are by then; and windows that this one gives them again.
use crate::env::{
    ABOVE, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, address, equal, holds, in_milliseconds, ok,
    pinned, portal, ram, refused, selector, thread, wait_end, watch, words_at,
};
use crate::faults::toucher;
use crate::{Outcome, Test};
use abi::{Error, Event, FaultMessage, FaultReply, NO_DEADLINE, Selector, SpaceKind};
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("regions passed on: their windows come back", windows),
    ("regions passed on: all of them, and no others", all),
    ("regions passed on: to whom that may not be", refusals),
    ("regions passed on: windows that must not be", nonsense),
];

const LENGTH: u64 = 8 * PAGE;

/// Questions to managers, where the window was that the last one was about, and what is answered instead of that.
static ASKED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static INSTEAD: AtomicU64 = AtomicU64::new(0);

/// Gives each region the window that it had.
extern "C" fn manager(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        let fault = FaultMessage::decode(&words);
        ASKED.fetch_add(1, Ordering::SeqCst);
        LOST.store(fault.lost, Ordering::SeqCst);
        let instead = INSTEAD.load(Ordering::SeqCst);
        let at = if instead == 0 { fault.lost } else { instead };
        let status = if at == 0 { Error::NoRegion as u64 } else { 0 };
        next = sys::reply_wait(status, FaultReply::Window { at }.encode(), NO_DEADLINE);
    }
}

extern "C" fn idle(_: u64) -> ! {
    loop {
        let _ = sys::wait(NO_DEADLINE);
    }
}

fn asked() -> (u64, u64) {
    (ASKED.load(Ordering::SeqCst), LOST.load(Ordering::SeqCst))
}

fn word(at: u64) -> u64 {
    words_at(at, PAGE).get(0)
}

/// A manager and its portal.
fn door(badge: u64) -> Result<(Selector, Selector), String> {
    let handler = thread(0, manager, 0)?;
    Ok((handler, portal(handler, badge)?))
}

/// A region with a window: pages that hold their numbers.
struct Setup {
    region: Bind,
    window: u64,
    memory: u64,
    handler: Selector,
}

impl Setup {
    fn new() -> Result<Self, String> {
        ASKED.store(0, Ordering::SeqCst);
        INSTEAD.store(0, Ordering::SeqCst);
        let (handler, door) = door(5)?;
        let region = Bind { portal: door, tag: 9, ..pinned(LENGTH, READ_WRITE) };
        let view = pinned(LENGTH, READ_WRITE);
        let (memory, window) = (ram(LENGTH), view.base);
        for bind in [region, view] {
            ok(sys::region_bind(bind), "bind")?;
        }
        ok(sys::map(SPACE, window, RAM, memory, LENGTH, READ_WRITE), "map in the window")?;
        (0..8).for_each(|page| words_at(window, LENGTH).set(page * PAGE, 100 + page));
        ok(sys::region_window(NONE, region.base, LENGTH, window), "window")?;
        Ok(Self { region, window, memory, handler })
    }

    /// The first manager ends, another one follows. How many regions it gets.
    fn succeed(&mut self) -> Result<u64, String> {
        // It may have done so already.
        let _ = sys::destroy(self.handler);
        let (handler, successor) = door(6)?;
        let passed = ok(sys::regions_pass(NONE, self.region.portal, successor), "pass")?;
        equal(sys::regions_pass(NONE, self.region.portal, successor), Ok(0), "once more")?;
        (self.handler, self.region.portal) = (handler, successor);
        Ok(passed)
    }

    fn end(self, regions: &[(u64, u64)]) -> Outcome {
        for (base, length) in regions.iter().chain(&[(self.window, LENGTH)]) {
            ok(sys::region_unbind(NONE, *base, *length), "unbind")?;
        }
        ok(sys::destroy(self.handler), "destroy")
    }
}

fn windows() -> Outcome {
    let mut setup = Setup::new()?;
    let (base, window, to) = (setup.region.base, setup.window, address(LENGTH));
    equal((word(base + PAGE), asked().0), (101, 0), "through the first window")?;
    // Divided and moved before its manager ends, and after it.
    ok(sys::region_split(NONE, base, LENGTH, base + 4 * PAGE, 77), "split")?;
    ok(sys::region_move(NONE, base + 4 * PAGE, 4 * PAGE, to), "move")?;
    equal(word(to), 104, "the part that was moved")?;
    equal(setup.succeed()?, 2, "both parts are passed on")?;
    ok(sys::region_split(NONE, to, 4 * PAGE, to + 2 * PAGE, 78), "split")?;
    let quota = || ok(sys::space_quota(NONE), "quota");
    let before = quota()?;
    for (number, (at, from, value)) in
        [(base, 0, 100), (to, 4, 104), (to + 2 * PAGE, 6, 106)].into_iter().enumerate()
    {
        let first = number as u64 + 1;
        equal((word(at), asked()), (value, (first, window + from * PAGE)), "it comes back")?;
        equal((word(at + PAGE), asked().0), (value + 1, first), "all of it")?;
    }
    holds(quota()? < before, "windows are paid for")?;
    // What the successor loses, the regions lose.
    ok(sys::unmap(SPACE, window, LENGTH), "unmap in the window")?;
    let victim = thread(0, toucher, to)?;
    watch(victim, 31)?;
    ASKED.store(0, Ordering::SeqCst);
    ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
    equal((wait_end(31)?[0], asked()), (3, (1, 0)), "refused, and nothing was lost")?;
    ok(sys::map(SPACE, window, RAM, setup.memory, LENGTH, READ_WRITE), "map in the window")?;
    equal((word(base), word(to), asked().0), (100, 104, 1), "it shows what is there")?;
    // A window that is taken away deliberately does not come back.
    ok(sys::region_window(NONE, base, 4 * PAGE, 0), "no window")?;
    equal(setup.succeed()?, 3, "all parts are passed on")?;
    equal((word(to + 3 * PAGE), asked().1), (107, window + 6 * PAGE), "another one's")?;
    let victim = thread(0, toucher, base)?;
    watch(victim, 32)?;
    ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
    equal((wait_end(32)?[0], asked().1), (3, 0), "it had none")?;
    setup.end(&[(base, 4 * PAGE), (to, 2 * PAGE), (to + 2 * PAGE, 2 * PAGE)])
}

/// More than one call takes, in another space; and a thread that waits meanwhile.
fn all() -> Outcome {
    let mut setup = Setup::new()?;
    let space = selector();
    ok(sys::create_space(space, SpaceKind::Native, 256 << 10), "space")?;
    let (other, other_door) = (thread(0, idle, 0)?, selector());
    ok(sys::create_portal(other_door, other, 1), "portal")?;
    for n in 0..200 {
        let portal = if n % 2 == 0 { setup.region.portal } else { other_door };
        let bind = Bind { space, base: (n + 1) * PAGE, length: PAGE, portal, ..setup.region };
        ok(sys::region_bind(bind), "bind")?;
    }
    let (first, successor) = (setup.region.portal, portal(other, 2)?);
    let pass = |to| sys::regions_pass(space, first, to);
    equal([(); 3].map(|()| pass(successor)), [Ok(64), Ok(36), Ok(0)], "all of them")?;
    equal(sys::regions_pass(space, successor, NONE), Ok(64), "to nobody")?;
    let managed = rt::regions::of(space).filter(|region| region.managed).count();
    equal(managed, 136, "managed regions")?;
    ok(sys::destroy(space), "destroy")?;
    // The fault of a thread whose manager has ended waits, and goes to the successor.
    ok(sys::fault_limit(NONE, 10_000_000), "limit")?;
    ok(sys::region_window(NONE, setup.region.base, LENGTH, setup.window), "window, nothing shown")?;
    ok(sys::unmap(SPACE, setup.window, LENGTH), "unmap in the window")?;
    ok(sys::destroy(setup.handler), "destroy")?;
    let victim = thread(0, toucher, setup.region.base)?;
    watch(victim, 33)?;
    ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
    ok(sys::wait(in_milliseconds(5)), "let it fault")?;
    ok(sys::map(SPACE, setup.window, RAM, setup.memory, LENGTH, READ_WRITE), "map")?;
    equal(setup.succeed()?, 1, "its region is passed on")?;
    equal((wait_end(33)?[0], asked()), (0, (1, setup.window)), "it goes on")?;
    ok(sys::fault_limit(NONE, 0), "no limit")?;
    ok(sys::destroy(other), "destroy")?;
    let base = setup.region.base;
    setup.end(&[(base, LENGTH)])
}

fn refusals() -> Outcome {
    let setup = Setup::new()?;
    let (first, (other, successor)) = (setup.region.portal, door(6)?);
    let bad = Error::BadCapability;
    refused(sys::regions_pass(RAM, first, successor).map(drop), bad, "memory as a space")?;
    refused(sys::regions_pass(NONE, NONE, successor).map(drop), bad, "pinned regions")?;
    refused(sys::regions_pass(NONE, first, SPACE).map(drop), bad, "a space as a portal")?;
    equal(sys::regions_pass(NONE, first, first), Ok(0), "to itself")?;
    // A space that its successor depends on has none.
    let [space, below, its] = [(); 3].map(|()| selector());
    ok(sys::create_space(space, SpaceKind::Native, 256 << 10), "space")?;
    ok(sys::create_thread(below, space, 0, abi::ThreadArgs::default()), "thread")?;
    ok(sys::create_portal(its, below, 1), "portal")?;
    let bind = Bind { portal: its, ..pinned(PAGE, READ_WRITE) };
    ok(sys::region_bind(bind), "bind")?;
    equal(sys::regions_pass(space, first, successor), Ok(0), "none there")?;
    ok(sys::region_unbind(NONE, bind.base, PAGE), "unbind")?;
    ok(sys::destroy(space), "destroy")?;
    let weak = selector();
    ok(sys::cap_copy(SPACE, SPACE, weak, 1), "copy without the right")?;
    refused(sys::regions_pass(weak, first, successor).map(drop), Error::NoRight, "a space")?;
    let less = selector();
    ok(sys::create_manager_portal(less, other, 7, abi::MemRights::READ), "portal")?;
    let result = sys::regions_pass(NONE, first, less).map(drop);
    refused(result, Error::NoRight, "one that gives less")?;
    ok(sys::destroy(other), "destroy")?;
    refused(sys::regions_pass(NONE, first, successor).map(drop), Error::Gone, "an end")?;
    equal((word(setup.region.base), asked().0), (100, 0), "nothing has changed")?;
    let base = setup.region.base;
    setup.end(&[(base, LENGTH)])
}

fn nonsense() -> Outcome {
    let setup = Setup::new()?;
    let (base, window) = (setup.region.base, setup.window);
    ok(sys::region_window(NONE, base, LENGTH, 0), "no window")?;
    let kernel = 0xffff_8000_0000_0000;
    let cases = [window + 8, window + PAGE, address(LENGTH), base, kernel, !0xfff, u64::MAX];
    let before = ok(sys::space_quota(NONE), "quota")?;
    for (number, at) in cases.into_iter().enumerate() {
        INSTEAD.store(at, Ordering::SeqCst);
        let victim = thread(0, toucher, base)?;
        watch(victim, 34)?;
        ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
        equal((number, wait_end(34)?[0], asked().0), (number, 3, number as u64 + 1), "refused")?;
    }
    let after = ok(sys::space_quota(NONE), "quota")?;
    holds(before - after < PAGE, &format!("nothing is paid for: {before}, {after}"))?;
    INSTEAD.store(window, Ordering::SeqCst);
    equal((word(base), word(base + 7 * PAGE)), (100, 107), "a good one")?;
    setup.end(&[(base, LENGTH)])
}
