//! The end: reports and power-off.
use super::{apic, cpu, port, serial, trace};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

/// QEMU's `isa-debug-exit`; the exit status is `code * 2 + 1`.
const DEBUG_EXIT: u16 = 0xf4;
/// Code that a kernel panic ends the machine with.
const PANIC_CODE: u32 = 0x7f;
/// Code for machines that lack what the kernel needs, or boot something else than it expects.
const FATAL_CODE: u32 = 0x7e;
/// Trace records per processor in a report.
const LAST_RECORDS: u64 = 16;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Ends the machine where it runs in QEMU; stops all processors elsewhere.
pub fn shut_down(code: u32) -> ! {
    port::outl(DEBUG_EXIT, code);
    if cpu::count() > 0 {
        apic::stop_others();
    }
    cpu::halt()
}

/// Ends the machine with a message; see [`fatal!`](crate::fatal).
pub fn give_up(why: core::fmt::Arguments<'_>) -> ! {
    serial::print(format_args!("kernel: fatal: {why}\n"));
    shut_down(FATAL_CODE)
}

/// The machine cannot be used: one line that says why, and the end.
#[macro_export]
macro_rules! fatal {
    ($($argument:tt)*) => {
        $crate::machine::give_up(format_args!($($argument)*))
    };
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if PANICKED.swap(true, Ordering::SeqCst) {
        cpu::halt();
    }
    if cpu::count() > 0 {
        apic::stop_others();
    }
    serial::seize();
    serial::print(format_args!("\nkernel: PANIC: {info}\n"));
    for number in 0..cpu::count() {
        trace::last(number, LAST_RECORDS, |r| {
            serial::print(format_args!(
                "kernel: trace cpu {} tsc {} kind {} thread {} a {:#x} b {:#x}\n",
                r.cpu, r.tsc, r.kind, r.thread, r.a, r.b
            ));
        });
    }
    shut_down(PANIC_CODE)
}
