//! Page faults: one lookup in the region map, then straight to the manager's portal.
use crate::end::Reason;
use crate::kernel::Kernel;
use crate::machine::entry::fault_address;
use crate::machine::{tlb, trace};
use crate::memory::{Charged, MemoryRange};
use crate::object::{Binding, Capability, Request, Space, State, Thread};
use abi::trace::Kind;
use abi::vcpu::ExitClass;
use abi::{
    Access, EndCause, Error, FaultMessage, FaultReply, HostPhys, MemRights, Message, Obstacle,
    PAGE_SIZE, REGISTERS, SpaceAddr, SpaceKind,
};
use regions::Range;
use scheduling::Id;

/// Page fault.
pub const PAGE_FAULT: u8 = 14;
/// Error code: the page was there, but not with that right.
const ERROR_PRESENT: u64 = 1;
/// Error code: the access was a write.
const ERROR_WRITE: u64 = 1 << 1;
/// Error code: the access was the program's own. Otherwise the processor touched a table of its own
/// on the program's behalf, which no manager can resolve. (QEMU also counts IRET's stack as such.)
const ERROR_USER: u64 = 1 << 2;
/// Error code: the access was an instruction fetch.
const ERROR_FETCH: u64 = 1 << 4;

/// Why a fault cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    NoRegion,
    Rights,
    Pinned,
    Gone,
    /// The manager has ended; this was its thread.
    Orphan(Id<Thread>),
    Cycle,
    WrongCpu,
}

/// Where a fault goes.
#[derive(Clone, Copy, Debug)]
struct Route {
    range: Range,
    binding: Binding,
    handler: Id<Thread>,
    badge: u64,
}

/// What a program's access was, from a page fault's error code; `None` when the access was not the
/// program's own.
#[inline]
pub fn access(error: u64) -> Option<Access> {
    if error & ERROR_USER == 0 {
        return None;
    }
    Some(match (error & ERROR_WRITE != 0, error & ERROR_FETCH != 0) {
        (true, _) => Access::Write,
        (false, true) => Access::Execute,
        (false, false) => Access::Read,
    })
}

/// The same, when there was no page at all.
#[inline(always)]
pub fn access_to_nothing(error: u64) -> Option<Access> {
    let absent = error & (ERROR_USER | ERROR_PRESENT) == ERROR_USER;
    if absent { access(error) } else { None }
}

/// The right that an access needs.
#[inline]
pub fn needed(access: Access) -> MemRights {
    match access {
        Access::Read => MemRights::READ,
        Access::Write => MemRights::WRITE,
        Access::Execute => MemRights::EXEC,
    }
}

impl Kernel {
    /// An exception in a program.
    pub fn exception(&mut self, id: Id<Thread>, vector: u8) {
        let Ok(thread) = self.threads.get_mut(id) else { return };
        let ip = thread.ip();
        let error = thread.frame().map_or(0, |f| f.error);
        let access = match access(error) {
            Some(access) if vector == PAGE_FAULT => access,
            _ => return self.end_thread(id, Reason::of(EndCause::Exception { vector, error })),
        };
        self.page_fault(id, fault_address(), access, ip);
    }

    /// A program's access to an address that is not mapped, or not with that right.
    pub fn page_fault(&mut self, id: Id<Thread>, address: u64, access: Access, ip: u64) {
        let at = SpaceAddr(address);
        self.begin_fault(id);
        match self.route_fault(id, at, access) {
            Ok(None) => self.end_fault(id),
            Ok(Some(route)) => self.send_fault(id, &route, (at, access, ip), false),
            Err(refusal) => {
                if !self.awaits_manager(id, refusal, at, access) {
                    self.end_thread(id, refusal.reason(address, access));
                }
            }
        }
    }

    /// True when a fault that goes to nobody waits for its region's next manager.
    fn awaits_manager(
        &mut self,
        id: Id<Thread>,
        refusal: Refusal,
        at: SpaceAddr,
        access: Access,
    ) -> bool {
        let Refusal::Orphan(handler) = refusal else { return false };
        if let Ok(thread) = self.threads.get_mut(id) {
            thread.tried = access;
        }
        self.orphan(id, handler, at)
    }

    /// A guest's access to an address that is not mapped, or not with that right.
    pub fn nested_fault(&mut self, id: Id<Thread>, address: u64, access: Access) {
        let at = SpaceAddr(address);
        self.begin_fault(id);
        match self.route_fault(id, at, access) {
            Ok(None) => self.end_fault(id),
            Ok(Some(route)) => {
                let ip = self.threads.get(id).map_or(0, Thread::ip);
                let state = route.binding.hint == REGISTERS;
                if state {
                    self.store_state(id, Some((address, access)));
                }
                self.send_fault(id, &route, (at, access, ip), state);
            }
            Err(refusal) => {
                if !self.awaits_manager(id, refusal, at, access) {
                    self.report_to_monitor(id, address, access);
                }
            }
        }
    }

    fn send_fault(
        &mut self,
        id: Id<Thread>,
        route: &Route,
        (address, access, ip): (SpaceAddr, Access, u64),
        state: bool,
    ) {
        let Route { range, binding, handler, badge } = *route;
        if !self.has_time(id) {
            return self.give_up(id, address, access);
        }
        self.counters.faults += 1;
        let cpu = crate::machine::cpu::id();
        trace::record(cpu, Kind::Fault, id.index(), binding.tag, address.0);
        if let Ok(thread) = self.threads.get_mut(id) {
            thread.asked = (range, binding.tag);
            thread.tried = access;
            thread.fault = FaultMessage {
                tag: binding.tag,
                offset: address.0 - range.base.0,
                access,
                ip,
                region_length: range.length,
                page_hint: u64::from(binding.hint),
                lost: binding.window.lost(),
            };
        }
        self.send(id, handler, Request::Fault { badge, address, state });
    }

    /// Who resolves a fault. `None` when the page is there already, or came through the window.
    fn route_fault(
        &mut self,
        id: Id<Thread>,
        at: SpaceAddr,
        access: Access,
    ) -> Result<Option<Route>, Refusal> {
        let client = self.threads.get(id).map_err(|_| Refusal::Gone)?.space;
        let space = self.spaces.get(client).map_err(|_| Refusal::Gone)?;
        let (range, binding) = space.regions.find(at).ok_or(Refusal::NoRegion)?;
        let binding = *binding;
        if !binding.rights.contains(needed(access)) {
            return Err(Refusal::Rights);
        }
        // Another processor may have mapped it meanwhile; a translation that allowed less was
        // dropped by the fault itself.
        if self.may_access(client, at, access) {
            return Ok(None);
        }
        if binding.view().is_some_and(|view| self.map_window(client, range, view, at, access)) {
            return Ok(None);
        }
        let portal = binding.portal.ok_or(Refusal::Pinned)?;
        let portal = self.portals.get(portal).map_err(|_| Refusal::Gone)?;
        let thread = self.threads.get(id).map_err(|_| Refusal::Gone)?;
        let gone = Refusal::Orphan(portal.handler);
        let handler = self.threads.get(portal.handler).map_err(|_| gone)?;
        if handler.cpu != thread.cpu && handler.sc.is_none() {
            return Err(Refusal::WrongCpu);
        }
        if self.would_deadlock(id, portal.handler) {
            return Err(Refusal::Cycle);
        }
        let (handler, badge) = (portal.handler, portal.badge);
        Ok(Some(Route { range, binding, handler, badge }))
    }

    /// Carries out what a manager answered. `manager` is the space of its handler.
    pub fn fault_reply(
        &mut self,
        id: Id<Thread>,
        manager: Id<Space>,
        (at, state): (SpaceAddr, bool),
        status: u64,
        words: &Message,
    ) {
        let Ok(thread) = self.threads.get(id) else { return };
        let (client, access) = ((thread.space, thread.asked), thread.tried);
        let (resumed, helps) = match (status, FaultReply::decode(words)) {
            (0, Some(FaultReply::Later)) => return self.put_off(id, at),
            // The manager may have carried it out itself, where it sees the state.
            (0, Some(FaultReply::Resume)) => (true, state || self.may_access(client.0, at, access)),
            (0, Some(reply)) => match self.resolve(client, manager, (at, access), reply) {
                Ok(helps) => (false, helps),
                Err(error) => return self.refuse(id, at, access, error as u64),
            },
            (0, None) => return self.refuse(id, at, access, Error::BadArgument as u64),
            (status, _) => return self.refuse(id, at, access, status),
        };
        let Ok(thread) = self.threads.get_mut(id) else { return };
        thread.state = State::Ready;
        thread.again = !helps;
        if state && resumed {
            self.load_state(id);
        }
    }

    /// A fault is not resolved: its manager has refused, or what it answered is nonsense.
    fn refuse(&mut self, id: Id<Thread>, at: SpaceAddr, access: Access, status: u64) {
        self.counters.faults_refused += 1;
        let address = at.0;
        let Ok(thread) = self.threads.get_mut(id) else { return };
        if thread.vcpu().is_none() {
            return self.end_thread(id, Reason::refused(address, status));
        }
        // What becomes of an access to memory that is gone, its monitor knows and says: a guest may fill it again, word by word.
        if status != Error::Gone as u64 {
            crate::log!("nested fault at {address:#x} refused by its manager, status {status}");
        }
        self.report_to_monitor(id, address, access);
    }

    /// Tells a vCPU's monitor of a fault that is not resolved.
    pub fn report_to_monitor(&mut self, id: Id<Thread>, address: u64, access: Access) {
        let Ok(thread) = self.threads.get_mut(id) else { return };
        thread.state = State::Ready;
        thread.again = false;
        self.store_state(id, Some((address, access)));
        self.send_exit(id, ExitClass::Error);
    }

    fn may_access(&self, space: Id<Space>, at: SpaceAddr, access: Access) -> bool {
        let leaf = self.spaces.get(space).ok().and_then(|space| space.tables.walk(at.0));
        leaf.is_some_and(|leaf| leaf.rights.contains(needed(access)))
    }

    /// Maps what a manager answered. False when that does not help the access. `asked`: where the
    /// region was that the manager was asked about, and its tag.
    pub fn resolve(
        &mut self,
        (space, asked): (Id<Space>, (Range, u64)),
        manager: Id<Space>,
        (address, access): (SpaceAddr, Access),
        reply: FaultReply,
    ) -> Result<bool, Error> {
        let (memory, memory_offset, region_offset, length, rights) = match reply {
            FaultReply::Map { memory, memory_offset, region_offset, length, rights } => {
                (memory, memory_offset, region_offset, length, rights)
            }
            FaultReply::Window { at } => {
                return self.answer_window((space, asked), manager, (address, access), at);
            }
            _ => return Err(Error::BadArgument),
        };
        let memory = match self.spaces.get(manager)?.table.get(memory)? {
            Capability::Memory(memory) => memory,
            _ => return Err(Error::BadCapability),
        };
        let regions = &mut self.spaces.get_mut(space)?.regions;
        let (range, binding) = regions.find_near(address).ok_or(Error::NoRegion)?;
        // The answer is about a region that has been divided or moved since, or has made room for
        // another one: ask again.
        if (range, binding.tag) != asked || binding.manager != Some(manager) {
            return Ok(true);
        }
        let rights = rights & binding.rights & memory.rights;
        let part = memory.part(memory_offset, length, rights)?;
        let start = range.base.0.checked_add(region_offset).ok_or(Error::BadArgument)?;
        let target = Range::new(start, length, u64::MAX)?;
        if !range.covers(target) {
            return Err(Error::BadArgument);
        }
        let helps =
            target.contains(address.0) & part.rights.contains(needed(access) - MemRights::READ);
        self.map_into(space, target, &part).map(|()| helps)
    }

    /// Maps memory into a range of a space that was checked to belong to whoever wants it.
    #[inline]
    pub fn map_into(
        &mut self,
        id: Id<Space>,
        range: Range,
        memory: &MemoryRange,
    ) -> Result<(), Error> {
        if memory.rights.contains(MemRights::DEVICE) && !self.forbidden.allows(memory) {
            return Err(Error::NoRight);
        }
        let space = self.spaces.get_mut(id)?;
        let mut rights = memory.rights | MemRights::READ;
        if space.kind == SpaceKind::Native && rights.contains(MemRights::WRITE | MemRights::EXEC) {
            rights.remove(MemRights::EXEC);
        }
        if range.length == PAGE_SIZE && space.tables.fill(range.base.0, memory.base, rights) {
            return Ok(());
        }
        self.map_all(id, range, memory.base, rights)
    }

    #[inline(never)]
    fn map_all(
        &mut self,
        id: Id<Space>,
        range: Range,
        to: HostPhys,
        rights: MemRights,
    ) -> Result<(), Error> {
        let space = self.spaces.get_mut(id)?;
        let mut frames = Charged { pool: &mut self.memory.frames, quota: &mut space.quota };
        let result = space.tables.map(range.base.0, to, range.length, rights, &mut frames);
        match result {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.flush(id);
                self.revoke(id, range);
                Ok(())
            }
            Err(_) => {
                self.flush(id);
                self.revoke(id, range);
                Err(Error::Quota)
            }
        }
    }

    /// Removes mappings from a space.
    pub fn unmap_from(&mut self, id: Id<Space>, range: Range) -> Result<(), Error> {
        let space = self.spaces.get_mut(id)?;
        let mut frames = Charged { pool: &mut self.memory.frames, quota: &mut space.quota };
        let result = space.tables.unmap(range.base.0, range.length, &mut frames);
        if result != Ok(false) {
            self.flush(id);
            self.revoke(id, range);
        }
        result.map(drop).map_err(|_| Error::Quota)
    }

    /// Sees to it that no page of a space lies across an address.
    pub fn divide_pages(&mut self, id: Id<Space>, at: SpaceAddr) -> Result<(), Error> {
        let space = self.spaces.get_mut(id)?;
        let mut frames = Charged { pool: &mut self.memory.frames, quota: &mut space.quota };
        space.tables.divide(at.0, &mut frames).map_err(|_| Error::Quota)
    }

    /// Drops stale translations of a space on all processors.
    pub fn flush(&mut self, id: Id<Space>) {
        let Ok(space) = self.spaces.get(id) else { return };
        let (root, kind) = (space.root(), space.kind);
        match kind {
            SpaceKind::Native => tlb::shoot_down(root, 0),
            SpaceKind::Guest => self.flush_guests(id),
        }
    }
}

impl Refusal {
    fn reason(self, address: u64, access: Access) -> Reason {
        let obstacle = match self {
            Refusal::NoRegion => Obstacle::NoRegion,
            Refusal::Rights => Obstacle::Rights,
            Refusal::Pinned => Obstacle::Pinned,
            Refusal::Gone | Refusal::Orphan(_) => Obstacle::ManagerGone,
            Refusal::Cycle => Obstacle::Cycle,
            Refusal::WrongCpu => Obstacle::WrongCpu,
        };
        Reason::obstacle(address, access, obstacle)
    }
}
