//! Who gets how much of a processor. Only where each instruction is a tick of the clock (`counted=1` on the
//! command line): elsewhere the host decides when a quantum is over.
use crate::env::{
    BELOW, Body, PAGE, QUANTUM, Words, boot_info, holds, in_milliseconds, ok, portal, selector,
    thread, window, word, words_at,
};
use crate::guests::Running;
use crate::illegal::{self, Blob};
use crate::{Outcome, Test};
use abi::{Event, NO_DEADLINE, Selector};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys;

pub const TESTS: &[Test] = &[
    ("sharing: equal spinners get equal parts", spinners),
    ("sharing: a server works on its caller's time", donation),
    ("sharing: nobody of one priority starves", crowd),
    ("sharing: a virtual machine and a program get equal parts", guest),
    ("sharing: a higher priority goes first", priorities),
    ("sharing: a virtual machine waits for a program of higher priority", guest_waits),
    ("sharing: a program waits for a virtual machine of higher priority", guest_goes_first),
    ("sharing: virtual machines get equal parts", two_guests),
];

/// Quanta in microseconds. A quantum of a virtual machine begins and ends with the switch to it.
const SHORT: u64 = 1000;
const LONG: u64 = 10_000;
const _: () = assert!(SHORT < QUANTUM);

/// Most threads of a test.
const MOST: usize = 8;
static COUNTS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// How long each test lasts, in milliseconds of the machine's clock; `None` where that is not by counting.
fn counted() -> Option<u64> {
    word("counted")?.parse().ok()
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

/// Lets others run for as long as a test lasts.
fn watch() {
    let end = in_milliseconds(counted().unwrap_or(0));
    while rt::time::now().0 < end {
        let _ = sys::wait(end);
    }
}

/// Lets the threads run for a while, ends them, and tells how far each got.
fn race(threads: &[Selector]) -> Result<[u64; MOST], String> {
    let before = counts();
    watch();
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
    if counted().is_none() {
        return Ok(());
    }
    let threads = [racer(spinner, 0, BELOW)?, racer(spinner, 1, BELOW)?];
    let [a, b, ..] = race(&threads)?;
    rt::log!("shares {a} {b}, {} ticks a millisecond", boot_info().1);
    holds(a > 0 && alike(a, b), "equal parts")
}

fn guest() -> Outcome {
    if counted().is_none() {
        return Ok(());
    }
    let Some([inside, outside]) = with_guest(BELOW, BELOW)? else { return Ok(()) };
    rt::log!("shares {inside} (virtual machine) {outside}");
    holds(inside > 0 && alike(inside, outside), "equal parts")
}

/// Turns that a guest or the program in its place has made.
fn turns(words: Words) -> u64 {
    words.get(0) & u64::from(u32::MAX)
}

/// Turns of a guest and of a program with these priorities, while they both could run; `None` where there are no guests.
fn with_guest(guest: u8, program: u8) -> Result<Option<[u64; 2]>, String> {
    let Some(machine) = Running::with(Blob::Turns, 0, 2)? else { return Ok(None) };
    machine.prepare()?;
    let (page, _) = window(PAGE)?;
    let native = words_at(page, PAGE);
    // Its monitor starts the guest first, with nobody beside it.
    ok(sys::create_sc(selector(), machine.vcpu, guest, LONG), "time")?;
    ok(sys::wait(in_milliseconds(100)), "let the guest begin")?;
    holds(turns(machine.result()) > 0, "the guest has begun")?;
    let spinner = thread(0, illegal::turns, page)?;
    ok(sys::create_sc(selector(), spinner, program, LONG), "time")?;
    // Waiting is done at once: looking often would take all the time there is.
    ok(sys::wait(in_milliseconds(100)), "let both run")?;
    let before = [turns(machine.result()), turns(native)];
    watch();
    let made = [turns(machine.result()) - before[0], turns(native) - before[1]];
    ok(sys::destroy(spinner), "destroy")?;
    machine.end()?;
    Ok(Some(made))
}

fn guest_waits() -> Outcome {
    if counted().is_none() {
        return Ok(());
    }
    let Some([inside, outside]) = with_guest(BELOW - 1, BELOW)? else { return Ok(()) };
    rt::log!("shares {inside} (virtual machine of lower priority) {outside}");
    holds(inside == 0 && outside > 0, "the virtual machine waits")
}

fn guest_goes_first() -> Outcome {
    if counted().is_none() {
        return Ok(());
    }
    let Some([inside, outside]) = with_guest(BELOW, BELOW - 1)? else { return Ok(()) };
    rt::log!("shares {inside} (virtual machine of higher priority) {outside}");
    holds(inside > 0 && outside == 0, "the program waits")
}

fn two_guests() -> Outcome {
    if counted().is_none() {
        return Ok(());
    }
    let mut machines = alloc::vec::Vec::new();
    for _ in 0..2 {
        let Some(machine) = Running::with(Blob::Turns, 0, 2)? else { return Ok(()) };
        machine.prepare()?;
        ok(sys::create_sc(selector(), machine.vcpu, BELOW, LONG), "time")?;
        // Its monitor starts it before there is another one.
        ok(sys::wait(in_milliseconds(100)), "let it begin")?;
        holds(turns(machine.result()) > 0, "it has begun")?;
        machines.push(machine);
    }
    let before: alloc::vec::Vec<u64> = machines.iter().map(|m| turns(m.result())).collect();
    watch();
    let made = machines.iter().zip(&before).map(|(m, before)| turns(m.result()) - before);
    let made: alloc::vec::Vec<u64> = made.collect();
    rt::log!("shares {made:?} (virtual machines)");
    machines.into_iter().try_for_each(Running::end)?;
    let [a, b] = made[..] else { return Err("two machines".into()) };
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
    if counted().is_none() {
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
    if counted().is_none() {
        return Ok(());
    }
    let racers = (0..MOST as u64).map(|n| racer(spinner, n, BELOW));
    let threads = racers.collect::<Result<alloc::vec::Vec<_>, _>>()?;
    let all = race(&threads)?;
    let mean = all.iter().sum::<u64>() / MOST as u64;
    rt::log!("shares {all:?}");
    holds(all.iter().all(|n| alike(*n, mean)), "nobody starves")
}

fn priorities() -> Outcome {
    if counted().is_none() {
        return Ok(());
    }
    let threads = [racer(spinner, 0, BELOW)?, racer(spinner, 1, BELOW - 1)?];
    let [high, low, ..] = race(&threads)?;
    holds(high > 0 && low == 0, "the lower one waits")
}
