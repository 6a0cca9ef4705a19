//! Calls about regions, mappings and memory capabilities.
use super::{Outcome, args};
use crate::kernel::Kernel;
use crate::object::{Binding, Capability, Place, Portal, Space};
use crate::window;
use abi::{Error, MemRights, ObjRights, REGISTERS, RegionInfo, SpaceAddr, SpaceKind};
use regions::{Range, RegionMap};
use scheduling::Id;

/// Heap bytes that a region takes, with its manager's place in the list of its space's managers, which has room for four
/// times as many at most.
const REGION_COST: u64 = (RegionMap::<Binding>::COST + 4 * size_of::<(Id<Space>, u32)>()) as u64;

/// `RegionBind(space, base, length, portal, tag, rights, hint)`.
pub fn region_bind(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let space = args::space_or_own(k, own, a[0], ObjRights::CONTROL)?;
    let target = k.spaces.get(space)?;
    let range = Range::new(a[1], a[2], target.limit())?;
    let rights = rights_of_region(target.kind, a[5])?;
    let registers = a[6] == REGISTERS.into() && target.kind == SpaceKind::Guest;
    if !registers && !matches!(a[6], 12 | 21 | 30) {
        return Err(Error::BadArgument);
    }
    target.regions.check_free(range)?;
    let (portal, manager) = manager_for(k, own, space, (a[3], rights))?.unzip();
    k.charge(space, REGION_COST)?;
    let binding =
        Binding { portal, manager, tag: a[4], rights, hint: a[6] as u8, window: Place::None };
    k.spaces.get_mut(space)?.regions.bind(range, binding)?;
    refer(k, space, &binding);
    Ok(())
}

/// Who manages a region: portal and space.
type Manager = (Id<Portal>, Id<Space>);

/// Who is to manage a region of `space` with these rights: none for selector 0.
fn manager_for(
    k: &Kernel,
    own: Id<Space>,
    space: Id<Space>,
    (raw, rights): (u64, MemRights),
) -> Result<Option<Manager>, Error> {
    if raw == 0 {
        return Ok(None);
    }
    let portal = args::portal(k, own, raw, ObjRights::CONTROL)?;
    check_rights(k, portal, rights)?;
    let handler = k.portals.get(portal)?.handler;
    let manager = k.threads.get(handler)?.space;
    // Who manages regions of that space already adds no dependency.
    let known =
        || k.spaces.get(space).is_ok_and(|s| s.managers.iter().any(|(id, _)| *id == manager));
    if manager != space && !known() && depends_on(k, manager, space) {
        return Err(Error::Cycle);
    }
    Ok(Some((portal, manager)))
}

/// No region has more rights than its manager gives through that portal.
fn check_rights(k: &Kernel, portal: Id<Portal>, rights: MemRights) -> Result<(), Error> {
    if k.portals.get(portal)?.rights.contains(rights) { Ok(()) } else { Err(Error::NoRight) }
}

/// True when `space` has a region that `other` manages, directly or through managers of managers.
fn depends_on(k: &Kernel, space: Id<Space>, other: Id<Space>) -> bool {
    let mut seen = alloc::vec::Vec::new();
    let mut open = alloc::vec![space];
    while let Some(at) = open.pop() {
        if at == other {
            return true;
        }
        if seen.contains(&at) {
            continue;
        }
        seen.push(at);
        if let Ok(at) = k.spaces.get(at) {
            open.extend(at.managers.iter().map(|(id, _)| *id));
        }
    }
    false
}

/// `RegionUnbind(space, base, length)`.
pub fn region_unbind(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let id = args::space_or_own(k, own, a[0], ObjRights::CONTROL)?;
    let space = k.spaces.get(id)?;
    let range = Range::new(a[1], a[2], space.limit())?;
    space.regions.get(range)?;
    k.unmap_from(id, range)?;
    k.close_windows(id, range);
    let binding = k.spaces.get_mut(id)?.regions.unbind(range)?;
    k.release_binding(id, range, &binding);
    k.credit(id, REGION_COST);
    Ok(())
}

/// A region, exactly as it was bound, of a space that the caller controls.
fn controlled(
    k: &Kernel,
    own: Id<Space>,
    a: &[u64; 10],
) -> Result<(Id<Space>, Range, Binding), Error> {
    let id = args::space_or_own(k, own, a[0], ObjRights::CONTROL)?;
    let space = k.spaces.get(id)?;
    let range = Range::new(a[1], a[2], space.limit())?;
    let binding = *space.regions.get(range)?;
    Ok((id, range, binding))
}

/// `RegionSplit(space, base, length, address, tag)`.
pub fn region_split(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let (id, range, binding) = controlled(k, own, a)?;
    let parts = range.divided(a[3])?;
    // Whoever divides a region pays for the second window too: its manager has no say in it.
    let window = binding.view().map_or(0, |_| window::COST);
    k.charge(id, REGION_COST + window)?;
    if let Err(error) = k.divide_pages(id, parts.1.base) {
        k.credit(id, REGION_COST + window);
        return Err(error);
    }
    let regions = &mut k.spaces.get_mut(id)?.regions;
    regions.split(range, a[3])?;
    regions.get_mut(parts.1)?.tag = a[4];
    refer(k, id, &binding);
    k.split_window(id, range, &binding, parts);
    Ok(())
}

/// `RegionMove(space, base, length, new base)`.
pub fn region_move(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let (id, range, binding) = controlled(k, own, a)?;
    let to = Range::new(a[3], a[2], k.spaces.get(id)?.limit())?;
    k.spaces.get_mut(id)?.regions.relocate(range, to)?;
    if let Err(error) = k.unmap_from(id, range) {
        // Nothing is in the old place's way, for it has just been left.
        let _ = k.spaces.get_mut(id).and_then(|s| s.regions.relocate(to, range));
        return Err(error);
    }
    k.move_window(id, range, to, &binding);
    k.shift_windows(id, range, to);
    Ok(())
}

/// `RegionRights(space, base, length, rights)`.
pub fn region_rights(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let (id, range, binding) = controlled(k, own, a)?;
    let rights = rights_of_region(k.spaces.get(id)?.kind, a[3])?;
    if let Some(portal) = binding.portal
        && !binding.rights.contains(rights)
    {
        check_rights(k, portal, rights)?;
    }
    if !rights.contains(binding.rights) {
        k.unmap_from(id, range)?;
    }
    k.spaces.get_mut(id)?.regions.get_mut(range)?.rights = rights;
    Ok(())
}

/// `RegionManager(space, base, length, portal, tag)`.
pub fn region_manager(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let (id, range, binding) = controlled(k, own, a)?;
    let (portal, manager) = manager_for(k, own, id, (a[3], binding.rights))?.unzip();
    let new = Binding { portal, manager, tag: a[4], window: Place::None, ..binding };
    replace(k, id, (range, binding), new)
}

/// A region gets another manager.
fn replace(
    k: &mut Kernel,
    id: Id<Space>,
    (range, old): (Range, Binding),
    new: Binding,
) -> Result<(), Error> {
    k.unmap_from(id, range)?;
    // No window may show what came through another manager.
    k.close_windows(id, range);
    refer(k, id, &new);
    k.release_binding(id, range, &old);
    *k.spaces.get_mut(id)?.regions.get_mut(range)? = new;
    k.ask_anew(id, range);
    Ok(())
}

/// Most regions that one call gives another manager.
const MOST_PASSED: usize = 64;

/// `RegionsPass(space, portal, successor)`.
pub fn regions_pass(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let passed = args::space_or_own(k, own, a[0], ObjRights::CONTROL).and_then(|id| {
        let old = args::portal(k, own, a[1], ObjRights::CONTROL)?;
        let found: alloc::vec::Vec<(Range, Binding)> = (k.spaces.get(id)?.regions.iter())
            .filter(|(_, binding)| binding.portal == Some(old))
            .map(|(range, binding)| (range, *binding))
            .take(MOST_PASSED)
            .collect();
        if a[2] != 0 && args::portal(k, own, a[2], ObjRights::CONTROL)? == old {
            return Ok(0);
        }
        // A space that has none may be one that the successor depends on.
        if found.is_empty() {
            return Ok(0);
        }
        let most = k.portals.get(old)?.rights;
        let (portal, manager) = manager_for(k, own, id, (a[2], most))?.unzip();
        let count = found.len() as u64;
        for region in found {
            let window = manager.map_or(Place::None, |_| region.1.window.passed());
            replace(k, id, region, Binding { portal, manager, window, ..region.1 })?;
        }
        Ok(count)
    });
    match passed {
        Ok(count) => Outcome::Results([count, 0, 0, 0], 1),
        Err(error) => Outcome::Done(Err(error)),
    }
}

/// `FaultLimit(space, microseconds)`.
pub fn fault_limit(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let space = args::space_or_own(k, own, a[0], ObjRights::CONTROL)?;
    let patience = if a[1] == 0 { u64::MAX } else { k.ticks_of(a[1]) };
    k.spaces.get_mut(space)?.patience = patience;
    Ok(())
}

/// Rights that a region of such a space can have.
fn rights_of_region(kind: SpaceKind, raw: u64) -> Result<MemRights, Error> {
    let rights = args::mem_rights(raw)?;
    let both = MemRights::WRITE | MemRights::EXEC;
    if kind == SpaceKind::Native && rights.contains(both) {
        return Err(Error::BadArgument);
    }
    Ok(rights | MemRights::READ)
}

/// A region of a space has come to refer to what its binding names.
fn refer(k: &mut Kernel, id: Id<Space>, binding: &Binding) {
    if let Some(portal) = binding.portal.and_then(|p| k.portals.get_mut(p).ok()) {
        portal.references += 1;
    }
    let (Some(manager), Ok(space)) = (binding.manager, k.spaces.get_mut(id)) else { return };
    match space.managers.iter_mut().find(|(id, _)| *id == manager) {
        Some((_, count)) => *count += 1,
        None => space.managers.push((manager, 1)),
    }
}

/// The region that covers a range and that the caller may fill: a pinned one for the holder of
/// CONTROL, any other one for its manager.
fn own_region(
    k: &Kernel,
    own: Id<Space>,
    raw_space: u64,
    base: u64,
    length: u64,
) -> Result<(Id<Space>, Range, Binding), Error> {
    let id = args::space_or_own(k, own, raw_space, ObjRights::empty())?;
    let space = k.spaces.get(id)?;
    let range = Range::new(base, length, space.limit())?;
    let (region, binding) = space.regions.find(SpaceAddr(base)).ok_or(Error::NoRegion)?;
    if !region.covers(range) {
        return Err(Error::NoRegion);
    }
    match binding.manager {
        Some(manager) if manager == own => {}
        Some(_) => return Err(Error::NoRegion),
        None => {
            args::space_or_own(k, own, raw_space, ObjRights::CONTROL)?;
        }
    }
    Ok((id, range, *binding))
}

/// `Map(space, address, memory, offset, length, rights)`.
pub fn map(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let (space, range, binding) = own_region(k, own, a[0], a[1], a[4])?;
    let memory = args::memory(k, own, a[2])?;
    let rights = args::mem_rights(a[5])? | MemRights::READ;
    if !binding.rights.contains(rights - (MemRights::DEVICE & rights)) {
        return Err(Error::NoRight);
    }
    let part = memory.part(a[3], a[4], rights)?;
    k.map_into(space, range, &part)
}

/// `Unmap(space, address, length)`.
pub fn unmap(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let (space, range, _) = own_region(k, own, a[0], a[1], a[2])?;
    k.unmap_from(space, range)
}

/// Most pages that one call tells about.
const MOST_ASKED: u64 = u64::BITS as u64 * abi::PAGE_SIZE;

/// `PagesUsed(space, address, length)`.
pub fn pages_used(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let result = own_region(k, own, a[0], a[1], a[2]).and_then(|(id, range, _)| {
        if range.length > MOST_ASKED {
            return Err(Error::BadArgument);
        }
        let used = k.spaces.get_mut(id)?.tables.take_used(range.base.0, range.length);
        if used != 0 {
            k.forget_at_entry(id);
        }
        Ok(used)
    });
    match result {
        Ok(used) => Outcome::Results([used, 0, 0, 0], 1),
        Err(error) => Outcome::Done(Err(error)),
    }
}

/// `RegionWindow(space, base, length, window)`.
pub fn region_window(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let client = args::space_or_own(k, own, a[0], ObjRights::empty())?;
    let region = Range::new(a[1], a[2], k.spaces.get(client)?.limit())?;
    let limit = k.spaces.get(own)?.limit();
    let at = if a[3] == 0 { None } else { Some(Range::new(a[3], a[2], limit)?) };
    k.set_window((own, own), client, region, at)
}

/// `MemDerive(destination, memory, offset, length, rights)`.
pub fn derive(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Result<(), Error> {
    let memory = args::memory(k, own, a[1])?;
    let part = memory.part(a[2], a[3], args::mem_rights(a[4])?)?;
    if part.rights.contains(MemRights::DEVICE) && !k.forbidden.allows(&part) {
        return Err(Error::NoRight);
    }
    let selector = k.prepare(own, a[0], own, 0)?;
    k.install(own, selector, Capability::Memory(part))
}

/// `MemInfo(memory)`.
pub fn info(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    match args::memory(k, own, a[0]) {
        Ok(memory) => Outcome::Results([memory.base.0, memory.length, memory.rights.bits(), 0], 3),
        Err(error) => Outcome::Done(Err(error)),
    }
}

/// `RegionList(space, address)`.
pub fn region_list(k: &mut Kernel, own: Id<Space>, a: &[u64; 10]) -> Outcome {
    let found = args::space_or_own(k, own, a[0], ObjRights::CONTROL).and_then(|id| {
        let (range, binding) =
            k.spaces.get(id)?.regions.at_or_above(a[1]).ok_or(Error::NoRegion)?;
        Ok(RegionInfo {
            base: range.base,
            length: range.length,
            rights: binding.rights,
            hint: binding.hint,
            managed: binding.portal.is_some(),
            window: matches!(binding.window, Place::At(_)),
            tag: binding.tag,
        })
    });
    match found {
        Ok(region) => Outcome::Results(region.encode(), 4),
        Err(error) => Outcome::Done(Err(error)),
    }
}
