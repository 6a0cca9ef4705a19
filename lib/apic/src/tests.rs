use super::*;
use proptest::prelude::*;

fn enabled() -> Apic {
    let mut apic = Apic::new();
    apic.write(0x80f, 0x1ff, 0).unwrap();
    apic
}

#[test]
fn interrupts_nest_by_priority_class() {
    let mut apic = enabled();
    apic.raise(0x31);
    apic.raise(0x52);
    assert_eq!(apic.accept(), Some(0x52));
    assert_eq!(apic.pending(), None);
    apic.raise(0x5f);
    assert_eq!(apic.pending(), None, "same class waits");
    apic.raise(0x61);
    assert_eq!(apic.accept(), Some(0x61));
    apic.write(0x80b, 0, 0).unwrap();
    apic.write(0x80b, 0, 0).unwrap();
    assert_eq!(apic.accept(), Some(0x5f));
    apic.end_of_interrupt();
    assert_eq!(apic.accept(), Some(0x31));
}

#[test]
fn task_priority_masks() {
    let mut apic = enabled();
    apic.write(0x808, 0x40, 0).unwrap();
    apic.raise(0x45);
    assert_eq!(apic.pending(), None);
    apic.write(0x808, 0x3f, 0).unwrap();
    assert_eq!(apic.pending(), Some(0x45));
}

#[test]
fn deadline_fires_once() {
    let mut apic = enabled();
    apic.write(0x832, 2 << 17 | 0xec, 0).unwrap();
    apic.write(MSR_TSC_DEADLINE, 500, 100).unwrap();
    assert_eq!(apic.next_deadline(), Some(500));
    apic.expire(499);
    assert_eq!(apic.pending(), None);
    apic.expire(500);
    assert_eq!(apic.accept(), Some(0xec));
    assert_eq!(apic.read(MSR_TSC_DEADLINE, 501), Ok(0));
    assert_eq!(apic.next_deadline(), None);
    apic.end_of_interrupt();
    apic.write(MSR_TSC_DEADLINE, 400, 600).unwrap();
    assert_eq!(apic.pending(), Some(0xec), "a deadline in the past fires at once");
}

#[test]
fn periodic_timer_is_bounded() {
    let mut apic = enabled();
    apic.write(0x832, 1 << 17 | 0xec, 0).unwrap();
    apic.write(0x838, 1, 0).unwrap();
    assert_eq!(apic.next_deadline(), Some(MINIMUM_PERIOD));
    apic.expire(10 * MINIMUM_PERIOD + 5);
    assert_eq!(apic.next_deadline(), Some(11 * MINIMUM_PERIOD));
}

#[test]
fn messages_reach_processor_zero() {
    let mut apic = enabled();
    assert!(apic.message(0xfee0_0000, 0x23));
    assert!(apic.message(0xfee0_1004, 0x24));
    assert!(!apic.message(0xfee0_2000, 0x33), "another processor");
    assert!(!apic.message(0x1000, 0x33), "not an APIC");
    assert_eq!(apic.accept(), Some(0x24));
}

#[test]
fn commands_to_self_and_others() {
    let mut apic = enabled();
    apic.write(0x830, 0x4_00f3, 0).unwrap();
    assert_eq!(apic.accept(), Some(0xf3));
    apic.write(0x830, 0xc_00fb, 0).unwrap();
    assert_eq!(apic.pending(), None, "all but self reaches nobody");
    apic.write(0x830, 0x400, 0).unwrap();
    assert!(apic.take_nmi());
    assert!(!apic.take_nmi());
}

#[test]
fn x2apic_mode_cannot_be_left() {
    let mut apic = Apic::new();
    let base = apic.read(MSR_APIC_BASE, 0).unwrap();
    assert_eq!(apic.write(MSR_APIC_BASE, base, 0), Ok(()));
    assert_eq!(apic.write(MSR_APIC_BASE, base & !(1 << 10), 0), Err(GeneralProtection));
}

proptest! {
    /// Whatever a guest does: no panic, and an accepted vector outranks what is in service.
    #[test]
    fn any_sequence_is_survived(steps in prop::collection::vec(
        (0u8..5, prop_oneof![Just(0x1bu32), Just(0x6e0), 0x800u32..0x900, any::<u32>()],
         prop_oneof![any::<u64>(), 0u64..0x800], any::<u32>()), 0..200)) {
        let mut apic = enabled();
        let mut now = 0u64;
        for (kind, msr, value, more) in steps {
            now = now.saturating_add(u64::from(more));
            match kind {
                0 => { let _ = apic.write(msr, value, now); }
                1 => { let _ = apic.read(msr, now); }
                2 => { apic.message(0xfee0_0000 | value & 0xf_ffff, more); }
                3 => apic.expire(now),
                _ => {
                    let serving = apic.in_service.highest();
                    if let Some(vector) = apic.accept() {
                        prop_assert!(vector & 0xf0 > serving.unwrap_or(0) & 0xf0);
                        prop_assert!(vector >= 16);
                    }
                }
            }
            apic.expire(now);
            prop_assert!(apic.next_deadline().is_none_or(|next| next > now));
        }
    }
}
