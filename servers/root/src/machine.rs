//! Virtual machines: a guest-physical space whose regions name their managers, and a vCPU whose
//! exits go to the programs that the description names.
use crate::boot::Builder;
use crate::layout::{
    BADGE_DEVICE, BADGE_EXIT, BADGE_ROUTE, GUEST_QUOTA, GUEST_RAM_LIMIT, GUEST_ROOT_IMAGE,
    QUANTUM_US,
};
use crate::program::RW;
use crate::window::pinned;
use crate::{FAULT_LIMIT, Failure, own};
use abi::vcpu::EXIT_CLASSES;
use abi::{MemRights, ObjRights, REGISTERS, RootSelector, Selector, SpaceKind};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use backing::Tag;
use rt::sys::{self, Bind, Pinned};
use system::{GuestWindow, VirtualMachine};
use virtio::bus::MONITOR_WINDOW;

/// Number of an exit class by its name in `abi::vcpu::ExitClass`.
fn class(name: &str) -> Result<u64, Failure> {
    use abi::vcpu::ExitClass as C;
    let classes = [
        C::Other,
        C::InvalidOpcode,
        C::Vmmcall,
        C::Cr3Write,
        C::Iret,
        C::Recall,
        C::Halt,
        C::Msr,
        C::Io,
        C::Cpuid,
        C::InterruptWindow,
        C::Error,
        C::SyscallMsr,
    ];
    let found = classes.into_iter().find(|c| format!("{c:?}") == name);
    found.map(|c| c as u64).ok_or_else(|| Failure(format!("unknown exit class '{name}'")))
}

/// A virtual machine's processor, and who handles what it can't do itself.
pub struct Machine {
    /// Name of the virtual machine.
    pub name: String,
    /// Number of its monitor.
    pub monitor: usize,
    /// Its guest-physical space.
    pub space: Selector,
    vcpu: Selector,
    /// Its time.
    context: Selector,
    /// Its processor.
    pub cpu: u32,
    priority: u8,
    /// Where its state page is in RAM.
    pub state: u64,
    /// Portals of exit classes, the monitor's first.
    portals: Vec<(u64, Selector)>,
}

impl Machine {
    /// Makes the processor, which does not run yet.
    fn create_vcpu(&self) -> Result<(), Failure> {
        sys::create_vcpu(self.vcpu, self.space, self.cpu, own(RootSelector::Ram), self.state)
            .map_err(Failure::kernel(format!("processor of virtual machine '{}'", self.name)))
    }

    /// Says who handles its exits.
    fn set_portals(&self) -> Result<(), Failure> {
        self.portals.iter().try_for_each(|(class, portal)| {
            let what = format!("virtual machine '{}', exits {class}", self.name);
            sys::vcpu_portal(self.vcpu, *class, *portal).map_err(Failure::kernel(what))
        })
    }

    fn start(&self) -> Result<(), Failure> {
        sys::create_sc(self.context, self.vcpu, self.priority, QUANTUM_US)
            .map_err(Failure::kernel(format!("starting '{}'", self.name)))
    }
}

impl Builder {
    /// Makes the virtual machines; their vCPUs do not run yet.
    pub fn create_machines(&mut self) -> Result<(), Failure> {
        let list = self.description.machines.clone();
        if !list.is_empty() && !self.info.svm {
            return Err(Failure("this processor has no SVM with nested paging".into()));
        }
        list.iter().try_for_each(|machine| {
            let made = self.create_machine(machine)?;
            self.machines.push(made);
            Ok(())
        })
    }

    fn create_machine(&mut self, machine: &VirtualMachine) -> Result<Machine, Failure> {
        let cpu = self.info.processor(machine.cpu);
        let space = self.selector();
        sys::create_space(space, SpaceKind::Guest, GUEST_QUOTA)
            .and_then(|()| sys::fault_limit(space, FAULT_LIMIT))
            .map_err(Failure::kernel(format!("virtual machine '{}'", machine.name)))?;
        let monitor = self.space_number(&machine.monitor) as usize;
        let device_portal = self.portal_on(monitor, cpu, BADGE_DEVICE)?;
        let exit_portal = self.portal_on(monitor, cpu, BADGE_EXIT)?;
        self.guest_memory(machine, space, cpu, device_portal)?;

        let state = self.ram.take(4096, 4096, true)?;
        let mut made = Machine {
            name: machine.name.clone(),
            monitor,
            space,
            vcpu: self.selector(),
            context: self.selector(),
            cpu,
            priority: machine.priority,
            state,
            portals: (0..EXIT_CLASSES as u64).map(|class| (class, exit_portal)).collect(),
        };
        for window in &machine.windows {
            self.guest_window(space, window)?;
        }
        self.share_with_guest(machine, space, cpu)?;
        for route in &machine.routes {
            let program = self.program(&route.program)?;
            let thread = program.threads[route.thread as usize].thread;
            let region = format!("vcpu-{}", machine.name);
            program.show(&region, own(RootSelector::Ram), state, 4096, RW, None)?;
            let portal = self.portal(thread, BADGE_ROUTE, &route.program)?;
            for name in &route.classes {
                made.portals.push((class(name)?, portal));
            }
        }
        made.create_vcpu()?;
        made.set_portals()?;
        let monitor = self.program(&machine.monitor)?;
        monitor.show("vcpu", own(RootSelector::Ram), state, 4096, RW, None)?;
        monitor.grant("vcpu", made.vcpu, ObjRights::USE.bits())?;
        Ok(made)
    }

    /// Makes the processors anew whose monitor is program `n`, which is about to be made anew itself.
    pub fn renew_machines(&mut self, n: usize) -> Result<(), Failure> {
        self.machines.iter().filter(|machine| machine.monitor == n).try_for_each(|machine| {
            // It may be gone already.
            let _ = sys::destroy(machine.vcpu);
            for selector in [machine.vcpu, machine.context] {
                let _ = sys::cap_drop(Selector(0), selector);
            }
            machine.create_vcpu()
        })
    }

    /// Lets the vCPUs run; of program `n`, if there is one.
    pub fn start_machines(&mut self, n: Option<usize>, generation: u64) -> Result<(), Failure> {
        for m in 0..self.machines.len() {
            if n.is_some_and(|n| self.machines[m].monitor != n) {
                continue;
            }
            self.machines[m].set_portals()?;
            let number = (self.programs.len() + m) << 8;
            self.watch_end(self.machines[m].vcpu, number, generation)?;
            self.machines[m].start()?;
        }
        Ok(())
    }

    /// The manager of a machine's region at an address.
    pub fn guest_manager_at(&self, m: usize, address: u64) -> Option<usize> {
        let space = self.machines.get(m)?.space;
        let at = |b: &&Bind| b.space == space && (b.base..b.base + b.length).contains(&address);
        self.manager(self.guests.managed.iter().find(at)?.portal)
    }

    /// Pages that a program shares with the guest. Nobody manages them: what the guest may not do
    /// with them is an error for its monitor.
    fn guest_window(&mut self, space: Selector, window: &GuestWindow) -> Result<(), Failure> {
        let at = self.ram.take(window.size, 4096, true)?;
        let mut rights = MemRights::READ;
        if window.write {
            rights |= MemRights::WRITE;
        }
        if window.execute {
            rights |= MemRights::EXEC;
        }
        let ram = own(RootSelector::Ram);
        let (base, length) = (window.at, window.size);
        pinned(space, Pinned { base, memory: ram, offset: at, length, rights })?;
        let program = self.program(&window.program)?;
        program.show(&window.region, ram, at, window.size, RW, None)?;
        let place = (format!("{}-at", window.region), format!("{}", window.at));
        program.config.parameters.push(place);
        Ok(())
    }

    fn guest_memory(
        &mut self,
        machine: &VirtualMachine,
        space: Selector,
        cpu: u32,
        device_portal: Selector,
    ) -> Result<(), Failure> {
        let what = format!("memory of virtual machine '{}'", machine.name);
        let number = self.description.memory.iter().position(|m| m.name == machine.ram);
        let number = number.ok_or_else(|| Failure(format!("no memory '{}'", machine.ram)))?;
        let ram = self.objects[number].1;
        if ram > GUEST_RAM_LIMIT {
            return Err(Failure(format!("{what}: {} MiB; 3072 MiB at most", ram >> 20)));
        }
        let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        let tag =
            |object: u32| Tag { object, offset: 0 }.encode().ok_or_else(|| Failure("tag".into()));
        let monitor = self.space_number(&machine.monitor);
        let space_number = self.programs.len() as u64 + monitor;
        let portal = self.manager_of(number, cpu, space_number)?;
        let bind = |builder: &mut Self, base, length, portal, tag, rights, hint| {
            let bind = Bind { space, base, length, portal, tag, rights, hint };
            builder.guests.managed(bind).map_err(Failure::kernel(&what))
        };
        bind(self, 0, ram, portal, tag(number as u32)?, all, 21)?;
        self.shown(number, space, 0, "guest")?;
        let window = MONITOR_WINDOW;
        let length = window.end - window.start;
        bind(self, window.start, length, device_portal, 0, RW, REGISTERS.into())?;
        if !machine.root_image.is_empty() {
            let (file, length) = {
                let (number, file) = self.file(&machine.root_image)?;
                (number, file.length.next_multiple_of(4096))
            };
            let rights = MemRights::READ | MemRights::EXEC;
            let portal = self.manager_on(1, cpu, space_number, rights)?;
            bind(self, GUEST_ROOT_IMAGE, length, portal, tag(file)?, rights, 21)?;
        }
        let monitor = self.program(&machine.monitor)?;
        monitor.config.parameters.push(("memory".into(), format!("{ram}")));
        Ok(())
    }
}
