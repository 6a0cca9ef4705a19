//! The role that monitors a guest, which counts in shared memory.
use crate::board::{self, Word};
use crate::{Outcome, capability, ok, region};
use abi::Event;
use abi::vcpu::{ExitClass, ExitMessage, Segment, VcpuState};
use core::mem::offset_of;
use memory::Memory;
use native_tests::illegal::Blob;
use rt::{Shared, sys, time};

/// Where the code is.
const CODE: u64 = 0x1000;
/// Where the shared memory is; the guest counts 8 KiB above.
pub const SHARED_AT: u64 = 0x40_0000;

/// Real mode, with a data segment that begins where the shared memory does.
fn start(state: &Shared) {
    let set = |offset: usize, value: u64| {
        let _ = state.write_register(offset as u64, 8, value);
    };
    for index in 0..6 {
        let at = offset_of!(VcpuState, segments) + index * size_of::<Segment>();
        set(at, if index == 1 { 0x9b_0000 } else { 0x93_0000 } | 0xffff << 32);
        set(at + 8, if index == 3 { SHARED_AT } else { 0 });
    }
    set(offset_of!(VcpuState, rip), CODE);
    set(offset_of!(VcpuState, rflags), 2);
    set(offset_of!(VcpuState, cr0), 0x10);
    set(offset_of!(VcpuState, pat), 0x0007_0406_0007_0406);
}

/// Handles its exits: the first one starts it; a fault that is refused stops it, until the board says that it goes on.
pub fn run() -> Outcome {
    let (ram, state, vcpu) = (region("ram")?, region("vcpu")?, capability("vcpu")?);
    ram.write(CODE, Blob::Turns.code()).map_err(|_| "no room for the code")?;
    let blocked = offset_of!(VcpuState, blocked) as u64;
    let fault_at = offset_of!(VcpuState, fault_address) as u64;
    let (mut started, mut gone_on) = (false, 0);
    let soon = || time::now().get() + time::microseconds(1000);
    let mut next = sys::wait(soon());
    loop {
        let exit = match next {
            Ok((Event::Exit(_), words)) => Some(ExitMessage::decode(&words).class),
            _ => None,
        };
        if exit == Some(ExitClass::Recall as u64) {
            if !core::mem::replace(&mut started, true) {
                start(&state);
            }
            let _ = state.write_register(blocked, 8, 0);
        } else if exit.is_some() {
            board::set(Word::StoppedAt, state.read_register(fault_at, 8).unwrap_or(0));
            board::add(Word::Stopped);
            let _ = state.write_register(blocked, 8, 1);
        } else if board::get(Word::Go) > gone_on {
            gone_on += 1;
            ok(sys::vcpu_recall(vcpu), "recall")?;
        }
        next = match exit {
            Some(_) => sys::reply_wait(0, [0; 8], soon()),
            None => sys::wait(soon()),
        };
    }
}
