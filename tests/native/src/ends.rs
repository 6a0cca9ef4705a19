//! Ends of threads and spaces: who is told, what is freed.
use crate::env::{
    ABOVE, BELOW, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SYSTEM, THREAD, equal, eventually, ok,
    portal, ram, refused, running, selector, thread, words_at,
};
use crate::illegal::Blob;
use crate::{Outcome, Test};
use abi::{
    Error, Event, MemRights, NO_DEADLINE, ObjRights, Selector, SpaceKind, SystemCounter, ThreadArgs,
};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("handler ends in mid-call", handler_ends),
    ("caller ends in mid-call", caller_ends),
    ("caller ends while it queues", queued_caller_ends),
    ("program in a space of its own", program),
    ("space ends: everything comes back", space_ends),
    ("quota: exhausted by each kind of object", quota),
    ("quota: page tables", quota_tables),
    ("quota: a space's children", children),
    ("managers cannot form a circle", managers),
];

extern "C" fn dies_serving(_: u64) -> ! {
    let _ = sys::wait(NO_DEADLINE);
    sys::exit(0)
}

fn handler_ends() -> Outcome {
    let handler = thread(0, dies_serving, 0)?;
    let door = portal(handler, 1)?;
    refused(sys::call(door, [0; 8]), Error::Gone, "call")?;
    refused(sys::call(door, [0; 8]), Error::Gone, "call afterwards")
}

static STEP: AtomicU64 = AtomicU64::new(0);

/// Serves slowly: waits for STEP to become 2 before it replies.
extern "C" fn slow(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        STEP.fetch_add(1, Ordering::SeqCst);
        while STEP.load(Ordering::SeqCst) < 2 {
            sys::yield_now();
        }
        next = match next {
            Ok((Event::Call(_), words)) => sys::reply_wait(0, words, NO_DEADLINE),
            _ => sys::wait(NO_DEADLINE),
        };
    }
}

static SERVED: AtomicU64 = AtomicU64::new(0);

extern "C" fn client(door: u64) -> ! {
    let _ = sys::call(Selector(door as u32), [7; 8]);
    SERVED.fetch_add(1, Ordering::SeqCst);
    sys::exit(0)
}

fn caller_ends() -> Outcome {
    STEP.store(0, Ordering::SeqCst);
    let handler = thread(0, slow, 0)?;
    let door = portal(handler, 1)?;
    let victim = running(0, client, u64::from(door.0), BELOW)?;
    eventually("the call is being served", || STEP.load(Ordering::SeqCst) == 1)?;
    ok(sys::destroy(victim), "destroy the caller")?;
    STEP.store(2, Ordering::SeqCst);
    // The handler finishes for nobody, then serves the next caller.
    let reply = ok(sys::call(door, [9; 8]), "call")?;
    equal(reply, [9; 8], "reply")?;
    ok(sys::destroy(handler), "destroy")
}

fn queued_caller_ends() -> Outcome {
    SERVED.store(0, Ordering::SeqCst);
    let own = portal(THREAD, 3)?;
    let mut clients = alloc::vec::Vec::new();
    for _ in 0..4 {
        clients.push(running(0, client, u64::from(own.0), ABOVE)?);
    }
    for victim in [1, 3, 0] {
        ok(sys::destroy(clients[victim]), "destroy")?;
    }
    let next = ok(sys::wait(NO_DEADLINE), "wait")?;
    equal(next, (Event::Call(3), [7; 8]), "the one that is left")?;
    let next = ok(sys::reply_wait(0, [0; 8], 0), "reply")?;
    equal(next.0, Event::Timeout, "nobody else")?;
    eventually("it was served", || SERVED.load(Ordering::SeqCst) == 1)
}

/// A space of its own with a page of code, and a thread in it.
pub struct Program {
    /// The space.
    pub space: Selector,
    /// Its thread.
    pub thread: Selector,
}

const CODE: u64 = 0x10_0000;

impl Program {
    /// Makes it; it runs when it is given time.
    pub fn new(blob: Blob, cpu: u32, argument: u64) -> Result<Self, String> {
        let space = selector();
        ok(sys::create_space(space, SpaceKind::Native, 256 << 10), "space")?;
        let offset = ram(PAGE);
        let (page, _) = {
            let bind = crate::env::pinned(PAGE, READ_WRITE);
            ok(sys::region_bind(bind), "bind")?;
            ok(sys::map(bind.space, bind.base, RAM, offset, PAGE, READ_WRITE), "map")?;
            (bind.base, bind.length)
        };
        words_at(page, PAGE).copy(0, blob.code());
        ok(sys::region_unbind(crate::env::SPACE, page, PAGE), "unbind")?;
        let rights = MemRights::READ | MemRights::EXEC;
        let bind = Bind { space, base: CODE, length: PAGE, portal: NONE, tag: 0, rights, hint: 12 };
        ok(sys::region_bind(bind), "bind code")?;
        ok(sys::map(space, CODE, RAM, offset, PAGE, rights), "map code")?;
        let thread = selector();
        let args = ThreadArgs { entry: CODE, stack: 0, argument };
        ok(sys::create_thread(thread, space, cpu, args), "thread")?;
        Ok(Self { space, thread })
    }

    /// Gives it time.
    pub fn start(&self, priority: u8) -> Outcome {
        ok(sys::create_sc(selector(), self.thread, priority, QUANTUM), "time")
    }
}

fn program() -> Outcome {
    let program = Program::new(Blob::Caller, 0, 5)?;
    let own = portal(THREAD, 8)?;
    ok(sys::cap_copy(own, program.space, Selector(64), ObjRights::USE.bits()), "give")?;
    program.start(BELOW)?;
    let mut next = ok(sys::wait(NO_DEADLINE), "wait")?;
    for n in 0..10 {
        let (event, words) = next;
        equal((event, words[0]), (Event::Call(8), 5 + n), "call from the other space")?;
        next = ok(sys::reply_wait(0, [6 + n; 8], NO_DEADLINE), "reply")?;
    }
    ok(sys::destroy(program.space), "destroy")?;
    let next = ok(sys::reply_wait(0, [0; 8], 0), "reply to the dead")?;
    equal(next.0, Event::Timeout, "nothing more")?;
    refused(sys::destroy(program.thread), Error::Gone, "its thread")?;
    ok(sys::cap_drop(NONE, own), "drop")
}

fn state() -> Result<[u64; 3], String> {
    Ok([
        ok(sys::system_count(SYSTEM, SystemCounter::Objects), "objects")?,
        ok(sys::system_count(SYSTEM, SystemCounter::KernelBytes), "bytes")?,
        ok(sys::space_quota(NONE), "quota")?,
    ])
}

fn space_ends() -> Outcome {
    let mut before = [0; 3];
    // The first round lets this space's own tables grow to what they need.
    for round in 0..6 {
        if round == 2 {
            before = state()?;
        }
        let first = selector();
        let program = Program::new(Blob::Spinner, 0, 0)?;
        let space = program.space;
        program.start(BELOW)?;
        let _ = sys::wait(crate::env::in_milliseconds(1));
        ok(sys::create_notification(selector()), "notification")?;
        let inner = selector();
        ok(sys::create_space(inner, SpaceKind::Native, 64 << 10), "space")?;
        for slot in 64..200 {
            ok(sys::cap_copy(RAM, space, Selector(slot), 7), "fill its table")?;
        }
        ok(sys::destroy(space), "destroy")?;
        ok(sys::destroy(inner), "destroy")?;
        // Selectors are not used again by these tests; their slots must be emptied by hand.
        let last = selector();
        for slot in first.0..=last.0 {
            let _ = sys::cap_drop(NONE, Selector(slot));
        }
    }
    let after = state()?;
    equal(after[0], before[0], "objects")?;
    // Slots of this space's table for new selectors are what remains.
    equal(before[2] - after[2], after[1] - before[1], "bytes and quota agree")?;
    equal(after[1] - before[1] < 16 << 10, true, "bytes")
}

/// Creates objects in a loop until the quota is used up; at most `limit`.
fn until_quota(mut create: impl FnMut() -> Result<(), Error>) -> Result<u64, String> {
    for count in 0..20_000 {
        match create() {
            Ok(()) => {}
            Err(Error::Quota) => return Ok(count),
            Err(error) => return Err(alloc::format!("after {count}: {}", error.text())),
        }
    }
    Err(String::from("never exhausted"))
}

fn quota() -> Outcome {
    refused(
        sys::create_space(selector(), SpaceKind::Native, 100),
        Error::Quota,
        "too small for a space",
    )?;
    refused(
        sys::create_space(selector(), SpaceKind::Native, u64::MAX),
        Error::Quota,
        "more than there is",
    )?;
    let space = selector();
    ok(sys::create_space(space, SpaceKind::Native, 64 << 10), "space")?;
    let scratch = selector();
    let args = ThreadArgs { entry: CODE, stack: 0, argument: 0 };
    let threads = until_quota(|| {
        sys::create_thread(scratch, space, 0, args)?;
        sys::cap_drop(NONE, scratch)
    })?;
    crate::env::holds(threads > 3, "some threads fit")?;
    let mut base = CODE;
    let regions = until_quota(|| {
        base += 2 * PAGE;
        let rights = READ_WRITE;
        let bind = Bind { space, base, length: PAGE, portal: NONE, tag: 0, rights, hint: 12 };
        sys::region_bind(bind)
    })?;
    crate::env::holds(regions < 50, "few regions fit beside them")?;
    refused(sys::cap_copy(RAM, space, Selector(3000), 7), Error::Quota, "capability")?;
    ok(sys::destroy(space), "destroy")
}

fn quota_tables() -> Outcome {
    let space = selector();
    ok(sys::create_space(space, SpaceKind::Native, 128 << 10), "space")?;
    let rights = MemRights::READ;
    let bind =
        Bind { space, base: 1 << 30, length: 1 << 40, portal: NONE, tag: 0, rights, hint: 12 };
    ok(sys::region_bind(bind), "bind")?;
    let mut at = bind.base;
    let pages = until_quota(|| {
        at += 1 << 30;
        sys::map(space, at, RAM, 0, PAGE, rights)
    })?;
    crate::env::holds(pages > 5 && pages < 32, "page tables count")?;
    ok(sys::region_unbind(space, bind.base, bind.length), "unbind")?;
    ok(sys::region_bind(bind), "bind again")?;
    ok(sys::map(space, bind.base, RAM, 0, PAGE, rights), "there is room again")?;
    ok(sys::destroy(space), "destroy")
}

fn children() -> Outcome {
    let before = ok(sys::space_quota(NONE), "quota")?;
    let space = selector();
    ok(sys::create_space(space, SpaceKind::Native, 1 << 20), "space")?;
    let left = ok(sys::space_quota(space), "its quota")?;
    crate::env::holds(left < 1 << 20 && left > 900 << 10, "what is left to it")?;
    let after = ok(sys::space_quota(NONE), "quota")?;
    crate::env::holds(before - after >= 1 << 20, "it came out of the parent's")?;
    ok(sys::destroy(space), "destroy")?;
    let end = ok(sys::space_quota(NONE), "quota")?;
    crate::env::holds(before - end < 8192, "it came back")
}

fn managers() -> Outcome {
    let mut spaces = alloc::vec::Vec::new();
    let mut doors = alloc::vec::Vec::new();
    for _ in 0..3 {
        let program = Program::new(Blob::Spinner, 0, 0)?;
        doors.push(portal(program.thread, 1)?);
        spaces.push(program.space);
    }
    let bind = |space: usize, manager: usize, base: u64| {
        let (space, portal) = (spaces[space], doors[manager]);
        let rights = READ_WRITE;
        sys::region_bind(Bind { space, base, length: PAGE, portal, tag: 0, rights, hint: 12 })
    };
    let base = 0x4000_0000;
    ok(bind(0, 1, base), "0 managed by 1")?;
    ok(bind(1, 2, base), "1 managed by 2")?;
    refused(bind(2, 0, base), Error::Cycle, "2 managed by 0")?;
    refused(bind(1, 0, base + PAGE), Error::Cycle, "1 managed by 0")?;
    let manager =
        |manager: usize| sys::region_manager(spaces[2], base + PAGE, PAGE, doors[manager], 0);
    ok(bind(2, 2, base + PAGE), "2 managed by itself")?;
    refused(manager(0), Error::Cycle, "2 handed to 0")?;
    refused(manager(1), Error::Cycle, "2 handed to 1")?;
    ok(sys::region_unbind(spaces[2], base + PAGE, PAGE), "unbind")?;
    ok(sys::region_unbind(spaces[0], base, PAGE), "unbind")?;
    ok(bind(2, 0, base), "2 managed by 0, now")?;
    spaces.iter().try_for_each(|space| ok(sys::destroy(*space), "destroy"))
}
