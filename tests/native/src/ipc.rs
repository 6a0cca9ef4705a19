//! Portals, notifications, deadlines, priorities.
use crate::env::{
    ABOVE, BELOW, NONE, QUANTUM, THREAD, boot_info, equal, eventually, holds, in_milliseconds, ok,
    portal, refused, running, selector, thread,
};
use crate::{Outcome, Test};
use abi::{Error, Event, NO_DEADLINE, ObjRights, Selector};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys;

pub const TESTS: &[Test] = &[
    ("call: words, badge, status", words),
    ("call: handler with time of its own", active_handler),
    ("call: missing right, stale portal", stale),
    ("call: two callers queue", queue),
    ("call: circles are refused", circle),
    ("call: handler calls another handler", nested),
    ("wait: while serving, reply without call", wrong_state),
    ("notification: before, during and between waits", notification),
    ("notification: binding", binding),
    ("deadline: past, near, together with a notification", deadline),
    ("scheduling: priorities", priorities),
    ("scheduling: quanta", quanta),
    ("a thousand calls", thousand),
];

/// Replies with each word plus the badge; status = word 0 when that is below 17.
pub extern "C" fn adder(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok((Event::Call(badge), words)) => {
                let status = if words[0] < 17 { words[0] } else { 0 };
                sys::reply_wait(status, words.map(|w| w.wrapping_add(badge)), NO_DEADLINE)
            }
            _ => sys::wait(NO_DEADLINE),
        };
    }
}

fn words() -> Outcome {
    let handler = thread(0, adder, 0)?;
    let badge = (1 << 56) - 1;
    let door = portal(handler, badge)?;
    let message = [100, 200, 300, u64::MAX, 500, 600, 700, 800];
    let reply = ok(sys::call(door, message), "call")?;
    equal(reply, message.map(|w| w.wrapping_add(badge)), "reply")?;
    let refusal = [Error::Refused as u64, 0, 0, 0, 0, 0, 0, 0];
    refused(sys::call(door, refusal), Error::Refused, "status")?;
    refused(sys::create_portal(selector(), handler, 1 << 56), Error::BadArgument, "badge")?;
    ok(sys::destroy(handler), "destroy")
}

fn active_handler() -> Outcome {
    for priority in [ABOVE, BELOW] {
        let handler = running(0, adder, 0, priority)?;
        let door = portal(handler, 1)?;
        for n in 20..30 {
            let reply = ok(sys::call(door, [n; 8]), "call")?;
            equal(reply, [n + 1; 8], "reply")?;
        }
        ok(sys::destroy(handler), "destroy")?;
    }
    Ok(())
}

fn stale() -> Outcome {
    let handler = thread(0, adder, 0)?;
    let door = portal(handler, 1)?;
    let weak = selector();
    ok(sys::cap_copy(door, NONE, weak, ObjRights::CONTROL.bits()), "copy")?;
    refused(sys::call(weak, [0; 8]), Error::NoRight, "call without right")?;
    ok(sys::destroy(handler), "destroy")?;
    refused(sys::call(door, [0; 8]), Error::Gone, "call of a dead handler")?;
    refused(sys::destroy(handler), Error::Gone, "destroy again")
}

static DONE: AtomicU64 = AtomicU64::new(0);

extern "C" fn caller(door: u64) -> ! {
    let reply = sys::call(Selector(door as u32), [50; 8]);
    if reply == Ok([51; 8]) {
        DONE.fetch_add(1, Ordering::SeqCst);
    }
    sys::exit(0)
}

fn queue() -> Outcome {
    DONE.store(0, Ordering::SeqCst);
    let handler = thread(0, adder, 0)?;
    let door = portal(handler, 1)?;
    // Portals of this thread queue callers until it serves them.
    let own = portal(THREAD, 9)?;
    for _ in 0..3 {
        running(0, caller, u64::from(own.0), ABOVE)?;
    }
    for _ in 0..2 {
        running(0, caller, u64::from(door.0), ABOVE)?;
    }
    let mut next = ok(sys::wait(in_milliseconds(1000)), "wait")?;
    for _ in 0..3 {
        equal(next, (Event::Call(9), [50; 8]), "queued call")?;
        next = ok(sys::reply_wait(0, [51; 8], in_milliseconds(5)), "reply")?;
    }
    equal(next.0, Event::Timeout, "after the last")?;
    eventually("all callers were served", || DONE.load(Ordering::SeqCst) == 5)?;
    ok(sys::destroy(handler), "destroy")
}

extern "C" fn back_caller(door: u64) -> ! {
    let _ = sys::wait(NO_DEADLINE);
    let answer = sys::call(Selector(door as u32), [0; 8]);
    let status = answer.map_or_else(|e| e as u64, |_| 0);
    let _ = sys::reply_wait(0, [status; 8], NO_DEADLINE);
    sys::exit(0)
}

fn circle() -> Outcome {
    let own = portal(THREAD, 1)?;
    refused(sys::call(own, [0; 8]), Error::Cycle, "calling oneself")?;
    let handler = thread(0, back_caller, u64::from(own.0))?;
    let door = portal(handler, 2)?;
    let reply = ok(sys::call(door, [0; 8]), "call")?;
    equal(reply[0], Error::Cycle as u64, "the handler calling back")?;
    ok(sys::destroy(handler), "destroy")
}

extern "C" fn forwarder(door: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Call(_), words)) = next else { sys::exit(1) };
        let reply = sys::call(Selector(door as u32), words);
        next = match reply {
            Ok(words) => sys::reply_wait(0, words, NO_DEADLINE),
            Err(error) => sys::reply_wait(error as u64, words, NO_DEADLINE),
        };
    }
}

fn nested() -> Outcome {
    let mut handler = thread(0, adder, 0)?;
    let mut all = alloc::vec![handler];
    for _ in 0..5 {
        let door = portal(handler, 1)?;
        handler = thread(0, forwarder, u64::from(door.0))?;
        all.push(handler);
    }
    let door = portal(handler, 1)?;
    let reply = ok(sys::call(door, [70; 8]), "call")?;
    equal(reply, [71; 8], "reply")?;
    all.into_iter().try_for_each(|t| ok(sys::destroy(t), "destroy"))
}

extern "C" fn waits_while_serving(_: u64) -> ! {
    let _ = sys::wait(NO_DEADLINE);
    let status = sys::wait(NO_DEADLINE).map_or_else(|e| e as u64, |_| 0);
    let _ = sys::reply_wait(0, [status; 8], NO_DEADLINE);
    sys::exit(0)
}

fn wrong_state() -> Outcome {
    refused(sys::reply_wait(0, [0; 8], 0), Error::BadState, "reply to nobody")?;
    let handler = thread(0, waits_while_serving, 0)?;
    let door = portal(handler, 0)?;
    let reply = ok(sys::call(door, [0; 8]), "call")?;
    equal(reply[0], Error::BadState as u64, "wait while serving")?;
    ok(sys::destroy(handler), "destroy")
}

/// Each word is what one wait brought.
static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

extern "C" fn listener(_: u64) -> ! {
    for seen in &SEEN {
        if let Ok((Event::Notification, words)) = sys::wait(NO_DEADLINE) {
            seen.store(words[0], Ordering::SeqCst);
        }
    }
    let _ = sys::wait(NO_DEADLINE);
    sys::exit(0)
}

fn notification() -> Outcome {
    let bell = selector();
    ok(sys::create_notification(bell), "create")?;
    ok(sys::signal(bell, 1), "signal")?;
    ok(sys::signal(bell, 4), "signal")?;
    let helper = thread(0, listener, 0)?;
    ok(sys::bind_notification(helper, bell), "bind")?;
    ok(sys::create_sc(selector(), helper, ABOVE, QUANTUM), "time")?;
    let seen = |n: usize| SEEN[n].load(Ordering::SeqCst);
    equal(seen(0), 5, "bits set before the wait")?;
    ok(sys::signal(bell, 8), "signal")?;
    equal(seen(1), 8, "bits that end the wait")?;
    ok(sys::signal(bell, 1 << 63), "signal")?;
    equal(seen(2), 1 << 63, "highest bit")?;
    ok(sys::signal(bell, 0), "signal nothing")?;
    equal(seen(3), 0, "nothing does not wake")?;
    ok(sys::destroy(helper), "destroy")?;
    ok(sys::signal(bell, 1), "signal without listener")?;
    ok(sys::cap_drop(NONE, bell), "drop")
}

fn binding() -> Outcome {
    let (one, two) = (selector(), selector());
    ok(sys::create_notification(one), "create")?;
    ok(sys::create_notification(two), "create")?;
    let helper = thread(0, listener, 0)?;
    ok(sys::bind_notification(helper, one), "bind")?;
    refused(sys::bind_notification(helper, two), Error::BadState, "second one")?;
    refused(sys::bind_notification(THREAD, one), Error::BadState, "bound elsewhere")?;
    ok(sys::destroy(helper), "destroy")?;
    ok(sys::bind_notification(THREAD, one), "free again")?;
    ok(sys::signal(one, 6), "signal")?;
    let got = ok(sys::wait(NO_DEADLINE), "wait")?;
    equal((got.0, got.1[0]), (Event::Notification, 6), "own bits")?;
    ok(sys::cap_drop(NONE, one), "drop")?;
    ok(sys::cap_drop(NONE, two), "drop")
}

fn deadline() -> Outcome {
    equal(ok(sys::wait(0), "wait")?.0, Event::Timeout, "long past")?;
    let start = rt::time::now().0;
    let end = in_milliseconds(20);
    equal(ok(sys::wait(end), "wait")?.0, Event::Timeout, "near")?;
    let now = rt::time::now().0;
    holds(now >= end, "too early")?;
    let late = (now - start) / boot_info().1;
    if late > 5_000 {
        return Err(alloc::format!("20 ms took {late} ms"));
    }
    let bell = selector();
    ok(sys::create_notification(bell), "create")?;
    ok(sys::bind_notification(THREAD, bell), "bind")?;
    ok(sys::signal(bell, 2), "signal")?;
    let got = ok(sys::wait(in_milliseconds(1000)), "wait")?;
    equal(got.0, Event::Notification, "notification first")?;
    equal(ok(sys::wait(in_milliseconds(1)), "wait")?.0, Event::Timeout, "then the deadline")?;
    ok(sys::cap_drop(NONE, bell), "drop")
}

static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

extern "C" fn counter(index: u64) -> ! {
    loop {
        COUNTS[index as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn priorities() -> Outcome {
    let helper = running(0, counter, 0, BELOW)?;
    let count = || COUNTS[0].load(Ordering::Relaxed);
    let end = in_milliseconds(20);
    while rt::time::now().0 < end {}
    equal(count(), 0, "lower priority while a higher one runs")?;
    eventually("lower priority while the higher one waits", || count() > 0)?;
    let stopped = count();
    let end = in_milliseconds(20);
    while rt::time::now().0 < end {}
    equal(count() - stopped < 1000, true, "preempted by the higher one's deadline")?;
    ok(sys::destroy(helper), "destroy")
}

fn quanta() -> Outcome {
    let (one, two) = (running(0, counter, 1, BELOW)?, running(0, counter, 2, BELOW)?);
    let wait = sys::wait(in_milliseconds(200));
    equal(ok(wait, "wait")?.0, Event::Timeout, "deadline among busy threads")?;
    let (a, b) = (COUNTS[1].load(Ordering::Relaxed), COUNTS[2].load(Ordering::Relaxed));
    holds(a > 0 && b > 0, "both ran")?;
    holds(a < 20 * b && b < 20 * a, "about alike")?;
    ok(sys::destroy(one), "destroy")?;
    ok(sys::destroy(two), "destroy")
}

fn thousand() -> Outcome {
    let handler = thread(0, adder, 0)?;
    let door = portal(handler, 3)?;
    for n in 1000..2000 {
        equal(ok(sys::call(door, [n; 8]), "call")?, [n + 3; 8], "reply")?;
    }
    ok(sys::destroy(handler), "destroy")
}
