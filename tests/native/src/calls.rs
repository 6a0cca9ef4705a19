//! Numbers, pointers, selectors and rights that the kernel must refuse.
use crate::env::{NONE, PAGE, RAM, SPACE, SYSTEM, THREAD, equal, ok, refused, selector, words_at};
use crate::{Outcome, Test};
use abi::{BootInfo, CallNumber, Error, ObjRights, Selector, SystemCounter};
use rt::sys::{self, arbitrary};

pub const TESTS: &[Test] = &[
    ("null call", null),
    ("boot information", boot_information),
    ("registers survive a call", registers),
    ("log: nothing", log_nothing),
    ("selectors: out of range, empty, wrong kind", selectors),
    ("capabilities: copy, cut rights, drop", copies),
    ("capabilities: missing rights", rights),
    ("all calls with nonsense arguments", nonsense),
];

fn null() -> Outcome {
    ok(sys::null(), "null")
}

fn boot_information() -> Outcome {
    let page = words_at(BootInfo::ADDRESS, PAGE);
    equal(page.get(0), BootInfo::MAGIC, "magic")?;
    equal(page.get(8) > 0 && page.get(16) > 1000, true, "processors and TSC rate")
}

fn registers() -> Outcome {
    let before = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    let (status, after) = arbitrary(CallNumber::Null as u64, &before);
    equal(status, 0, "status")?;
    equal(after, before, "registers")
}

fn log_nothing() -> Outcome {
    equal(arbitrary(CallNumber::Log as u64, &[0, 0]).0, 0, "status")
}

fn selectors() -> Outcome {
    for bad in [0, 99, 4095, 4096, 0xffff_ffff, 0x1_0000_0003, u64::MAX] {
        let call = |number: CallNumber| arbitrary(number as u64, &[bad, 1]).0;
        let expected = Error::BadCapability as u64;
        equal(call(CallNumber::Call), expected, "call")?;
        equal(call(CallNumber::Signal), expected, "signal")?;
        equal(call(CallNumber::MemInfo), expected, "memory")?;
        equal(call(CallNumber::Destroy), expected, "destroy")?;
        equal(call(CallNumber::VcpuRecall), expected, "vCPU")?;
        equal(call(CallNumber::SystemCount), expected, "system")?;
    }
    let bad = Error::BadCapability;
    refused(sys::call(THREAD, [0; 8]), bad, "calling a thread")?;
    refused(sys::signal(RAM, 1), bad, "signalling memory")?;
    refused(sys::mem_info(SPACE), bad, "a space as memory")?;
    refused(sys::vcpu_recall(THREAD), bad, "a thread as vCPU")?;
    refused(sys::destroy(RAM), bad, "destroying memory")?;
    refused(sys::create_notification(Selector(0)), bad, "selector 0")?;
    refused(sys::create_notification(Selector(4096)), bad, "selector 4096")?;
    refused(sys::create_notification(THREAD), Error::Occupied, "used selector")
}

fn copies() -> Outcome {
    let (first, second, third) = (selector(), selector(), selector());
    ok(sys::create_notification(first), "create")?;
    ok(sys::cap_copy(first, NONE, second, ObjRights::USE.bits()), "copy")?;
    ok(sys::signal(second, 1), "signal through the copy")?;
    refused(sys::bind_notification(THREAD, second), Error::NoRight, "bind through the copy")?;
    refused(sys::cap_copy(first, NONE, second, 7), Error::Occupied, "copy onto a used slot")?;
    refused(sys::cap_copy(third, NONE, third, 7), Error::BadCapability, "copy of nothing")?;
    ok(sys::cap_drop(NONE, first), "drop")?;
    refused(sys::cap_drop(NONE, first), Error::BadCapability, "drop again")?;
    ok(sys::signal(second, 1), "signal: the copy keeps it alive")?;
    ok(sys::cap_drop(SPACE, second), "drop the last")
}

fn rights() -> Outcome {
    let (weak, to) = (selector(), selector());
    ok(sys::cap_copy(THREAD, NONE, weak, 0), "copy")?;
    refused(sys::create_portal(to, weak, 0), Error::NoRight, "portal")?;
    refused(sys::create_sc(to, weak, 1, 1000), Error::NoRight, "scheduling context")?;
    refused(sys::destroy(weak), Error::NoRight, "destroy")?;
    ok(sys::cap_drop(NONE, weak), "drop")?;
    ok(sys::cap_copy(SYSTEM, NONE, weak, 0), "copy")?;
    refused(sys::system_count(weak, SystemCounter::Objects), Error::NoRight, "count")?;
    refused(sys::shutdown(weak, 0), Error::NoRight, "shutdown")?;
    ok(sys::cap_drop(NONE, weak), "drop")?;
    // Without GRANT it can be copied inside, but not into other spaces.
    ok(sys::cap_copy(THREAD, NONE, weak, ObjRights::USE.bits()), "copy")?;
    let space = selector();
    ok(sys::create_space(space, abi::SpaceKind::Native, 256 << 10), "space")?;
    refused(sys::cap_copy(weak, space, Selector(64), 7), Error::NoRight, "grant")?;
    ok(sys::destroy(space), "destroy")
}

/// Values that are wrong in one way or another, whatever they stand for.
const NASTY: [u64; 11] = [
    u64::MAX,
    1 << 63,
    0xffff_8000_0000_0000,
    0x0000_8000_0000_0000,
    0x0000_7fff_ffff_f000,
    1 << 32,
    0xffff_ffff,
    4096,
    4097,
    0xdead_beef,
    0x8000_0000_0000_0001,
];

fn nonsense() -> Outcome {
    use CallNumber as N;
    // These end or block the caller, or take numbers that mean nothing to the kernel.
    let skip = [N::Null, N::ReplyWait, N::Wait, N::Yield, N::Exit, N::FaultRetry];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for call in CallNumber::ALL.iter().filter(|n| !skip.contains(n)) {
        for _ in 0..200 {
            let arguments: [u64; 10] = core::array::from_fn(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                NASTY[(state >> 33) as usize % NASTY.len()]
            });
            let status = arbitrary(*call as u64, &arguments).0;
            if status == 0 || status > Error::Refused as u64 {
                return Err(alloc::format!("{call:?} with {arguments:x?}: status {status}"));
            }
        }
    }
    Ok(())
}
