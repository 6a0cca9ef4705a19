//! Addresses that are not the program's, its own memory used for what it is not for, and stacks.
use super::court::Court;
use super::{FAULT, PROTECTION, exception, protection};
use crate::Outcome;
use crate::env::{Body, PAGE, RAM, READ_WRITE, SPACE, ok, pinned, ram, window};
use crate::illegal as i;
use abi::{BootInfo, EndCause, MemRights};
use alloc::format;
use rt::sys;

/// Addresses that no access resolves, canonical ones. The last page of user memory is never mapped.
const BAD: [(&str, u64); 8] = [
    ("0", 0),
    ("an unmapped address", 0x1234_5678),
    ("the last user page", 0x7fff_ffff_f000),
    ("the kernel's half, first byte", 0xffff_8000_0000_0000),
    ("physical memory in the kernel", 0xffff_8000_0010_0000),
    ("the kernel's code", 0xffff_ffff_8010_1000),
    ("the kernel's data", 0xffff_ffff_8020_0000),
    ("the last page", 0xffff_ffff_ffff_f000),
];

/// Addresses that are not canonical.
const NOT_CANONICAL: [u64; 3] = [1 << 47, 1 << 63, 0xffff_7fff_ffff_f000];

const GROUP: &str = "address";

fn faults(address: u64) -> impl Fn(EndCause) -> bool {
    move |cause| cause == EndCause::Fault { address }
}

pub fn addresses() -> Outcome {
    let court = Court::new()?;
    let ways: [(&str, Body); 3] = [("read", i::read), ("write", i::write), ("jump", i::jump)];
    for (way, body) in ways {
        for (what, address) in BAD {
            let name = format!("{way}: {what}");
            court.try_act((GROUP, &name, FAULT), (body, address), &faults(address))?;
        }
        for address in NOT_CANONICAL {
            let name = format!("{way}: not canonical");
            court.try_act((GROUP, &name, PROTECTION), (body, address), &protection)?;
        }
    }
    let info = BootInfo::ADDRESS;
    let name = "write: memory that may be read only";
    court.try_act((GROUP, name, FAULT), (i::write, info), &faults(info))?;
    court.close()
}

pub fn stacks_and_code() -> Outcome {
    let (data, _) = window(PAGE)?;
    // The lower page of the stack is the guard.
    let stack = pinned(2 * PAGE, READ_WRITE);
    let code = pinned(PAGE, MemRights::READ | MemRights::EXEC);
    for (bind, at) in [(stack, stack.base + PAGE), (code, code.base)] {
        ok(sys::region_bind(bind), "bind")?;
        ok(sys::map(SPACE, at, RAM, ram(PAGE), PAGE, bind.rights), "map")?;
    }
    let own_code = i::write as *const () as u64;
    let constants = "constant".as_ptr().addr() as u64;
    let court = Court::new()?;
    let group = "memory";
    let cases: [(&str, Body, u64); 6] = [
        ("execution of data", i::jump, data),
        ("execution of the stack", i::jump, court.stack - 64),
        ("execution of constants", i::jump, constants),
        ("writing of code", i::write, own_code),
        ("writing of constants", i::write, constants),
        ("writing of code that was mapped later", i::write, code.base),
    ];
    for (name, body, address) in cases {
        court.try_act((group, name, FAULT), (body, address), &faults(address))?;
    }
    let group = "stack";
    let act = (group, "overflow into the guard", FAULT);
    let low = stack.base + PAGE - 8;
    court.try_on(stack.base + 2 * PAGE, act, (i::overflow, 0), &faults(low))?;
    let bad = |cause| exception(12)(cause) || protection(cause);
    let act = (group, "not canonical", "ended: stack fault or general protection");
    court.try_act(act, (i::bad_stack, 0), &bad)?;
    let act = (group, "in the kernel, at a call and after it", FAULT);
    let fault = |cause| matches!(cause, EndCause::Fault { address } if address >> 47 != 0);
    court.try_act(act, (i::kernel_stack, 0), &fault)?;
    court.close()?;
    ok(sys::region_unbind(SPACE, stack.base, 2 * PAGE), "unbind")?;
    ok(sys::region_unbind(SPACE, code.base, PAGE), "unbind")
}
