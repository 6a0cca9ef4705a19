//! Trusted processes as address spaces, their threads, and the calls that are in service.
mod alone;

pub use alone::Alone;

use crate::core::Core;
use crate::cpu::Saved;
use crate::delegate::Lease;
use crate::gate::{self, Gate, Slots};
use crate::left::Left;
use crate::table::Table;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll, Waker};
use paging::{PAGE, Space as Tables};

/// What a process may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Asked to be trusted; only its next `execve` counts.
    Launcher,
    /// Is serviced remotely.
    Trusted,
}

/// Pages of the scratch area behind the gate.
pub const SCRATCH_PAGES: u64 = 128;
/// Pages of gate and scratch area that are there from the start; more come when they are used.
pub const FIRST_PAGES: u64 = 5;

/// What a call in service ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The program sees this result.
    Return(i64),
    /// The program's own kernel carries the original call out.
    Reflect,
    /// The program's own kernel carries another call out through a slot of the gate, whose positive
    /// result the program sees; otherwise the call goes on as what it left says ([`Alone`]).
    Alone(LocalCall),
}

/// Where a call made on the program's behalf comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// Through the gate.
    Gate,
    /// To the original `SYSCALL` (there is no gate yet).
    Original,
    /// Through the gate's slot at this address, if at all.
    Slot(u64),
}

/// A call to be made on the program's behalf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalCall {
    /// Number.
    pub number: u64,
    /// Arguments.
    pub arguments: [u64; 6],
    /// Where it returns to.
    pub via: Via,
}

/// How a call made on the program's behalf ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    /// With this result.
    Result(i64),
    /// The kernel restarts it after a signal: it has not happened.
    Restart,
}

/// Where a call in service and the engine meet.
#[derive(Default)]
pub struct Exchange {
    /// Call that the engine shall make.
    pub wanted: Cell<Option<LocalCall>>,
    /// Its result.
    pub back: Cell<Option<Back>>,
    /// The call that is out, while it is.
    pub out: Cell<Option<LocalCall>>,
    /// The worker that waits for something remote on the call's behalf.
    pub worker: RefCell<Option<Lease>>,
}

/// A call in service.
pub struct Op {
    /// The program's registers at the call.
    pub saved: Saved,
    /// Stack pointer with which it comes back.
    pub rsp: u64,
    /// What stands in RBX while a call is made on its behalf, and tells it from all others.
    pub tag: u64,
    /// Meeting point.
    pub exchange: Rc<Exchange>,
    future: Pin<Box<dyn Future<Output = Outcome>>>,
}

impl Op {
    /// A call whose steps are `future`.
    pub fn new(
        saved: Saved,
        tag: u64,
        exchange: Rc<Exchange>,
        future: impl Future<Output = Outcome> + 'static,
    ) -> Self {
        let rsp = saved.regs.r[abi::vcpu::reg::RSP];
        Self { saved, rsp, tag, exchange, future: Box::pin(future) }
    }

    /// Takes the next step. Every step ends the call or wants a call of the program's kernel.
    pub fn step(&mut self) -> Poll<Outcome> {
        // Nothing wakes these futures: they are polled when the thread comes back.
        let mut context = TaskContext::from_waker(Waker::noop());
        self.future.as_mut().poll(&mut context)
    }
}

/// What a thread is doing; a child of `vfork` is a second context on its parent's thread.
pub struct Context {
    /// Its descriptors.
    pub table: Rc<Table>,
    /// Calls in service, innermost last: signal handlers make calls inside others.
    pub ops: Vec<Op>,
    /// The `vfork` that made this context.
    pub made_by: Option<Rc<Fork>>,
}

/// A thread that is in service now, or has descriptors of its own.
pub struct Thread {
    /// FS base, which tells threads of a process apart.
    pub fs: u64,
    /// Its contexts, innermost last.
    pub contexts: Vec<Context>,
}

/// A `fork` or `vfork` under way: its child comes out at the gate.
pub struct Fork {
    /// Stack pointer of the child.
    pub rsp: u64,
    /// The child shares the address space and the parent is suspended.
    pub shares_memory: bool,
    /// The child's descriptors.
    pub table: Rc<Table>,
    /// The parent's registers.
    pub saved: Saved,
    /// What its thread has in service, where a handler made it.
    pub left: Vec<Left>,
    /// The child has been seen.
    pub arrived: Cell<bool>,
    /// When a child that has not been seen is given up.
    pub deadline: u64,
}

/// An `execve` of a listed program under way.
pub struct Exec {
    /// The spelled path.
    pub spelled: Vec<u8>,
    /// The program's own spelling.
    pub path: Vec<u8>,
    /// Which program of the policy it is.
    pub program: usize,
    /// The descriptors that the new image gets.
    pub table: Rc<Table>,
    /// The address space that it leaves, unless that belongs to a `vfork` parent.
    pub leaves: Option<u32>,
    /// When it is given up.
    pub deadline: u64,
}

/// A watched address space.
pub struct Space {
    /// Unique number, as in log lines.
    pub id: u32,
    /// Page-table root.
    pub cr3: u64,
    /// Program, for log lines.
    pub name: RefCell<String>,
    /// What it may do.
    pub role: Role,
    /// Which program of the policy it is; none for a launcher.
    pub program: Option<usize>,
    /// Where re-executed calls come back; set at the first call.
    pub gate: Cell<Option<Gate>>,
    /// The first call's preparations have failed: the process goes on untrusted.
    pub given_up: Cell<bool>,
    /// Its code is not the program's: nothing remote is granted to it.
    pub barred: Cell<bool>,
    /// Preparations are done.
    pub ready: Cell<bool>,
    /// Free scratch pages, a bit each.
    pub scratch: Cell<u128>,
    /// Descriptors of its threads.
    pub table: Rc<Table>,
    /// Threads in service.
    pub threads: RefCell<Vec<Thread>>,
    /// Children that have not come out at the gate yet.
    pub forks: RefCell<Vec<Rc<Fork>>>,
    /// Slots of the gate.
    pub slots: Slots,
    /// Calls whose threads may come back though they are not in service.
    pub left: RefCell<Vec<Left>>,
    /// What calls have left that may be over.
    alone: RefCell<VecDeque<Alone>>,
    /// FS bases that several threads have: their stack pointers alone tell them apart.
    shared_fs: RefCell<Vec<u64>>,
}

/// Most calls in service on one thread; more are left-overs of handlers that never returned.
const NESTING: usize = 8;
/// The same where several threads look like one: each call in service has a page of the scratch
/// area at most, so more cannot wait.
const NESTING_SHARED: usize = SCRATCH_PAGES as usize;

impl Space {
    /// A space whose process has made no call yet.
    #[must_use]
    pub fn new(id: u32, cr3: u64, name: String, role: Role, table: Rc<Table>) -> Self {
        Self {
            id,
            cr3,
            name: RefCell::new(name),
            role,
            program: None,
            gate: Cell::new(None),
            given_up: Cell::new(false),
            barred: Cell::new(false),
            ready: Cell::new(false),
            scratch: Cell::new(u128::MAX),
            table,
            threads: RefCell::default(),
            forks: RefCell::default(),
            slots: Slots::default(),
            left: RefCell::default(),
            alone: RefCell::default(),
            shared_fs: RefCell::default(),
        }
    }

    /// A thread is made that gets its creator's FS base.
    pub fn share_fs(&self, fs: u64) {
        let mut shared = self.shared_fs.borrow_mut();
        if !shared.contains(&fs) {
            shared.push(fs);
        }
    }

    /// True where several threads have that FS base.
    pub fn is_shared(&self, fs: u64) -> bool {
        self.shared_fs.borrow().contains(&fs)
    }

    /// The process's page tables; its processor does not run.
    pub fn tables<'c>(&self, core: &'c Core) -> Tables<'c, dyn memory::Memory + 'c> {
        Tables::stopped(core.world.compute(), self.cr3)
    }

    /// True while the gate is where it was put, with what was written there.
    #[must_use]
    pub fn gate_holds(&self, core: &Core) -> bool {
        self.gate.get().is_none_or(|gate| gate::is_in(core, self.cr3, gate))
    }

    /// The table of a thread.
    #[must_use]
    pub fn table_of(&self, fs: u64) -> Rc<Table> {
        let threads = self.threads.borrow();
        let thread = threads.iter().find(|t| t.fs == fs);
        thread.and_then(|t| t.contexts.last()).map_or(&self.table, |c| &c.table).clone()
    }

    /// The tables of all threads, and of `vfork` children.
    #[must_use]
    pub fn tables_of_threads(&self) -> Vec<Rc<Table>> {
        let threads = self.threads.borrow();
        let contexts = threads.iter().flat_map(|t| &t.contexts);
        let own = core::iter::once(self.table.clone());
        own.chain(contexts.map(|c| c.table.clone())).collect()
    }

    /// Adds a call in service to a thread.
    pub fn push(&self, fs: u64, op: Op) {
        let most = if self.is_shared(fs) { NESTING_SHARED } else { NESTING };
        let mut threads = self.threads.borrow_mut();
        let place = threads.iter().position(|t| t.fs == fs).unwrap_or_else(|| {
            let context = Context { table: self.table.clone(), ops: Vec::new(), made_by: None };
            threads.push(Thread { fs, contexts: alloc::vec![context] });
            threads.len() - 1
        });
        let Some(context) = threads.get_mut(place).and_then(|t| t.contexts.last_mut()) else {
            return;
        };
        let surplus = if context.ops.len() >= most { Some(context.ops.remove(0)) } else { None };
        context.ops.push(op);
        drop(threads);
        surplus.iter().for_each(|op| self.give_up(fs, op));
    }

    /// Takes out the call in service that comes back with this stack pointer, if `wanted` says
    /// it is the one. Calls nested in it, and `vfork` children above it, are over; unless they may be
    /// other threads'.
    pub fn take(&self, fs: u64, rsp: u64, wanted: impl Fn(&Op) -> bool) -> Option<Op> {
        let mut threads = self.threads.borrow_mut();
        let thread = threads.iter_mut().find(|t| t.fs == fs)?;
        let fits = |op: &Op| op.rsp == rsp && wanted(op);
        let (level, place) = thread
            .contexts
            .iter()
            .enumerate()
            .rev()
            .find_map(|(level, c)| Some((level, c.ops.iter().rposition(fits)?)))?;
        if self.is_shared(fs) {
            return Some(thread.contexts.get_mut(level)?.ops.remove(place));
        }
        let children = thread.contexts.split_off(level + 1);
        let context = thread.contexts.last_mut()?;
        let nested = context.ops.split_off(place + 1);
        let op = context.ops.pop();
        drop(threads);
        drop(nested);
        drop(children);
        op
    }

    /// A thread makes a call of its own, so a signal's handler runs inside the calls that it has
    /// in service, or has left them by `siglongjmp`. A call from the same place on the stack has
    /// certainly been left, with all nested in it. The others give their workers back: they ask
    /// again if they ever go on. Of threads that look like one only the first can be said.
    pub fn interrupt(&self, fs: u64, rsp: u64) {
        let mut over = Vec::new();
        let mut workers = Vec::new();
        let mut threads = self.threads.borrow_mut();
        let thread = threads.iter_mut().find(|t| t.fs == fs);
        if let Some(context) = thread.and_then(|t| t.contexts.last_mut()) {
            let place = context.ops.iter().position(|op| op.rsp == rsp);
            match place {
                Some(place) if self.is_shared(fs) => over.push(context.ops.remove(place)),
                Some(place) => over = context.ops.split_off(place),
                None => {}
            }
            let left = if self.is_shared(fs) { &[][..] } else { &context.ops[..] };
            workers.extend(left.iter().filter_map(|op| op.exchange.worker.take()));
        }
        drop(threads);
        drop(over);
        drop(workers);
    }

    /// Drops the calls in service. They hold their space, which would never go otherwise.
    pub fn abandon(&self) {
        let threads = core::mem::take(&mut *self.threads.borrow_mut());
        let forks = core::mem::take(&mut *self.forks.borrow_mut());
        // What they drop looks at the space again: not while it is borrowed.
        drop((threads, forks));
    }

    /// Forgets a thread that has nothing in service and the common descriptors.
    pub fn tidy(&self) {
        self.threads.borrow_mut().retain(|t| {
            t.contexts.len() > 1
                || t.contexts.iter().any(|c| {
                    !c.ops.is_empty() || c.made_by.is_some() || !Rc::ptr_eq(&c.table, &self.table)
                })
        });
    }

    /// Starts the context of a `vfork` child.
    pub fn enter_child(&self, fs: u64, fork: &Rc<Fork>) {
        let context =
            Context { table: fork.table.clone(), ops: Vec::new(), made_by: Some(fork.clone()) };
        let mut threads = self.threads.borrow_mut();
        match threads.iter_mut().find(|t| t.fs == fs) {
            Some(thread) => thread.contexts.push(context),
            None => threads.push(Thread { fs, contexts: alloc::vec![context] }),
        }
    }

    /// Ends the contexts that a `vfork` made. Answers whether there were any.
    pub fn leave_child(&self, fork: &Rc<Fork>) -> bool {
        let made = |c: &Context| c.made_by.as_ref().is_some_and(|f| Rc::ptr_eq(f, fork));
        let mut over = Vec::new();
        for thread in self.threads.borrow_mut().iter_mut() {
            if let Some(place) = thread.contexts.iter().position(made) {
                over.extend(thread.contexts.split_off(place));
            }
        }
        self.threads.borrow_mut().retain(|t| !t.contexts.is_empty());
        !over.is_empty()
    }

    /// True when the thread is in a `vfork` child.
    #[must_use]
    pub fn in_child(&self, fs: u64) -> bool {
        let threads = self.threads.borrow();
        let thread = threads.iter().find(|t| t.fs == fs);
        thread.and_then(|t| t.contexts.last()).is_some_and(|c| c.made_by.is_some())
    }

    /// Calls in service.
    #[must_use]
    pub fn in_service(&self) -> usize {
        let threads = self.threads.borrow();
        threads.iter().flat_map(|t| &t.contexts).map(|c| c.ops.len()).sum()
    }

    /// Takes a free page of the scratch area.
    #[must_use]
    pub fn take_scratch(&self) -> Option<(u32, u64)> {
        let gate = self.gate.get()?;
        let free = self.scratch.get();
        let index = free.trailing_zeros();
        if index >= u128::BITS {
            return None;
        }
        self.scratch.set(free & !(1 << index));
        Some((index, gate.address + PAGE + u64::from(index) * PAGE))
    }

    /// Gives a page back.
    pub fn give_scratch(&self, index: u32) {
        self.scratch.set(self.scratch.get() | 1u128.checked_shl(index).unwrap_or(0));
    }
}

/// The page-table root in a CR3 value: without the PCID and its flag.
#[must_use]
pub const fn root(cr3: u64) -> u64 {
    cr3 & 0x000f_ffff_ffff_f000
}
