//! Programs that break the rules end with a report, and nothing else happens.
use crate::env::{
    ABOVE, Body, NONE, QUANTUM, SPACE, equal, holds, ok, selector, thread, wait_end, watch,
};
use crate::{Outcome, Test};
use abi::ThreadArgs;
use alloc::format;
use rt::sys;

pub const TESTS: &[Test] =
    &[("exit code", exit_code), ("threads: bad entry and stack", bad_threads)];

/// Runs a body until it ends, and checks the reason.
fn offend(
    name: &str,
    body: Body,
    argument: u64,
    reasons: &[u64],
) -> Result<[u64; 3], alloc::string::String> {
    let victim = thread(0, body, argument)?;
    watch(victim, 77)?;
    ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
    let end = wait_end(77)?;
    if reasons.contains(&end[0]) {
        Ok(end)
    } else {
        Err(format!("{name}: reason {:#x} instead of {reasons:x?}", end[0]))
    }
}

extern "C" fn leaver(code: u64) -> ! {
    sys::exit(code)
}

fn exit_code() -> Outcome {
    let end = offend("exit", leaver, 12345, &[0])?;
    equal(end[2], 12345, "code")?;
    holds(end[1] > 0x40_0000, "instruction pointer")
}

fn bad_threads() -> Outcome {
    let create = |entry, stack, cpu| {
        let args = ThreadArgs { entry, stack, argument: 0 };
        sys::create_thread(selector(), SPACE, cpu, args).map_err(|e| e as u64)
    };
    let bad = Err(abi::Error::BadAddress as u64);
    equal(create(0xffff_ffff_8000_0000, 0, 0), bad, "entry in the kernel")?;
    equal(create(1 << 47, 0, 0), bad, "entry not canonical")?;
    equal(create(0x40_0000, 0xffff_ffff_8000_0000, 0), bad, "stack in the kernel")?;
    let argument = Err(abi::Error::BadArgument as u64);
    equal(create(0x40_0000, 0, 99), argument, "no such processor")?;
    let _ = NONE;
    Ok(())
}
