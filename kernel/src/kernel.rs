//! The kernel's state, and the loop that each processor goes through: handle what happened,
//! choose what runs next, run it.
use crate::calls;
use crate::fast::Leave;
use crate::machine::apic::{self, DEVICE_VECTOR_END, FIRST_DEVICE_VECTOR, TIMER_VECTOR};
use crate::machine::entry::{self, FrameHandle, Trap};
use crate::machine::lock::SpinLock;
use crate::machine::vcpu::{self, VcpuBox, VcpuHandle};
use crate::machine::{cpu, svm, tlb, trace};
use crate::memory::{Forbidden, KernelMemory};
use crate::object::{Body, Irq, Notification, Portal, Sc, Space, Thread};
use abi::HostPhys;
use abi::trace::Kind;
use alloc::boxed::Box;
use alloc::vec::Vec;
use scheduling::{Arena, Id, RunQueue, Timers};

/// Interrupt vectors that devices can get on one processor.
pub const DEVICE_VECTORS: usize = (DEVICE_VECTOR_END - FIRST_DEVICE_VECTOR) as usize;

/// What the kernel knows about one processor.
#[derive(Debug)]
pub struct Cpu {
    /// The thread that runs, or ran last.
    pub current: Option<Id<Thread>>,
    /// The scheduling context it runs on; never in the queue.
    pub sc: Option<Id<Sc>>,
    /// When the quantum of that ends.
    pub slice_end: u64,
    /// Everything else that could run.
    pub queue: RunQueue<Sc>,
    /// Deadlines of waiting threads.
    pub timers: Timers<Thread>,
    /// When faults that wait for their managers are looked at next, at the latest; `u64::MAX`: when
    /// one more begins to wait.
    pub watch: u64,
    /// When the timer will fire; `u64::MAX` when it is off.
    pub armed: u64,
    /// Devices' interrupts.
    pub irqs: Box<[Option<Irq>; DEVICE_VECTORS]>,
    /// vCPUs that ended, to be freed by this processor.
    pub graveyard: Vec<VcpuBox>,
    /// Something has changed that `current` depends on: choose again. While it is false, `current`
    /// is what `sc` leads to, nothing of higher priority is in the queue, and the timer is set.
    pub choose: bool,
    /// Some events are traced: everything goes the long way, where they are.
    pub traced: bool,
    /// The thread that left the kernel last, and how it did.
    previous: Option<Id<Thread>>,
    next: Next,
    /// Root of its page tables, when it is a program's.
    root: HostPhys,
    /// Its space.
    pub space: Id<Space>,
}

impl Cpu {
    fn new() -> Self {
        Self {
            current: None,
            sc: None,
            slice_end: 0,
            queue: RunQueue::new(),
            timers: Timers::new(),
            watch: u64::MAX,
            armed: u64::MAX,
            irqs: Box::new([None; DEVICE_VECTORS]),
            graveyard: Vec::new(),
            choose: true,
            traced: false,
            previous: None,
            next: Next::Idle,
            root: HostPhys(0),
            space: Id::NONE,
        }
    }

    /// A program's thread goes on in place of the current one, on the time that this one ran on.
    #[inline(always)]
    pub fn go_on(&mut self, id: Id<Thread>, thread: &Thread, counters: &mut Counters) {
        let root = thread.root;
        self.current = Some(id);
        self.space = thread.space;
        self.root = root;
        counters.short_switches += 1;
        if tlb::switch_root(root) {
            counters.space_switches += 1;
        }
    }
}

/// Events since boot.
#[derive(Debug, Default)]
pub struct Counters {
    /// Kernel entries other than those of `short_switches`.
    pub entries: u64,
    /// Thread switches, likewise.
    pub thread_switches: u64,
    /// Entries that did nothing but switch from a thread to another one, by the short way.
    pub short_switches: u64,
    /// Address-space switches.
    pub space_switches: u64,
    /// VM exits.
    pub vm_exits: u64,
    /// Page faults sent to managers.
    pub faults: u64,
    /// Those that were refused.
    pub faults_refused: u64,
    /// Those that were not resolved in time.
    pub faults_late: u64,
}

/// Everything that the kernel's lock protects.
#[derive(Debug)]
pub struct Kernel {
    /// Spaces.
    pub spaces: Arena<Space>,
    /// Threads and vCPUs.
    pub threads: Arena<Thread>,
    /// Portals.
    pub portals: Arena<Portal>,
    /// Notifications.
    pub notifications: Arena<Notification>,
    /// Scheduling contexts.
    pub scs: Arena<Sc>,
    /// Processors.
    pub cpus: Vec<Cpu>,
    /// Kernel memory.
    pub memory: KernelMemory,
    /// What no device capability reaches.
    pub forbidden: Forbidden,
    /// Root of the kernel's own tables.
    pub root: HostPhys,
    /// Rate of the TSC.
    pub tsc_khz: u64,
    /// Events since boot.
    pub counters: Counters,
}

/// The kernel's one lock, held by a processor from entry to exit.
pub static KERNEL: SpinLock<Kernel> = SpinLock::new(Kernel::new());

/// What a processor does outside the kernel.
#[derive(Clone, Copy, Debug)]
enum Next {
    User(FrameHandle),
    Guest(VcpuHandle),
    Idle,
}

impl Kernel {
    const fn new() -> Self {
        Self {
            spaces: Arena::new(),
            threads: Arena::new(),
            portals: Arena::new(),
            notifications: Arena::new(),
            scs: Arena::new(),
            cpus: Vec::new(),
            memory: KernelMemory::new(),
            forbidden: Forbidden::new(),
            root: HostPhys(0),
            tsc_khz: 0,
            counters: Counters {
                entries: 0,
                thread_switches: 0,
                short_switches: 0,
                space_switches: 0,
                vm_exits: 0,
                faults: 0,
                faults_refused: 0,
                faults_late: 0,
            },
        }
    }

    /// Makes room for a processor.
    pub fn add_cpu(&mut self) {
        self.cpus.push(Cpu::new());
    }

    /// A program came back to the kernel, and not for what [`fast`](Self::fast) handles.
    #[inline(never)]
    fn trapped(&mut self, cpu: usize, trap: Trap) -> Next {
        self.counters.entries += 1;
        // The short way leaves these as they were.
        self.cpus[cpu].previous = self.cpus[cpu].current;
        self.cpus[cpu].next = entry::last_frame().map_or(Next::Idle, Next::User);
        match (trap, self.cpus[cpu].current) {
            (Trap::Call, Some(current)) => calls::dispatch(self, cpu, current),
            (Trap::Interrupt(vector), current) => {
                let thread = current.map_or(u32::MAX, Id::index);
                trace::record(cpu, Kind::Enter, thread, u64::from(vector), 0);
                self.interrupt(cpu, vector);
            }
            (Trap::Exception(vector), Some(current)) => {
                trace::record(cpu, Kind::Enter, current.index(), u64::from(vector), 0);
                self.exception(current, vector);
            }
            // Another processor ended the thread on its way here.
            (_, None) => self.cpus[cpu].choose = true,
        }
        self.choose(cpu)
    }

    /// A guest came back to the kernel.
    fn exited(&mut self, cpu: usize, exit: svm::RawExit) {
        self.counters.entries += 1;
        self.counters.vm_exits += 1;
        match self.cpus[cpu].current {
            Some(current) => self.vm_exit(cpu, current, exit),
            // Another processor ended it on its way here.
            None => {
                svm::take_interrupts();
                self.take_interrupts(cpu);
                self.cpus[cpu].choose = true;
            }
        }
    }

    /// An interrupt ended an idle time.
    fn woken(&mut self, cpu: usize) {
        self.counters.entries += 1;
        self.cpus[cpu].choose = true;
        self.take_interrupts(cpu);
    }

    /// Handles interrupts that came while the processor idled or left a guest.
    pub fn take_interrupts(&mut self, cpu: usize) {
        while let Some(vector) = entry::take_pending() {
            self.interrupt(cpu, vector);
        }
    }

    fn interrupt(&mut self, cpu: usize, vector: u8) {
        apic::end_of_interrupt();
        self.cpus[cpu].choose = true;
        match vector {
            TIMER_VECTOR => self.timer(cpu),
            FIRST_DEVICE_VECTOR..DEVICE_VECTOR_END => {
                let index = usize::from(vector - FIRST_DEVICE_VECTOR);
                if let Some(irq) = self.cpus[cpu].irqs[index] {
                    let _ = self.signal(irq.notification, irq.bits);
                }
            }
            // Waking up was all that the sender wanted.
            _ => {}
        }
    }

    /// Chooses what runs next and prepares the processor for it.
    #[inline(always)]
    fn choose(&mut self, number: usize) -> Next {
        let cpu = &mut self.cpus[number];
        if cpu.choose {
            return self.choose_anew(number);
        }
        if cpu.previous == cpu.current {
            if let Next::User(_) = cpu.next {
                tlb::switch_root(cpu.root);
            }
            let next = cpu.next;
            trace::record(number, Kind::Leave, cpu.current.map_or(0, Id::index), 0, 0);
            return next;
        }
        match cpu.current.and_then(|id| self.switch(number, id)) {
            Some(next) => next,
            None => self.choose_anew(number),
        }
    }

    #[inline(never)]
    fn choose_anew(&mut self, cpu: usize) -> Next {
        loop {
            if !self.cpus[cpu].graveyard.is_empty() {
                self.bury(cpu);
            }
            let Some(id) = self.pick(cpu) else {
                self.cpus[cpu].current = None;
                self.arm_timer(cpu);
                return Next::Idle;
            };
            self.cpus[cpu].current = Some(id);
            if let Some(part) = self.threads.get_mut(id).ok().and_then(Thread::vcpu)
                && part.recall
            {
                self.recall_now(id);
                continue;
            }
            if let Some(next) = self.switch(cpu, id) {
                self.cpus[cpu].choose = false;
                self.arm_timer(cpu);
                return next;
            }
        }
    }

    /// Makes a thread the one that leaves the kernel.
    #[inline(always)]
    fn switch(&mut self, number: usize, id: Id<Thread>) -> Option<Next> {
        let thread = self.threads.get(id).ok()?;
        let cpu = &mut self.cpus[number];
        let next = match &thread.body {
            Body::Native(frame) => {
                cpu.root = thread.root;
                cpu.space = thread.space;
                if tlb::switch_root(cpu.root) {
                    self.counters.space_switches += 1;
                }
                Next::User(frame.handle())
            }
            Body::Vcpu(part) if part.recall => {
                cpu.choose = true;
                return None;
            }
            Body::Vcpu(part) => Next::Guest(part.vcpu.handle()),
        };
        cpu.next = next;
        if cpu.previous != Some(id) {
            let from = cpu.previous.replace(id).map_or(u64::MAX, |f| u64::from(f.index()));
            self.counters.thread_switches += 1;
            trace::record(number, Kind::Switch, id.index(), from, u64::from(id.index()));
        }
        trace::record(number, Kind::Leave, id.index(), 0, 0);
        Some(next)
    }

    /// Frees the vCPUs that ended.
    #[cold]
    fn bury(&mut self, cpu: usize) {
        for vcpu in core::mem::take(&mut self.cpus[cpu].graveyard) {
            vcpu.free(&mut self.memory.frames);
        }
    }
}

/// The life of a processor after boot.
pub fn run() -> ! {
    let cpu = cpu::id();
    let mut next = idle(cpu, false);
    loop {
        next = match next {
            Next::User(frame) => run_user(cpu, frame),
            Next::Guest(guest) => enter_guest(cpu, guest),
            Next::Idle => idle(cpu, true),
        };
    }
}

/// Runs threads as long as one simply follows the other.
#[inline(always)]
fn run_user(cpu: usize, frame: FrameHandle) -> Next {
    let mut entered = entry::run(frame);
    loop {
        let mut kernel = KERNEL.lock_with(tlb::flush_if_wanted);
        entered = match kernel.fast(cpu, entered) {
            Some(Leave::Deliver(delivery)) => entry::deliver(delivery, kernel),
            Some(Leave::Resume(frame)) => {
                drop(kernel);
                entry::run(frame)
            }
            None => return kernel.trapped(cpu, entered.trap()),
        }
    }
}

#[inline(never)]
fn enter_guest(cpu: usize, guest: VcpuHandle) -> Next {
    let exit = vcpu::run(guest);
    let mut kernel = KERNEL.lock_with(tlb::flush_if_wanted);
    kernel.exited(cpu, exit);
    kernel.choose(cpu)
}

/// Waits for an interrupt (not at the very start), then looks for something to do.
#[inline(never)]
fn idle(cpu: usize, wait: bool) -> Next {
    if wait {
        cpu::wait_for_interrupt();
    }
    let mut kernel = KERNEL.lock_with(tlb::flush_if_wanted);
    kernel.woken(cpu);
    kernel.choose(cpu)
}
