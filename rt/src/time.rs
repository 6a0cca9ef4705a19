//! Time, in ticks of the time-stamp counter.
use abi::Ticks;

/// Now.
#[must_use]
pub fn now() -> Ticks {
    // SAFETY: RDTSC is allowed in ring 3 (the kernel leaves CR4.TSD clear).
    Ticks(unsafe { core::arch::x86_64::_rdtsc() })
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
