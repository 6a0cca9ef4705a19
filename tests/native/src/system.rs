//! Counters, trace rings, interrupts.
use crate::ends::Program;
use crate::env::{
    BELOW, NONE, PAGE, SPACE, SYSTEM, THREAD, cpus, equal, holds, ok, pinned, portal, refused,
    selector, thread, words_at,
};
use crate::illegal::Blob;
use crate::ipc::adder;
use crate::{Outcome, Test};
use abi::{Error, MemRights, NO_DEADLINE, ObjRights, RootSelector, Selector, SystemCounter};
use rt::sys;

pub const TESTS: &[Test] = &[
    ("counters", counters),
    ("trace rings", trace),
    ("interrupts: messages and limits", interrupts),
    ("figures", figures),
];

fn count(counter: SystemCounter) -> Result<u64, alloc::string::String> {
    ok(sys::system_count(SYSTEM, counter), "count")
}

fn counters() -> Outcome {
    let handler = thread(0, adder, 0)?;
    let door = portal(handler, 1)?;
    ok(sys::call(door, [40; 8]), "first call")?;
    let (entries, switches) =
        (count(SystemCounter::Entries)?, count(SystemCounter::ThreadSwitches)?);
    for _ in 0..10 {
        ok(sys::call(door, [40; 8]), "call")?;
    }
    // A call and its reply are two entries and two switches. Other processors idle, or nearly so.
    let entries = count(SystemCounter::Entries)? - entries;
    let switches = count(SystemCounter::ThreadSwitches)? - switches;
    holds((22..40).contains(&entries), "two entries per call")?;
    equal(switches, 20, "two switches per call")?;
    let objects = count(SystemCounter::Objects)?;
    ok(sys::create_notification(selector()), "create")?;
    equal(count(SystemCounter::Objects)?, objects + 1, "objects")?;
    ok(sys::destroy(handler), "destroy")
}

fn trace() -> Outcome {
    let rings = Selector(RootSelector::Trace as u32);
    let (_, length, _) = ok(sys::mem_info(rings), "info")?;
    holds(length >= cpus() * PAGE, "a ring per processor")?;
    let bind = pinned(length, MemRights::READ);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, rings, 0, length, MemRights::READ), "map")?;
    let ring = words_at(bind.base, length);
    let before = ring.get(0);
    ok(sys::null(), "null")?;
    equal(ring.get(0), before, "off")?;
    ok(sys::trace_mask(SYSTEM, 0, 1), "on")?;
    ok(sys::null(), "null")?;
    ok(sys::trace_mask(SYSTEM, 0, 0), "off")?;
    let written = ring.get(0) - before;
    holds((2..10).contains(&written), "records of the calls")?;
    // Record `before` follows the header: kind 0 (enter), a = 0x100 + call number.
    let at = 32 * (1 + before);
    equal(ring.get(at + 8) & 0xffff, 0, "kind")?;
    equal(ring.get(at + 16), 0x100, "null call")?;
    refused(sys::trace_mask(SYSTEM, 99, 1), Error::BadArgument, "no such processor")?;
    ok(sys::region_unbind(SPACE, bind.base, length), "unbind")
}

fn interrupts() -> Outcome {
    let control = Selector(RootSelector::Irq as u32);
    let bell = selector();
    ok(sys::create_notification(bell), "create")?;
    ok(sys::bind_notification(THREAD, bell), "bind")?;
    let (address, data) = ok(sys::irq_bind(control, bell, 1, 0), "bind interrupt")?;
    equal(address >> 20, 0xfee, "address of the message")?;
    holds((0x20..0x100).contains(&data), "data of the message")?;
    refused(sys::irq_bind(control, bell, 1, 99), Error::BadArgument, "no such processor")?;
    refused(sys::irq_bind(SYSTEM, bell, 1, 0), Error::BadCapability, "wrong capability")?;
    let mut more = 0;
    while sys::irq_bind(control, bell, 2, 0).is_ok() {
        more += 1;
    }
    holds(more > 100 && more < 256, "number of vectors")?;
    refused(sys::irq_bind(control, bell, 2, 0), Error::Quota, "no more vectors")?;
    ok(sys::cap_drop(NONE, bell), "drop")?;
    let again = selector();
    ok(sys::create_notification(again), "create")?;
    ok(sys::irq_bind(control, again, 1, 0), "vectors came back")?;
    ok(sys::cap_drop(NONE, again), "drop")
}

/// Prints what the commonest operations cost, in ticks of the time-stamp counter. Under
/// `-icount shift=0` a tick is an instruction.
fn figures() -> Outcome {
    const ROUNDS: u64 = 64;
    let measure = |name: &str, operation: &mut dyn FnMut(u64)| {
        operation(0);
        let start = rt::time::now().0;
        for round in 1..=ROUNDS {
            operation(round);
        }
        rt::log!("figure {name} {}", (rt::time::now().0 - start) / ROUNDS);
    };
    measure("null call", &mut |_| {
        let _ = sys::null();
    });
    let handler = thread(0, adder, 0)?;
    let door = portal(handler, 1)?;
    measure("portal round trip, one space", &mut |_| {
        let _ = sys::call(door, [40; 8]);
    });
    ok(sys::destroy(handler), "destroy")?;
    let program = Program::new(Blob::Caller, 0, 1)?;
    let own = portal(THREAD, 8)?;
    ok(sys::cap_copy(own, program.space, Selector(64), ObjRights::USE.bits()), "give")?;
    program.start(BELOW)?;
    let _ = ok(sys::wait(NO_DEADLINE), "wait")?;
    measure("portal round trip, two spaces", &mut |_| {
        let _ = sys::reply_wait(0, [1; 8], NO_DEADLINE);
    });
    ok(sys::destroy(program.space), "destroy")?;
    ok(sys::reply_wait(0, [0; 8], 0), "reply to nobody")?;
    let (server, base, length) = crate::faults::served()?;
    let words = words_at(base, length);
    measure("fault and manager, one space", &mut |round| {
        words.get(round % 64 * PAGE);
    });
    ok(sys::region_unbind(SPACE, base, length), "unbind")?;
    ok(sys::destroy(server), "destroy")
}
