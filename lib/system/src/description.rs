//! The declared system.
use crate::models::Models;
use crate::sharing::Sharing;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes of a stack, where nothing else is said.
pub const STACK: u64 = 256 << 10;
/// Most bytes of a stack.
pub const STACK_LIMIT: u64 = 768 << 10;

/// A native program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Name of this instance.
    pub name: String,
    /// Its ELF file in the boot archive.
    pub file: String,
    /// A thread on each of these processors; numbers beyond the last processor
    /// count round.
    pub cpus: Vec<u32>,
    /// Bytes of heap.
    pub heap: u64,
    /// Bytes of kernel memory that it may cause.
    pub quota: u64,
    /// Priority of its threads.
    pub priority: u8,
    /// Most bytes of each thread's stack, a multiple of 16 KiB up to [`STACK_LIMIT`]. Without a number, 256 KiB.
    #[serde(default)]
    pub stack: Option<u64>,
    /// Most bytes of anonymous memory that it may have of its own (heap and stacks). Without a number, as
    /// much as it declares.
    #[serde(default)]
    pub memory: Option<u64>,
    /// True for a memory manager that is started again when it fails, and goes on where it was; and for
    /// a monitor, whose virtual machine is over then.
    #[serde(default)]
    pub restart: bool,
    /// True: all of its memory is mapped before it starts, so that it never faults. Needed for
    /// the memory managers themselves, and for programs with threads on several processors.
    #[serde(default)]
    pub pinned: bool,
    /// Parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Parameters taken from the machine's command line: name here → name there.
    #[serde(default)]
    pub from_command_line: BTreeMap<String, String>,
    /// Capabilities of the machine that it gets: `irq` (bind interrupts), `system` (counters and
    /// the end of the machine).
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Bytes of memory that it may start processes with, from files of the boot archive (`rt::process`); none:
    /// it starts none.
    #[serde(default)]
    pub processes: Option<u64>,
    /// Bytes of memory that it may share with others, in objects that it makes (`backing::shares`); none: it
    /// can't ask for any. It finds the numbers of others in its parameter `shares`, a list `name:number,…`.
    #[serde(default)]
    pub shares: Option<u64>,
    /// Files of the boot archive that it sees.
    #[serde(default)]
    pub files: Vec<FileUse>,
    /// Memory managers that tell it what they have (`lib/ledger`).
    #[serde(default)]
    pub ledgers: Vec<String>,
    /// Programs that tell it how much of their heaps is in use.
    #[serde(default)]
    pub heaps: Vec<String>,
}

/// A file of the boot archive in a program's space.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileUse {
    /// Name of the region.
    pub region: String,
    /// Name in the boot archive.
    pub file: String,
    /// It may write: it gets copies of the pages that it writes to. Otherwise it can only read.
    #[serde(default)]
    pub private: bool,
    /// Most bytes of such copies. Without a number, as many as the file has.
    #[serde(default)]
    pub copies: Option<u64>,
}

/// An object of anonymous memory, shared by those who name it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryObject {
    /// Name of the object.
    pub name: String,
    /// Bytes; a multiple of 2 MiB.
    pub size: u64,
    /// Word of the machine's command line that overrides `size`.
    #[serde(default)]
    pub size_from_command_line: Option<String>,
    /// Programs that see it.
    #[serde(default)]
    pub used_by: Vec<MemoryUse>,
    /// Who manages it where not all of it is to be in RAM. Otherwise it is anonymous memory.
    #[serde(default)]
    pub swap: Option<Swap>,
}

/// Memory that is larger than the RAM behind it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// The program that manages it; one for each such object.
    pub manager: String,
    /// Word of the machine's command line with the bytes of RAM for it, compressed pages included;
    /// a multiple of 2 MiB. Without that word all of it is in RAM.
    pub resident_from_command_line: String,
}

/// A program's view of a memory object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryUse {
    /// The program.
    pub program: String,
    /// Name of the region there.
    pub region: String,
    /// It looks which pages are lost: then it sees something without meaning in their place. Otherwise it ends when it needs one.
    #[serde(default)]
    pub losses: bool,
}

/// One end of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The program.
    pub program: String,
    /// Which of its threads is signalled.
    #[serde(default)]
    pub thread: u32,
}

/// Two rings between two programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Name.
    pub name: String,
    /// Bytes of shared memory, half for each direction; a multiple of 8 KiB.
    pub size: u64,
    /// Sends through the first half.
    pub first: End,
    /// Sends through the second half.
    pub second: End,
}

/// Exits of some classes go to a program other than the monitor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRoute {
    /// Names of `abi::vcpu::ExitClass` variants.
    pub classes: Vec<String>,
    /// The program; its region for the state page is `vcpu-NAME`.
    pub program: String,
    /// The thread that handles them; its processor is the virtual machine's.
    #[serde(default)]
    pub thread: u32,
}

/// A virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualMachine {
    /// Name.
    pub name: String,
    /// Processor that it runs on (counted round, where there are fewer).
    pub cpu: u32,
    /// Priority of its vCPU.
    pub priority: u8,
    /// Program that handles its exits.
    pub monitor: String,
    /// Memory object that is its RAM, from guest-physical address zero.
    pub ram: String,
    /// File of the boot archive behind its persistent-memory device, at 4 GiB.
    pub root_image: String,
    /// Devices that another program than the monitor models.
    #[serde(default)]
    pub models: Option<Models>,
    /// Exits that go elsewhere.
    #[serde(default)]
    pub routes: Vec<ExitRoute>,
    /// Pages that it shares with programs.
    #[serde(default)]
    pub windows: Vec<GuestWindow>,
}

/// Memory that a program shares with a virtual machine, which may do less with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestWindow {
    /// The program; it reads and writes.
    pub program: String,
    /// Name of the region there. Parameter `<region>-at` tells the guest-physical address.
    pub region: String,
    /// Guest-physical address.
    pub at: u64,
    /// Bytes.
    pub size: u64,
    /// The guest may write.
    #[serde(default)]
    pub write: bool,
    /// The guest may execute.
    #[serde(default)]
    pub execute: bool,
}

/// A PCI device given to a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The program.
    pub program: String,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Bytes of DMA memory.
    pub dma: u64,
    /// The machine may lack it.
    #[serde(default)]
    pub optional: bool,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Programs, in order of their start. The first two are the anonymous-memory manager and the
    /// image manager.
    pub programs: Vec<Program>,
    /// Memory objects.
    #[serde(default)]
    pub memory: Vec<MemoryObject>,
    /// Channels.
    #[serde(default)]
    pub channels: Vec<Channel>,
    /// Virtual machines.
    #[serde(default)]
    pub machines: Vec<VirtualMachine>,
    /// Devices.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Memory that is shared with different rights.
    #[serde(default)]
    pub sharing: Option<Sharing>,
}

impl Description {
    /// Checks what the types can't: names that must exist, sizes, threads.
    ///
    /// # Errors
    /// A sentence that names the entry and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        for (n, program) in self.programs.iter().enumerate() {
            if self.programs[..n].iter().any(|p| p.name == program.name) {
                return Err(format!("program '{}' is there twice", program.name));
            }
            if program.cpus.is_empty() || program.cpus.len() > 8 {
                return Err(format!("program '{}' needs 1 to 8 processors", program.name));
            }
            let stack = program.stack.unwrap_or(STACK);
            if stack == 0 || !stack.is_multiple_of(16 << 10) || stack > STACK_LIMIT {
                return Err(format!("program '{}': a stack of {stack} bytes", program.name));
            }
            if program.restart && !program.pinned {
                return Err(format!("program '{}' is restarted: pin it", program.name));
            }
            self.needs(program)?;
            if program.cpus.len() > 1 && !program.pinned {
                return Err(format!("program '{}' has several threads: pin it", program.name));
            }
        }
        if self.programs.len() < 2 {
            return Err("the first two programs must be the memory managers".into());
        }
        for object in &self.memory {
            if object.size == 0 || !object.size.is_multiple_of(2 << 20) {
                return Err(format!("memory '{}' is not a multiple of 2 MiB", object.name));
            }
            if let Some(swap) = &object.swap {
                self.need(&swap.manager, 0, &object.name)?;
                let same = |o: &&MemoryObject| {
                    o.swap.as_ref().is_some_and(|other| other.manager == swap.manager)
                };
                if self.memory.iter().filter(same).count() > 1 {
                    return Err(format!("program '{}' manages two memories", swap.manager));
                }
            }
            for used in &object.used_by {
                self.need(&used.program, 0, &object.name)?;
            }
        }
        for channel in &self.channels {
            if channel.size == 0 || !channel.size.is_multiple_of(8192) {
                return Err(format!("channel '{}' is not a multiple of 8 KiB", channel.name));
            }
            self.need(&channel.first.program, channel.first.thread, &channel.name)?;
            self.need(&channel.second.program, channel.second.thread, &channel.name)?;
        }
        self.machines.iter().try_for_each(|machine| self.check_machine(machine))?;
        self.devices.iter().try_for_each(|d| self.need(&d.program, 0, "a device"))?;
        self.check_sharing()
    }

    fn check_machine(&self, machine: &VirtualMachine) -> Result<(), String> {
        self.need(&machine.monitor, 0, &machine.name)?;
        if !self.memory.iter().any(|m| m.name == machine.ram) {
            return Err(format!("machine '{}': no memory '{}'", machine.name, machine.ram));
        }
        for route in &machine.routes {
            self.need(&route.program, route.thread, &machine.name)?;
        }
        machine.windows.iter().try_for_each(|window| self.check_window(window))?;
        self.check_models(machine)
    }

    fn check_window(&self, window: &GuestWindow) -> Result<(), String> {
        let pages = |n: u64| n.is_multiple_of(4096);
        if window.size == 0 || !pages(window.size) || !pages(window.at) {
            return Err(format!("window '{}' is not made of pages", window.region));
        }
        if window.write && window.execute {
            return Err(format!("window '{}' is writable and executable", window.region));
        }
        self.need(&window.program, 0, &window.region)
    }

    /// The programs that one looks at exist.
    fn needs(&self, program: &Program) -> Result<(), String> {
        let mut looked_at = program.ledgers.iter().chain(&program.heaps);
        looked_at.try_for_each(|one| self.need(one, 0, &program.name))
    }

    pub(crate) fn need(&self, program: &str, thread: u32, by: &str) -> Result<(), String> {
        match self.programs.iter().find(|p| p.name == program) {
            None => Err(format!("'{by}' names program '{program}', which does not exist")),
            Some(p) if thread as usize >= p.cpus.len() => {
                Err(format!("'{by}' names thread {thread} of '{program}'"))
            }
            Some(_) => Ok(()),
        }
    }
}
