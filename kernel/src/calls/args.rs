//! Decoding of untrusted arguments, and the look-ups behind them.
use crate::kernel::Kernel;
use crate::memory::MemoryRange;
use crate::object::{Capability, Notification, Portal, Space, Thread};
use abi::{Error, MemRights, ObjRights, Selector};
use scheduling::Id;

/// A selector from a register.
#[inline]
pub fn selector(raw: u64) -> Result<Selector, Error> {
    u32::try_from(raw).map(Selector).map_err(|_| Error::BadCapability)
}

/// Memory rights from a register.
pub fn mem_rights(raw: u64) -> Result<MemRights, Error> {
    MemRights::from_bits(raw).ok_or(Error::BadArgument)
}

/// The capability behind a selector.
#[inline]
pub fn capability(k: &Kernel, space: Id<Space>, raw: u64) -> Result<Capability, Error> {
    k.spaces.get(space)?.table.get(selector(raw)?)
}

fn check(have: ObjRights, need: ObjRights) -> Result<(), Error> {
    if have.contains(need) { Ok(()) } else { Err(Error::NoRight) }
}

/// A portal that the caller may call.
#[inline]
pub fn portal_to_call(k: &Kernel, space: Id<Space>, raw: u64) -> Result<Portal, Error> {
    match capability(k, space, raw)? {
        Capability::Portal(id, rights) => {
            check(rights, ObjRights::USE)?;
            k.portals.get(id).copied()
        }
        _ => Err(Error::BadCapability),
    }
}

/// A portal, with its object checked to exist.
pub fn portal(
    k: &Kernel,
    space: Id<Space>,
    raw: u64,
    need: ObjRights,
) -> Result<Id<Portal>, Error> {
    match capability(k, space, raw)? {
        Capability::Portal(id, rights) => {
            check(rights, need)?;
            k.portals.get(id).map(|_| id)
        }
        _ => Err(Error::BadCapability),
    }
}

/// A space.
pub fn space(k: &Kernel, own: Id<Space>, raw: u64, need: ObjRights) -> Result<Id<Space>, Error> {
    match capability(k, own, raw)? {
        Capability::Space(id, rights) => {
            check(rights, need)?;
            k.spaces.get(id).map(|_| id)
        }
        _ => Err(Error::BadCapability),
    }
}

/// A space, or with selector 0 the caller's own.
pub fn space_or_own(
    k: &Kernel,
    own: Id<Space>,
    raw: u64,
    need: ObjRights,
) -> Result<Id<Space>, Error> {
    if raw == 0 { Ok(own) } else { space(k, own, raw, need) }
}

/// A thread or vCPU.
pub fn thread(k: &Kernel, own: Id<Space>, raw: u64, need: ObjRights) -> Result<Id<Thread>, Error> {
    match capability(k, own, raw)? {
        Capability::Thread(id, rights) => {
            check(rights, need)?;
            k.threads.get(id).map(|_| id)
        }
        _ => Err(Error::BadCapability),
    }
}

/// A vCPU.
pub fn vcpu(
    k: &mut Kernel,
    own: Id<Space>,
    raw: u64,
    need: ObjRights,
) -> Result<Id<Thread>, Error> {
    let id = thread(k, own, raw, need)?;
    k.threads.get_mut(id)?.vcpu().map(|_| id).ok_or(Error::BadCapability)
}

/// A notification.
pub fn notification(
    k: &Kernel,
    own: Id<Space>,
    raw: u64,
    need: ObjRights,
) -> Result<Id<Notification>, Error> {
    match capability(k, own, raw)? {
        Capability::Notification(id, rights) => {
            check(rights, need)?;
            k.notifications.get(id).map(|_| id)
        }
        _ => Err(Error::BadCapability),
    }
}

/// Memory.
pub fn memory(k: &Kernel, own: Id<Space>, raw: u64) -> Result<MemoryRange, Error> {
    match capability(k, own, raw)? {
        Capability::Memory(memory) => Ok(memory),
        _ => Err(Error::BadCapability),
    }
}

/// The right to the system's affairs.
pub fn system(k: &Kernel, own: Id<Space>, raw: u64) -> Result<(), Error> {
    match capability(k, own, raw)? {
        Capability::System(rights) => check(rights, ObjRights::USE),
        _ => Err(Error::BadCapability),
    }
}

/// The right to bind interrupts.
pub fn irq(k: &Kernel, own: Id<Space>, raw: u64) -> Result<(), Error> {
    match capability(k, own, raw)? {
        Capability::Irq(rights) => check(rights, ObjRights::USE),
        _ => Err(Error::BadCapability),
    }
}

/// A processor that runs.
pub fn cpu(k: &Kernel, raw: u64) -> Result<usize, Error> {
    usize::try_from(raw).ok().filter(|cpu| *cpu < k.cpus.len()).ok_or(Error::BadArgument)
}
