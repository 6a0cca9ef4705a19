//! A program that panics reports it and ends.
use core::panic::PanicInfo;

/// Exit code of a thread that panicked.
const PANIC_CODE: u64 = 101;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::print(format_args!("{info}"));
    crate::sys::exit(PANIC_CODE)
}

/// The precompiled `alloc` refers to the unwinder although nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::sys::exit(PANIC_CODE)
}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
