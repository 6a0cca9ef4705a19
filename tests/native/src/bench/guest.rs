//! VM exits.
use crate::Outcome;
use crate::meter::measure;
use abi::vcpu::{EXIT_CLASSES, Segment, VcpuState};
use abi::{BootInfo, MemRights, NO_DEADLINE, SpaceKind};
use core::mem::offset_of;
use native_tests::env::{
    PAGE, QUANTUM, RAM, THREAD, ok, pinned, portal, selector, window, words_at,
};
use rt::sys::{self, Bind};

const CODE: u64 = 0x1000;
/// `vmmcall; jmp $-3`.
const PROGRAM: [u8; 5] = [0x0f, 0x01, 0xd9, 0xeb, 0xfb];
const VMMCALL_LENGTH: u64 = 3;
/// Below this thread, which handles the exits.
const PRIORITY: u8 = 50;

/// All rows. Nothing without SVM.
pub fn run() -> Outcome {
    if words_at(BootInfo::ADDRESS, PAGE).get(offset_of!(BootInfo, svm) as u64) != 1 {
        return Ok(());
    }
    let (space, vcpu) = (selector(), selector());
    ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
    let (code, offset) = window(PAGE)?;
    words_at(code, PAGE).copy(0, &PROGRAM);
    let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
    ok(sys::region_bind(Bind { space, base: CODE, ..pinned(PAGE, all) }), "bind")?;
    ok(sys::map(space, CODE, RAM, offset, PAGE, all), "map")?;
    let (page, offset) = window(PAGE)?;
    ok(sys::create_vcpu(vcpu, space, 0, RAM, offset), "vCPU")?;
    let door = portal(THREAD, 21)?;
    for class in 0..EXIT_CLASSES as u64 {
        ok(sys::vcpu_portal(vcpu, class, door), "exit portal")?;
    }
    ok(sys::create_sc(selector(), vcpu, PRIORITY, QUANTUM), "time")?;
    ok(sys::wait(NO_DEADLINE), "first exit")?;
    let state = words_at(page, PAGE);
    let set = |offset: usize, value| state.set(offset as u64, value);
    for index in 0..6 {
        let at = offset_of!(VcpuState, segments) + index * size_of::<Segment>();
        set(at, if index == 1 { 0x9b_0000 } else { 0x93_0000 } | 0xffff << 32);
        set(at + 8, 0);
    }
    set(offset_of!(VcpuState, rip), CODE);
    set(offset_of!(VcpuState, rflags), 2);
    set(offset_of!(VcpuState, cr0), 0x10);
    set(offset_of!(VcpuState, pat), 0x0007_0406_0007_0406);
    ok(sys::reply_wait(0, [0; 8], NO_DEADLINE), "second exit")?;
    let rip = offset_of!(VcpuState, rip) as u64;
    measure("VM exit to its monitor and back", "direct", 200, |_| {
        state.set(rip, state.get(rip) + VMMCALL_LENGTH);
        let _ = sys::reply_wait(0, [0; 8], NO_DEADLINE);
    });
    ok(sys::destroy(space), "destroy")?;
    ok(sys::reply_wait(0, [0; 8], 0), "reply to nobody").map(drop)
}
