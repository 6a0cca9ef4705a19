//! Time, in ticks of the time-stamp counter.
use crate::sys;
use abi::{Error, Event, MESSAGE_WORDS, Ticks};

/// Now.
#[must_use]
pub fn now() -> Ticks {
    // SAFETY: RDTSC is allowed in ring 3 (the kernel leaves CR4.TSD clear).
    Ticks(unsafe { core::arch::x86_64::_rdtsc() })
}

/// Waits so many microseconds. For programs that wait for nothing else: calls that come meanwhile are
/// refused, signals and ends of others are not told.
pub fn sleep(us: u64) {
    let end = now().0.saturating_add(microseconds(us));
    let mut next = sys::wait(end);
    loop {
        next = match next {
            // It may not wait while it serves somebody.
            Ok((Event::Timeout, _)) | Err(_) => return,
            Ok((Event::Call(_) | Event::Fault(_) | Event::Exit(_), _)) => {
                sys::reply_wait(Error::Refused as u64, [0; MESSAGE_WORDS], end)
            }
            Ok(_) => sys::wait(end),
        };
    }
}

/// Ticks in so many microseconds.
#[must_use]
pub fn microseconds(us: u64) -> u64 {
    us.saturating_mul(crate::config().tsc_khz) / 1000
}

/// Microseconds in so many ticks.
#[must_use]
pub fn to_microseconds(ticks: u64) -> u64 {
    let khz = crate::config().tsc_khz.max(1);
    (u128::from(ticks) * 1000 / u128::from(khz)) as u64
}
