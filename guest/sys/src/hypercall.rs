//! `VMMCALL` from user mode (AMD APM vol. 3, VMMCALL; the hypervisor intercepts it at every
//! privilege level).

use std::arch::asm;

/// Calls the hypervisor: `number` in `rax`, arguments in `rdi`, `rsi`, `rdx`; the result comes back
/// in `rax`, other registers survive.
///
/// Without the hypervisor the instruction is undefined and ends the process by `SIGILL`.
#[must_use]
pub fn call(number: u64, arguments: [u64; 3]) -> i64 {
    let result: i64;
    // SAFETY: the hypervisor changes `rax` only. It may write to memory of this process, but only
    // to a `Mailbox` that was registered; that memory is never seen as a Rust object, and the
    // compiler is told that memory changes (no `nomem`).
    unsafe {
        asm!(
            "vmmcall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            options(nostack),
        );
    }
    result
}

/// The time-stamp counter, in ticks.
#[must_use]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC reads a counter and changes nothing; Linux allows it in user mode.
    unsafe { std::arch::x86_64::_rdtsc() }
}
