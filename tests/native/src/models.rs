//! What *device* consists of, in front of a guest on the bare kernel: the windows of its two devices are regions of this
//! thread, which carries accesses out with the library's models, and after each of them goes on with nothing but the notes. The
//! guest does what a driver does, and then anything. What the server adds to that, scenarios test.
use crate::env::{
    BELOW, NONE, PAGE, QUANTUM, RAM, READ_WRITE, THREAD, equal, holds, in_milliseconds, ok, portal,
    selector, window,
};
use crate::guest::available;
use crate::{Outcome, Test};
use abi::vcpu::{EXIT_CLASSES, ExitClass, Segment, VcpuState};
use abi::{Event, FaultMessage, FaultReply, MemRights, Message, REGISTERS, SpaceKind};
use alloc::string::String;
use alloc::vec::Vec;
use device_models::{ENTROPY, Kept, Machine, PMEM, Request, World};
use memory::{Memory, OutOfBounds};
use platform::code;
use rt::sys::{self, Bind};
use rt::{Shared, VcpuPage};
use virtio::{Msi, WINDOW_SIZE, bus};

pub const TESTS: &[Test] = &[(
    "models: windows of *device* in front of a driver, and of a guest that does anything",
    served,
)];

/// Guest-physical layout: a page that nobody touches, code, and the driver's queue with a buffer.
const CODE: u64 = 0x1000;
const QUEUE: u32 = 0x3000;
const BUFFER: u64 = 0x3c00;
const LENGTH: u64 = 4 * PAGE;
const EXITS: u64 = 41;
/// Badge of the portal of both windows.
const DEVICE: u64 = 42;
/// Accesses of the guest that does anything.
const MANY: u32 = 400;
const INTERRUPT: Msi = Msi { address: 0xfee0_0000, data: 0x31 };

/// Instructions of a real-mode guest. Windows lie behind FS (random numbers) and GS (persistent memory).
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    /// An access to a register: segment prefix, and operand-size prefix where it has 4 bytes.
    fn access(&mut self, slot: u8, offset: u16, width: u8, opcode: u8) {
        self.0.push(if slot == ENTROPY { 0x64 } else { 0x65 });
        if width == 4 {
            self.0.push(0x66);
        }
        // AL with an even opcode, AX and EAX with the odd one behind it.
        self.0.push(opcode | u8::from(width > 1));
        self.0.extend(offset.to_le_bytes());
    }

    fn store(&mut self, slot: u8, offset: u16, width: u8, value: u32) {
        // MOV EAX, value
        self.0.extend([0x66, 0xb8]);
        self.0.extend(value.to_le_bytes());
        self.access(slot, offset, width, 0xa2);
    }

    fn load(&mut self, slot: u8, offset: u16, width: u8) {
        self.access(slot, offset, width, 0xa0);
    }

    fn halt(&mut self) {
        self.0.push(0xf4);
    }

    /// What a driver does with random numbers; then it reads the status.
    fn drive(&mut self) {
        for (offset, width, value) in [
            (0x1010, 4, INTERRUPT.address as u32),
            (0x1018, 4, INTERRUPT.data),
            (0x101c, 4, 0),
            (20, 1, 0),
            (20, 1, 3),
            (8, 4, 1),
            (12, 4, 1),
            (20, 1, 11),
            (24, 2, 8),
            (26, 2, 1),
            (32, 4, QUEUE),
            (40, 4, QUEUE + 0x400),
            (48, 4, QUEUE + 0x800),
            (28, 2, 1),
            (20, 1, 15),
            (0x40, 2, 0),
        ] {
            self.store(ENTROPY, offset, width, value);
        }
        self.load(ENTROPY, 20, 1);
        self.halt();
    }

    /// Anything, always the same; at its end something that no device carries out.
    fn do_anything(&mut self) {
        let mut state = 0x9e37_79b9_u32;
        let mut next = |limit: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % limit
        };
        for _ in 0..MANY {
            let slot = if next(2) == 0 { ENTROPY } else { PMEM };
            let limit = if next(2) == 0 { 0x60 } else { WINDOW_SIZE as u32 - 3 };
            let (offset, width) = (next(limit) as u16, 1 << next(3));
            match next(4) {
                0 => self.load(slot, offset, width),
                _ => {
                    let value = next(u32::MAX) >> next(32);
                    self.store(slot, offset, width, value);
                }
            }
        }
        // LOCK INC WORD PTR FS:[0x20]
        self.0.extend([0xf0, 0x64, 0xff, 0x06, 0x20, 0]);
        self.halt();
    }
}

struct Guest {
    space: abi::Selector,
    ram: Shared,
    page: VcpuPage,
    machine: Machine,
    kept: Kept<Shared>,
    accesses: u32,
    strange: u32,
    halts: u32,
    raised: Vec<Msi>,
}

fn inside<T>(result: Result<T, OutOfBounds>, what: &str) -> Result<T, String> {
    result.map_err(|error| alloc::format!("{what}: {error:?}"))
}

fn fresh() -> Machine {
    Machine::new(&[PMEM, ENTROPY], 1 << 32..(1 << 32) + PAGE)
}

fn own(length: u64) -> Result<(Shared, u64), String> {
    let (address, offset) = window(length)?;
    let shared = Shared::own(address, length);
    inside(shared.zero(0, length), "zeroed")?;
    Ok((shared, offset))
}

impl Guest {
    fn new(program: &Program) -> Result<Self, String> {
        let (space, vcpu) = (selector(), selector());
        ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
        let (ram, offset) = own(LENGTH)?;
        inside(ram.write(CODE, &program.0), "code")?;
        // One request with one buffer of 4 bytes to be filled.
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&BUFFER.to_le_bytes());
        (descriptor[8], descriptor[12]) = (4, 2);
        inside(ram.write(QUEUE.into(), &descriptor), "descriptor")?;
        inside(ram.write(u64::from(QUEUE) + 0x402, &[1, 0, 0, 0]), "available")?;
        let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        let bind = |base, length, portal, tag, rights, hint| {
            let bind = Bind { space, base, length, portal, tag, rights, hint };
            ok(sys::region_bind(bind), "bind")
        };
        bind(0, LENGTH, NONE, 0, all, 12)?;
        ok(sys::map(space, 0, RAM, offset, LENGTH, all), "map")?;
        let door = portal(THREAD, DEVICE)?;
        for slot in [PMEM, ENTROPY] {
            let place = bus::window(slot).start;
            bind(place, WINDOW_SIZE, door, slot.into(), READ_WRITE, REGISTERS.into())?;
        }
        let (page, offset) = window(PAGE)?;
        ok(sys::create_vcpu(vcpu, space, 0, RAM, offset), "vCPU")?;
        let exits = portal(THREAD, EXITS)?;
        for class in 0..EXIT_CLASSES as u64 {
            ok(sys::vcpu_portal(vcpu, class, exits), "exit portal")?;
        }
        ok(sys::create_sc(selector(), vcpu, BELOW, QUANTUM), "time")?;
        let kept = inside(Kept::new(own(device_models::AREA)?.0, 0), "notes")?;
        let (page, machine, raised) = (VcpuPage::own(page), fresh(), Vec::new());
        let mut guest =
            Self { space, ram, page, machine, kept, accesses: 0, strange: 0, halts: 0, raised };
        // Messages are switched on, by way of its monitor.
        let enable = Request::Write { slot: ENTROPY, offset: 0x42, length: 2, value: 0x8000 };
        guest.with(|machine, world| machine.request(enable, world))?;
        Ok(guest)
    }

    /// As *device* does it; then another one goes on.
    fn with<R>(
        &mut self,
        work: impl FnOnce(&mut Machine, &mut World<'_, Shared>) -> R,
    ) -> Result<R, String> {
        let raise = &mut |msi| self.raised.push(msi);
        let random = &mut |bytes: &mut [u8]| bytes.fill(0x5a);
        let result = work(&mut self.machine, &mut World { ram: &self.ram, random, raise });
        inside(self.kept.write(&self.machine.notes()), "notes")?;
        self.machine = fresh();
        let notes = self.kept.read().unwrap_or_default();
        holds(self.machine.recall(&notes), "notes that make sense")?;
        Ok(result)
    }

    fn access(&mut self, fault: &FaultMessage) -> Outcome {
        let (mut page, ram, slot) = (self.page, self.ram, fault.tag as u8);
        let offset = fault.offset;
        self.accesses += 1;
        let done = self.with(|machine, world| {
            page.with(|state| {
                let touch = |touch| machine.access(slot, offset, touch, world);
                let done = code::carry_out(&ram, state, touch);
                // The monitor would raise an exception; this one goes on behind it.
                state.rip += if done { 0 } else { 6 };
                done
            })
        })?;
        self.strange += u32::from(!done);
        Ok(())
    }

    /// The end of its first part: the driver has got what it asked for.
    fn driven(&mut self, state: &VcpuState) -> Outcome {
        equal(state.regs.r[0] & 0xff, 15, "status")?;
        equal(self.ram.read64(BUFFER), Ok(0x5a5a_5a5a), "random numbers, and nothing behind")?;
        equal(self.ram.read16(u64::from(QUEUE) + 0x802), Ok(1), "used index")?;
        equal(&self.raised[..], &[INTERRUPT][..], "interrupts")
    }

    /// An exit; true when it was the last one.
    fn exit(&mut self, words: &Message) -> Result<bool, String> {
        let mut page = self.page;
        page.with(|state| {
            if words[0] == ExitClass::Recall as u64 {
                begin(state);
                return Ok(false);
            }
            equal(words[0], ExitClass::Halt as u64, "kind of exit")?;
            self.halts += 1;
            state.rip += 1;
            if self.halts == 1 {
                self.driven(state)?;
                return Ok(false);
            }
            state.blocked = 1;
            Ok(true)
        })
    }

    fn serve(&mut self) -> Outcome {
        let mut next = sys::wait(in_milliseconds(20_000));
        loop {
            let done = match ok(next, "event")? {
                (Event::Fault(DEVICE), words) => {
                    self.access(&FaultMessage::decode(&words))?;
                    false
                }
                (Event::Exit(EXITS), words) => self.exit(&words)?,
                other => return Err(alloc::format!("{other:?} after {} accesses", self.accesses)),
            };
            let answer = FaultReply::Resume.encode();
            if done {
                ok(sys::destroy(self.space), "destroy")?;
                let rest = ok(sys::reply_wait(0, answer, in_milliseconds(20)), "rest")?;
                return equal(rest.0, Event::Timeout, "nothing more");
            }
            next = sys::reply_wait(0, answer, in_milliseconds(20_000));
        }
    }
}

/// Real mode, the windows behind FS and GS.
fn begin(state: &mut VcpuState) {
    for (index, segment) in state.segments.iter_mut().enumerate() {
        let attributes = if index == 1 { 0x9b } else { 0x93 };
        let base = match index {
            4 => bus::window(ENTROPY).start,
            5 => bus::window(PMEM).start,
            _ => 0,
        };
        *segment = Segment { selector: 0, attributes, limit: 0xffff, base };
    }
    (state.rip, state.rflags) = (CODE, 2);
    (state.cr0, state.pat) = (0x10, 0x0007_0406_0007_0406);
}

fn served() -> Outcome {
    if !available() {
        return Ok(());
    }
    let mut program = Program::default();
    program.drive();
    program.do_anything();
    holds(program.0.len() as u64 <= u64::from(QUEUE) - CODE, "room for its code")?;
    let mut guest = Guest::new(&program)?;
    guest.serve()?;
    // 17 of the driver, and one of which nothing comes.
    equal((guest.accesses, guest.strange, guest.halts), (17 + MANY + 1, 1, 2), "accesses")?;
    let mut bytes = [0; 64];
    for at in (0..CODE).step_by(bytes.len()) {
        inside(guest.ram.read(at, &mut bytes), "memory")?;
        equal(bytes, [0; 64], "memory that is in no ring")?;
    }
    let mut code = alloc::vec![0; program.0.len()];
    inside(guest.ram.read(CODE, &mut code), "code")?;
    holds(code == program.0, "its code is what it was")?;
    Ok(())
}
