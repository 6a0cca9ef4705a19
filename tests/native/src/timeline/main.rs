//! Two short stories for `trapline timeline`, told by the kernel's trace rings: the life of a process, and
//! a timer interrupt that takes the processor from one process and gives it to another. Runs in the place
//! of the root server and prints each record on a line.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

#[allow(dead_code)]
#[path = "../bench/child.rs"]
mod child;

use abi::trace::{BOOT_STAGES, CALLS, Kind, RING, Record};
use abi::{CallNumber, RootSelector, Selector};
use alloc::string::String;
use child::{Child, Image};
use native_tests::env::{
    self, BELOW, SPACE, SYSTEM, Words, holds, in_milliseconds, ok, pinned, prepare, selector,
    wait_end, watch, words_at,
};
use rt::sys;

rt::entry!(main);

type Outcome = Result<(), String>;

/// Every kind of record.
const ALL: u64 = u64::MAX;
const NOTHING: u64 = 0;
/// The processor that it all happens on.
const CPU: u32 = 0;
const RECORD: u64 = size_of::<Record>() as u64;
/// Records that a ring holds beside its header.
const ROOM: u64 = RING / RECORD - 1;

fn main(_thread: u64) -> ! {
    prepare();
    let outcome = rings().and_then(|rings| {
        let image = Image::copy()?;
        life(&rings, &image)?;
        switch(&rings, &image)
    });
    if let Err(why) = &outcome {
        rt::log!("FAILED timeline: {why}");
    }
    let _ = sys::shutdown(SYSTEM, u64::from(outcome.is_err()));
    sys::exit(1)
}

fn rings() -> Result<Words, String> {
    let rings = Selector(RootSelector::Trace as u32);
    let bind = pinned(RING, abi::MemRights::READ);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, rings, 0, RING, bind.rights), "map")?;
    Ok(words_at(bind.base, RING))
}

/// What the process runs: a system call, then its exit.
extern "C" fn process(code: u64) -> ! {
    let _ = sys::log(b"hello from a process\n");
    sys::exit(code)
}

/// Runs until its time is over.
extern "C" fn spinner(_: u64) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

fn life(rings: &Words, image: &Image) -> Outcome {
    // From the ring's beginning, where the machine's start is.
    ok(sys::trace_mask(SYSTEM, CPU, ALL), "trace on")?;
    let child = Child::new(image, process, 3)?;
    watch(child.thread, 7)?;
    ok(child.start(selector(), BELOW), "time")?;
    let end = wait_end(7)?;
    child.end();
    ok(sys::trace_mask(SYSTEM, CPU, NOTHING), "trace off")?;
    env::equal((end[0], end[2]), (0, 3), "the process exits")?;
    print("life", rings, 0)
}

fn switch(rings: &Words, image: &Image) -> Outcome {
    let two = [Child::new(image, spinner, 0)?, Child::new(image, spinner, 0)?];
    for child in &two {
        ok(child.start(selector(), BELOW), "time")?;
    }
    let start = rings.get(0);
    ok(sys::trace_mask(SYSTEM, CPU, ALL), "trace on")?;
    let _ = sys::wait(in_milliseconds(4 * env::QUANTUM / 1000));
    ok(sys::trace_mask(SYSTEM, CPU, NOTHING), "trace off")?;
    two.iter().for_each(Child::end);
    print("switch", rings, start)
}

/// Prints the records of the machine's start, and those from number `start` on.
fn print(story: &str, rings: &Words, start: u64) -> Outcome {
    let end = rings.get(0);
    holds(end <= ROOM, "more records than the ring holds")?;
    rt::log!("story|{story}|{}", env::boot_info().1);
    let boot = BOOT_STAGES as u64;
    for number in (0..boot).chain(start.max(boot)..end) {
        let at = RECORD * (1 + number % ROOM);
        let [tsc, second, a, b] = [0, 8, 16, 24].map(|offset| rings.get(at + offset));
        let (kind, cpu, thread) = (second & 0xffff, second >> 16 & 0xffff, second >> 32);
        let Some(kind) = Kind::from_raw(kind) else { continue };
        let name = match kind {
            Kind::Enter => a.checked_sub(CALLS).and_then(CallNumber::from_raw),
            _ => None,
        };
        match name {
            Some(name) => rt::log!("trace|{tsc}|{kind:?}|{cpu}|{thread}|{a}|{b}|{name:?}"),
            None => rt::log!("trace|{tsc}|{kind:?}|{cpu}|{thread}|{a}|{b}|"),
        }
    }
    rt::log!("story||0");
    Ok(())
}
