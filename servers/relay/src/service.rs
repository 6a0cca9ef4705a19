//! Thread 1: hypercalls of the service VM.
use crate::desk::{self, Registration};
use abi::vcpu::{ExitMessage, VcpuState, reg};
use abi::{Event, MESSAGE_WORDS, NO_DEADLINE};
use linux_abi::Errno;
use rt::{Channel, VcpuPage, sys};
use wire::hypercall;

/// EVENTINJ: exception 6 (`#UD`), valid (AMD APM volume 2, 15.20).
const INJECT_UD: u64 = 1 << 31 | 3 << 8 | 6;
/// Bytes of a `VMMCALL`.
const VMMCALL: u64 = 3;

/// Serves for ever.
pub fn serve() -> ! {
    let (Some(mut page), Some(bell)) = (VcpuPage::region("vcpu-service"), Channel::open("bell"))
    else {
        panic!("no region 'vcpu-service' or no channel 'bell' in the configuration");
    };
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok((Event::Exit(_), words)) => {
                let _ = ExitMessage::decode(&words);
                page.with(|state| hypercall(state, &bell));
                sys::reply_wait(0, [0; MESSAGE_WORDS], NO_DEADLINE)
            }
            Ok((Event::Call(_) | Event::Fault(_), _)) => {
                let refused = abi::Error::Refused as u64;
                sys::reply_wait(refused, [0; MESSAGE_WORDS], NO_DEADLINE)
            }
            _ => sys::wait(NO_DEADLINE),
        };
    }
}

fn hypercall(state: &mut VcpuState, bell: &Channel) {
    let known = state.cpl == 3;
    let result = match state.regs.r[reg::RAX] {
        hypercall::DOORBELL if known => {
            bell.notify();
            0
        }
        hypercall::REGISTER if known => register(state.cr3, state.regs.r[reg::RDI], bell),
        _ => {
            state.inject = INJECT_UD;
            return;
        }
    };
    state.regs.r[reg::RAX] = result as u64;
    state.rip = state.rip.wrapping_add(VMMCALL);
}

/// Tells thread 0, which answers in the mailbox.
fn register(cr3: u64, address: u64, bell: &Channel) -> i64 {
    if !desk::put(Registration { cr3, address }) {
        return Errno::EAGAIN.result();
    }
    bell.notify();
    0
}
