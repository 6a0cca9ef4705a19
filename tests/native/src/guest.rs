//! vCPUs: a guest of a few instructions, its exits, its memory. Without SVM these tests pass
//! without doing anything.
use crate::env::{
    ABOVE, BELOW, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, THREAD, equal, holds,
    in_milliseconds, ok, pinned, portal, ram, refused, selector, watch, window, words_at,
};
use crate::faults::manager;
use crate::illegal::Blob;
use crate::{Outcome, Test};
use abi::vcpu::{EXIT_CLASSES, ExitClass, Segment, VcpuState};
use abi::{BootInfo, Error, Event, MemRights, Message, REGISTERS, Selector, SpaceKind};
use alloc::string::String;
use core::mem::offset_of;
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("vCPU: malformed calls", malformed),
    ("vCPU: a guest's exits", exits),
    ("vCPU: state that makes no sense", senseless),
    ("vCPU: recall of a running guest", recall),
    ("vCPU: nobody handles its exits", unhandled),
    ("vCPU: destroyed while it runs", destroyed),
    ("vCPU: a manager that does not answer, and another one", late_manager),
];

pub fn available() -> bool {
    words_at(BootInfo::ADDRESS, PAGE).get(offset_of!(BootInfo, svm) as u64) == 1
}

struct Guest {
    space: Selector,
    vcpu: Selector,
    /// Address of the state page.
    page: u64,
}

/// Guest-physical layout: code at 0x1000, RAM up to 0x3000, a page of a manager at 0x3000, a
/// device register page at 0x4000.
const CODE: u64 = 0x1000;
const DEVICE: u64 = 0x4000;
const BADGE: u64 = 21;
const DEVICE_BADGE: u64 = 22;

impl Guest {
    fn new(cpu: u32) -> Result<Self, String> {
        let (space, vcpu) = (selector(), selector());
        ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
        let (code, offset) = window(2 * PAGE)?;
        words_at(code, 2 * PAGE).copy(0, Blob::Guest.code());
        let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        let bind = Bind {
            space,
            base: CODE,
            length: 2 * PAGE,
            portal: NONE,
            tag: 0,
            rights: all,
            hint: 12,
        };
        ok(sys::region_bind(bind), "bind RAM")?;
        ok(sys::map(space, CODE, RAM, offset, 2 * PAGE, all), "map RAM")?;
        let (page, offset) = window(PAGE)?;
        ok(sys::create_vcpu(vcpu, space, cpu, RAM, offset), "vCPU")?;
        Ok(Self { space, vcpu, page })
    }

    /// Sends all exits to this thread.
    fn serve(&self) -> Outcome {
        let door = portal(THREAD, BADGE)?;
        for class in 0..EXIT_CLASSES as u64 {
            ok(sys::vcpu_portal(self.vcpu, class, door), "exit portal")?;
        }
        Ok(())
    }

    fn start(&self, priority: u8) -> Outcome {
        ok(sys::create_sc(selector(), self.vcpu, priority, QUANTUM), "time")
    }

    fn set(&self, field: usize, value: u64) {
        words_at(self.page, PAGE).set(field as u64, value);
    }

    fn get(&self, field: usize) -> u64 {
        words_at(self.page, PAGE).get(field as u64)
    }

    /// Real mode at 0:`CODE`.
    fn reset(&self) {
        let segment = |index: usize, attributes: u16| {
            let at = offset_of!(VcpuState, segments) + index * size_of::<Segment>();
            self.set(at, u64::from(attributes) << 16 | 0xffff << 32);
            self.set(at + 8, 0);
        };
        for index in 0..6 {
            segment(index, if index == 1 { 0x9b } else { 0x93 });
        }
        self.set(offset_of!(VcpuState, rip), CODE);
        self.set(offset_of!(VcpuState, rflags), 2);
        self.set(offset_of!(VcpuState, cr0), 0x10);
        self.set(offset_of!(VcpuState, pat), 0x0007_0406_0007_0406);
    }

    fn skip(&self, bytes: u64) {
        let rip = self.get(offset_of!(VcpuState, rip));
        self.set(offset_of!(VcpuState, rip), rip + bytes);
    }
}

/// Checks that an event is an exit of this class, from this guest.
fn exit(event: &(Event, Message), class: ExitClass) -> Outcome {
    equal((event.0, event.1[0]), (Event::Exit(BADGE), class as u64), "exit")
}

fn resume() -> Result<(Event, Message), String> {
    ok(sys::reply_wait(0, [0; 8], in_milliseconds(2000)), "resume")
}

fn first() -> Result<(Event, Message), String> {
    ok(sys::wait(in_milliseconds(2000)), "wait")
}

fn malformed() -> Outcome {
    let space = selector();
    if !available() {
        return refused(
            sys::create_space(space, SpaceKind::Guest, 1 << 20),
            Error::Unsupported,
            "guest space without SVM",
        );
    }
    ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
    let (to, bad) = (selector(), Error::BadArgument);
    refused(sys::create_vcpu(to, SPACE, 0, RAM, 0), bad, "native space")?;
    refused(sys::create_vcpu(to, space, 99, RAM, 0), bad, "no such processor")?;
    refused(sys::create_vcpu(to, space, 0, RAM, 8), bad, "misaligned page")?;
    refused(sys::create_vcpu(to, space, 0, SPACE, 0), Error::BadCapability, "no memory")?;
    let archive = Selector(abi::RootSelector::Archive as u32);
    refused(sys::create_vcpu(to, space, 0, archive, 0), Error::NoRight, "read-only page")?;
    let offset = ram(PAGE);
    ok(sys::create_vcpu(to, space, 0, RAM, offset), "vCPU")?;
    let door = portal(THREAD, 1)?;
    refused(sys::vcpu_portal(to, EXIT_CLASSES as u64, door), bad, "no such class")?;
    refused(sys::vcpu_portal(THREAD, 0, door), Error::BadCapability, "a thread")?;
    refused(sys::create_portal(selector(), to, 0), bad, "a vCPU as handler")?;
    ok(sys::destroy(to), "destroy")?;
    refused(sys::vcpu_recall(to), Error::Gone, "recall of a dead one")?;
    ok(sys::destroy(space), "destroy")
}

fn exits() -> Outcome {
    if !available() {
        return Ok(());
    }
    let guest = Guest::new(0)?;
    guest.serve()?;
    // The page at 0x3000 comes from a manager, the one at 0x4000 is a device of this thread.
    let server = crate::env::thread(0, manager, 0)?;
    let bind = |base, portal, tag, hint| {
        let (space, length, rights) = (guest.space, PAGE, READ_WRITE);
        ok(sys::region_bind(Bind { space, base, length, portal, tag, rights, hint }), "bind")
    };
    bind(0x3000, portal(server, 5)?, 0, 12)?;
    bind(DEVICE, portal(THREAD, DEVICE_BADGE)?, 99, REGISTERS.into())?;
    guest.start(BELOW)?;
    exit(&first()?, ExitClass::Recall)?;
    guest.reset();
    let event = resume()?;
    exit(&event, ExitClass::Cpuid)?;
    equal(guest.get(0) & 0xffff, 0x1234, "ax")?;
    holds(guest.get(offset_of!(VcpuState, rip)) > CODE, "rip")?;
    guest.skip(2);
    // The read of 0x3000 is resolved by its manager without a word; then the device.
    let event = resume()?;
    equal(event.0, Event::Fault(DEVICE_BADGE), "device access")?;
    equal((event.1[0], event.1[1]), (99, 8), "tag and offset")?;
    equal(guest.get(offset_of!(VcpuState, fault_address)), DEVICE + 8, "fault address")?;
    equal(guest.get(offset_of!(VcpuState, fault_access)), 1, "fault access")?;
    guest.skip(4);
    exit(&resume()?, ExitClass::Io)?;
    equal(guest.get(offset_of!(VcpuState, exit_info1)) >> 16, 0x99, "port")?;
    guest.skip(2);
    exit(&resume()?, ExitClass::Vmmcall)?;
    guest.skip(3);
    exit(&resume()?, ExitClass::Halt)?;
    guest.skip(1);
    guest.set(offset_of!(VcpuState, blocked), 1);
    let event = resume()?;
    equal(event.0, Event::Timeout, "blocked")?;
    ok(sys::vcpu_recall(guest.vcpu), "recall")?;
    exit(&first()?, ExitClass::Recall)?;
    // Out of its memory.
    guest.set(offset_of!(VcpuState, blocked), 0);
    guest.set(offset_of!(VcpuState, rip), 0x9000);
    exit(&resume()?, ExitClass::Error)?;
    equal(guest.get(offset_of!(VcpuState, fault_address)), 0x9000, "fault address")?;
    ok(sys::destroy(guest.space), "destroy")?;
    equal(resume()?.0, Event::Timeout, "nothing more")?;
    ok(sys::destroy(server), "destroy")
}

/// The guest's read of 0x3000 is not answered, which is told where its end would be, too; its monitor gives that
/// memory another manager.
fn late_manager() -> Outcome {
    const WATCHED: u64 = 77;
    /// The cause: not resolved in time.
    const LATE: u64 = 7;
    if !available() {
        return Ok(());
    }
    let guest = Guest::new(0)?;
    guest.serve()?;
    let (hung, server) = (crate::failing::hung()?, crate::env::thread(0, manager, 0)?);
    let bind = |base, portal, tag, hint| {
        let (space, length, rights) = (guest.space, PAGE, READ_WRITE);
        ok(sys::region_bind(Bind { space, base, length, portal, tag, rights, hint }), "bind")
    };
    bind(0x3000, portal(hung, 5)?, 0, 12)?;
    bind(DEVICE, portal(THREAD, DEVICE_BADGE)?, 99, REGISTERS.into())?;
    ok(sys::fault_limit(guest.space, 20_000), "limit")?;
    guest.start(BELOW)?;
    exit(&first()?, ExitClass::Recall)?;
    guest.reset();
    watch(guest.vcpu, WATCHED)?;
    exit(&resume()?, ExitClass::Cpuid)?;
    guest.skip(2);
    for _ in 0..2 {
        let (event, words) = resume()?;
        equal(event, Event::ThreadEnd(WATCHED), "lateness is told")?;
        equal((words[0], words[2]), (LATE, 0x3000), "cause and address")?;
        exit(&first()?, ExitClass::Error)?;
        equal(guest.get(offset_of!(VcpuState, fault_address)), 0x3000, "fault address")?;
        equal(guest.get(offset_of!(VcpuState, fault_access)), 0, "fault access")?;
    }
    ok(sys::region_manager(guest.space, 0x3000, PAGE, portal(server, 6)?, 0), "another one")?;
    equal(resume()?.0, Event::Fault(DEVICE_BADGE), "it goes on")?;
    ok(sys::destroy(guest.space), "destroy")?;
    equal(resume()?.0, Event::ThreadEnd(WATCHED), "its end is told")?;
    equal(first()?.0, Event::Timeout, "nothing more")?;
    ok(sys::destroy(hung), "destroy")?;
    ok(sys::destroy(server), "destroy")
}

fn senseless() -> Outcome {
    if !available() {
        return Ok(());
    }
    let guest = Guest::new(0)?;
    guest.serve()?;
    guest.start(BELOW)?;
    exit(&first()?, ExitClass::Recall)?;
    let mut state = 0x1234_5678_9abc_def1u64;
    for _ in 0..200 {
        for at in (0..size_of::<VcpuState>()).step_by(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            guest.set(at, if state & 3 == 0 { state } else { 0 });
        }
        guest.set(offset_of!(VcpuState, blocked), 0);
        // No breakpoints: QEMU stops for good when one lies in the page that executes.
        guest.set(offset_of!(VcpuState, dr7), 0);
        let mut event = ok(sys::reply_wait(0, [0; 8], in_milliseconds(20)), "resume")?;
        if event.0 == Event::Timeout {
            // It found something to execute.
            ok(sys::vcpu_recall(guest.vcpu), "recall")?;
            event = first()?;
        }
        equal(event.0, Event::Exit(BADGE), "some exit")?;
        // The processor never refuses what the kernel makes of it.
        let refused = event.1[1] as u32 == u32::MAX;
        holds(!refused, "VMRUN took the state")?;
    }
    ok(sys::destroy(guest.space), "destroy")?;
    equal(resume()?.0, Event::Timeout, "nothing more")
}

/// Lets a guest run its endless loop at the end.
fn spin(guest: &Guest) -> Outcome {
    guest.serve()?;
    guest.start(BELOW)?;
    exit(&first()?, ExitClass::Recall)?;
    guest.reset();
    let length = Blob::Guest.code().len() as u64;
    // `inc cx; jmp`: the last three bytes.
    guest.set(offset_of!(VcpuState, rip), CODE + length - 3);
    Ok(())
}

fn recall() -> Outcome {
    if !available() {
        return Ok(());
    }
    let guest = Guest::new(0)?;
    spin(&guest)?;
    for _ in 0..5 {
        let event = ok(sys::reply_wait(0, [0; 8], in_milliseconds(10)), "resume")?;
        equal(event.0, Event::Timeout, "it runs")?;
        ok(sys::vcpu_recall(guest.vcpu), "recall")?;
        exit(&first()?, ExitClass::Recall)?;
    }
    holds(guest.get(8) != 0, "it counted")?;
    ok(sys::destroy(guest.space), "destroy")?;
    equal(resume()?.0, Event::Timeout, "nothing more")
}

fn unhandled() -> Outcome {
    if !available() {
        return Ok(());
    }
    let guest = Guest::new(0)?;
    crate::env::watch(guest.vcpu, 61)?;
    guest.start(ABOVE)?;
    let end = crate::env::wait_end(61)?;
    equal((end[0], end[2]), (6, ExitClass::Recall as u64), "reason and class")?;
    ok(sys::destroy(guest.space), "destroy")
}

fn destroyed() -> Outcome {
    if !available() {
        return Ok(());
    }
    for _ in 0..3 {
        let guest = Guest::new(0)?;
        spin(&guest)?;
        let event = ok(sys::reply_wait(0, [0; 8], in_milliseconds(5)), "resume")?;
        equal(event.0, Event::Timeout, "it runs")?;
        ok(sys::destroy(guest.space), "destroy")?;
    }
    let _ = pinned;
    Ok(())
}
