//! When an interrupt can be given to the guest, and how (AMD APM volume 2, section 15.20).
use abi::vcpu::VcpuState;
use apic::Apic;

/// EVENTINJ: valid.
const VALID: u64 = 1 << 31;
/// EVENTINJ: an error code is delivered too.
const ERROR_CODE: u64 = 1 << 11;
/// EVENTINJ types.
const TYPE_NMI: u64 = 2 << 8;
const TYPE_EXCEPTION: u64 = 3 << 8;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// `#GP`.
pub const GENERAL_PROTECTION: u8 = 13;
/// `#UD`.
pub const INVALID_OPCODE: u8 = 6;
/// `#SS`.
pub const STACK_FAULT: u8 = 12;
/// `#PF`.
pub const PAGE_FAULT: u8 = 14;

/// True where the guest's flags allow an interrupt.
#[must_use]
pub fn interruptible(state: &VcpuState) -> bool {
    state.rflags & INTERRUPT_FLAG != 0
}

/// Raises an exception at the instruction that exited.
pub fn raise(state: &mut VcpuState, vector: u8, error_code: Option<u32>) {
    let error = error_code.map_or(0, |code| ERROR_CODE | u64::from(code) << 32);
    state.inject = VALID | TYPE_EXCEPTION | u64::from(vector) | error;
}

/// What [`next`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// An event is delivered at the next entry.
    Delivered,
    /// An interrupt waits until the guest can take it.
    Waiting,
    /// Nothing to deliver.
    Nothing,
}

/// Chooses the event of the next entry, and whether an interrupt window is wanted after it.
///
/// An event that is already set (an exception, or one whose delivery was interrupted) goes first.
pub fn next(state: &mut VcpuState, apic: &mut Apic) -> Outcome {
    let mut outcome = Outcome::Nothing;
    if state.inject & VALID != 0 {
        outcome = Outcome::Delivered;
    } else if apic.take_nmi() {
        state.inject = VALID | TYPE_NMI | 2;
        outcome = Outcome::Delivered;
    } else if interruptible(state)
        && state.interrupt_shadow == 0
        && let Some(vector) = apic.accept()
    {
        state.inject = VALID | u64::from(vector);
        outcome = Outcome::Delivered;
    }
    let waiting = apic.pending().is_some();
    state.want_window = waiting.into();
    if waiting && outcome == Outcome::Nothing { Outcome::Waiting } else { outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apic(vectors: &[u8]) -> Apic {
        let mut apic = Apic::new();
        apic.write(0x80f, 0x1ff, 0).unwrap();
        vectors.iter().for_each(|vector| apic.raise(*vector));
        apic
    }

    fn state(rflags: u64) -> VcpuState {
        VcpuState { rflags, ..VcpuState::ZERO }
    }

    #[test]
    fn delivered_at_once_when_possible() {
        let (mut apic, mut state) = (apic(&[0x40]), state(0x202));
        assert_eq!(next(&mut state, &mut apic), Outcome::Delivered);
        assert_eq!((state.inject, state.want_window), (VALID | 0x40, 0));
    }

    #[test]
    fn window_when_flags_or_shadow_forbid() {
        for (rflags, shadow) in [(2, 0), (0x202, 1)] {
            let (mut apic, mut state) = (apic(&[0x40]), state(rflags));
            state.interrupt_shadow = shadow;
            assert_eq!(next(&mut state, &mut apic), Outcome::Waiting);
            assert_eq!((state.inject, state.want_window), (0, 1));
        }
    }

    #[test]
    fn an_event_in_delivery_goes_first() {
        let (mut apic, mut state) = (apic(&[0x40]), state(0x202));
        raise(&mut state, GENERAL_PROTECTION, Some(0));
        let event = state.inject;
        assert_eq!(next(&mut state, &mut apic), Outcome::Delivered);
        assert_eq!((state.inject, state.want_window), (event, 1));
    }

    #[test]
    fn second_interrupt_of_a_higher_class_wants_a_window() {
        let (mut apic, mut state) = (apic(&[0x40, 0x50]), state(0x202));
        next(&mut state, &mut apic);
        assert_eq!((state.inject, state.want_window), (VALID | 0x50, 0), "lower one must wait");
        apic.raise(0x60);
        state.inject = 0;
        state.rflags = 2;
        assert_eq!(next(&mut state, &mut apic), Outcome::Waiting);
    }

    #[test]
    fn nothing_to_do() {
        let (mut apic, mut state) = (apic(&[]), state(0x202));
        state.want_window = 1;
        assert_eq!(next(&mut state, &mut apic), Outcome::Nothing);
        assert_eq!(state.want_window, 0);
    }
}
