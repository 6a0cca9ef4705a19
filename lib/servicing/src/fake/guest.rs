//! A fake compute VM: page tables in fake memory, and a little kernel that carries out the calls
//! that are re-executed.
mod entry;
mod epoll;
mod kernel;
mod owners;
mod slot;
mod tables;

use self::kernel::Effect;
use self::owners::{Owner, Raised};
use super::instance::Instance;
use super::service::{News, ROOT, Service};
pub use super::world::{Fakes, IMAGE};
use crate::{Core, Engine, Settings};
use abi::vcpu::{ExitClass, Segment, VcpuState, reg};
use linux_abi::nr;
use memory::{Fake, Memory};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use wire::hypercall;
use wire::vsock::{Connection, Record};

pub const CODE: u64 = 0x40_0000;
pub const DATA: u64 = 0x50_0000;
const STACK_TOP: u64 = 0x7fff_ffff_0000 - 0x1000;
pub const KERNEL_TEXT: u64 = 0xffff_ffff_8100_0000;
pub const KERNEL_SYSRET: u64 = KERNEL_TEXT + 0x100;

thread_local! {
    /// The form of guests made from now on.
    pub static FORM: Cell<hypercall::Form> = const { Cell::new(hypercall::Form::Watched) };
}
/// What may not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;
/// Of a program's pages: present, writable, its own, not executable.
pub const USER: u64 = 7 | NO_EXECUTE;

#[derive(Clone, Debug, Default)]
pub struct File {
    pub kind: Kind,
    pub bytes: Rc<RefCell<VecDeque<u8>>>,
    pub connection: Option<Connection>,
    pub cloexec: bool,
    /// What `F_SETFL` has set.
    pub flags: Rc<Cell<u64>>,
    pub listens: Rc<Cell<bool>>,
    pub owner: Rc<Cell<Owner>>,
    /// Tells sockets apart, however many descriptors they have.
    pub cookie: u64,
    /// How often something arrived.
    pub arrivals: Rc<Cell<u64>>,
    pub epoll: Rc<RefCell<Instance>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    #[default]
    Inet,
    Vsock,
    Pipe,
    Unix,
    Epoll,
    /// Readable when a signal is there.
    Signals,
}

#[derive(Clone)]
pub struct Process {
    pub cr3: u64,
    pub files: BTreeMap<i32, File>,
    next_map: u64,
    vmas: BTreeSet<u64>,
    /// Ports that somebody in this VM has, and those that this process has bound.
    pub taken: BTreeSet<u16>,
    pub bound: Vec<u16>,
    /// `RLIMIT_NOFILE`.
    pub limit: i32,
    /// What the next message brings.
    pub incoming: Option<File>,
    /// Who is at the other end of local sockets.
    pub peer: i32,
    /// Has a filter of somebody else's.
    pub filtered: bool,
    /// Effective user id, and that for files.
    pub uid: u32,
    pub fsuid: u32,
    pub capabilities: u64,
    pub groups: Vec<u32>,
    /// Capabilities count in the first user namespace.
    pub initial: bool,
    /// Its `vfork` child has not started a program yet.
    pub suspended: bool,
    /// The next interruptible wait ends with this error.
    pub signal: Option<Signal>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    Interrupt,
    Restart,
}

impl Signal {
    pub const fn number(self) -> u64 {
        match self {
            Self::Interrupt => 12,
            Self::Restart => 10,
        }
    }

    /// Its bit in a set of signals.
    pub const fn bit(self) -> u64 {
        1 << (self.number() - 1)
    }
}

/// A thread that is not running: its registers, in the kernel or in the program.
#[derive(Clone)]
pub struct Blocked {
    pub state: VcpuState,
    pub process: usize,
}

#[allow(clippy::large_enum_variant)]
pub enum End {
    Done(i64),
    Blocked(Blocked),
    /// A new process is at its first instruction behind `fork`.
    Child(i64, usize),
}

pub struct Guest {
    pub world: Rc<Fakes>,
    pub engine: Engine,
    pub s: VcpuState,
    pub processes: Vec<Process>,
    next_frame: u64,
    /// The upper half of all address spaces: entry 511 of the top table.
    kernel: u64,
    next_connection: u32,
    next_cookie: u64,
    pub calls: Vec<u64>,
    pub exits: usize,
    pub iret: bool,
    /// Paths that were opened.
    pub opened: Vec<String>,
    /// Signals of descriptors that were raised.
    pub raised: Vec<Raised>,
    /// Delegates may be refused, since somebody plays tricks on them.
    pub hostile: bool,
    /// This delegate dies while memory is populated for a call.
    pub dies_at_populate: Option<u32>,
}

impl Guest {
    /// With these programs trusted by their paths.
    pub fn new(trust: &str) -> Self {
        let paths: Vec<&str> = trust.split(':').collect();
        Self::with_policy(policy::Policy::by_path(&paths))
    }

    pub fn with_policy(policy: policy::Policy) -> Self {
        let world = Rc::new(Fakes::default());
        Service::prepare(&world.service);
        let core = Core::new(world.clone(), Settings::default(), policy);
        let mut engine = Engine::new(core, FORM.get());
        engine.set_verbose(true);
        engine.bench_allowed = true;
        let mut s = VcpuState { efer: 0xd01, lstar: KERNEL_TEXT, ..VcpuState::ZERO };
        s.star = 0x0023_0010 << 32;
        s.sfmask = 0x4_7700;
        let mut guest = Self {
            world,
            engine,
            s,
            processes: Vec::new(),
            next_frame: 0x10_0000,
            kernel: 0,
            next_connection: 1,
            next_cookie: 0,
            calls: Vec::new(),
            exits: 0,
            iret: false,
            opened: Vec::new(),
            raised: Vec::new(),
            hostile: false,
            dies_at_populate: None,
        };
        guest.world.net.add_worker(&guest.world.service, wire::Kind::Dispatcher, 0, 0);
        guest.events();
        guest
    }

    /// A new address space whose stack shows `path` as its program.
    pub fn image(&mut self, path: &[u8]) -> u64 {
        let cr3 = self.frame();
        self.world.compute.write(IMAGE.start, &[0x0f, 0x05]).unwrap();
        self.map(cr3, CODE, IMAGE.start, 5);
        for n in 0..8 {
            let frame = self.frame();
            self.map(cr3, DATA + n * 0x1000, frame, USER);
        }
        for n in 1..=3 {
            let frame = self.frame();
            self.map(cr3, STACK_TOP - n * 0x1000, frame, USER);
        }
        if self.kernel == 0 {
            let kernel = self.frame();
            self.world.compute.write(kernel + 0x100, &[0x48, 0x0f, 0x07]).unwrap();
            self.map(cr3, KERNEL_TEXT, kernel, 1);
            self.kernel = self.world.compute.read64(cr3 + 511 * 8).unwrap();
        }
        self.put(cr3 + 511 * 8, self.kernel);
        let at = STACK_TOP - 8 - path.len() as u64 - 1;
        let tables = paging::Space::running(&self.world.compute, cr3);
        tables.write(at, path).unwrap();
        tables.write(at + path.len() as u64, &[0]).unwrap();
        cr3
    }

    pub fn start(&mut self, path: &[u8]) -> usize {
        let cr3 = self.image(path);
        self.processes.push(Process {
            cr3,
            files: BTreeMap::new(),
            next_map: 0x1000_0000,
            vmas: BTreeSet::new(),
            taken: BTreeSet::new(),
            bound: Vec::new(),
            limit: 1024,
            incoming: None,
            peer: 0,
            filtered: false,
            uid: 1000,
            fsuid: 1000,
            capabilities: 0,
            groups: Vec::new(),
            initial: true,
            suspended: false,
            signal: None,
        });
        self.processes.len() - 1
    }

    pub fn write(&self, process: usize, at: u64, bytes: &[u8]) {
        self.tables(process).write_through(at, bytes).unwrap();
    }

    pub fn read(&self, process: usize, at: u64, length: usize) -> Vec<u8> {
        let mut b = vec![0; length];
        self.tables(process).read(at, &mut b).unwrap();
        b
    }

    /// Carries news between the VMs and the relay, until there is none.
    pub fn events(&mut self) {
        loop {
            self.world.net.run(&self.world.service);
            let mut quiet = true;
            while let Some(news) = self.world.net.next_news() {
                quiet = false;
                match news {
                    News::Register(base) => {
                        let outcome = self.engine.register(ROOT, base);
                        assert!(outcome.is_ok() || self.hostile, "{outcome:?}");
                    }
                    News::Doorbell => self.engine.doorbell(),
                    News::Connected(connection, guest_port) => {
                        let record = Record::Connected {
                            connection,
                            port: wire::vsock::DOORBELL_PORT,
                            guest_port,
                        };
                        self.engine.service_record(&record);
                    }
                }
            }
            self.world.rings.borrow_mut().clear();
            if quiet {
                break;
            }
        }
        let wakes: Vec<Record> = self.world.wakes.borrow_mut().drain(..).collect();
        for record in wakes {
            if let Record::Send { connection, bytes } = record {
                for file in self.processes.iter().flat_map(|p| p.files.values()) {
                    if file.connection == Some(connection) {
                        owners::raise(file, &mut self.raised);
                        file.bytes.borrow_mut().extend(bytes.as_slice());
                        break;
                    }
                }
            }
        }
    }

    fn user(&mut self, process: usize, fs: u64, rip: u64, rsp: u64) {
        self.load(process);
        self.s.cpl = 3;
        self.s.rip = rip;
        self.s.rflags = 0x246;
        self.s.segments[1] =
            Segment { selector: 0x33, attributes: 0xafb, limit: u32::MAX, base: 0 };
        self.s.segments[2] =
            Segment { selector: 0x2b, attributes: 0xcf3, limit: u32::MAX, base: 0 };
        self.s.segments[4].base = fs;
        self.s.regs.r[reg::RSP] = rsp;
    }

    /// Switches to a process, with the exit that the form asks for.
    pub fn load(&mut self, process: usize) {
        let cr3 = self.processes[process].cr3;
        if self.s.cr3 == cr3 {
            return;
        }
        if self.s.intercept_cr3_write == 0 {
            self.s.cr3 = cr3;
            return;
        }
        // Any space has the kernel's text; MOV CR3, RAX.
        let keep = self.s;
        let text = self.leaf(cr3, KERNEL_TEXT) & !0xfff & !(1 << 63);
        self.world.compute.write(text + 0x200, &[0x0f, 0x22, 0xd8]).unwrap();
        self.s.cr3 = cr3;
        self.s.cpl = 0;
        self.s.rip = KERNEL_TEXT + 0x200;
        self.s.regs.r[reg::RAX] = cr3;
        self.exit(ExitClass::Cr3Write);
        assert_eq!((self.s.cr3, self.s.rip), (cr3, KERNEL_TEXT + 0x203));
        self.switch(&keep);
    }

    /// Goes on with other registers; what the form has set in the processor stays.
    pub fn switch(&mut self, to: &VcpuState) {
        let now = self.s;
        self.s = *to;
        self.s.cr3 = now.cr3;
        self.s.efer = now.efer;
        self.s.lstar = now.lstar;
        self.s.sfmask = now.sfmask;
        self.s.intercept_cr3_write = now.intercept_cr3_write;
        self.s.intercept_exceptions = now.intercept_exceptions;
        self.s.intercept_syscall_msrs = now.intercept_syscall_msrs;
    }

    pub fn exit(&mut self, class: ExitClass) {
        self.exits += 1;
        self.events();
        self.engine.exit(&mut self.s, class as u64);
        self.events();
    }

    /// A call of a program, from its own code, on its main thread.
    pub fn call(&mut self, process: usize, number: u64, args: &[u64]) -> i64 {
        match self.begin(process, 0x1111_0000, STACK_TOP - 0x800, number, args) {
            End::Done(result) => result,
            End::Blocked(b) => panic!("call {number} blocks at {:#x}", b.state.rip),
            End::Child(..) => panic!("unexpected child"),
        }
    }

    pub fn begin(&mut self, process: usize, fs: u64, rsp: u64, number: u64, args: &[u64]) -> End {
        self.user(process, fs, CODE, rsp);
        let places = [reg::RDI, reg::RSI, reg::RDX, reg::R10, reg::R8, reg::R9];
        self.s.regs.r[reg::RAX] = number;
        for (place, value) in places.iter().zip(args) {
            self.s.regs.r[*place] = *value;
        }
        self.go(process)
    }

    pub fn hypercall(&mut self, process: usize, number: u64, argument: u64) -> i64 {
        self.hypercall_with(process, number, [argument, 0])
    }

    pub fn hypercall_with(&mut self, process: usize, number: u64, arguments: [u64; 2]) -> i64 {
        self.user(process, 0x1111_0000, CODE + 0x100, STACK_TOP - 0x800);
        self.s.regs.r[reg::RAX] = number;
        [self.s.regs.r[reg::RDI], self.s.regs.r[reg::RSI]] = arguments;
        self.exit(ExitClass::Vmmcall);
        assert_eq!(self.s.rip, CODE + 0x103);
        self.s.regs.r[reg::RAX] as i64
    }

    /// Lets a blocked thread try again.
    pub fn again(&mut self, blocked: &Blocked) -> End {
        self.load(blocked.process);
        self.switch(&blocked.state);
        self.kernel(blocked.process)
    }

    /// A blocked thread's time is over.
    pub fn timed_out(&mut self, blocked: &Blocked) -> End {
        self.load(blocked.process);
        self.switch(&blocked.state);
        self.leave(blocked.process, 0)
    }

    /// The handler of a signal that has interrupted a thread's call returns, also in a process that was forked
    /// meanwhile.
    pub fn handler_returns(&mut self, blocked: &Blocked, process: usize, signal: Signal) -> End {
        self.load(process);
        self.switch(&blocked.state);
        match signal {
            Signal::Interrupt => self.leave(process, -4),
            Signal::Restart => {
                self.s.regs.r[reg::RCX] -= 2;
                let number = blocked.state.regs.r[reg::RAX] as i64;
                self.leave(process, number)
            }
        }
    }

    /// Runs from a `SYSCALL` in user code.
    pub fn go(&mut self, process: usize) -> End {
        loop {
            if self.s.cpl == 0 {
                return self.kernel(process);
            }
            let gate = self.read(process, self.s.rip, 5);
            if gate.starts_with(&[0x0f, 0x05]) {
                if self.s.efer & 1 == 0 {
                    self.exit(ExitClass::InvalidOpcode);
                    assert_eq!(self.s.inject, 0, "#UD");
                } else {
                    let back = self.s.rip + 2;
                    crate::cpu::syscall(&mut self.s, back);
                    self.stub();
                }
            } else if gate.starts_with(&[0x0f, 0x01, 0xd9]) {
                self.exit(ExitClass::Vmmcall);
                assert_eq!(self.s.inject, 0, "#UD");
            } else if !self.slot(process) {
                return End::Done(self.s.regs.r[reg::RAX] as i64);
            }
            if self.s.cpl == 3 && self.s.rip == CODE + 2 {
                return End::Done(self.s.regs.r[reg::RAX] as i64);
            }
        }
    }

    /// Carries out the call that is in the registers, then returns to the program.
    fn kernel(&mut self, process: usize) -> End {
        assert_eq!(self.s.rip, KERNEL_TEXT);
        let entered = self.s;
        match self.carry_out(process) {
            Some(Effect::Result(result)) => self.leave(process, result),
            Some(Effect::Restart) => {
                self.s.regs.r[reg::RCX] -= 2;
                let number = entered.regs.r[reg::RAX] as i64;
                self.leave(process, number)
            }
            Some(Effect::Forked(pid, child)) => {
                let End::Done(result) = self.leave(process, pid) else { panic!("fork blocks") };
                let _ = result;
                End::Child(result, child)
            }
            None => End::Blocked(Blocked { state: entered, process }),
        }
    }

    fn leave(&mut self, process: usize, result: i64) -> End {
        self.s.regs.r[reg::RAX] = result as u64;
        if self.s.efer & 1 == 0 && !self.iret {
            self.s.rip = KERNEL_SYSRET;
            self.exit(ExitClass::InvalidOpcode);
        } else {
            crate::cpu::sysret(&mut self.s, true);
        }
        self.go(process)
    }

    /// The child of `fork` comes to life.
    pub fn child(&mut self, parent: &VcpuState, child: usize) -> End {
        self.load(child);
        self.switch(parent);
        self.s.regs.r[reg::RAX] = 0;
        crate::cpu::sysret(&mut self.s, true);
        self.go(child)
    }
}
