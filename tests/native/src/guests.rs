//! A guest on another processor whose memory changes while it runs.
use crate::env::{
    NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, address, boot_info, cpus, equal, eventually, ok,
    pinned, portal, ram, selector, thread, words_at,
};
use crate::illegal::Blob;
use crate::{Outcome, Test};
use abi::vcpu::{ExitClass, Segment, VcpuState};
use abi::{BootInfo, Event, MemRights, NO_DEADLINE, SpaceKind};
use alloc::string::String;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[("vCPU: its memory changes under it", changes)];

/// Where the code is, what it copies from, and where to.
const CODE: u64 = 0x1000;
const FROM: u64 = 0x3000;
const TO: u64 = 0x2000;
/// A page that it does not touch.
const SPARE: u64 = 0x4000;

/// Address of the state page, for the thread that handles the exits.
static STATE: AtomicU64 = AtomicU64::new(0);
/// Exits other than the first recall.
static OTHERS: AtomicU64 = AtomicU64::new(0);

/// Handles the exits: the first one starts the guest in real mode, any other one stops it.
extern "C" fn monitor(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Exit(_), words)) = next else { sys::exit(1) };
        let page = words_at(STATE.load(Ordering::SeqCst), PAGE);
        if words[0] == ExitClass::Recall as u64 {
            start(|offset, value| page.set(offset as u64, value));
        } else {
            OTHERS.fetch_add(1, Ordering::SeqCst);
            page.set(offset_of!(VcpuState, blocked) as u64, 1);
        }
        next = sys::reply_wait(0, [0; 8], NO_DEADLINE);
    }
}

fn start(set: impl Fn(usize, u64)) {
    for index in 0..6 {
        let at = offset_of!(VcpuState, segments) + index * size_of::<Segment>();
        set(at, if index == 1 { 0x9b_0000 } else { 0x93_0000 } | 0xffff << 32);
        set(at + 8, 0);
    }
    set(offset_of!(VcpuState, rip), CODE);
    set(offset_of!(VcpuState, cr0), 0x10);
    set(offset_of!(VcpuState, pat), 0x0007_0406_0007_0406);
}

/// A page of RAM that holds a value, by its offset.
fn page_of(value: &[u8]) -> Result<u64, String> {
    let (bind, offset) = (pinned(PAGE, READ_WRITE), ram(PAGE));
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, RAM, offset, PAGE, READ_WRITE), "map")?;
    words_at(bind.base, PAGE).copy(0, value);
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")?;
    Ok(offset)
}

fn changes() -> Outcome {
    let svm = words_at(BootInfo::ADDRESS, PAGE).get(offset_of!(BootInfo, svm) as u64);
    if cpus() < 2 || svm != 1 {
        return Ok(());
    }
    let (space, vcpu) = (selector(), selector());
    ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
    let all = MemRights::all() - MemRights::DEVICE;
    let map = |base, offset| ok(sys::map(space, base, RAM, offset, PAGE, all), "map");
    let bind = Bind { space, rights: all, length: 4 * PAGE, base: CODE, ..pinned(PAGE, all) };
    ok(sys::region_bind(bind), "bind")?;
    let (to, state) = (ram(PAGE), ram(PAGE));
    map(CODE, page_of(Blob::Copier.code())?)?;
    map(TO, to)?;
    map(FROM, page_of(&1u16.to_le_bytes())?)?;
    map(SPARE, ram(PAGE))?;
    let view = Bind { base: address(2 * PAGE), length: 2 * PAGE, ..pinned(PAGE, READ_WRITE) };
    ok(sys::region_bind(view), "bind view")?;
    ok(sys::map(SPACE, view.base, RAM, state, PAGE, READ_WRITE), "map state")?;
    ok(sys::map(SPACE, view.base + PAGE, RAM, to, PAGE, READ_WRITE), "map result")?;
    STATE.store(view.base, Ordering::SeqCst);
    ok(sys::create_vcpu(vcpu, space, 1, RAM, state), "vCPU")?;
    let door = portal(thread(1, monitor, 0)?, 1)?;
    ok(sys::vcpu_portal(vcpu, ExitClass::Other as u64, door), "exit portal")?;
    ok(sys::create_sc(selector(), vcpu, 10, QUANTUM), "time")?;
    let result = words_at(view.base + PAGE, PAGE);
    let copied = || result.get(0) & 0xffff;
    eventually("the guest copies", || copied() == 1)?;
    for value in 2u16..30 {
        map(FROM, page_of(&value.to_le_bytes())?)?;
        let rounds = result.get(0) >> 16 & 0xffff;
        let end = rt::time::now().0 + boot_info().1 * 20_000;
        // Two rounds later it has read the new page.
        while (result.get(0) >> 16).wrapping_sub(rounds) & 0xffff < 2 && rt::time::now().0 < end {}
        equal(copied(), u64::from(value), "copied by the guest")?;
    }
    equal(OTHERS.load(Ordering::SeqCst), 0, "other exits")?;
    // The first answer includes that the pages were mapped. Later ones need an entry of the guest.
    ok(sys::pages_used(space, CODE, 4 * PAGE), "use")?;
    eventually("the use of three of four pages is told", || {
        let used = sys::vcpu_recall(vcpu).and_then(|()| sys::pages_used(space, CODE, 4 * PAGE));
        used == Ok(0b0111)
    })?;
    // Its code goes: the next instruction faults.
    ok(sys::unmap(space, CODE, PAGE), "unmap the code")?;
    eventually("the guest stops", || OTHERS.load(Ordering::SeqCst) == 1)?;
    ok(sys::destroy(space), "destroy")?;
    let _ = NONE;
    ok(sys::region_unbind(SPACE, view.base, view.length), "unbind")
}
