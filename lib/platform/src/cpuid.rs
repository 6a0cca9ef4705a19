//! CPUID of a guest: the host's processor, without what a guest cannot have (SVM, XSAVE and with
//! it AVX, performance counters, machine checks, MTRRs), with a paravirtual hypervisor that
//! Linux knows, x2APIC and a TSC-deadline timer (AMD APM volume 3, appendix E).

/// Results of one leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Bits by number.
const fn bits(numbers: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < numbers.len() {
        mask |= 1 << numbers[i];
        i += 1;
    }
    mask
}

/// Highest standard leaf.
const LAST_STANDARD: u32 = 7;
/// Highest extended leaf.
const LAST_EXTENDED: u32 = 0x8000_0008;

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND.
const FEATURES_C: u32 = bits(&[0, 1, 9, 13, 19, 20, 22, 23, 25, 30]);
/// Leaf 1 ECX, made by the monitor: x2APIC, TSC deadline, hypervisor present.
const MADE_C: u32 = bits(&[21, 24, 31]);
/// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CMPXCHG8B, APIC, SYSENTER, PGE, CMOV, CLFLUSH,
/// MMX, FXSR, SSE, SSE2.
const FEATURES_D: u32 = bits(&[0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 15, 19, 23, 24, 25, 26]);
/// Leaf 7 EBX: FSGSBASE, SMEP, ERMS, RDSEED, ADX, SMAP, CLFLUSHOPT, SHA.
const STRUCTURED_B: u32 = bits(&[0, 7, 9, 18, 19, 20, 23, 29]);
/// Leaf 7 ECX: UMIP.
const STRUCTURED_C: u32 = bits(&[2]);
/// Leaf 0x8000_0001 ECX: LAHF, CR8, ABM, misaligned SSE, PREFETCH.
const EXTENDED_C: u32 = bits(&[0, 4, 5, 7, 8]);
/// Leaf 0x8000_0001 EDX: what leaf 1 has too, SYSCALL, NX, MMX extensions, 1 GiB pages, long mode.
const EXTENDED_D: u32 = FEATURES_D & 0x0183_f3ff | bits(&[11, 20, 22, 26, 29]);

/// Leaf 6 EAX: the APIC timer always runs (ARAT).
const ALWAYS_RUNNING_TIMER: u32 = 1 << 2;
/// Leaf 0x8000_0007 EDX: the TSC's rate never changes.
const INVARIANT_TSC: u32 = 1 << 8;

/// Leaves of the hypervisor: "KVMKVMKVM", whose interface for time guests know.
const HYPERVISOR: u32 = 0x4000_0000;
/// Features of that interface: no I/O delays, clock by the new MSRs, paravirtual end of
/// interrupt, clock stable across processors.
const PARAVIRTUAL: u32 = bits(&[1, 3, 6, 24]);

/// Asks the processor itself.
#[must_use]
pub fn host(leaf: u32, subleaf: u32) -> Leaf {
    let has = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    Leaf { eax: has.eax, ebx: has.ebx, ecx: has.ecx, edx: has.edx }
}

/// True on a processor that QEMU emulates in software, and that says so.
#[must_use]
pub fn is_emulated(host: impl Fn(u32, u32) -> Leaf) -> bool {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    if host(1, 0).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let name = host(HYPERVISOR, 0);
    [name.ebx, name.ecx, name.edx]
        == [
            u32::from_le_bytes(*b"TCGT"),
            u32::from_le_bytes(*b"CGTC"),
            u32::from_le_bytes(*b"GTCG"),
        ]
}

/// Answers CPUID; `host` asks the processor itself.
pub fn answer(leaf: u32, subleaf: u32, host: impl Fn(u32, u32) -> Leaf) -> Leaf {
    match leaf {
        0 => Leaf { eax: LAST_STANDARD, ..host(0, 0) },
        1 => features(host(1, 0)),
        6 => Leaf { eax: ALWAYS_RUNNING_TIMER, ..Leaf::default() },
        7 if subleaf == 0 => {
            let has = host(7, 0);
            Leaf { ebx: has.ebx & STRUCTURED_B, ecx: has.ecx & STRUCTURED_C, ..Leaf::default() }
        }
        HYPERVISOR => {
            let name = |at: usize| {
                let text = b"KVMKVMKVM\0\0\0";
                u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]])
            };
            Leaf { eax: HYPERVISOR + 1, ebx: name(0), ecx: name(4), edx: name(8) }
        }
        0x4000_0001 => Leaf { eax: PARAVIRTUAL, ..Leaf::default() },
        0x8000_0000 => Leaf { eax: LAST_EXTENDED, ..host(0, 0) },
        0x8000_0001 => {
            let has = host(leaf, 0);
            Leaf { ecx: has.ecx & EXTENDED_C, edx: has.edx & EXTENDED_D, ..has }
        }
        // Name and caches.
        0x8000_0002..=0x8000_0006 => host(leaf, 0),
        0x8000_0007 => Leaf { edx: INVARIANT_TSC, ..Leaf::default() },
        // Sizes of addresses, one core.
        0x8000_0008 => Leaf { eax: host(leaf, 0).eax, ..Leaf::default() },
        _ => Leaf::default(),
    }
}

/// Leaf 1: one processor, APIC number 0.
fn features(has: Leaf) -> Leaf {
    const CLFLUSH_SIZE: u32 = 0xff00;
    Leaf {
        eax: has.eax,
        ebx: has.ebx & CLFLUSH_SIZE | 1 << 16,
        ecx: has.ecx & FEATURES_C | MADE_C,
        edx: has.edx & FEATURES_D,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Leaf = Leaf { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };

    #[test]
    fn no_guest_sees_what_it_cannot_have() {
        let one = answer(1, 0, |_, _| ALL);
        assert_eq!(one.ecx & bits(&[3, 17, 26, 27, 28]), 0, "MONITOR, PCID, XSAVE, AVX");
        assert_eq!(one.edx & bits(&[7, 12, 14]), 0, "MCE, MTRR, MCA");
        assert_eq!(answer(0x8000_0001, 0, |_, _| ALL).ecx & 1 << 2, 0, "SVM");
        assert_eq!(answer(0x8000_0001, 0, |_, _| ALL).edx & 1 << 27, 0, "RDTSCP");
        assert_eq!(answer(7, 0, |_, _| ALL).ebx & bits(&[5, 10, 16]), 0, "AVX2, INVPCID, AVX512");
        assert_eq!(answer(0xd, 0, |_, _| ALL), Leaf::default());
        assert_eq!(answer(0x8000_000a, 0, |_, _| ALL), Leaf::default());
    }

    #[test]
    fn emulation_is_recognised_by_name() {
        let named = |leaf: u32, name: &[u8; 12]| {
            let word = |at: usize| {
                u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]])
            };
            match leaf {
                1 => Leaf { ecx: 1 << 31, ..Leaf::default() },
                _ => Leaf { eax: 0, ebx: word(0), ecx: word(4), edx: word(8) },
            }
        };
        assert!(is_emulated(|leaf, _| named(leaf, b"TCGTCGTCGTCG")));
        assert!(!is_emulated(|leaf, _| named(leaf, b"KVMKVMKVM\0\0\0")));
        assert!(!is_emulated(|_, _| Leaf::default()));
    }

    #[test]
    fn what_the_monitor_makes_is_there() {
        let one = answer(1, 0, |_, _| Leaf::default());
        assert_eq!(one.ecx, MADE_C);
        let name = answer(HYPERVISOR, 0, |_, _| ALL);
        assert_eq!(name.ebx.to_le_bytes(), *b"KVMK");
        assert_eq!(name.edx.to_le_bytes(), *b"M\0\0\0");
        assert_eq!(answer(0, 0, |_, _| ALL).eax, LAST_STANDARD);
    }
}
