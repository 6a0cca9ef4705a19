//! Hypercalls, and the arrival of children and new programs in address spaces that nobody knew.
use super::{Engine, through_gate};
use crate::calls;
use crate::code::Vdso;
use crate::cpu::{self, FS};
use crate::gate::{self, Gate};
use crate::space::{Back, Fork, Role, Space, root};
use crate::spelling;
use crate::table::Table;
use crate::world::add;
use abi::vcpu::{VcpuState, reg};
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use linux_abi::Errno;
use paging::Space as Tables;
use wire::hypercall;

/// Most processes between their request for trust and their `execve`; the oldest is forgotten for a
/// new one. Some never make it, and how many ask is up to the guest's kernel.
const LAUNCHERS: usize = 64;

impl Engine {
    pub(super) fn vmmcall(&mut self, s: &mut VcpuState) {
        if s.cpl != 3 {
            return cpu::inject_undefined(s);
        }
        if self.at_gate(s) {
            return;
        }
        let result = match s.regs.r[reg::RAX] {
            hypercall::TRUST => self.trust(s),
            hypercall::VDSO => self.vdso(s),
            hypercall::BENCH => self.bench(s.regs.r[reg::RDI]),
            hypercall::EXITS if self.bench_allowed => s.exits as i64,
            hypercall::EXITS => Errno::EPERM.result(),
            _ => return cpu::inject_undefined(s),
        };
        s.regs.r[reg::RAX] = result as u64;
        s.rip = s.rip.wrapping_add(cpu::VMMCALL_LENGTH);
    }

    /// Handles the return through a gate, also of a child in its new address space.
    fn at_gate(&mut self, s: &mut VcpuState) -> bool {
        let rip = s.rip;
        let returns_here = |space: &Space| {
            let back = |g: Gate| g.back() == rip || g.exit_of(rip).is_some();
            space.gate.get().is_some_and(back)
        };
        if let Some(space) = self.core.space(s.cr3).filter(|space| returns_here(space))
            && space.gate_holds(&self.core)
            && (self.at_slot(s, &space) || self.came_back(s, &space))
        {
            return true;
        }
        self.child_arrives(s)
    }

    pub(super) fn gate_return(&mut self, s: &mut VcpuState, space: &Rc<Space>) {
        if !self.came_back(s, space) && !self.child_arrives(s) {
            cpu::inject_undefined(s);
        }
    }

    /// A thread of this space is back from a call made on its behalf, or is a new `vfork` child.
    fn came_back(&mut self, s: &mut VcpuState, space: &Rc<Space>) -> bool {
        let (fs, rsp) = (s.segments[FS].base, s.regs.r[reg::RSP]);
        let result = s.regs.r[reg::RAX] as i64;
        if result == 0
            && let Some(fork) = expected(space, rsp, true)
        {
            fork.arrived.set(true);
            space.enter_child(fs, &fork);
            come_out(s, &fork);
            return true;
        }
        let (tag, back) = (s.regs.r[reg::RBX], Back::Result(result));
        match space.take(fs, rsp, |op| through_gate(op, tag)) {
            Some(op) => self.resume(s, space, op, back),
            None => return self.not_in_service(s, space, back),
        }
        true
    }

    /// A thread comes back from a call that is not in service here: its process is a child of the one where it
    /// was. False when it is nothing of the kind.
    pub(super) fn not_in_service(
        &mut self,
        s: &mut VcpuState,
        space: &Rc<Space>,
        back: Back,
    ) -> bool {
        let (fs, rsp) = (s.segments[FS].base, s.regs.r[reg::RSP]);
        let Some(left) = space.take_left(fs, rsp, s.regs.r[reg::RBX]) else { return false };
        match left.ends(back) {
            Some(result) => left.saved.finish(s, result),
            None => {
                left.saved.restore(s);
                self.new_call(s, space);
            }
        }
        true
    }

    /// A child of `fork` comes out at its copy of its parent's gate.
    fn child_arrives(&mut self, s: &mut VcpuState) -> bool {
        let (rip, rsp) = (s.rip, s.regs.r[reg::RSP]);
        if s.regs.r[reg::RAX] != 0 {
            return false;
        }
        let descends = |parent: &&Rc<Space>| {
            let gate = parent.gate.get();
            gate.is_some_and(|g| {
                g.back() == rip
                    && expected(parent, rsp, false).is_some()
                    && gate::is_in(&self.core, s.cr3, g)
            })
        };
        let parent = self.core.spaces.borrow().iter().find(descends).cloned();
        let Some(parent) = parent else { return false };
        let Some(fork) = expected(&parent, rsp, false) else { return false };
        fork.arrived.set(true);
        parent.forks.borrow_mut().retain(|f| !Rc::ptr_eq(f, &fork));
        if let Some(stale) = self.core.space(s.cr3) {
            self.core.bury(&stale.table);
            self.core.forget(&stale);
        }
        let name = parent.name.borrow().clone();
        let (id, table) = (self.core.number(), fork.table.clone());
        let mut child = Space::new(id, root(s.cr3), name, parent.role, table.clone());
        child.program = parent.program;
        child.barred.set(parent.barred.get());
        child.left = RefCell::new(fork.left.clone());
        let child = Rc::new(child);
        child.gate.set(parent.gate.get());
        self.core.spaces.borrow_mut().push(child.clone());
        add(&self.core.counters.processes, 1);
        // The child goes on behind its parent's call, on its own stack.
        fork.saved.restore(s);
        s.regs.r[reg::RSP] = rsp;
        let cx = self.context(s, &child, &table);
        self.begin(s, &child, cx, calls::enter_child);
        true
    }

    fn trust(&mut self, s: &VcpuState) -> i64 {
        if !self.form.services() {
            return Errno::EPERM.result();
        }
        if let Some(space) = self.core.space(s.cr3) {
            if space.gate_holds(&self.core) {
                return 0;
            }
            self.core.bury(&space.table);
            self.core.forget(&space);
        }
        let table = Rc::new(Table::new(self.core.number()));
        let name = String::from("launcher");
        let id = self.core.number();
        let space = Space::new(id, root(s.cr3), name, Role::Launcher, table);
        self.core.spaces.borrow_mut().push(Rc::new(space));
        let oldest = {
            let spaces = self.core.spaces.borrow();
            let mut launchers = spaces.iter().filter(|s| s.role == Role::Launcher);
            let oldest = launchers.next().cloned();
            oldest.filter(|_| launchers.count() >= LAUNCHERS)
        };
        if let Some(oldest) = oldest {
            self.core.bury(&oldest.table);
            self.core.forget(&oldest);
        }
        0
    }

    /// The first one counts: it comes from process 1, before any program of the root image runs.
    fn vdso(&self, s: &VcpuState) -> i64 {
        if self.core.vdso.borrow().is_some() {
            return Errno::EPERM.result();
        }
        let (address, pages) = (s.regs.r[reg::RDI], s.regs.r[reg::RSI]);
        match Vdso::copy(&self.core, s.cr3, address, pages) {
            Ok(vdso) => {
                *self.core.vdso.borrow_mut() = Some(vdso);
                0
            }
            Err(error) => error.result(),
        }
    }

    fn bench(&mut self, choice: u64) -> i64 {
        if !self.bench_allowed {
            return Errno::EPERM.result();
        }
        let before = self.form.number() as i64;
        if choice != hypercall::BENCH_QUERY {
            let Some(number) = hypercall::Form::from_raw(choice) else {
                return Errno::EINVAL.result();
            };
            self.set_form(number);
        }
        before
    }

    /// Recognises the first call of a program that is expected.
    pub(super) fn start_program(&mut self, s: &mut VcpuState) -> bool {
        if self.core.execs.borrow().is_empty() {
            return false;
        }
        let execs = self.core.execs.borrow().clone();
        let tables = Tables::stopped(self.core.world.compute(), s.cr3);
        let rsp = s.regs.r[reg::RSP];
        let shown = execs
            .iter()
            .find_map(|e| spelling::find(&tables, rsp, &e.spelled).map(|at| (e.clone(), at)));
        let Some((exec, at)) = shown else { return false };
        // The program shall see its name as it was given.
        let mut name = exec.path.clone();
        name.resize(exec.spelled.len() + 1, 0);
        if tables.write(at, &name).is_err() {
            self.core.world.log(format_args!("the path of a new program cannot be put right"));
        }
        self.core.execs.borrow_mut().retain(|e| !Rc::ptr_eq(e, &exec));
        if let Some(stale) = self.core.space(s.cr3) {
            let same = Rc::ptr_eq(&stale.table, &exec.table);
            if !same {
                self.core.bury(&stale.table);
            }
            self.core.forget(&stale);
        }
        let space = calls::adopt(&self.core, &exec, root(s.cr3));
        self.new_call(s, &space);
        true
    }
}

/// The `fork` whose child comes out with this stack pointer.
fn expected(space: &Space, rsp: u64, shares_memory: bool) -> Option<Rc<Fork>> {
    let forks = space.forks.borrow();
    let fits = |f: &&Rc<Fork>| !f.arrived.get() && f.rsp == rsp && f.shares_memory == shares_memory;
    forks.iter().find(fits).cloned()
}

/// The child goes on behind its parent's call, with result zero, on its own stack.
fn come_out(s: &mut VcpuState, fork: &Fork) {
    let rsp = s.regs.r[reg::RSP];
    fork.saved.finish(s, 0);
    s.regs.r[reg::RSP] = rsp;
}
