//! Who gets how much of a processor. Only where each instruction is a tick of the clock (`counted=1` on the
//! command line): elsewhere the host decides when a quantum is over.
use crate::env::{
    BELOW, Body, QUANTUM, boot_info, holds, in_milliseconds, ok, portal, selector, thread, word,
};
use crate::{Outcome, Test};
use abi::{Event, NO_DEADLINE, Selector};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys;

pub const TESTS: &[Test] = &[
    ("sharing: equal spinners get equal parts", spinners),
    ("sharing: a server works on its caller's time", donation),
    ("sharing: nobody of one priority starves", crowd),
    ("sharing: a higher priority goes first", priorities),
];

/// How long each test lasts, in milliseconds, and quanta in microseconds.
const TIME: u64 = 300;
const SHORT: u64 = 1000;
const _: () = assert!(SHORT < QUANTUM);

/// Most threads of a test.
const MOST: usize = 8;
static COUNTS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

fn counted() -> bool {
    word("counted").is_some()
}

fn count(number: u64) {
    if let Some(counter) = COUNTS.get(number as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn counts() -> [u64; MOST] {
    core::array::from_fn(|n| COUNTS[n].load(Ordering::Relaxed))
}

/// Turns of one piece of work.
const WORK: u64 = 2000;

/// A piece of work: the same instructions for everybody.
#[inline(never)]
fn work(number: u64) {
    (0..WORK).for_each(|_| count(number));
}

extern "C" fn spinner(number: u64) -> ! {
    loop {
        work(number);
    }
}

/// Lets the threads run for a while, ends them, and tells how far each got.
fn race(threads: &[Selector]) -> Result<[u64; MOST], String> {
    let before = counts();
    let end = in_milliseconds(TIME);
    while rt::time::now().0 < end {
        let _ = sys::wait(end);
    }
    let after = counts();
    for thread in threads {
        ok(sys::destroy(*thread), "destroy")?;
    }
    Ok(core::array::from_fn(|n| after[n] - before[n]))
}

/// A thread at `BELOW` or elsewhere, with short quanta.
fn racer(body: Body, argument: u64, priority: u8) -> Result<Selector, String> {
    let racer = thread(0, body, argument)?;
    ok(sys::create_sc(selector(), racer, priority, SHORT), "time")?;
    Ok(racer)
}

/// True when the two differ by two in a hundred at most.
fn alike(a: u64, b: u64) -> bool {
    a.abs_diff(b) * 100 <= 2 * a.max(b)
}

fn spinners() -> Outcome {
    if !counted() {
        return Ok(());
    }
    let threads = [racer(spinner, 0, BELOW)?, racer(spinner, 1, BELOW)?];
    let [a, b, ..] = race(&threads)?;
    rt::log!("shares {a} {b}, {} ticks a millisecond", boot_info().1);
    holds(a > 0 && alike(a, b), "equal parts")
}

extern "C" fn worker(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Call(_), words)) = next else { sys::exit(1) };
        // Long enough for the call itself not to count.
        (0..100).for_each(|_| work(0));
        next = sys::reply_wait(0, words, NO_DEADLINE);
    }
}

extern "C" fn client(door: u64) -> ! {
    loop {
        let _ = sys::call(Selector(door as u32), [0; 8]);
    }
}

fn donation() -> Outcome {
    if !counted() {
        return Ok(());
    }
    // The server has no time of its own.
    let server = thread(0, worker, 0)?;
    let door = portal(server, 1)?;
    let (caller, other) = (racer(client, u64::from(door.0), BELOW)?, racer(spinner, 1, BELOW)?);
    let [served, spun, ..] = race(&[caller, other, server])?;
    rt::log!("shares {served} (through a server) {spun}");
    holds(served > 0 && alike(served, spun), "the server's work counts as its caller's")
}

fn crowd() -> Outcome {
    if !counted() {
        return Ok(());
    }
    let racers = (0..MOST as u64).map(|n| racer(spinner, n, BELOW));
    let threads = racers.collect::<Result<alloc::vec::Vec<_>, _>>()?;
    let all = race(&threads)?;
    let mean = all.iter().sum::<u64>() / MOST as u64;
    // Some have had a turn more than others.
    holds(all.iter().all(|n| *n > mean * 9 / 10 && *n < mean * 11 / 10), "nobody starves")
}

fn priorities() -> Outcome {
    if !counted() {
        return Ok(());
    }
    let threads = [racer(spinner, 0, BELOW)?, racer(spinner, 1, BELOW - 1)?];
    let [high, low, ..] = race(&threads)?;
    holds(high > 0 && low == 0, "the lower one waits")
}
