//! Programs that break the rules end with a report, and nothing else happens.
use crate::env::{
    ABOVE, Body, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, equal, holds, ok, pinned, ram,
    selector, thread, wait_end, watch, window,
};
use crate::illegal as i;
use crate::{Outcome, Test};
use abi::{BootInfo, MemRights, ThreadArgs};
use alloc::format;
use rt::sys;

pub const TESTS: &[Test] = &[
    ("illegal instructions and operands", instructions),
    ("illegal addresses", addresses),
    ("executing data, writing code", data_and_code),
    ("stack overflow", stack_overflow),
    ("tracing and alignment flags", flags),
    ("exit code", exit_code),
    ("threads: bad entry and stack", bad_threads),
];

/// General protection.
const PROTECTION: u64 = 0x100 + 13;
/// Invalid instruction.
const UNDEFINED: u64 = 0x100 + 6;
/// A page fault that nobody resolves.
const FAULT: u64 = 2;

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

fn instructions() -> Outcome {
    let cases: [(&str, Body, &[u64]); 20] = [
        ("div", i::divide, &[0x100]),
        ("hlt", i::halt, &[PROTECTION]),
        ("cli", i::disable_interrupts, &[PROTECTION]),
        ("in", i::read_port, &[PROTECTION]),
        ("out", i::write_port, &[PROTECTION]),
        ("mov cr3", i::load_root, &[PROTECTION]),
        ("mov from cr0", i::read_control, &[PROTECTION]),
        ("wrmsr", i::write_register, &[PROTECTION]),
        ("lidt", i::load_table, &[PROTECTION]),
        ("ud2", i::undefined, &[UNDEFINED]),
        ("int 0x80", i::software_interrupt, &[PROTECTION]),
        ("int 14", i::fake_fault, &[PROTECTION]),
        ("int3", i::breakpoint, &[PROTECTION]),
        ("sse", i::sse, &[UNDEFINED]),
        ("x87", i::floating_point, &[0x100 + 7]),
        ("sysenter", i::sysenter, &[PROTECTION, UNDEFINED]),
        ("vmrun", i::run_guest, &[PROTECTION, UNDEFINED]),
        ("vmmcall", i::hypercall, &[UNDEFINED]),
        ("iret to ring 0", i::fake_return, &[PROTECTION, 0x100 + 14]),
        ("kernel segment", i::kernel_segment, &[PROTECTION]),
    ];
    for (name, body, reasons) in cases {
        offend(name, body, 0, reasons)?;
    }
    Ok(())
}

fn addresses() -> Outcome {
    let bad = |address: u64| -> Outcome {
        for body in [i::read as Body, i::write, i::jump] {
            let end = offend("access", body, address, &[FAULT])?;
            equal(end[2], address, "address in the report")?;
        }
        Ok(())
    };
    bad(0)?;
    bad(0x1234_5678)?;
    bad(0xffff_8000_0000_0000)?;
    bad(0xffff_ffff_8010_1000)?;
    bad(0x7fff_ffff_f000)?;
    offend("read of a non-canonical address", i::read, 1 << 63, &[PROTECTION])?;
    offend("jump to a non-canonical address", i::jump_nowhere, 0, &[PROTECTION])?;
    offend("jump into the kernel", i::jump_kernel, 0, &[FAULT])?;
    offend("stack at a non-canonical address", i::bad_stack, 0, &[0x100 + 12, PROTECTION])?;
    offend("stack in the kernel", i::kernel_stack, 0, &[FAULT])?;
    offend("write to the boot information", i::write, BootInfo::ADDRESS, &[FAULT])?;
    Ok(())
}

fn data_and_code() -> Outcome {
    let (data, _) = window(PAGE)?;
    offend("executing data", i::jump, data, &[FAULT])?;
    let code = i::write as *const () as u64;
    offend("writing code", i::write, code, &[FAULT])?;
    // Even a writable mapping of executable memory is not executable.
    let bind = pinned(PAGE, MemRights::READ | MemRights::EXEC);
    let offset = ram(PAGE);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, RAM, offset, PAGE, bind.rights), "map")?;
    offend("writing executable memory", i::write, bind.base, &[FAULT])?;
    // Memory full of zeros: `add [rax], al`.
    offend("executing memory", i::jump, bind.base, &[FAULT, UNDEFINED])?;
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")
}

fn stack_overflow() -> Outcome {
    let bind = pinned(2 * PAGE, READ_WRITE);
    let offset = ram(PAGE);
    ok(sys::region_bind(bind), "bind")?;
    // The lower page is the guard.
    ok(sys::map(SPACE, bind.base + PAGE, RAM, offset, PAGE, READ_WRITE), "map")?;
    let victim = selector();
    let args = ThreadArgs {
        entry: i::overflow as *const () as u64,
        stack: bind.base + 2 * PAGE,
        argument: 0,
    };
    ok(sys::create_thread(victim, SPACE, 0, args), "thread")?;
    watch(victim, 78)?;
    ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
    let end = wait_end(78)?;
    equal((end[0], end[2]), (FAULT, bind.base + PAGE - 8), "reason and address")?;
    ok(sys::region_unbind(SPACE, bind.base, 2 * PAGE), "unbind")
}

fn flags() -> Outcome {
    offend("single step", i::single_step, 0, &[0x101])?;
    offend("single step into the kernel", i::step_into_kernel, 0, &[0x101])?;
    offend("alignment check", i::alignment, 0, &[PROTECTION])?;
    offend("nested task", i::nested_task, 0, &[0x100])?;
    Ok(())
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
