//! The registers of a device are a region whose manager is the device's model: this thread, which decodes the access and
//! carries it out where it sees the guest's state. Beside it a memory manager serves the same guest. The guest
//! does what drivers do, and then what none should.
use crate::env::{
    BELOW, NONE, PAGE, QUANTUM, RAM, READ_WRITE, THREAD, equal, holds, in_milliseconds, ok, portal,
    selector, thread, window, words_at,
};
use crate::faults::{asked, manager, prepare};
use crate::guest::available;
use crate::illegal::Blob;
use crate::{Outcome, Test};
use abi::vcpu::{EXIT_CLASSES, ExitClass, Segment, VcpuState};
use abi::{Access, Event, FaultMessage, FaultReply, MemRights, Message, SpaceKind};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::offset_of;
use decode::{Mode, Plain};
use rt::VcpuPage;
use rt::sys::{self, Bind};

pub const TESTS: &[Test] =
    &[("registers: a device's model and a memory manager serve one guest", served)];

/// Guest-physical layout: code, a page that is copied to, one of a memory manager, and the registers.
const CODE: u64 = 0x1000;
const MEMORY: u64 = 0x3000;
const REGISTERS: u64 = 0x4000;
const LENGTH: u64 = PAGE;
const EXITS: u64 = 41;
const DEVICE: u64 = 42;
const TAG: u64 = 77;

/// What the guest did to the registers, as the model understood it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// Offset, bytes.
    Read(u64, u8),
    /// Offset, bytes, value.
    Write(u64, u8, u64),
    /// Offset: an instruction that no model carries out.
    Strange(u64),
    /// An access that goes to nobody: its address, and kind.
    Refused(u64, u64),
    /// The guest stopped by itself.
    Halt,
}

/// Everything that it does, in order; see [`Blob::Driver`].
const EXPECTED: &[Seen] = &[
    Seen::Write(8, 1, 0x34),
    Seen::Write(0xa, 2, 0x1234),
    Seen::Write(0xc, 4, 0x1234),
    Seen::Read(8, 4),
    Seen::Write(0x10, 4, 0x1234_0034),
    Seen::Read(8, 1),
    Seen::Write(0xffe, 2, 0x34),
    // One byte of it is beyond the last register.
    Seen::Read(0xfff, 2),
    // Reads and writes at once; moves strings; pushes; compares; locks.
    Seen::Strange(0x20),
    Seen::Strange(0x24),
    Seen::Strange(0x28),
    Seen::Strange(0x2c),
    Seen::Strange(0x30),
    Seen::Strange(0x34),
    // Code in registers.
    Seen::Refused(REGISTERS, Access::Execute as u64),
    Seen::Halt,
];

struct Machine {
    space: abi::Selector,
    code: u64,
    page: u64,
    vcpu: VcpuPage,
    registers: [u8; LENGTH as usize],
    seen: Vec<Seen>,
}

impl Machine {
    fn new(memory_manager: abi::Selector) -> Result<Self, String> {
        let (space, vcpu) = (selector(), selector());
        ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
        let (code, offset) = window(2 * PAGE)?;
        words_at(code, 2 * PAGE).copy(0, Blob::Driver.code());
        let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        let bind = |base, length, portal, tag, rights, hint| {
            let bind = Bind { space, base, length, portal, tag, rights, hint };
            ok(sys::region_bind(bind), "bind")
        };
        bind(CODE, 2 * PAGE, NONE, 0, all, 12)?;
        ok(sys::map(space, CODE, RAM, offset, 2 * PAGE, all), "map")?;
        bind(MEMORY, PAGE, portal(memory_manager, 5)?, 0, READ_WRITE, 12)?;
        bind(REGISTERS, LENGTH, portal(THREAD, DEVICE)?, TAG, READ_WRITE, abi::REGISTERS.into())?;
        let (page, offset) = window(PAGE)?;
        ok(sys::create_vcpu(vcpu, space, 0, RAM, offset), "vCPU")?;
        let door = portal(THREAD, EXITS)?;
        for class in 0..EXIT_CLASSES as u64 {
            ok(sys::vcpu_portal(vcpu, class, door), "exit portal")?;
        }
        ok(sys::create_sc(selector(), vcpu, BELOW, QUANTUM), "time")?;
        let registers = [0; LENGTH as usize];
        let vcpu = VcpuPage::own(page);
        Ok(Self { space, code, page, vcpu, registers, seen: Vec::new() })
    }

    /// The instruction that the guest is at.
    fn instruction(&self, state: &VcpuState) -> [u8; decode::MAX_LENGTH] {
        let words = words_at(self.code, 2 * PAGE);
        let at = state.rip.wrapping_sub(CODE);
        core::array::from_fn(|n| words.byte(at.saturating_add(n as u64)) as u8)
    }

    /// The model: registers that hold what was written to them; ones beyond the last.
    fn access(&mut self, fault: &FaultMessage) {
        let mut page = self.vcpu;
        page.with(|state| {
            let bytes = self.instruction(state);
            let Ok(access) = decode::memory_access(&bytes, Mode::Bits16) else {
                self.seen.push(Seen::Strange(fault.offset));
                // A monitor would tell the guest; this one goes on behind it.
                let length = decode::plain(&bytes, Mode::Bits16).map_or(1, |(_, length)| length);
                state.rip += length;
                return;
            };
            let places = fault.offset..fault.offset + u64::from(access.width);
            let value = match access.stored(&state.regs) {
                Some(value) => {
                    self.seen.push(Seen::Write(fault.offset, access.width, value));
                    for (at, byte) in places.zip(value.to_le_bytes()) {
                        if let Some(register) = self.registers.get_mut(at as usize) {
                            *register = byte;
                        }
                    }
                    0
                }
                None => {
                    self.seen.push(Seen::Read(fault.offset, access.width));
                    let byte = |at: u64| self.registers.get(at as usize).copied().unwrap_or(0xff);
                    places.rev().fold(0, |value, at| value << 8 | u64::from(byte(at)))
                }
            };
            access.loaded(&mut state.regs, value);
            state.rip += access.length;
        });
    }

    /// An exit; true when it was the last one.
    fn exit(&mut self, words: &Message) -> bool {
        let mut page = self.vcpu;
        page.with(|state| {
            let class = words[0];
            if class == ExitClass::Recall as u64 {
                begin(state);
                return false;
            }
            if class == ExitClass::Error as u64 {
                let at = (state.fault_address, state.fault_access);
                self.seen.push(Seen::Refused(at.0, at.1));
                // It comes back from there to the end of its code.
                state.rip = CODE + Blob::Driver.code().len() as u64 - 1;
                return false;
            }
            let bytes = self.instruction(state);
            let halt = decode::plain(&bytes, Mode::Bits16).is_ok_and(|(p, _)| p == Plain::Hlt);
            if halt && class == ExitClass::Halt as u64 {
                self.seen.push(Seen::Halt);
            }
            state.blocked = 1;
            true
        })
    }

    fn serve(&mut self) -> Outcome {
        let mut next = sys::wait(in_milliseconds(20_000));
        loop {
            let done = match ok(next, "event")? {
                (Event::Fault(DEVICE), words) => {
                    let fault = FaultMessage::decode(&words);
                    equal((fault.tag, fault.region_length), (TAG, LENGTH), "tag and length")?;
                    holds(fault.offset < LENGTH, "inside the region")?;
                    self.access(&fault);
                    false
                }
                (Event::Exit(EXITS), words) => self.exit(&words),
                other => return Err(alloc::format!("{other:?}, having seen {:x?}", self.seen)),
            };
            let answer = FaultReply::Resume.encode();
            if done {
                // Its end, not an answer, is what it gets.
                ok(sys::destroy(self.space), "destroy")?;
                let rest = ok(sys::reply_wait(0, answer, in_milliseconds(20)), "rest")?;
                return equal(rest.0, Event::Timeout, "nothing more");
            }
            next = sys::reply_wait(0, answer, in_milliseconds(20_000));
        }
    }
}

/// Real mode.
fn begin(state: &mut VcpuState) {
    for (index, segment) in state.segments.iter_mut().enumerate() {
        let attributes = if index == 1 { 0x9b } else { 0x93 };
        *segment = Segment { selector: 0, attributes, limit: 0xffff, base: 0 };
    }
    (state.rip, state.rflags) = (CODE, 2);
    (state.cr0, state.pat) = (0x10, 0x0007_0406_0007_0406);
}

fn served() -> Outcome {
    if !available() {
        return Ok(());
    }
    let (at, offset) = window(PAGE)?;
    words_at(at, PAGE).set(0, 0x1234);
    prepare(offset);
    let server = thread(0, manager, 0)?;
    let mut machine = Machine::new(server)?;
    machine.serve()?;
    equal(&machine.seen[..], EXPECTED, "what the model has seen")?;
    equal(asked(), 1, "questions to the memory manager")?;
    // What the guest read last, of which the second half is not there.
    let read = words_at(machine.page, PAGE).get(offset_of!(VcpuState, regs) as u64 + 16);
    equal(read & 0xffff, 0xff00, "beyond the last register")?;
    ok(sys::destroy(server), "destroy")
}
