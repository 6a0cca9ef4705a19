//! Kernel objects, and the capabilities that lead to them.
use crate::machine::entry::FrameBox;
use crate::machine::table::Tables;
use crate::memory::{MemoryRange, Quota};
use crate::vcpu::VcpuPart;
use crate::window::Windows;
use abi::{
    Access, FaultMessage, HostPhys, MemRights, Message, ObjRights, SpaceAddr, SpaceKind,
    vcpu::ExitClass,
};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use captable::Table;
use regions::{Range, RegionMap};
use scheduling::lend::Slice;
use scheduling::{Deadline, Id, Links, Queued};

/// An entry of a capability table.
#[derive(Clone, Copy, Debug)]
pub enum Capability {
    /// A space.
    Space(Id<Space>, ObjRights),
    /// A thread or a vCPU.
    Thread(Id<Thread>, ObjRights),
    /// A portal.
    Portal(Id<Portal>, ObjRights),
    /// A notification.
    Notification(Id<Notification>, ObjRights),
    /// A scheduling context.
    Sc(Id<Sc>, ObjRights),
    /// Physical memory.
    Memory(MemoryRange),
    /// The right to bind interrupts.
    Irq(ObjRights),
    /// The right to counters, trace masks and shutdown.
    System(ObjRights),
}

/// What a region is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Portal of the manager; `None` for a pinned region.
    pub portal: Option<Id<Portal>>,
    /// Space of the manager's handler at the time of binding.
    pub manager: Option<Id<Space>>,
    /// The manager's own number for it.
    pub tag: u64,
    /// Most rights that a mapping can have.
    pub rights: MemRights,
    /// log2 of the page size that suits it, or [`abi::REGISTERS`].
    pub hint: u8,
    /// Where its manager keeps its pages, in the manager's space.
    pub window: Place,
}

/// Where a region's window is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere.
    None,
    /// At this address; once its manager has ended, it was there.
    At(SpaceAddr),
    /// It was at this address in the space of the manager before.
    Lost(SpaceAddr),
}

impl From<Option<SpaceAddr>> for Place {
    fn from(at: Option<SpaceAddr>) -> Self {
        at.map_or(Place::None, Place::At)
    }
}

impl Place {
    /// The same for the manager that comes after this one.
    pub fn passed(self) -> Self {
        match self {
            Place::At(at) | Place::Lost(at) => Place::Lost(at),
            Place::None => Place::None,
        }
    }

    /// The same for a part of the region that begins so many bytes behind it.
    pub fn behind(self, bytes: u64) -> Self {
        match self {
            Place::None => Place::None,
            Place::At(at) => Place::At(SpaceAddr(at.0 + bytes)),
            Place::Lost(at) => Place::Lost(SpaceAddr(at.0 + bytes)),
        }
    }

    /// What the manager is told when it is asked.
    #[inline]
    pub fn lost(self) -> u64 {
        match self {
            Place::Lost(at) => at.0,
            _ => 0,
        }
    }
}

/// A window as its region sees it: where, in which space, and the rights that a mapping from there
/// can have.
pub type View = (SpaceAddr, Id<Space>, MemRights);

impl Binding {
    /// Its window.
    #[inline]
    pub fn view(&self) -> Option<View> {
        let Place::At(at) = self.window else { return None };
        Some((at, self.manager?, self.rights))
    }
}

/// An address space: of programs, or the physical memory of a VM.
#[derive(Debug)]
pub struct Space {
    /// Which.
    pub kind: SpaceKind,
    /// Capabilities of its threads.
    pub table: Table<Capability>,
    /// Who manages which addresses.
    pub regions: RegionMap<Binding>,
    /// What is mapped now.
    pub tables: Tables,
    /// Kernel memory.
    pub quota: Quota,
    /// Where the quota came from.
    pub parent: Option<Id<Space>>,
    /// Spaces that manage regions of this one, with the number of those regions.
    pub managers: Vec<(Id<Space>, u32)>,
    /// Windows that lie in it.
    pub windows: Windows,
    /// Ticks that a fault of its threads may remain unresolved; `u64::MAX` is for ever.
    pub patience: u64,
}

/// What a blocked thread waits for an answer to.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// A call through a portal with this badge; the words are in the caller's registers.
    Call(u64),
    /// A page fault.
    Fault {
        /// Badge of the manager's portal.
        badge: u64,
        /// The address, by which the region is found again when the manager answers.
        address: SpaceAddr,
        /// The manager sees and changes the state page (device region of a VM).
        state: bool,
    },
    /// A VM exit.
    Exit {
        /// Badge of the exit portal.
        badge: u64,
        /// Class.
        class: ExitClass,
    },
}

/// What a thread does.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// It runs when a scheduling context leads to it.
    Ready,
    /// In `Wait`.
    Waiting,
    /// Waits until the handler has served its request.
    Calling {
        /// Thread behind the portal.
        handler: Id<Thread>,
        /// What was asked.
        request: Request,
    },
    /// Its fault was put off by this handler of its manager.
    PutOff(Id<Thread>, SpaceAddr),
    /// A vCPU that waits for a recall.
    Blocked,
}

/// Whom a handler serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serving {
    /// Nobody.
    None,
    /// This thread waits for the reply.
    Caller(Id<Thread>),
    /// The caller died meanwhile; the reply goes nowhere.
    Lost,
}

/// What is executed.
#[derive(Debug)]
pub enum Body {
    /// A program.
    Native(FrameBox),
    /// A guest.
    Vcpu(Box<VcpuPart>),
}

/// A thread of a program, or a vCPU.
#[derive(Debug)]
pub struct Thread {
    /// Where it lives; of a vCPU: its guest-physical space.
    pub space: Id<Space>,
    /// Root of that space's page tables.
    pub root: HostPhys,
    /// Its processor.
    pub cpu: usize,
    /// What it executes.
    pub body: Body,
    /// What it does.
    pub state: State,
    /// Time of its own.
    pub sc: Option<Id<Sc>>,
    /// Time of a caller that died, kept until the handler (this) has finished.
    pub adopted: Option<Id<Sc>>,
    /// The call being served.
    pub serving: Serving,
    /// First and last thread that queue to be served.
    pub queue: Option<(Id<Thread>, Id<Thread>)>,
    /// Next thread in the queue that this one is in.
    pub next: Option<Id<Thread>>,
    /// `Wait` takes its bits too.
    pub notification: Option<Id<Notification>>,
    /// Where its end is reported.
    pub fault_portal: Option<Id<Portal>>,
    /// Where the region of its last fault was when the manager was asked, and its tag.
    pub asked: (Range, u64),
    /// When that fault happened.
    pub since: u64,
    /// What was tried.
    pub tried: Access,
    /// The answer to it changed nothing: when the access faults again, it is still the same fault.
    pub again: bool,
    /// The fault that it waits for its manager to resolve, if that is what it waits for and it did
    /// not get there by the short way.
    pub fault: FaultMessage,
    /// Position in its processor's timer queue.
    pub timer: Option<usize>,
    /// Ends of other threads that are still to be reported to this one: badge and words.
    pub events: VecDeque<(u64, Message)>,
    /// Heap bytes charged to its space.
    pub cost: u64,
}

/// Where a call enters a server.
#[derive(Clone, Copy, Debug)]
pub struct Portal {
    /// The thread that serves it.
    pub handler: Id<Thread>,
    /// Tells the handler which portal it was.
    pub badge: u64,
    /// Most rights of a region that is bound to it.
    pub rights: MemRights,
    /// Who pays for it; it does not outlive that space.
    pub payer: Id<Space>,
    /// Capabilities, regions, vCPUs and threads that name it.
    pub references: u32,
}

/// 64 bits that can be set from anywhere and wake a thread.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Bits set and not yet taken.
    pub bits: u64,
    /// The thread whose waits take them.
    pub bound: Option<Id<Thread>>,
    /// Who pays for it.
    pub payer: Id<Space>,
    /// Capabilities that name it.
    pub references: u32,
}

/// Time: what the run queues hold.
#[derive(Clone, Copy, Debug)]
pub struct Sc {
    /// Whose time it is. Calls lend it along to the handler.
    pub thread: Id<Thread>,
    /// Its processor.
    pub cpu: usize,
    /// Higher runs first.
    pub priority: u8,
    /// Ticks before others of the same priority get their turn.
    pub slice: Slice,
    /// In a run queue, or current on its processor.
    pub active: bool,
    /// Neighbours in the run queue.
    pub links: Links<Sc>,
    /// The space that pays.
    pub payer: Id<Space>,
}

/// Where an interrupt goes.
#[derive(Clone, Copy, Debug)]
pub struct Irq {
    /// The notification.
    pub notification: Id<Notification>,
    /// The bits to set.
    pub bits: u64,
}

impl Thread {
    /// A thread that has not run, in a space with this root.
    pub fn new(space: (Id<Space>, HostPhys), cpu: usize, body: Body, cost: u64) -> Self {
        Self {
            space: space.0,
            root: space.1,
            cpu,
            body,
            state: State::Ready,
            sc: None,
            adopted: None,
            serving: Serving::None,
            queue: None,
            next: None,
            notification: None,
            fault_portal: None,
            asked: (Range { base: SpaceAddr(0), length: 0 }, 0),
            since: 0,
            tried: Access::Read,
            again: false,
            fault: FaultMessage::decode(&[0; 8]),
            timer: None,
            events: VecDeque::new(),
            cost,
        }
    }

    /// Registers of a program's thread.
    #[inline]
    pub fn frame(&mut self) -> Option<&mut FrameBox> {
        match &mut self.body {
            Body::Native(frame) => Some(frame),
            Body::Vcpu(_) => None,
        }
    }

    /// The vCPU part.
    pub fn vcpu(&mut self) -> Option<&mut VcpuPart> {
        match &mut self.body {
            Body::Native(_) => None,
            Body::Vcpu(part) => Some(part),
        }
    }

    /// Where it executes.
    pub fn ip(&self) -> u64 {
        match &self.body {
            Body::Native(frame) => frame.rip,
            Body::Vcpu(part) => part.vcpu.rip(),
        }
    }
}

impl Space {
    /// One past the highest address that a region may cover. The last page of a native space's
    /// half stays free, so that no SYSCALL can return to a non-canonical address.
    pub fn limit(&self) -> u64 {
        match self.kind {
            SpaceKind::Native => abi::USER_END - abi::PAGE_SIZE,
            SpaceKind::Guest => 1 << 48,
        }
    }

    /// Root of its page tables.
    pub fn root(&self) -> HostPhys {
        self.tables.root()
    }
}

impl Queued for Sc {
    fn priority(&self) -> u8 {
        self.priority
    }

    fn links(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

impl Deadline for Thread {
    fn place(&mut self) -> &mut Option<usize> {
        &mut self.timer
    }
}
