//! Several processors. With a single one these tests pass without doing anything.
use crate::ends::Program;
use crate::env::{
    NONE, PAGE, RAM, READ_WRITE, SPACE, THREAD, cpus, equal, eventually, in_milliseconds, ok,
    pinned, portal, ram, refused, running, selector, thread, wait_end, watch, words_at,
};
use crate::faults::manager;
use crate::illegal::Blob;
use crate::ipc::adder;
use crate::{Outcome, Test};
use abi::{Error, Event, MemRights, NO_DEADLINE};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("processors: calls stay on theirs", wrong_cpu),
    ("processors: signals both ways", signals),
    ("processors: both run at once", parallel),
    ("processors: removed mappings are gone everywhere", shootdown),
    ("processors: replaced mappings are seen everywhere", replaced),
    ("processors: fault handled on another one", remote_fault),
    ("processors: destroying what runs elsewhere", remote_end),
];

fn wrong_cpu() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    let handler = thread(1, adder, 0)?;
    let door = portal(handler, 1)?;
    refused(sys::call(door, [0; 8]), Error::WrongCpu, "call")?;
    ok(sys::destroy(handler), "destroy")
}

static BELL: AtomicU64 = AtomicU64::new(0);

/// Answers each notification with one of its own.
extern "C" fn echo(bell: u64) -> ! {
    loop {
        if let Ok((Event::Notification, words)) = sys::wait(NO_DEADLINE) {
            BELL.fetch_add(words[0], Ordering::SeqCst);
            let _ = sys::signal(abi::Selector(bell as u32), words[0]);
        }
    }
}

fn signals() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    let (here, there) = (selector(), selector());
    ok(sys::create_notification(here), "create")?;
    ok(sys::create_notification(there), "create")?;
    ok(sys::bind_notification(THREAD, here), "bind")?;
    let helper = thread(1, echo, u64::from(here.0))?;
    ok(sys::bind_notification(helper, there), "bind")?;
    ok(sys::create_sc(selector(), helper, 100, 1000), "time")?;
    for n in 1..200 {
        ok(sys::signal(there, n), "signal")?;
        let answer = ok(sys::wait(in_milliseconds(20_000)), "wait")?;
        equal((answer.0, answer.1[0]), (Event::Notification, n), "answer")?;
    }
    ok(sys::destroy(helper), "destroy")?;
    ok(sys::cap_drop(NONE, here), "drop")
}

static COUNT: AtomicU64 = AtomicU64::new(0);

extern "C" fn counter(_: u64) -> ! {
    loop {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

fn parallel() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    let helper = running(1, counter, 0, 100)?;
    let end = in_milliseconds(20_000);
    while COUNT.load(Ordering::Relaxed) == 0 {
        if rt::time::now().0 > end {
            return Err(alloc::string::String::from("the other processor does nothing"));
        }
    }
    ok(sys::destroy(helper), "destroy")?;
    let count = COUNT.load(Ordering::Relaxed);
    let end = in_milliseconds(20);
    while rt::time::now().0 < end {}
    equal(COUNT.load(Ordering::Relaxed), count, "after its end")
}

static READS: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

/// Reads one word over and over.
extern "C" fn reader(at: u64) -> ! {
    let page = words_at(at, PAGE);
    loop {
        LAST.store(page.get(0), Ordering::SeqCst);
        READS.fetch_add(1, Ordering::SeqCst);
    }
}

/// A page that the other processor reads all the time.
fn page_of(value: u64) -> Result<u64, alloc::string::String> {
    let offset = ram(PAGE);
    let bind = pinned(PAGE, READ_WRITE);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, RAM, offset, PAGE, READ_WRITE), "map")?;
    words_at(bind.base, PAGE).set(0, value);
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")?;
    Ok(offset)
}

fn started() -> Outcome {
    let before = READS.load(Ordering::SeqCst);
    eventually("the reader runs", || READS.load(Ordering::SeqCst) > before + 10)
}

fn shootdown() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    for _ in 0..10 {
        let offset = page_of(1)?;
        let bind = pinned(PAGE, MemRights::READ);
        ok(sys::region_bind(bind), "bind")?;
        ok(sys::map(SPACE, bind.base, RAM, offset, PAGE, MemRights::READ), "map")?;
        let helper = thread(1, reader, bind.base)?;
        watch(helper, 55)?;
        ok(sys::create_sc(selector(), helper, 100, 1000), "time")?;
        started()?;
        ok(sys::unmap(SPACE, bind.base, PAGE), "unmap")?;
        let reads = READS.load(Ordering::SeqCst);
        let end = wait_end(55)?;
        equal((end[0], end[2]), (2, bind.base), "reason and address")?;
        // At most the read that was under way can have been counted since.
        equal(READS.load(Ordering::SeqCst) <= reads + 1, true, "no read after the removal")?;
        ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")?;
    }
    Ok(())
}

fn replaced() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    let bind = pinned(PAGE, MemRights::READ);
    ok(sys::region_bind(bind), "bind")?;
    let map = |value: u64| {
        let offset = page_of(value)?;
        ok(sys::map(SPACE, bind.base, RAM, offset, PAGE, MemRights::READ), "map")
    };
    map(1)?;
    let helper = running(1, reader, bind.base, 100)?;
    started()?;
    for value in 2..50 {
        map(value)?;
        let seen = READS.load(Ordering::SeqCst);
        // The second read from now on began after the change.
        while READS.load(Ordering::SeqCst) < seen + 2 {}
        equal(LAST.load(Ordering::SeqCst), value, "value on the other processor")?;
    }
    ok(sys::destroy(helper), "destroy")?;
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")
}

fn remote_fault() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    let server = running(0, manager, 0, 140)?;
    let door = portal(server, 5)?;
    let base = crate::env::address(PAGE);
    let rights = READ_WRITE;
    let bind =
        Bind { space: SPACE, base, length: 64 * PAGE, portal: door, tag: 0, rights, hint: 12 };
    ok(sys::region_bind(bind), "bind")?;
    let before = READS.load(Ordering::SeqCst);
    let helper = running(1, reader, base + PAGE, 100)?;
    eventually("the fault was resolved", || READS.load(Ordering::SeqCst) > before)?;
    ok(sys::destroy(helper), "destroy")?;
    ok(sys::destroy(server), "destroy")?;
    // Without time of its own a handler on another processor cannot serve.
    let idle = thread(0, manager, 0)?;
    let door = portal(idle, 5)?;
    ok(sys::region_unbind(SPACE, base, 64 * PAGE), "unbind")?;
    ok(sys::region_bind(Bind { portal: door, ..bind }), "bind")?;
    let helper = thread(1, reader, base)?;
    watch(helper, 56)?;
    ok(sys::create_sc(selector(), helper, 100, 1000), "time")?;
    equal(wait_end(56)?[0], 2, "reason")?;
    ok(sys::region_unbind(SPACE, base, 64 * PAGE), "unbind")
}

fn remote_end() -> Outcome {
    let cpu = u32::from(cpus() > 1);
    for _ in 0..20 {
        let program = Program::new(Blob::Spinner, cpu, 0)?;
        program.start(100)?;
        let _ = sys::wait(in_milliseconds(2));
        ok(sys::destroy(program.space), "destroy")?;
    }
    Ok(())
}
