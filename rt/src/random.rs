//! Random numbers from the processor.
use core::arch::x86_64::{__cpuid, _rdrand64_step, _rdtsc};

/// CPUID function 1, ECX: RDRAND (AMD APM volume 3, appendix E).
const RDRAND: u32 = 1 << 30;
/// Tries before the processor counts as having no numbers (APM volume 3, RDRAND).
const TRIES: u32 = 10;

/// Fills `into` with random bytes. False where the processor has no generator: then the bytes
/// come from the time-stamp counter alone, which is no source of secrets.
pub fn random(into: &mut [u8]) -> bool {
    let mut good = __cpuid(1).ecx & RDRAND != 0;
    for part in into.chunks_mut(8) {
        let word = if good { drawn() } else { None };
        good &= word.is_some();
        let bytes = word.unwrap_or_else(stretched).to_le_bytes();
        part.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
    good
}

fn drawn() -> Option<u64> {
    let mut word = 0;
    // SAFETY: the caller found RDRAND in CPUID.
    (0..TRIES).any(|_| unsafe { _rdrand64_step(&mut word) } == 1).then_some(word)
}

/// The counter, with its few changing bits spread over the word (the finaliser of SplitMix64).
fn stretched() -> u64 {
    // SAFETY: RDTSC is allowed in ring 3 (the kernel leaves CR4.TSD clear).
    let mut z = unsafe { _rdtsc() };
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
