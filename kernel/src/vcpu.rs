//! vCPUs: threads that execute a guest. An exit is handled here (interrupts, nested faults), or
//! goes to the portal of its class, with the state in the vCPU's state page.
use crate::end::Reason;
use crate::kernel::Kernel;
use crate::machine::svm::{self, RawExit, Route};
use crate::machine::vcpu::VcpuBox;
use crate::machine::{phys, tlb, trace};
use crate::object::{Body, Portal, Request, Space, State, Thread};
use abi::trace::Kind;
use abi::vcpu::{EXIT_CLASSES, ExitClass, ExitMessage};
use abi::{Access, EndCause, HostPhys};
use scheduling::Id;

/// Frames of kernel memory that a vCPU takes.
pub const FRAMES: u64 = 2;

/// The vCPU side of a thread.
#[derive(Debug)]
pub struct VcpuPart {
    /// The guest's processor.
    pub vcpu: VcpuBox,
    /// Physical address of the state page.
    pub page: HostPhys,
    /// Who handles which class of exits.
    pub portals: [Option<Id<Portal>>; EXIT_CLASSES],
    /// Leave the guest as soon as possible.
    pub recall: bool,
    /// The last exit.
    pub last: RawExit,
}

impl VcpuPart {
    /// A vCPU whose first exit, before it has run at all, is a recall.
    pub fn new(vcpu: VcpuBox, page: HostPhys) -> Self {
        Self { vcpu, page, portals: [None; EXIT_CLASSES], recall: true, last: RawExit::default() }
    }
}

impl Kernel {
    fn part(&mut self, id: Id<Thread>) -> Option<&mut VcpuPart> {
        self.threads.get_mut(id).ok()?.vcpu()
    }

    /// A guest came back to the kernel.
    pub fn vm_exit(&mut self, cpu: usize, id: Id<Thread>, exit: RawExit) {
        let Some(part) = self.part(id) else { return };
        part.last = exit;
        let (route, rip) = (part.vcpu.route(), part.vcpu.rip());
        trace::record(cpu, Kind::VmExit, id.index(), exit.code, rip);
        match route {
            Route::Host => {
                svm::take_interrupts();
                self.take_interrupts(cpu);
            }
            Route::NestedFault { address, access } => self.nested_fault(id, address.0, access),
            Route::Portal(class) => {
                self.store_state(id, None);
                self.send_exit(id, class);
            }
        }
    }

    /// A recall takes effect.
    pub fn recall_now(&mut self, id: Id<Thread>) {
        if let Some(part) = self.part(id) {
            part.recall = false;
            self.store_state(id, None);
            self.send_exit(id, ExitClass::Recall);
        }
    }

    /// Sends an exit to its portal, or to that of class `Other`.
    pub fn send_exit(&mut self, id: Id<Thread>, class: ExitClass) {
        let Some(part) = self.part(id) else { return };
        let portal = part.portals[class as usize].or(part.portals[ExitClass::Other as usize]);
        let portal = portal.and_then(|p| self.portals.get(p).ok()).copied();
        let handler = portal
            .filter(|p| self.threads.get(p.handler).is_ok() && !self.would_deadlock(id, p.handler));
        match handler {
            Some(portal) => {
                self.send(id, portal.handler, Request::Exit { badge: portal.badge, class });
            }
            None => self.end_thread(id, Reason::of(EndCause::Unhandled { class: class as u64 })),
        }
    }

    /// The words of an exit.
    pub fn exit_message(&mut self, id: Id<Thread>, class: ExitClass) -> ExitMessage {
        let last = self.part(id).map(|p| p.last).unwrap_or_default();
        ExitMessage { class: class as u64, code: last.code, info1: last.info1, info2: last.info2 }
    }

    /// The handler of an exit has replied.
    pub fn exit_reply(&mut self, id: Id<Thread>, status: u64) {
        let Ok(thread) = self.threads.get_mut(id) else { return };
        let State::Calling { request, .. } = thread.state else { return };
        thread.state = State::Ready;
        if status == 0 {
            return self.load_state(id);
        }
        match request {
            Request::Exit { class, .. } if class != ExitClass::Error => {
                self.send_exit(id, ExitClass::Error);
            }
            _ => self.end_unhandled(id, &request),
        }
    }

    /// Writes the state page; for a fault in a device region, with the address and the access.
    pub fn store_state(&mut self, id: Id<Thread>, fault: Option<(u64, Access)>) {
        let Some(part) = self.part(id) else { return };
        phys::update_state(part.page, |state| {
            part.vcpu.store_state(state);
            let (address, access) = fault.unwrap_or((0, Access::Read));
            state.fault_address = address;
            state.fault_access = access as u64;
        });
    }

    /// Takes the state page back.
    pub fn load_state(&mut self, id: Id<Thread>) {
        let Some(part) = self.part(id) else { return };
        let state = phys::read_state(part.page);
        part.vcpu.load_state(&state);
        phys::update_state(part.page, |page| page.inject = 0);
        let recalled = part.recall;
        if state.blocked != 0
            && !recalled
            && let Ok(thread) = self.threads.get_mut(id)
        {
            thread.state = State::Blocked;
        }
    }

    /// Makes a vCPU leave its guest, or its blocked state.
    pub fn recall(&mut self, id: Id<Thread>) {
        let Ok(thread) = self.threads.get_mut(id) else { return };
        let (cpu, state) = (thread.cpu, thread.state);
        let Some(part) = thread.vcpu() else { return };
        part.recall = true;
        self.cpus[cpu].choose = true;
        let Ok(thread) = self.threads.get_mut(id) else { return };
        if matches!(state, State::Blocked) {
            thread.state = State::Ready;
            self.wake(id);
        } else if cpu != crate::machine::cpu::id() && self.cpus[cpu].current == Some(id) {
            crate::machine::apic::signal(cpu, crate::machine::apic::Ipi::Wake);
        }
    }

    /// Drops translations that processors hold of a guest's memory.
    pub fn flush_guests(&mut self, space: Id<Space>) {
        let own = crate::machine::cpu::id();
        let mut running = 0;
        for (id, thread) in self.threads.iter().filter(|(_, t)| t.space == space) {
            if thread.cpu != own && self.cpus[thread.cpu].current == Some(id) {
                running |= 1 << thread.cpu;
            }
        }
        tlb::shoot_down(HostPhys(u64::MAX), running);
        self.forget_at_entry(space);
    }

    /// Has processors drop translations of a guest's memory when they next enter it.
    pub fn forget_at_entry(&self, space: Id<Space>) {
        for (_, thread) in self.threads.iter().filter(|(_, t)| t.space == space) {
            if let Body::Vcpu(part) = &thread.body {
                part.vcpu.flush_at_entry();
            }
        }
    }
}
