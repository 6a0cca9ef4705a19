//! Events that a guest gets at its entry (AMD APM volume 2, 15.20 and 15.21).
//!
//! External interrupts go in as virtual interrupts (V_IRQ), which the guest takes as soon as it may,
//! not by EVENTINJ. To hardware both are the same. QEMU 7.2 remembers the vector of an interrupt
//! that came by EVENTINJ as a pending exception, and delivers it a second time, whatever the
//! guest's IF is, when another thread of the emulator wants the processor to stop just then.
use super::{RawExit, Vcpu, vmcb};

/// EVENTINJ and EXITINTINFO: valid, type, error code valid.
const VALID: u64 = 1 << 31;
const BITS: u64 = 0xffff_ffff_8000_0fff;

impl Vcpu {
    /// Before an entry: an interrupt in EVENTINJ becomes a virtual interrupt. True where the guest
    /// is entered with one, or with a request for a window.
    pub(super) fn prepare_events(&mut self) -> bool {
        let window = self.vmcb().intercept_3 & vmcb::VINTR != 0;
        if let Some(vector) = interrupt(self.vmcb().event_inject)
            && !window
            && self.interrupt.is_none()
        {
            self.interrupt = Some(vector);
            self.vmcb_mut().event_inject = 0;
        }
        let waits = vmcb::V_IRQ | vmcb::V_INTR_PRIO | vmcb::V_IGN_TPR;
        let request = match self.interrupt {
            // A window would take the interrupt's place; whoever wants one asks again after the
            // next exit.
            Some(vector) => {
                self.vmcb_mut().intercept_3 &= !vmcb::VINTR;
                waits | u64::from(vector) << 32
            }
            None if window => waits,
            None => 0,
        };
        self.vmcb_mut().virtual_interrupt = vmcb::V_INTR_MASKING | request;
        request != 0
    }

    /// After an exit: what has to be delivered at the next entry.
    pub(super) fn finish_events(&mut self, last: RawExit) {
        let waits = self.vmcb().virtual_interrupt & vmcb::V_IRQ != 0;
        let interrupted = redeliver(last.int_info);
        if !waits || interrupt(interrupted) == self.interrupt {
            self.interrupt = None;
        }
        self.vmcb_mut().event_inject = match last.own_exception(self.exceptions) {
            Some(vector) => raise_again(vector),
            None if interrupted != 0 => interrupted,
            None => self.interrupt.take().map_or(0, |vector| VALID | u64::from(vector)),
        };
    }
}

/// The vector of an external interrupt.
fn interrupt(event: u64) -> Option<u8> {
    (event & VALID != 0 && event >> 8 & 7 == 0).then_some(event as u8)
}

/// The event to deliver again after an exit that interrupted its delivery, or 0.
///
/// Software interrupts and the exceptions of INT3 and INTO are not: their instruction runs again.
fn redeliver(int_info: u64) -> u64 {
    let (vector, kind) = (int_info & 0xff, int_info >> 8 & 7);
    let software = kind == 4 || (kind == 3 && (vector == 3 || vector == 4));
    if software { 0 } else { legal(int_info) }
}

/// An exception that was intercepted only to be raised again.
fn raise_again(vector: u32) -> u64 {
    // Of the two, `#AC` has an error code: zero.
    let error_code = if vector == 17 { 1 << 11 } else { 0 };
    VALID | 3 << 8 | error_code | u64::from(vector)
}

/// The event, or 0 when VMRUN would refuse it: types are 0 (interrupt), 2 (NMI), 3 (exception,
/// not vector 2; QEMU refuses 31 too), 4 (software interrupt).
pub fn legal(event: u64) -> u64 {
    let (vector, kind) = (event & 0xff, event >> 8 & 7);
    let legal = match kind {
        0 | 2 | 4 => true,
        3 => vector < 31 && vector != 2,
        _ => false,
    };
    if event & VALID != 0 && legal { event & BITS } else { 0 }
}
