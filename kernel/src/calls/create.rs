//! Calls that create objects. Each charges the new object to a space before it makes it.
use super::args;
use crate::kernel::Kernel;
use crate::machine::entry::{Frame, FrameBox};
use crate::machine::table::Tables;
use crate::machine::vcpu::{self as guest, VcpuBox};
use crate::memory::{Charged, Quota};
use crate::object::{Body, Capability, Notification, Portal, Sc, Space, Thread};
use crate::vcpu::{FRAMES, VcpuPart};
use crate::window::Windows;
use abi::{Error, MemRights, ObjRights, PAGE_SIZE, Selector, SpaceKind, USER_END};
use alloc::boxed::Box;
use captable::Table;
use regions::RegionMap;
use scheduling::lend::Slice;
use scheduling::{Arena, Id, Links};

/// Quanta that a scheduling context can have, in microseconds.
const QUANTA: core::ops::RangeInclusive<u64> = 50..=10_000_000;

impl Kernel {
    /// Charges heap bytes to a space.
    pub fn charge(&mut self, space: Id<Space>, bytes: u64) -> Result<(), Error> {
        let space = self.spaces.get_mut(space)?;
        self.memory.charge(&mut space.quota, bytes)
    }

    /// Installs a capability; the slot was checked to be free, and its cost was charged.
    pub fn install(
        &mut self,
        space: Id<Space>,
        selector: Selector,
        capability: Capability,
    ) -> Result<(), Error> {
        self.spaces.get_mut(space)?.table.insert(selector, capability)
    }

    /// Charges what an object will cost to `payer`, and makes room for the capability to it, at
    /// the caller's cost.
    pub fn prepare(
        &mut self,
        own: Id<Space>,
        raw: u64,
        payer: Id<Space>,
        bytes: u64,
    ) -> Result<Selector, Error> {
        let selector = args::selector(raw)?;
        self.prepare_slot(own, selector)?;
        self.charge(payer, bytes)?;
        Ok(selector)
    }

    /// Charges and makes room for a capability.
    pub fn prepare_slot(&mut self, space: Id<Space>, selector: Selector) -> Result<(), Error> {
        let table = &self.spaces.get(space)?.table;
        table.check_free(selector)?;
        let cost = table.cost(selector) as u64;
        self.charge(space, cost)?;
        self.spaces.get_mut(space)?.table.reserve(selector)
    }
}

/// Heap bytes that the allocator may add to an allocation.
const OVERHEAD: u64 = 32;

/// `CreateSpace(destination, kind, quota)`.
pub fn space(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let kind = match a[1] {
        0 => SpaceKind::Native,
        1 if guest::available() => SpaceKind::Guest,
        1 => return Err(Error::Unsupported),
        _ => return Err(Error::BadArgument),
    };
    let mut quota = Quota { limit: a[2], used: 0 };
    // The space pays for itself, out of what it was given.
    if quota.limit < Arena::<Space>::COST + PAGE_SIZE {
        return Err(Error::Quota);
    }
    let selector = k.prepare(own, a[0], own, 0)?;
    k.spaces.get_mut(own)?.quota.charge(quota.limit)?;
    match make_space(k, kind, &mut quota) {
        Ok(tables) => {
            let id = k.spaces.insert(Space {
                kind,
                table: Table::new(),
                regions: RegionMap::new(),
                tables,
                quota,
                parent: Some(own),
                managers: alloc::vec::Vec::new(),
                windows: Windows::new(),
                patience: u64::MAX,
            });
            k.install(own, selector, Capability::Space(id, ObjRights::all()))
        }
        Err(error) => {
            k.spaces.get_mut(own)?.quota.credit(quota.limit);
            Err(error)
        }
    }
}

/// The page tables of a new space, with everything about it charged to its quota.
fn make_space(k: &mut Kernel, kind: SpaceKind, quota: &mut Quota) -> Result<Tables, Error> {
    k.memory.charge(quota, Arena::<Space>::COST)?;
    let kernel = (kind == SpaceKind::Native).then_some(k.root);
    let mut frames = Charged { pool: &mut k.memory.frames, quota };
    let tables = Tables::new(kernel, &mut frames);
    tables.map_err(|_| {
        k.memory.heap.credit(Arena::<Space>::COST);
        Error::Quota
    })
}

/// `CreateThread(destination, space, cpu, entry, stack, argument)`.
pub fn thread(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let space = args::space_or_own(k, own, a[1], ObjRights::CONTROL)?;
    let cpu = args::cpu(k, a[2])?;
    if k.spaces.get(space)?.kind != SpaceKind::Native {
        return Err(Error::BadArgument);
    }
    if a[3] >= USER_END || a[4] > USER_END {
        return Err(Error::BadAddress);
    }
    let cost = Arena::<Thread>::COST + size_of::<Frame>() as u64 + OVERHEAD;
    let selector = k.prepare(own, a[0], space, cost)?;
    let root = k.spaces.get(space)?.root();
    let body = Body::Native(FrameBox::new(a[3], a[4], a[5]));
    let id = k.add_thread(Thread::new((space, root), cpu, body, cost));
    k.install(own, selector, Capability::Thread(id, ObjRights::all()))
}

impl Kernel {
    /// Adds a thread, with room for its deadlines.
    pub fn add_thread(&mut self, thread: Thread) -> Id<Thread> {
        let cpu = thread.cpu;
        let id = self.threads.insert(thread);
        let threads = self.threads.live();
        self.cpus[cpu].timers.reserve(threads);
        id
    }
}

/// `CreatePortal(destination, handler thread, badge, most rights of its regions)`.
pub fn portal(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let handler = args::thread(k, own, a[1], ObjRights::CONTROL)?;
    if k.threads.get_mut(handler)?.frame().is_none() {
        return Err(Error::BadArgument);
    }
    if a[2] >> 56 != 0 {
        return Err(Error::BadArgument);
    }
    let rights = match args::mem_rights(a[3])? {
        any if any.is_empty() => MemRights::all(),
        most => most | MemRights::READ,
    };
    let selector = k.prepare(own, a[0], own, Arena::<Portal>::COST)?;
    let id = k.portals.insert(Portal { handler, badge: a[2], rights, payer: own, references: 1 });
    k.install(own, selector, Capability::Portal(id, ObjRights::all()))
}

/// `CreateNotification(destination)`.
pub fn notification(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let selector = k.prepare(own, a[0], own, Arena::<Notification>::COST)?;
    let id =
        k.notifications.insert(Notification { bits: 0, bound: None, payer: own, references: 1 });
    k.install(own, selector, Capability::Notification(id, ObjRights::all()))
}

/// `CreateSc(destination, thread, priority, quantum in microseconds)`.
pub fn sc(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let thread = args::thread(k, own, a[1], ObjRights::CONTROL)?;
    let priority = u8::try_from(a[2]).map_err(|_| Error::BadArgument)?;
    if !QUANTA.contains(&a[3]) {
        return Err(Error::BadArgument);
    }
    let (space, has) = k.threads.get(thread).map(|t| (t.space, t.sc.is_some()))?;
    if has {
        return Err(Error::BadState);
    }
    let selector = k.prepare(own, a[0], space, Arena::<Sc>::COST)?;
    let id = k.add_sc(thread, space, priority, a[3])?;
    k.install(own, selector, Capability::Sc(id, ObjRights::all()))
}

impl Kernel {
    /// Gives a thread time of its own, which was paid for.
    pub fn add_sc(
        &mut self,
        thread: Id<Thread>,
        payer: Id<Space>,
        priority: u8,
        microseconds: u64,
    ) -> Result<Id<Sc>, Error> {
        let quantum = microseconds * self.tsc_khz / 1000;
        let owner = self.threads.get_mut(thread)?;
        let sc = Sc {
            thread,
            cpu: owner.cpu,
            priority,
            slice: Slice::new(quantum),
            active: false,
            links: Links::default(),
            payer,
        };
        let id = self.scs.insert(sc);
        owner.sc = Some(id);
        self.activate(id);
        Ok(id)
    }
}

/// `CreateVcpu(destination, guest space, cpu, memory, page offset)`.
pub fn vcpu(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let space = args::space(k, own, a[1], ObjRights::CONTROL)?;
    let cpu = args::cpu(k, a[2])?;
    if k.spaces.get(space)?.kind != SpaceKind::Guest {
        return Err(Error::BadArgument);
    }
    let page =
        args::memory(k, own, a[3])?.part(a[4], PAGE_SIZE, MemRights::READ | MemRights::WRITE)?;
    if page.rights.contains(MemRights::DEVICE) {
        return Err(Error::BadArgument);
    }
    let heap = Arena::<Thread>::COST + (size_of::<VcpuPart>() + 1024) as u64;
    let selector = k.prepare(own, a[0], space, heap)?;
    if let Err(error) = k.spaces.get_mut(space)?.quota.charge(FRAMES * PAGE_SIZE) {
        k.credit(space, heap);
        return Err(error);
    }
    let root = k.spaces.get(space)?.root();
    let Some(vcpu) = VcpuBox::new(root, &mut k.memory.frames) else {
        k.spaces.get_mut(space)?.quota.credit(FRAMES * PAGE_SIZE);
        k.credit(space, heap);
        return Err(Error::Quota);
    };
    let body = Body::Vcpu(Box::new(VcpuPart::new(vcpu, page.base)));
    let id = k.add_thread(Thread::new((space, root), cpu, body, heap));
    k.install(own, selector, Capability::Thread(id, ObjRights::all()))
}
