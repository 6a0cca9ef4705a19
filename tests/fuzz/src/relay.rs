//! The relay in front of a hostile compute VM (registers, page tables, memory, answers of its kernel)
//! and a hostile service VM (answers of delegates, records).
//!
//! Promised, and checked after every step: nothing panics; nothing is written outside of pages that a
//! program may use (`servicing::fake` watches that); a program gets into the guest's kernel by its own
//! entry only; no destination is passed on that the policy does not allow;
//! when both VMs have ended, nothing is left.
pub mod files;
mod kernel;
mod step;

use abi::vcpu::{ExitClass, VcpuState, reg};
use arbitrary::{Arbitrary, Unstructured};
use linux_abi::nr;
use memory::Memory;
use paging::Space;
use policy::{Net, Policy};
use servicing::fake::address;
use servicing::fake::guest::{CODE, DATA, FORM, Guest, KERNEL_SYSRET, KERNEL_TEXT};
use std::net::IpAddr;
use std::rc::Rc;
use step::{Place, Step, Value};
use wire::hypercall::{Form, TRUST};
use wire::vsock::Record;

const PROGRAM: &str = "/usr/bin/curl";
const FS: u64 = 0x1111_0000;
const STACK: u64 = 0x7fff_fffe_e800;
/// FS among the segment registers.
const FS_INDEX: usize = 4;
/// Frames of the fake guest that a run may use: most of its memory.
const LAST_FRAME: u64 = 31 << 20;
/// Workers that the fake service VM has room for, less what one step can add.
const WORKERS: usize = 48;
/// Room in the kernel's text for `MOV CR3, RAX`.
const LOAD_CR3: u64 = KERNEL_TEXT + 0x200;

/// The guest, and who is in it.
struct Machine {
    g: Guest,
    /// Page-table roots.
    spaces: Vec<u64>,
    /// Threads that sleep in the guest's kernel.
    asleep: Vec<VcpuState>,
    gate: u64,
    next_fd: i32,
    next_map: u64,
    next_connection: u32,
}

/// A form of interception, then steps.
pub fn target(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let form = *input.choose(&Form::ALL).unwrap_or(&Form::Watched);
    let Some(mut machine) = Machine::start(form, policy()) else { return };
    for _ in 0..100 {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        machine.take(&step, &mut input);
        machine.check(&step);
        if input.is_empty() || !machine.has_room() {
            break;
        }
    }
    machine.end();
}

fn policy() -> Policy {
    let mut policy = Policy::by_path(&[PROGRAM]);
    let ten = Net::new(IpAddr::from([10, 0, 0, 0]), 8);
    for program in &mut policy.programs {
        for rule in &mut program.connect {
            rule.nets = ten.into_iter().collect();
        }
    }
    policy
}

impl Machine {
    /// A guest in which a trusted program holds a connected socket, descriptor 3 or above.
    fn start(form: Form, policy: Policy) -> Option<Self> {
        FORM.set(form);
        let mut g = Guest::with_policy(policy);
        let p = g.start(b"/launcher");
        if form != Form::Off {
            assert_eq!(g.hypercall(p, TRUST, 0), 0);
            g.write(p, DATA, format!("{PROGRAM}\0").as_bytes());
            g.call(p, nr::execve, &[DATA, 0, 0]);
            let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
            g.write(p, DATA, &address([10, 0, 2, 2], 80));
            assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
        }
        let other = g.start(b"/bin/other");
        let spaces: Vec<u64> = [p, other].iter().filter_map(|p| g.cr3(*p)).collect();
        let tables = Space::running(&g.world.compute, *spaces.first()?);
        let mut code = [0; 5];
        let pages = (0x1000_0000..0x1010_0000u64).step_by(0x1000);
        let is_gate = |at: &u64| tables.read(*at, &mut code).is_ok() && code[..3] == [15, 5, 15];
        let gate = { pages }.find(is_gate).unwrap_or(CODE);
        let text = tables.find(KERNEL_TEXT, paging::Access::KernelRead).ok()?.physical;
        g.world.compute.write(text + 0x200, &[0x0f, 0x22, 0xd8]).ok()?;
        g.hostile = true;
        let (asleep, next_map) = (Vec::new(), 0x2000_0000);
        let (next_fd, next_connection) = (40, 1000);
        Some(Self { g, spaces, asleep, gate, next_fd, next_map, next_connection })
    }

    fn has_room(&mut self) -> bool {
        self.g.frame() < LAST_FRAME && self.g.world.net.workers.borrow().len() < WORKERS
    }

    fn space(&self, number: u8) -> u64 {
        let n = usize::from(number) % self.spaces.len().max(1);
        self.spaces.get(n).copied().unwrap_or(0)
    }

    fn tables(&self) -> Space<'_, impl Memory + use<>> {
        Space::running(&self.g.world.compute, self.g.s.cr3)
    }

    fn place(&self, place: Place) -> u64 {
        match place {
            Place::Code => CODE,
            Place::Behind => CODE + 2,
            Place::Gate => self.gate,
            Place::GateReturn => self.gate + 2,
            Place::Data(offset) => DATA + u64::from(offset) % 0x8000,
            Place::Kernel => KERNEL_TEXT,
            Place::KernelReturn => KERNEL_SYSRET,
            Place::Entry => self.g.s.lstar,
            Place::Here => self.g.s.rip,
            Place::Stack(offset) => STACK.wrapping_sub(offset.into()),
            Place::Any(address) => address,
        }
    }

    fn exit(&mut self, class: ExitClass) {
        let (cpl, rip) = (self.g.s.cpl, self.g.s.rip);
        self.g.exit(class);
        if cpl == 3 && self.g.s.cpl != 3 {
            let s = &self.g.s;
            let entries = [s.lstar, s.cstar, KERNEL_TEXT];
            assert!(entries.contains(&s.rip), "{class:?} at {rip:#x} leads to {:#x}", s.rip);
        }
    }

    /// Another address space, with the exit that the form asks for.
    fn load(&mut self, cr3: u64) {
        if self.g.s.cr3 != cr3 && self.g.s.intercept_cr3_write != 0 {
            let keep = self.g.s;
            self.g.s.cpl = 0;
            self.g.s.rip = LOAD_CR3;
            self.g.s.regs.r[reg::RAX] = cr3;
            self.exit(ExitClass::Cr3Write);
            self.g.switch(&keep);
        }
        self.g.s.cr3 = cr3;
    }

    /// A thread of a program stands in front of its `SYSCALL`.
    fn user(&mut self, space: u8, thread: u8) {
        self.load(self.space(space));
        let s = &mut self.g.s;
        s.cpl = 3;
        s.rip = CODE;
        s.rflags = 0x246;
        s.segments[FS_INDEX].base = FS + u64::from(thread % 3);
        s.regs.r[reg::RSP] = STACK - u64::from(thread % 3) * 0x400;
        let code =
            |selector| abi::vcpu::Segment { selector, limit: u32::MAX, ..Default::default() };
        s.segments[1] = abi::vcpu::Segment { attributes: 0xafb, ..code(0x33) };
        s.segments[2] = abi::vcpu::Segment { attributes: 0xcf3, ..code(0x2b) };
    }

    /// Lets program and kernel run until the thread sleeps, is behind its call, or is lost.
    fn run(&mut self, input: &mut Unstructured<'_>) {
        for _ in 0..16 {
            if self.g.s.cpl == 0 {
                if self.g.s.rip != KERNEL_TEXT {
                    return;
                }
                let Some(result) = self.answer(input) else {
                    self.asleep.push(self.g.s);
                    return;
                };
                self.g.s.regs.r[reg::RAX] = result as u64;
                self.g.sysret();
            }
            let mut code = [0; 3];
            let _ = self.tables().read(self.g.s.rip, &mut code);
            match code {
                [0x0f, 0x05, _] if self.g.s.efer & 1 == 0 => self.exit(ExitClass::InvalidOpcode),
                [0x0f, 0x05, _] => self.g.enter(),
                [0x0f, 0x01, 0xd9] => self.exit(ExitClass::Vmmcall),
                _ => return,
            }
            if self.g.s.inject != 0 {
                // An exception: the guest's business.
                self.g.s.inject = 0;
                return;
            }
        }
    }

    /// Both VMs end: nothing of any process may be left.
    fn end(mut self) {
        self.g.engine.compute_record(&Record::Ended);
        self.g.engine.service_record(&Record::Ended);
        let world = self.g.world.clone();
        drop(self);
        assert_eq!(Rc::strong_count(&world), 1, "something holds on to the relay's core");
    }

    fn check(&self, step: &Step) {
        for socket in self.g.world.net.sockets.borrow().values() {
            let Some(to) = &socket.connected else { continue };
            let allowed = match to.as_slice() {
                [2, 0, _, _, first, ..] => *first == 10,
                [10, 0, _, _, _, _, _, _, ip @ ..] => ip.starts_with(&MAPPED_TEN),
                [16, 0, ..] => true,
                _ => false,
            };
            assert!(allowed, "{step:?} connects to {to:?}");
        }
        // The relay's lines are for people.
        self.g.world.lines.borrow_mut().clear();
    }
}

/// How `10.0.0.0/8` begins in IPv6 notation.
const MAPPED_TEN: [u8; 13] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10];
