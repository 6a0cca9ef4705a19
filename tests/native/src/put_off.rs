//! Faults that a manager puts off, and what it is told about the use of its pages.
use crate::env::{
    ABOVE, NONE, PAGE, RAM, READ_WRITE, SPACE, address, cpus, equal, in_milliseconds, ok, portal,
    ram, refused, running, selector, thread, wait_end, watch, words_at,
};
use crate::faults::{prepare, served, toucher};
use crate::{Outcome, Test};
use abi::{Error, Event, FaultMessage, FaultReply, NO_DEADLINE, Selector};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("put off: others are served meanwhile", others),
    ("put off: from another processor", elsewhere),
    ("put off: the manager ends", manager_ends),
    ("put off: the faulting thread ends", client_ends),
    ("pages used: told once", used),
    ("pages used: bad ranges", bad_ranges),
];

const LENGTH: u64 = 8 * PAGE;
/// A touch of this page lets the faults go on that were put off; one of the page behind it ends the
/// manager. Those before it are put off until then.
const RELEASE: u64 = 4;
const DIE: u64 = 5;

static RELEASED: AtomicU64 = AtomicU64::new(0);
static PUT_OFF: AtomicU64 = AtomicU64::new(0);
static OFFSET: AtomicU64 = AtomicU64::new(0);

extern "C" fn manager(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        let fault = FaultMessage::decode(&words);
        let page = fault.offset / PAGE;
        if page == DIE {
            sys::exit(0);
        }
        if page == RELEASE {
            RELEASED.store(1, Ordering::SeqCst);
            sys::fault_retry();
        }
        let reply = if page < RELEASE && RELEASED.load(Ordering::SeqCst) == 0 {
            PUT_OFF.fetch_add(1, Ordering::SeqCst);
            FaultReply::Later
        } else {
            FaultReply::Map {
                memory: RAM,
                memory_offset: OFFSET.load(Ordering::SeqCst) + page * PAGE,
                region_offset: page * PAGE,
                length: PAGE,
                rights: READ_WRITE,
            }
        };
        next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
    }
}

struct Managed {
    base: u64,
    thread: Selector,
}

/// A region whose manager puts faults off. It has time of its own, for threads elsewhere.
fn managed() -> Result<Managed, String> {
    RELEASED.store(0, Ordering::SeqCst);
    PUT_OFF.store(0, Ordering::SeqCst);
    OFFSET.store(ram(LENGTH), Ordering::SeqCst);
    let thread = running(0, manager, 0, ABOVE + 1)?;
    let portal = portal(thread, 5)?;
    let base = address(LENGTH);
    let (space, length, rights) = (SPACE, LENGTH, READ_WRITE);
    ok(sys::region_bind(Bind { space, base, length, portal, tag: 0, rights, hint: 12 }), "bind")?;
    Ok(Managed { base, thread })
}

impl Managed {
    fn end(self) -> Outcome {
        let _ = sys::destroy(self.thread);
        ok(sys::region_unbind(SPACE, self.base, LENGTH), "unbind")
    }

    /// A thread that waits for page `page`.
    fn waiter(&self, cpu: u32, page: u64, badge: u64) -> Result<Selector, String> {
        let victim = thread(cpu, toucher, self.base + page * PAGE)?;
        watch(victim, badge)?;
        ok(sys::create_sc(selector(), victim, ABOVE, 1000), "time")?;
        Ok(victim)
    }
}

fn nothing_happens() -> Outcome {
    let event = ok(sys::wait(in_milliseconds(20)), "wait")?.0;
    equal(event, Event::Timeout, "event while the fault is put off")
}

fn put_off_then_released(cpu: u32) -> Outcome {
    let managed = managed()?;
    // They end in any order.
    managed.waiter(cpu, 0, 61)?;
    managed.waiter(cpu, 1, 61)?;
    nothing_happens()?;
    equal(PUT_OFF.load(Ordering::SeqCst), 2, "faults put off")?;
    // The manager serves this one, and lets the others go on.
    words_at(managed.base, LENGTH).set(RELEASE * PAGE, 5);
    let ends = [wait_end(61)?, wait_end(61)?];
    equal(ends.map(|end| (end[0], end[2])), [(0, 0x77); 2], "both exit with what they wrote")?;
    managed.end()
}

fn others() -> Outcome {
    put_off_then_released(0)
}

fn elsewhere() -> Outcome {
    put_off_then_released(u32::from(cpus() > 1))
}

fn manager_ends() -> Outcome {
    for destroyed in [true, false] {
        let managed = managed()?;
        managed.waiter(0, 2, 63)?;
        nothing_happens()?;
        if destroyed {
            ok(sys::destroy(managed.thread), "destroy")?;
        } else {
            managed.waiter(0, DIE, 64)?;
            equal(wait_end(64)?[0], 4, "reason of the one being served")?;
        }
        let end = wait_end(63)?;
        equal((end[0], end[2]), (4, managed.base + 2 * PAGE), "reason and address")?;
        managed.end()?;
    }
    Ok(())
}

fn client_ends() -> Outcome {
    let managed = managed()?;
    let victim = managed.waiter(0, 3, 65)?;
    nothing_happens()?;
    ok(sys::destroy(victim), "destroy")?;
    equal(wait_end(65)?[0], 1, "reason")?;
    words_at(managed.base, LENGTH).set(RELEASE * PAGE, 5);
    managed.end()
}

fn used() -> Outcome {
    prepare(ram(64 * PAGE));
    let (thread, base, length) = served()?;
    let words = words_at(base, length);
    words.set(0, 1);
    words.get(2 * PAGE);
    let told = |what| ok(sys::pages_used(SPACE, base, 4 * PAGE), what);
    equal(told("first")?, 0b101, "after two accesses")?;
    equal(told("second")?, 0, "after none")?;
    ok(sys::unmap(SPACE, base, PAGE), "unmap")?;
    equal(words.get(0), 1, "contents")?;
    equal(told("third")?, 1, "after another one")?;
    refused(sys::pages_used(SPACE, base, 65 * PAGE), Error::NoRegion, "beyond the region")?;
    ok(sys::region_unbind(SPACE, base, length), "unbind")?;
    ok(sys::destroy(thread), "destroy")
}

fn bad_ranges() -> Outcome {
    let base = address(128 * PAGE);
    let bind = Bind {
        space: SPACE,
        base,
        length: 128 * PAGE,
        portal: NONE,
        tag: 0,
        rights: READ_WRITE,
        hint: 12,
    };
    ok(sys::region_bind(bind), "bind")?;
    refused(sys::pages_used(SPACE, base, 65 * PAGE), Error::BadArgument, "too many")?;
    refused(sys::pages_used(SPACE, base, 100), Error::Unaligned, "no whole page")?;
    equal(ok(sys::pages_used(SPACE, base, 64 * PAGE), "empty")?, 0, "nothing is there")?;
    ok(sys::region_unbind(SPACE, base, 128 * PAGE), "unbind")
}
