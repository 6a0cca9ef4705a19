//! From exits of the compute vCPU, socket records and the service VM's hypercalls to steps of
//! calls in service.
mod again;
mod alone;
mod arrivals;
mod news;

use crate::calls::{self, Verdict};
use crate::core::Core;
use crate::cpu::{self, FS, Instruction, Saved};
use crate::cx::Cx;
use crate::form::{Facts, Form, Hidden, Watched, form};
use crate::gate::RETURN;
use crate::report::report;
use crate::space::{Back, Exchange, LocalCall, Op, Outcome, Role, Space, Via};
use crate::stub::{self, Stub};
use crate::table::Table;
use crate::world::{Census, Counters, add};
use abi::vcpu::{ExitClass, VcpuState, reg};
use alloc::rc::Rc;
use core::task::Poll;
use linux_abi::{Errno, nr};
use wire::hypercall;

/// The whole of remote servicing for one compute VM.
pub struct Engine {
    core: Rc<Core>,
    form: &'static dyn Form,
    hidden: Hidden,
    stub: Stub,
    /// The call that was handled last, as long as nothing else has come here since.
    last: Option<again::Last>,
    /// Nothing is awaited that might have to be given up.
    idle: bool,
    /// Programs of the compute VM may choose the form.
    pub bench_allowed: bool,
}

impl Engine {
    /// With nothing watched.
    #[must_use]
    pub fn new(core: Core, number: hypercall::Form) -> Self {
        Self {
            core: Rc::new(core),
            form: form(number),
            hidden: Hidden::default(),
            stub: Stub::default(),
            last: None,
            idle: false,
            bench_allowed: false,
        }
    }

    /// Chooses the form of interception; it holds from the next exit on.
    pub fn set_form(&mut self, number: hypercall::Form) {
        self.last = None;
        self.form = form(number);
    }

    /// The form of interception.
    #[must_use]
    pub fn form(&self) -> hypercall::Form {
        self.form.number()
    }

    /// Switches lines about single calls.
    pub fn set_verbose(&self, on: bool) {
        self.core.verbose.set(on);
    }

    /// Totals.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// What exists now.
    #[must_use]
    pub fn census(&self) -> Census {
        self.core.census()
    }

    /// The spaces that are watched now, to see later whether they are gone.
    #[cfg(test)]
    pub fn watched(&self) -> Vec<alloc::rc::Weak<Space>> {
        self.core.spaces.borrow().iter().map(Rc::downgrade).collect()
    }

    // ----- exits of the compute vCPU -----

    /// Handles an exit: afterwards the vCPU can go on.
    pub fn exit(&mut self, s: &mut VcpuState, class: u64) {
        if self.again(s, class) {
            return;
        }
        self.last = None;
        if let Some(counter) = self.core.counters.exits.borrow_mut().get_mut(class as usize) {
            *counter += 1;
        }
        self.core.pump();
        let (user, at_stub) = (s.cpl == 3, self.stub.reveal(s));
        match class {
            c if c == ExitClass::Vmmcall as u64 && at_stub => self.stub_exit(s),
            c if c == ExitClass::InvalidOpcode as u64 => self.undefined(s),
            c if c == ExitClass::Vmmcall as u64 => self.vmmcall(s),
            c if c == ExitClass::Cr3Write as u64 => self.cr3_write(s),
            c if c == ExitClass::Iret as u64 => self.iret(s),
            c if c == ExitClass::SyscallMsr as u64 => syscall_msr(s),
            _ => {}
        }
        self.form_now(s, user || at_stub);
        if self.core.flush.take() {
            s.flush_tlb = 1;
        }
    }

    /// The stub did not let a call pass. What that claims is checked here once more: the guest's
    /// kernel can jump there with any registers.
    fn stub_exit(&mut self, s: &mut VcpuState) {
        stub::back_to_call(s);
        if cpu::instruction(s, self.core.world.compute()) == Instruction::Syscall {
            self.syscall(s);
        } else {
            reflect(s);
        }
    }

    fn form_now(&mut self, s: &mut VcpuState, user: bool) {
        let expected = !self.core.execs.borrow().is_empty();
        let watched = self.core.space(s.cr3).is_some();
        let any = expected || !self.core.spaces.borrow().is_empty();
        let facts = Facts { watched: watched || expected, any };
        let mut form = self.form;
        if !form.needs_stub(facts) {
            self.stub.remove(s);
        } else if !self.stub.install(&self.core, s, user) {
            self.stub.remove(s);
            form = &Watched;
        }
        self.hidden.arrange(form, facts, s);
    }

    fn cr3_write(&mut self, s: &mut VcpuState) {
        match cpu::instruction(s, self.core.world.compute()) {
            Instruction::LoadCr3 { register, length } => {
                // Bit 63 only asks for no flush.
                s.cr3 = s.regs.r.get(register).copied().unwrap_or(0) & !(1 << 63);
                s.rip = s.rip.wrapping_add(length);
                s.flush_tlb = 1;
            }
            _ => cpu::inject_undefined(s),
        }
    }

    fn iret(&mut self, s: &mut VcpuState) {
        let memory = self.core.world.compute();
        let known = cpu::instruction(s, memory) == Instruction::Iret;
        if !(known && cpu::iret(s, memory)) {
            self.core.world.log(format_args!("an IRET cannot be carried out: form is now off"));
            self.set_form(hypercall::Form::Off);
        }
    }

    fn undefined(&mut self, s: &mut VcpuState) {
        let known = if self.hidden.get() {
            cpu::instruction(s, self.core.world.compute())
        } else {
            Instruction::Other
        };
        match known {
            Instruction::Syscall if cpu::in_long_user(s) => self.syscall(s),
            Instruction::Syscall if s.cpl == 3 => reflect(s),
            Instruction::Sysret { wide } if s.cpl == 0 => {
                cpu::sysret(s, wide);
                self.landed(s);
            }
            _ => cpu::inject_undefined(s),
        }
    }

    /// The guest's kernel has returned to a program: if that is the gate, its `VMMCALL` need not
    /// be waited for.
    fn landed(&mut self, s: &mut VcpuState) {
        let Some(space) = self.core.space(s.cr3) else { return };
        let Some(gate) = space.gate.get() else { return };
        let in_vain = s.regs.r[reg::RAX] as i64 <= 0;
        if gate.back() == s.rip && space.gate_holds(&self.core) {
            self.gate_return(s, &space);
        } else if in_vain && gate.return_of(s.rip).is_some() && space.gate_holds(&self.core) {
            self.at_slot(s, &space);
        }
    }

    fn syscall(&mut self, s: &mut VcpuState) {
        if self.start_program(s) {
            return;
        }
        let Some(space) = self.core.space(s.cr3) else { return reflect(s) };
        if !space.gate_holds(&self.core) {
            // Another process has that page-table root now.
            self.core.bury(&space.table);
            self.core.forget(&space);
            return reflect(s);
        }
        let (fs, rsp) = (s.segments[FS].base, s.regs.r[reg::RSP]);
        if space.gate.get().is_some_and(|gate| gate.address == s.rip) {
            return self.restarted(s, &space);
        }
        if space.gate.get().is_some_and(|gate| gate.is_slot(s.rip)) {
            // All that the kernel restarts is in the registers.
            return reflect(s);
        }
        let rip = s.rip;
        let original = |op: &Op| {
            op.saved.rip == rip && op.exchange.out.get().is_some_and(|o| o.via == Via::Original)
        };
        if let Some(op) = space.take(fs, rsp, original) {
            let result = s.regs.r[reg::RAX] as i64;
            return self.resume(s, &space, op, Back::Result(result));
        }
        space.interrupt(fs, rsp);
        self.new_call(s, &space);
    }

    fn new_call(&mut self, s: &mut VcpuState, space: &Rc<Space>) {
        let saved = Saved::of(s);
        let (number, arguments) = (saved.number(), saved.arguments());
        let table = space.table_of(s.segments[FS].base);
        if space.gate.get().is_none() {
            let cx = self.context(s, space, &table);
            return self.begin(s, space, cx, calls::enter_program);
        }
        if space.role == Role::Launcher && number != nr::execve {
            return reflect(s);
        }
        match calls::verdict(&table, number, &arguments) {
            Verdict::Plain => {
                add(&self.core.counters.local, 1);
                reflect(s);
            }
            Verdict::Refuse(error) => {
                add(&self.core.counters.refused, 1);
                let behind = saved.rip.wrapping_add(cpu::SYSCALL_LENGTH);
                match calls::screen(&table, number, arguments, behind) {
                    Some(Outcome::Reflect) => reflect(s),
                    Some(Outcome::Return(result)) => saved.finish(s, result),
                    Some(Outcome::Alone(_)) | None => saved.finish(s, error.result()),
                }
            }
            Verdict::Serve => {
                let cx = self.context(s, space, &table);
                self.begin(s, space, cx, calls::serve);
            }
        }
    }

    fn context(&self, s: &VcpuState, space: &Rc<Space>, table: &Rc<Table>) -> (Cx, Rc<Exchange>) {
        let exchange = Rc::new(Exchange::default());
        let fs = s.segments[FS].base;
        let (core, space, table) = (self.core.clone(), space.clone(), table.clone());
        (Cx::new(core, space, table, fs, Saved::of(s), exchange.clone()), exchange)
    }

    fn begin<F>(
        &mut self,
        s: &mut VcpuState,
        space: &Rc<Space>,
        (cx, exchange): (Cx, Rc<Exchange>),
        work: impl FnOnce(Rc<Cx>) -> F + 'static,
    ) where
        F: Future<Output = Outcome> + 'static,
    {
        let saved = cx.saved;
        if !self.core.world.room() {
            add(&self.core.counters.refused, 1);
            return saved.finish(s, Errno::ENOMEM.result());
        }
        let cx = Rc::new(cx);
        let start = self.core.world.now();
        let steps = async move {
            let outcome = work(cx.clone()).await;
            report(&cx, outcome, start);
            outcome
        };
        let op = Op::new(saved, self.core.tag(), exchange, steps);
        self.run(s, space, op);
    }

    fn resume(&mut self, s: &mut VcpuState, space: &Rc<Space>, op: Op, back: Back) {
        op.exchange.out.set(None);
        op.exchange.back.set(Some(back));
        self.run(s, space, op);
    }

    fn run(&mut self, s: &mut VcpuState, space: &Rc<Space>, mut op: Op) {
        let fs = s.segments[FS].base;
        let outcome = match op.step() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match op.exchange.wanted.take() {
                Some(call) => {
                    op.exchange.out.set(Some(call));
                    launch(s, space, &op, call);
                    space.push(fs, op);
                    return;
                }
                // Steps wait for the program's kernel only.
                None => Outcome::Return(Errno::EIO.result()),
            },
        };
        match outcome {
            Outcome::Return(result) => op.saved.finish(s, result),
            Outcome::Reflect => {
                op.saved.restore(s);
                reflect(s);
            }
            Outcome::Alone(call) => {
                launch(s, space, &op, call);
                self.note_last(space, &op.saved, fs);
            }
        }
        drop(op);
        space.tidy();
        if space.given_up.get() {
            self.core.bury(&space.table);
            self.core.forget(space);
        }
    }

    fn restarted(&mut self, s: &mut VcpuState, space: &Rc<Space>) {
        let (fs, rsp) = (s.segments[FS].base, s.regs.r[reg::RSP]);
        let tag = s.regs.r[reg::RBX];
        match space.take(fs, rsp, |op| through_gate(op, tag)) {
            Some(op) => self.resume(s, space, op, Back::Restart),
            None if self.not_in_service(s, space, Back::Restart) => {}
            // The program jumped there itself.
            None => reflect(s),
        }
    }

    #[cfg(test)]
    pub(crate) fn space(&self, cr3: u64) -> Rc<Space> {
        self.core.space(cr3).expect("a watched space")
    }

    #[cfg(test)]
    pub(crate) fn forget_all(&self) {
        self.core.spaces.borrow_mut().clear();
    }

    #[cfg(test)]
    pub(crate) fn add_space(&self, cr3: u64) -> Rc<Space> {
        let table = Rc::new(Table::new(self.core.number()));
        let name = alloc::string::String::new();
        let space = Rc::new(Space::new(self.core.number(), cr3, name, Role::Trusted, table));
        space.ready.set(true);
        self.core.spaces.borrow_mut().push(space.clone());
        space
    }
}

/// RDMSR or WRMSR of a register of the system-call entry: the state holds the guest's own values now.
fn syscall_msr(s: &mut VcpuState) {
    let number = s.regs.r[reg::RCX] as u32;
    let done = if s.exit_info1 & 1 != 0 {
        let value = s.regs.r[reg::RDX] << 32 | s.regs.r[reg::RAX] & 0xffff_ffff;
        platform::msr::write(number, value, s)
    } else {
        platform::msr::read(number, s, 0).map(|value| {
            s.regs.r[reg::RAX] = value & 0xffff_ffff;
            s.regs.r[reg::RDX] = value >> 32;
        })
    };
    match done {
        Ok(()) => {
            s.rip = s.rip.wrapping_add(cpu::MSR_LENGTH);
            s.interrupt_shadow = 0;
        }
        Err(platform::GeneralProtection) => {
            platform::delivery::raise(s, platform::delivery::GENERAL_PROTECTION, Some(0));
        }
    }
}

/// A call made on behalf of that one comes back through the gate. Neither the result nor the place on the stack tells that
/// alone: a child of `vfork` makes calls where its parent made that one.
fn through_gate(op: &Op, tag: u64) -> bool {
    op.tag == tag && op.exchange.out.get().is_some_and(|o| o.via == Via::Gate)
}

/// The guest's own kernel carries out the call at which the vCPU stands.
fn reflect(s: &mut VcpuState) {
    let behind = s.rip.wrapping_add(cpu::SYSCALL_LENGTH);
    cpu::syscall(s, behind);
}

/// The guest's own kernel carries out another call on the thread's behalf.
fn launch(s: &mut VcpuState, space: &Space, op: &Op, call: LocalCall) {
    op.saved.restore(s);
    s.regs.r[reg::RSP] = op.rsp;
    cpu::load_call(s, call.number, call.arguments);
    let back = match (call.via, space.gate.get()) {
        (Via::Gate, Some(gate)) => {
            // No call takes anything from there, and the kernel leaves it alone.
            s.regs.r[reg::RBX] = op.tag;
            s.rip = gate.address;
            gate.back()
        }
        (Via::Slot(slot), _) => {
            s.rip = slot;
            slot.wrapping_add(RETURN)
        }
        _ => op.saved.rip,
    };
    cpu::syscall(s, back);
}
