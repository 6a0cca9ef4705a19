//! Every illegal act, one after the other: each ends its thread with a reason, everybody else goes on, and
//! the kernel has afterwards what it had before.
use crate::env::{
    BELOW, Body, NONE, QUANTUM, SYSTEM, THREAD, equal, eventually, ok, refused, running, selector,
    wait_end,
};
use crate::illegal as i;
use crate::{Outcome, Test};
use abi::{Error, Selector, SystemCounter, ThreadArgs};
use alloc::string::String;
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys;

pub const TESTS: &[Test] = &[
    ("privileged instructions, the rest of them", privileged),
    ("illegal acts: others go on, nothing leaks", all),
    ("revoked capabilities", revoked),
];

/// General protection.
const PROTECTION: u64 = 0x100 + 13;
/// Priority of offenders: above the bystander, as badly behaved ones would choose.
const PRIORITY: u8 = BELOW + 10;

/// One stack for all offenders: they come one after the other.
struct Court {
    stack: u64,
    victim: Selector,
    time: Selector,
    portal: Selector,
}

impl Court {
    fn new() -> Self {
        let stack = vec![0u64; 2048].leak();
        let stack = (stack.as_ptr().addr() as u64 + 2048 * 8 - 8) & !15;
        Self { stack, victim: selector(), time: selector(), portal: selector() }
    }

    /// Runs a body to its end: reason, instruction, detail.
    fn sentence(&self, body: Body, argument: u64) -> Result<[u64; 3], String> {
        let entry = body as *const () as u64;
        let args = ThreadArgs { entry, stack: self.stack, argument };
        ok(sys::create_thread(self.victim, crate::env::SPACE, 0, args), "thread")?;
        ok(sys::create_portal(self.portal, THREAD, 99), "portal")?;
        ok(sys::fault_portal(self.victim, self.portal), "fault portal")?;
        ok(sys::create_sc(self.time, self.victim, PRIORITY, QUANTUM), "time")?;
        let end = wait_end(99)?;
        for slot in [self.victim, self.portal, self.time] {
            ok(sys::cap_drop(NONE, slot), "drop")?;
        }
        Ok(end)
    }
}

fn privileged() -> Outcome {
    let court = Court::new();
    let cases: [(&str, Body); 10] = [
        ("lgdt", i::load_descriptors),
        ("ltr", i::load_task),
        ("sti", i::enable_interrupts),
        ("rdmsr", i::read_register),
        ("swapgs", i::swap_base),
        ("sysret", i::return_to_user),
        ("invlpg", i::forget_page),
        ("wbinvd", i::flush_caches),
        ("clts", i::clear_task_switched),
        ("mov dr7", i::write_debug),
    ];
    for (name, body) in cases {
        let end = court.sentence(body, 0)?;
        equal(end[0], PROTECTION, name)?;
    }
    Ok(())
}

static TURNS: AtomicU64 = AtomicU64::new(0);

/// Somebody who has done nothing wrong.
extern "C" fn bystander(_: u64) -> ! {
    loop {
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
}

fn kernel() -> Result<(u64, u64), String> {
    let objects = ok(sys::system_count(SYSTEM, SystemCounter::Objects), "objects")?;
    Ok((objects, ok(sys::space_quota(NONE), "quota")?))
}

fn all() -> Outcome {
    let court = Court::new();
    let witness = running(0, bystander, 0, BELOW)?;
    let kernel_text = 0xffff_ffff_8010_1000;
    let acts: [(Body, u64); 24] = [
        (i::divide, 0),
        (i::halt, 0),
        (i::disable_interrupts, 0),
        (i::read_port, 0),
        (i::write_port, 0),
        (i::load_root, 0),
        (i::write_register, 0),
        (i::load_table, 0),
        (i::load_descriptors, 0),
        (i::undefined, 0),
        (i::software_interrupt, 0),
        (i::fake_fault, 0),
        (i::sse, 0),
        (i::sysenter, 0),
        (i::run_guest, 0),
        (i::fake_return, 0),
        (i::jump_nowhere, 0),
        (i::jump, kernel_text),
        (i::read, kernel_text),
        (i::write, kernel_text),
        (i::read, 0),
        (i::write, i::write as *const () as u64),
        (i::bad_stack, 0),
        (i::kernel_stack, 0),
    ];
    // What is made at the first time and kept.
    court.sentence(i::undefined, 0)?;
    let before = kernel()?;
    for (n, (body, argument)) in acts.into_iter().enumerate() {
        let turns = TURNS.load(Ordering::Relaxed);
        let end = court.sentence(body, argument)?;
        if end[0] < 2 {
            return Err(alloc::format!("act {n} ends with {end:x?}"));
        }
        equal(kernel()?, before, "objects and quota afterwards")?;
        eventually("the bystander goes on", || TURNS.load(Ordering::Relaxed) > turns)?;
    }
    ok(sys::destroy(witness), "destroy")
}

fn revoked() -> Outcome {
    let court = Court::new();
    let (space, copy) = (selector(), selector());
    ok(sys::create_space(space, abi::SpaceKind::Native, 256 << 10), "space")?;
    ok(sys::cap_copy(space, NONE, copy, 7), "copy")?;
    ok(sys::destroy(space), "destroy")?;
    for gone in [space, copy] {
        let args = ThreadArgs { entry: 0x40_0000, stack: 0, argument: 0 };
        let made = sys::create_thread(court.victim, gone, 0, args);
        refused(made, Error::Gone, "a thread in a space that is gone")?;
        refused(sys::destroy(gone), Error::Gone, "ending it again")?;
    }
    Ok(())
}
