//! Every illegal act there is, by kinds: each is refused or ends its thread, with a report that names the
//! thread, the instruction and the cause; everybody else goes on, and the kernel has afterwards what it
//! had before. `doc/illegal-acts.md` lists them, and is held against what this program did.
mod calls;
mod court;
mod exhaustion;
mod memory;

use crate::env::{Body, PAGE, RAM, READ_WRITE, SPACE, equal, ok, pinned, ram, words_at};
use crate::illegal as i;
use crate::illegal::privileged::{self as p, Objection, PRIVILEGED};
use crate::{Outcome, Test};
use abi::{EndCause, MemRights};
use court::Court;
pub use court::note;
use rt::sys;

pub const TESTS: &[Test] = &[
    ("illegal acts: privileged instructions", privileged),
    ("illegal acts: ports", ports),
    ("illegal acts: model-specific registers", registers),
    ("illegal acts: interrupts by hand", interrupts),
    ("illegal acts: arithmetic, flags, floating point", arithmetic),
    ("illegal acts: endless loops", loops),
    ("illegal acts: addresses", memory::addresses),
    ("illegal acts: stacks, code and data", memory::stacks_and_code),
    ("illegal acts: call numbers", calls::numbers),
    ("illegal acts: pointers of calls", calls::pointers),
    ("illegal acts: addresses of calls", calls::addresses),
    ("illegal acts: capabilities of calls", calls::capabilities),
    ("illegal acts: exhaustion", exhaustion::all),
];

/// What the list says of each objection.
const PROTECTION: &str = "ended: general protection";
const UNDEFINED: &str = "ended: invalid instruction";
const EITHER: &str =
    "ended: general protection, or invalid instruction where the processor lacks it";
/// QEMU 7.2 pops the frame by `cpu_ldq_kernel_ra` (`POPQ_RA` in target/i386/tcg/seg_helper.c), whose rights
/// at CPL 3 with SMAP are those of a kernel that may not touch user pages (`cpu_mmu_index_kernel` in target/i386/cpu.h).
const RETURN: &str = "ended: general protection; under QEMU 7.2 a page fault, as it reads the stack with the kernel's rights";
/// And of page faults.
const FAULT: &str = "ended: page fault, with its address";

const fn exception(number: u8) -> impl Fn(EndCause) -> bool {
    move |cause| matches!(cause, EndCause::Exception { vector, .. } if vector == number)
}

fn protection(cause: EndCause) -> bool {
    exception(13)(cause)
}

fn privileged() -> Outcome {
    let court = Court::new()?;
    for (name, body, objection) in PRIVILEGED {
        let undefined = exception(6);
        let (how, fits): (_, &dyn Fn(EndCause) -> bool) = match objection {
            Objection::Protection => (PROTECTION, &protection),
            Objection::Undefined => (UNDEFINED, &undefined),
            Objection::Return => (RETURN, &|cause| protection(cause) || exception(14)(cause)),
            Objection::Either => (EITHER, &|cause| protection(cause) || exception(6)(cause)),
        };
        court.try_act(("privileged instruction", name, how), (*body, 0), fits)?;
    }
    court.close()
}

/// Interrupt controllers, timer, keyboard, clock, PCI, the port that ends the machine, serial line, the last.
const PORTS: [u64; 11] = [0, 0x20, 0x21, 0x40, 0x60, 0x70, 0xcf8, 0xcfc, 0xf4, 0x3f8, 0xffff];

fn ports() -> Outcome {
    let court = Court::new()?;
    let forms: [(&str, Body); 8] = [
        ("in, 1 byte", p::in_byte),
        ("in, 2 bytes", p::in_word),
        ("in, 4 bytes", p::in_long),
        ("ins", p::in_string),
        ("out, 1 byte", p::out_byte),
        ("out, 2 bytes", p::out_word),
        ("out, 4 bytes", p::out_long),
        ("rep outs", p::out_string),
    ];
    for (form, body) in forms {
        for port in PORTS {
            court.try_act(("port", form, PROTECTION), (body, port), &protection)?;
        }
    }
    court.try_act(("port", "in from a fixed port", PROTECTION), (p::in_fixed, 0), &protection)?;
    court.try_act(("port", "out to a fixed port", PROTECTION), (p::out_fixed, 0), &protection)?;
    court.close()
}

/// Time-stamp counter, local APIC, EFER, system-call entry and mask, bases of FS and GS, SVM's host area.
const REGISTERS: [u64; 12] = [
    0x10,
    0x1b,
    0x174,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc001_0117,
    0xffff_ffff,
];

fn registers() -> Outcome {
    let court = Court::new()?;
    for (form, body) in [("rdmsr", p::read_msr as Body), ("wrmsr", p::write_msr)] {
        for register in REGISTERS {
            court.try_act(("register", form, PROTECTION), (body, register), &protection)?;
        }
    }
    court.close()
}

fn interrupts() -> Outcome {
    let bind = pinned(PAGE, MemRights::READ | MemRights::EXEC);
    let view = pinned(PAGE, READ_WRITE);
    let offset = ram(PAGE);
    for b in [bind, view] {
        ok(sys::region_bind(b), "bind")?;
        ok(sys::map(SPACE, b.base, RAM, offset, PAGE, b.rights), "map")?;
    }
    // `int n; ud2`, for each n.
    (0..256u64).for_each(|n| words_at(view.base, PAGE).copy(4 * n, &[0xcd, n as u8, 0x0f, 0x0b]));
    ok(sys::region_unbind(SPACE, view.base, PAGE), "unbind")?;
    let court = Court::new()?;
    for vector in 0..256 {
        let at = bind.base + 4 * vector;
        let end = court.try_act(
            ("interrupt", "int, each vector", PROTECTION),
            (i::jump, at),
            &protection,
        )?;
        equal(end.ip, at, "the instruction in the report")?;
    }
    court.try_act(("interrupt", "int3", PROTECTION), (i::breakpoint, 0), &protection)?;
    court.close()?;
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")
}

fn arithmetic() -> Outcome {
    let court = Court::new()?;
    let cases: [(&str, &str, Body, u8); 10] = [
        ("division by zero", "ended: division error", i::divide, 0),
        ("quotient that does not fit", "ended: division error", i::divide_too_much, 0),
        ("ud2", UNDEFINED, i::undefined, 6),
        ("SSE", UNDEFINED, i::sse, 6),
        ("x87", "ended: floating-point instruction", i::floating_point, 7),
        ("MMX", UNDEFINED, i::multimedia, 6),
        ("trap flag", "ended: debug trap", i::single_step, 1),
        ("trap flag at a call", "ended: debug trap", i::step_into_kernel, 1),
        ("nested-task flag at a call", "ended at its next mistake", i::nested_task, 0),
        ("alignment flag at a call", "ended at its next mistake", i::alignment, 13),
    ];
    for (name, how, body, vector) in cases {
        court.try_act(("arithmetic and flags", name, how), (body, 0), &exception(vector))?;
    }
    let act = ("arithmetic and flags", "popf: interrupts off, port access on", "without effect");
    let exits = |cause| cause == EndCause::Exit { code: i::NO_EFFECT };
    court.try_act(act, (i::flags, 0), &exits)?;
    court.close()
}

fn loops() -> Outcome {
    let court = Court::new()?;
    let how = "has its share of the time, and can be killed";
    let cases: [(&str, Body); 4] = [
        ("jumps to itself", i::spin),
        ("calls the kernel for ever", i::call_for_ever),
        ("yields for ever", i::yield_for_ever),
        ("makes bad calls for ever", i::bad_call_for_ever),
    ];
    for (name, body) in cases {
        court.kill(("endless loop", name, how), body)?;
    }
    court.close()
}
