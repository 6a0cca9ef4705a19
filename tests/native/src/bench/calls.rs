//! Calls, portals, switches, programs.
use crate::Outcome;
use crate::child::{Child, DOOR, Image, caller, echo, yielder};
use crate::meter::measure;
use abi::{NO_DEADLINE, ObjRights};
use native_tests::env::{NONE, QUANTUM, THREAD, ok, portal, selector, thread};
use rt::sys;

/// Priority of this thread.
const EQUAL: u8 = 128;

/// All rows.
pub fn run() -> Outcome {
    measure("null call", "direct", 1000, |_| {
        let _ = sys::null();
    });
    measure("call that reads the own quota", "direct", 1000, |_| {
        let _ = sys::space_quota(NONE);
    });
    let handler = thread(0, echo, 0)?;
    let door = portal(handler, 1)?;
    measure("portal call and reply", "one space", 1000, |n| {
        let _ = sys::call(door, [n; 8]);
    });
    ok(sys::destroy(handler), "destroy")?;
    let image = Image::copy()?;
    let child = Child::new(&image, echo, 0)?;
    let door = child.door()?;
    measure("portal call and reply", "two spaces", 1000, |n| {
        let _ = sys::call(door, [n; 8]);
    });
    child.end();
    switches(&image)?;
    creation(&image)
}

/// Two threads that yield to each other: half of a round is a switch.
fn switches(image: &Image) -> Outcome {
    let other = thread(0, yielder, 0)?;
    let time = selector();
    ok(sys::create_sc(time, other, EQUAL, QUANTUM), "time")?;
    pair("one space");
    ok(sys::destroy(other), "destroy")?;
    let child = Child::new(image, yielder, 0)?;
    ok(child.start(selector(), EQUAL), "time")?;
    pair("two spaces");
    child.end();
    Ok(())
}

fn pair(form: &str) {
    let rounds = 500;
    sys::yield_now();
    let start = crate::meter::Start::now();
    (0..rounds).for_each(|_| sys::yield_now());
    crate::meter::report("context switch (yield)", form, &start.end(), 2 * rounds);
}

/// A program is made, makes its first call, exits, and is taken apart.
fn creation(image: &Image) -> Outcome {
    let child = Child::new(image, caller, 0)?;
    child.end();
    let (own, time) = (portal(THREAD, 8)?, selector());
    let mut failed = None;
    measure("process creation, first call, exit, end", "direct", 20, |_| {
        let step = || {
            child.again(image, caller, 0)?;
            sys::cap_copy(own, child.space, DOOR, ObjRights::USE.bits())?;
            child.start(time, EQUAL + 1)?;
            sys::wait(NO_DEADLINE)?;
            // The caller exits before this returns: it has the higher priority.
            sys::reply_wait(0, [0; 8], 0)?;
            sys::cap_drop(NONE, time)
        };
        failed = step().err().or(failed);
        child.end();
    });
    ok(failed.map_or(Ok(()), Err), "creating programs")
}
