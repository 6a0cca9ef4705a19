//! Where threads begin. The kernel (or the root server) sets `rsp` to the top of the stack and
//! `rdi` to the thread's number.
use core::arch::global_asm;

global_asm!(
    ".section .text._start, \"ax\"",
    ".global _start",
    "_start:",
    "    xor ebp, ebp",
    "    and rsp, -16",
    "    call {begin}",
    "    ud2",
    begin = sym begin,
);

unsafe extern "C" {
    fn trapline_main(thread: u64) -> !;
}

extern "C" fn begin(thread: u64) -> ! {
    // Thread 0 runs first: others are started only once the program's heap can be used from any
    // thread, because the heap's lock does not depend on who set it up.
    crate::config::start();
    // SAFETY: `entry!` defines the symbol with this signature.
    unsafe { trapline_main(thread) }
}
