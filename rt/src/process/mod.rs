//! Native processes: a program makes others from ELF files, with arguments, out of memory and quota that
//! it owns, and is told how each ends. Whoever does so needs memory to give to them, executable memory
//! with their files, and CONTROL over the thread that waits for their ends; the kernel does the rest.
//! A process has of the machine what its parent gives it at the start, and nothing else.
mod block;
mod error;
mod files;

pub use error::Error;
pub use files::{File, Files};

use crate::sys::{self, Pinned};
use crate::{Shared, config};
use abi::{
    EndCause, Event, FIRST_FREE_SELECTOR, MESSAGE_WORDS, MemRights, Message, PAGE_SIZE, Selector,
    SpaceKind, ThreadArgs, ThreadEnd,
};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use block::{Block, RW, show, whole};
use core::sync::atomic::{AtomicU64, Ordering};
use executable::{Executable, HEAD};
use memory::Memory;
use system::{CONFIG_ADDRESS, CONFIG_LIMIT, Config, HEAP, PROGRAM, STACKS};

/// Most arguments of a process.
pub const MOST_ARGUMENTS: usize = 64;
/// Most bytes that they have together.
pub const ARGUMENT_BYTES: usize = 8 << 10;
/// Most processes of one program: their ends fit into what the kernel keeps for a thread.
pub const MOST_PROCESSES: usize = 32;

/// First selector that is used in the parent's table, four for each process.
const SELECTORS: u32 = 1024;
/// Badges of the ends: above those that programs give themselves.
const BADGES: u64 = 1 << 48;

/// Counts the starts of all processes of this program.
static STARTED: AtomicU64 = AtomicU64::new(1);

/// Names a process until its end has been told; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id(u64);

/// How a process is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Its name, for reports.
    pub name: &'a str,
    /// What it is told; [`crate::arguments`] in the process.
    pub arguments: &'a [&'a str],
    /// What it may use: name there, selector here (with GRANT), mask of rights. Besides it gets its own
    /// thread, as `thread`.
    pub capabilities: &'a [(&'a str, Selector, u64)],
    /// Processor.
    pub cpu: u32,
    /// Priority.
    pub priority: u8,
    /// Quantum in microseconds.
    pub quantum: u64,
    /// Bytes of heap.
    pub heap: u64,
    /// Bytes of stack.
    pub stack: u64,
    /// Bytes of kernel memory, out of the parent's quota.
    pub quota: u64,
}

impl Start<'_> {
    /// A small process with nothing but a name.
    pub const SMALL: Start<'static> = Start {
        name: "process",
        arguments: &[],
        capabilities: &[],
        cpu: 0,
        priority: 50,
        quantum: 10_000,
        heap: 64 << 10,
        stack: 16 << 10,
        quota: 256 << 10,
    };
}

/// The end of a process. Nothing of it is left when this is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Which one.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// How: the exit code, or cause, instruction and address of what it did.
    pub end: ThreadEnd,
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "process '{}' ended: {}", self.name, self.end)
    }
}

/// What processes are made of.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Memory that nobody else uses.
    pub memory: Selector,
    /// The same, as this program sees it; begins at `offset` of `memory`.
    pub view: Shared,
    /// Where the view begins.
    pub offset: u64,
    /// Bytes of memory that each process gets.
    pub each: u64,
    /// The thread that is told of the ends, with CONTROL: the one that waits.
    pub thread: Selector,
}

/// The processes of this program.
pub struct Processes {
    means: Means,
    running: Vec<Option<Process>>,
}

struct Process {
    id: Id,
    name: String,
}

/// The selectors of a process in its parent's table.
#[derive(Clone, Copy)]
struct Slots {
    space: Selector,
    thread: Selector,
    portal: Selector,
    time: Selector,
}

impl Slots {
    fn of(place: usize) -> Self {
        let at = |n| Selector(SELECTORS + 4 * place as u32 + n);
        Self { space: at(0), thread: at(1), portal: at(2), time: at(3) }
    }

    /// Ends what there is of the process, and empties the slots.
    fn clear(self) {
        // Whatever was not made, or has ended by itself, is not there to be ended.
        let _ = sys::destroy(self.space);
        for slot in [self.time, self.thread, self.portal, self.space] {
            let _ = sys::cap_drop(Selector(0), slot);
        }
    }
}

impl Processes {
    /// Processes out of these means: as many at a time as memory is there for.
    #[must_use]
    pub fn new(means: Means) -> Self {
        let each = means.each.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
        let count = (means.view.len() / each).min(MOST_PROCESSES as u64) as usize;
        let running = (0..count).map(|_| None).collect();
        Self { means: Means { each, ..means }, running }
    }

    /// Processes of `each` bytes out of what the system description gives this program for them.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn of_config(each: u64) -> Result<Self, Error> {
        let capability = |name| config().capability(name).map(Selector).ok_or(Error::NotAllowed);
        let view = Shared::region("processes").ok_or(Error::NotAllowed)?;
        let (memory, thread) = (capability("processes")?, capability("thread")?);
        Ok(Self::new(Means { memory, view, offset: 0, each, thread }))
    }

    /// Starts a process.
    ///
    /// # Errors
    /// All but `NotAllowed` and `NoProcess`; then nothing of it is left.
    pub fn start(&mut self, file: &File, start: &Start<'_>) -> Result<Id, Error> {
        check_arguments(start.arguments)?;
        let place = self.running.iter().position(Option::is_none).ok_or(Error::TooMany)?;
        let program = read_file(file)?;
        let slots = Slots::of(place);
        let id = Id(STARTED.fetch_add(1, Ordering::Relaxed) << 8 | place as u64);
        match self.make(slots, place, id, file, &program, start) {
            Ok(()) => {
                self.running[place] = Some(Process { id, name: start.name.into() });
                Ok(id)
            }
            Err(error) => {
                slots.clear();
                Err(error)
            }
        }
    }

    fn make(
        &self,
        slots: Slots,
        place: usize,
        id: Id,
        file: &File,
        program: &Executable,
        start: &Start<'_>,
    ) -> Result<(), Error> {
        sys::create_space(slots.space, SpaceKind::Native, start.quota)
            .map_err(Error::at("space"))?;
        let mut memory = Block::of(&self.means, place, slots.space);
        memory.need(program, start)?;
        for segment in &program.segments {
            if segment.is_data() {
                memory.data(file, segment)?;
            } else {
                let (memory, offset) = (file.memory, file.offset + segment.offset);
                let (base, length, rights) = (segment.address, segment.in_memory, segment.rights);
                show(slots.space, Pinned { base, memory, offset, length, rights })?;
            }
        }
        let stack = whole(start.stack);
        memory.take(STACKS, stack, RW, &[])?;
        memory.take(HEAP, whole(start.heap), RW, &[])?;
        let args = ThreadArgs { entry: program.entry, stack: STACKS + stack, argument: 0 };
        sys::create_thread(slots.thread, slots.space, start.cpu, args)
            .map_err(Error::at("thread"))?;
        let config = configuration(slots, start)?;
        memory.take(CONFIG_ADDRESS, whole(config.len() as u64), MemRights::READ, &config)?;
        sys::create_portal(slots.portal, self.means.thread, BADGES | id.0)
            .and_then(|()| sys::fault_portal(slots.thread, slots.portal))
            .map_err(Error::at("portal"))?;
        sys::create_sc(slots.time, slots.thread, start.priority, start.quantum)
            .map_err(Error::at("time"))
    }

    /// Processes that have not ended, or whose end has not been told yet.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.iter().flatten().count()
    }

    /// Ends a process. That is told like any other end, by cause `Destroyed` unless it was faster.
    ///
    /// # Errors
    /// `NoProcess`.
    pub fn kill(&self, id: Id) -> Result<(), Error> {
        let place = self.place(id).ok_or(Error::NoProcess)?;
        // It may have ended by itself in this moment.
        let _ = sys::destroy(Slots::of(place).space);
        Ok(())
    }

    fn place(&self, id: Id) -> Option<usize> {
        self.running.iter().position(|p| p.as_ref().is_some_and(|p| p.id == id))
    }

    /// What a `ThreadEnd` event of this badge and with these words means, for programs that wait by
    /// themselves; frees what the process held. `None` when it is about something else.
    pub fn ended(&mut self, badge: u64, words: &Message) -> Option<Ended> {
        let place = self.place(Id(badge ^ BADGES))?;
        let Process { id, name } = self.running[place].take()?;
        Slots::of(place).clear();
        let (cause, detail) = (EndCause::Destroyed, abi::Detail::None);
        let unknown = ThreadEnd { cause, ip: words[1], detail };
        Some(Ended { id, name, end: ThreadEnd::decode(words).unwrap_or(unknown) })
    }

    /// Waits for the end of any process, at most until `deadline` (ticks). Calls that come meanwhile are
    /// refused.
    ///
    /// # Errors
    /// `Kernel`: the thread may not wait now.
    pub fn wait(&mut self, deadline: u64) -> Result<Option<Ended>, Error> {
        let mut next = sys::wait(deadline);
        loop {
            next = match next.map_err(Error::at("wait"))? {
                (Event::Timeout, _) => return Ok(None),
                (Event::ThreadEnd(badge), words) => match self.ended(badge, &words) {
                    Some(ended) => return Ok(Some(ended)),
                    None => sys::wait(deadline),
                },
                (Event::Notification, _) => sys::wait(deadline),
                _ => sys::reply_wait(abi::Error::Refused as u64, [0; MESSAGE_WORDS], deadline),
            };
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (place, _) in self.running.iter().enumerate().filter(|(_, p)| p.is_some()) {
            Slots::of(place).clear();
        }
    }
}

fn check_arguments(arguments: &[&str]) -> Result<(), Error> {
    let bytes = arguments.iter().map(|a| a.len()).fold(0, usize::saturating_add);
    if arguments.len() > MOST_ARGUMENTS || bytes > ARGUMENT_BYTES {
        return Err(Error::Arguments);
    }
    Ok(())
}

/// Copies a file's start, and checks the copy.
fn read_file(file: &File) -> Result<Executable, Error> {
    let mut head = vec![0; HEAD.min(file.view.len() as usize)];
    let read = file.view.read(0, &mut head);
    read.map_err(|_| Error::File(executable::Defect::NotElf))?;
    Executable::read(&head, file.view.len(), &PROGRAM).map_err(Error::File)
}

/// Gives the process its capabilities, and writes down what it is told.
fn configuration(slots: Slots, start: &Start<'_>) -> Result<Vec<u8>, Error> {
    let own = [("thread", slots.thread, sys::ALL_RIGHTS)];
    let mut capabilities = Vec::new();
    for ((name, from, mask), to) in own.iter().chain(start.capabilities).zip(FIRST_FREE_SELECTOR..)
    {
        sys::cap_copy(*from, slots.space, Selector(to), *mask).map_err(Error::at("capability"))?;
        capabilities.push((name.to_string(), to));
    }
    let told = Config {
        name: start.name.into(),
        tsc_khz: config().tsc_khz,
        cpus: config().cpus,
        arguments: start.arguments.iter().map(|a| a.to_string()).collect(),
        capabilities,
        ..Config::default()
    };
    let mut bytes = Vec::from(HEAP.to_le_bytes());
    bytes.extend_from_slice(&whole(start.heap).to_le_bytes());
    bytes.extend_from_slice(&system::encode(&told));
    if bytes.len() as u64 > CONFIG_LIMIT { Err(Error::Arguments) } else { Ok(bytes) }
}
