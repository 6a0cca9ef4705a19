//! Native programs: their spaces, threads and memory.
use crate::boot::{Builder, Door};
use crate::given::Given;
use crate::layout::{HEAP, QUANTUM_US, REGION_ALIGN, REGIONS, STACK_DISTANCE, STACKS};
use crate::{FAULT_LIMIT, Failure, own};
use abi::{
    FIRST_FREE_SELECTOR, LARGE_PAGE_SIZE, MemRights, RootSelector, Selector, SpaceKind, ThreadArgs,
};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use memory::Memory;
use rt::sys::{self, Bind, Pinned};
use system::{CONFIG_ADDRESS, CONFIG_LIMIT, Config, Region};

/// A thread of a program. Selectors are the root server's.
pub struct Thread {
    /// The thread.
    pub thread: Selector,
    /// Its bound notification.
    pub notification: Selector,
    /// Its time.
    pub context: Selector,
    /// Where it begins.
    pub args: ThreadArgs,
    /// Its processor.
    pub cpu: u32,
    /// Bits of the notification that are given out.
    pub bits_used: u32,
}

/// A program while it is built.
pub struct Program {
    /// What it will be told.
    pub config: Config,
    /// Its space.
    pub space: Selector,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// Priority of the threads.
    pub priority: u8,
    /// What its space was given.
    pub given: Given,
    /// Where in RAM its configuration is, once it has been written.
    configured_at: Option<u64>,
    next_selector: u32,
    next_address: u64,
}

/// Read and write.
pub const RW: MemRights = MemRights::READ.union(MemRights::WRITE);

impl Program {
    /// Where a region of `length` bytes goes.
    pub fn address(&mut self, length: u64) -> u64 {
        let at = self.next_address;
        // One unit stays free in between, so that an overrun faults.
        self.next_address += length.next_multiple_of(REGION_ALIGN) + REGION_ALIGN;
        at
    }

    /// Gives the program a capability under a name.
    pub fn grant(&mut self, name: &str, from: Selector, mask: u64) -> Result<u32, Failure> {
        let slot = Selector(self.next_selector);
        let what = format!("capability '{name}' of {}", self.config.name);
        self.given.capability(self.space, from, slot, mask).map_err(Failure::kernel(what))?;
        self.next_selector += 1;
        self.config.capabilities.push((name.into(), slot.0));
        Ok(slot.0)
    }

    /// Maps memory into the program under a name.
    pub fn show(
        &mut self,
        name: &str,
        memory: Selector,
        offset: u64,
        length: u64,
        rights: MemRights,
        physical: Option<u64>,
    ) -> Result<(), Failure> {
        let address = self.address(length);
        let pages = length.next_multiple_of(4096);
        let shown = Pinned { base: address, memory, offset, length: pages, rights };
        self.given.pinned(self.space, shown)?;
        let region = Region { name: name.into(), address, length, physical };
        self.config.regions.push(region);
        Ok(())
    }

    /// Binds a managed region in the program under a name: its address.
    pub fn bind(
        &mut self,
        name: &str,
        portal: Selector,
        tag: u64,
        length: u64,
        rights: MemRights,
    ) -> Result<u64, Failure> {
        let base = self.address(length);
        let pages = length.next_multiple_of(4096);
        let bind = Bind { space: self.space, base, length: pages, portal, tag, rights, hint: 21 };
        let what = format!("region '{name}' of {}", self.config.name);
        self.given.managed(bind).map_err(Failure::kernel(what))?;
        let region = Region { name: name.into(), address: base, length, physical: None };
        self.config.regions.push(region);
        Ok(base)
    }

    /// A bit of a thread's notification that nobody else signals.
    pub fn bit(&mut self, thread: u32) -> Result<u64, Failure> {
        let thread = self.threads.get_mut(thread as usize).filter(|t| t.bits_used < 64);
        let thread = thread.ok_or_else(|| Failure("out of notification bits".into()))?;
        thread.bits_used += 1;
        Ok(1 << (thread.bits_used - 1))
    }
}

/// A program's objects of anonymous memory: its heap, and its first stack; the others follow it.
#[derive(Clone, Copy)]
pub struct Private {
    /// Number of the heap.
    pub heap: usize,
    /// Number of the first stack.
    pub stacks: usize,
}

impl Builder {
    /// Makes the space and threads of program number `n`; nothing runs yet.
    pub fn create_program(&mut self, n: usize) -> Result<(), Failure> {
        let declared = self.description.programs[n].clone();
        let name = declared.name.clone();
        let space = self.selector();
        let mut program = Program {
            config: Config {
                name: name.clone(),
                tsc_khz: self.info.tsc_khz,
                cpus: self.info.cpus,
                ..Config::default()
            },
            space,
            threads: Vec::new(),
            priority: declared.priority,
            given: Given::default(),
            configured_at: None,
            next_selector: FIRST_FREE_SELECTOR,
            next_address: REGIONS,
        };
        let bytes = self.contents(&declared.file)?;
        let entry = crate::loader::parse(&declared.file, &bytes)?.entry;
        for (number, cpu) in declared.cpus.iter().enumerate() {
            let cpu = self.info.processor(*cpu);
            let (thread, notification) = (self.selector(), self.selector());
            let context = self.selector();
            let stack = STACKS + (number as u64 + 1) * STACK_DISTANCE;
            let args = ThreadArgs { entry, stack, argument: number as u64 };
            sys::create_notification(notification)
                .map_err(Failure::kernel(format!("thread {number} of {name}")))?;
            let bits_used = 0;
            program.threads.push(Thread { thread, notification, context, args, cpu, bits_used });
        }
        self.set_parameters(&declared, &mut program);
        self.programs.push(program);
        self.create_threads(n)
    }

    /// Makes the space and threads of program `n` as they are noted; none of it may exist.
    pub fn create_threads(&mut self, n: usize) -> Result<(), Failure> {
        let quota = self.description.programs[n].quota;
        let program = &self.programs[n];
        let (name, space) = (&program.config.name, program.space);
        sys::create_space(space, SpaceKind::Native, quota)
            .and_then(|()| sys::fault_limit(space, FAULT_LIMIT))
            .map_err(Failure::kernel(format!("space of {name}")))?;
        for (number, thread) in program.threads.iter().enumerate() {
            sys::create_thread(thread.thread, space, thread.cpu, thread.args)
                .and_then(|()| sys::bind_notification(thread.thread, thread.notification))
                .map_err(Failure::kernel(format!("thread {number} of {name}")))?;
        }
        Ok(())
    }

    fn set_parameters(&self, declared: &system::Program, program: &mut Program) {
        let list = &mut program.config.parameters;
        for (name, there) in &declared.from_command_line {
            if let Some(value) = system::word(&self.info.command_line, there) {
                list.push((name.clone(), value.into()));
            }
        }
        // The first of that name wins, so the command line does.
        list.extend(declared.parameters.iter().map(|(n, v)| (n.clone(), v.clone())));
    }

    /// Portal of a program's thread on `cpu`, made anew.
    pub fn portal_on(&mut self, program: usize, cpu: u32, badge: u64) -> Result<Selector, Failure> {
        self.manager_on(program, cpu, badge, MemRights::empty())
    }

    /// The same for a memory manager; regions get at most these rights there (none: any).
    pub fn manager_on(
        &mut self,
        program: usize,
        cpu: u32,
        badge: u64,
        rights: MemRights,
    ) -> Result<Selector, Failure> {
        let found = &self.programs[program];
        let name = found.config.name.clone();
        let thread = found.threads.iter().find(|t| t.cpu == cpu).map(|t| t.thread);
        let thread = thread
            .ok_or_else(|| Failure(format!("program '{name}' has no thread on processor {cpu}")))?;
        let portal = self.selector();
        sys::create_manager_portal(portal, thread, badge, rights)
            .map_err(Failure::kernel(format!("portal of {name}")))?;
        self.doors.push(Door { portal, program, thread, badge, rights, former: Vec::new() });
        Ok(portal)
    }

    /// Portal of a thread.
    pub fn portal(&mut self, thread: Selector, badge: u64, by: &str) -> Result<Selector, Failure> {
        let portal = self.selector();
        sys::create_portal(portal, thread, badge)
            .map_err(Failure::kernel(format!("portal of {by}")))?;
        Ok(portal)
    }

    /// Gives program `n` its heap and stacks.
    pub fn private_memory(&mut self, n: usize, private: Option<Private>) -> Result<(), Failure> {
        let declared = self.description.programs[n].clone();
        let heap = declared.heap.next_multiple_of(4096);
        let stack = declared.stack.unwrap_or(system::STACK);
        let tops: Vec<u64> = self.programs[n].threads.iter().map(|t| t.args.stack).collect();
        let space = self.programs[n].space;
        if let Some(private) = private {
            let portal = self.portal_on(0, self.programs[n].threads[0].cpu, n as u64)?;
            let given = &mut self.programs[n].given;
            let mut bind = |base: u64, length: u64, object: usize, hint: u64| {
                let tag = backing::Tag { object: object as u32, offset: 0 };
                let tag = tag.encode().ok_or_else(|| Failure("tag".into()))?;
                given
                    .managed(Bind { space, base, length, portal, tag, rights: RW, hint })
                    .map_err(Failure::kernel(format!("memory of {}", declared.name)))
            };
            bind(HEAP, heap, private.heap, 21)?;
            return tops.iter().zip(private.stacks..).try_for_each(|(top, object)| {
                let length = stack + backing::stack::GUARD;
                bind(top - length, length, object, 12)
            });
        }
        let memory = own(RootSelector::Ram);
        let at = self.ram.take(heap + tops.len() as u64 * stack, LARGE_PAGE_SIZE, true)?;
        let given = &mut self.programs[n].given;
        let mut pin = |base, offset, length| {
            given.pinned(space, Pinned { base, memory, offset, length, rights: RW })
        };
        pin(HEAP, at, heap)?;
        tops.iter().zip(0..).try_for_each(|(top, t)| pin(top - stack, at + heap + t * stack, stack))
    }

    /// Writes program `n`'s configuration into its space.
    pub fn write_config(&mut self, n: usize) -> Result<(), Failure> {
        let at = self.ram.take(CONFIG_LIMIT, 4096, true)?;
        self.programs[n].configured_at = Some(at);
        self.fill_config(n)?;
        let (base, memory, length) = (CONFIG_ADDRESS, own(RootSelector::Ram), CONFIG_LIMIT);
        let Program { space, given, .. } = &mut self.programs[n];
        let rights = MemRights::READ;
        given.pinned(*space, Pinned { base, memory, offset: at, length, rights })
    }

    /// Writes it where it belongs.
    fn fill_config(&self, n: usize) -> Result<(), Failure> {
        let heap = self.description.programs[n].heap.next_multiple_of(4096);
        let config = &self.programs[n].config;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&HEAP.to_le_bytes());
        bytes.extend_from_slice(&heap.to_le_bytes());
        bytes.extend_from_slice(&system::encode(config));
        if bytes.len() as u64 > CONFIG_LIMIT {
            return Err(Failure(format!("the configuration of {} is too long", config.name)));
        }
        let Some(at) = self.programs[n].configured_at else { return Ok(()) };
        self.ram.view.write(at, &bytes).map_err(|_| Failure("RAM window".into()))
    }

    /// Program `n` is to know that it is started in place of one that has failed.
    pub fn tell_successor(&mut self, n: usize) -> Result<(), Failure> {
        let parameters = &mut self.programs[n].config.parameters;
        if parameters.iter().all(|(name, _)| name != system::SUCCESSOR) {
            parameters.push((system::SUCCESSOR.into(), String::new()));
        }
        self.fill_config(n)
    }

    /// Starts program `n`'s threads.
    pub fn start_program(&mut self, n: usize) -> Result<(), Failure> {
        let name = self.programs[n].config.name.clone();
        for t in 0..self.programs[n].threads.len() {
            let Thread { thread, context, .. } = self.programs[n].threads[t];
            sys::create_sc(context, thread, self.programs[n].priority, QUANTUM_US)
                .map_err(Failure::kernel(format!("starting {name}")))?;
        }
        Ok(())
    }
}
