//! Windows. A manager can name a range of its own space as the *window* of a region that it manages:
//! what is mapped there, the kernel maps into the region without running the manager, with at most
//! the rights that the manager has itself. What the manager loses, the region loses.
//!
//! A window lies in one pinned region, so that no window shows what came through another one.
use crate::fault::needed;
use crate::kernel::Kernel;
use crate::memory::MemoryRange;
use crate::object::{Space, View};
use abi::{Access, Error, HostPhys, LARGE_PAGE_SIZE, MemRights, PAGE_SIZE, SpaceAddr};
use regions::Range;
use scheduling::Id;

/// A window, as the space knows it in which it lies.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where it lies.
    at: Range,
    /// The space of the region that it belongs to.
    client: Id<Space>,
    /// That region.
    region: Range,
}

/// Heap bytes that a window takes; the list grows by doubling.
const COST: u64 = 3 * size_of::<Window>() as u64;

fn overlap(a: Range, b: Range) -> bool {
    a.base.0 < b.end() && b.base.0 < a.end()
}

impl Kernel {
    /// Sets, changes or (`None`) removes the window of a region. The region is emptied.
    ///
    /// # Errors
    /// `NoRegion` when it is not a region that `manager` manages, or the window is not inside a
    /// region of the manager's; `BadArgument` when that one is not pinned; `Quota`.
    pub fn set_window(
        &mut self,
        manager: Id<Space>,
        client: Id<Space>,
        region: Range,
        at: Option<Range>,
    ) -> Result<(), Error> {
        if self.spaces.get(client)?.regions.get(region)?.manager != Some(manager) {
            return Err(Error::NoRegion);
        }
        if let Some(at) = at {
            let own = &self.spaces.get(manager)?.regions;
            let (around, inside) = own.find(at.base).ok_or(Error::NoRegion)?;
            if !around.covers(at) {
                return Err(Error::NoRegion);
            }
            if inside.portal.is_some() {
                return Err(Error::BadArgument);
            }
            self.charge(manager, COST)?;
        }
        // What came through an old window must not stay.
        if let Err(error) = self.unmap_from(client, region) {
            if at.is_some() {
                self.credit(manager, COST);
            }
            return Err(error);
        }
        self.forget_window(manager, client, region);
        if let Some(at) = at {
            self.spaces.get_mut(manager)?.windows.push(Window { at, client, region });
        }
        let binding = self.spaces.get_mut(client)?.regions.get_mut(region)?;
        binding.window = at.map(|at| at.base);
        Ok(())
    }

    /// A region has no window any more.
    pub fn forget_window(&mut self, manager: Id<Space>, client: Id<Space>, region: Range) {
        let Ok(space) = self.spaces.get_mut(manager) else { return };
        let this = |w: &Window| w.client == client && w.region == region;
        if let Some(index) = space.windows.iter().position(this) {
            space.windows.swap_remove(index);
            self.credit(manager, COST);
        }
    }

    /// Maps the page of an access from its region's window: its address, the space that it is in, and
    /// the rights of the region. False when it is not there, or not with
    /// the right that the access needs: then the manager has to say.
    pub fn map_window(
        &mut self,
        client: Id<Space>,
        region: Range,
        (window, manager, limit): View,
        at: SpaceAddr,
        access: Access,
    ) -> bool {
        let page = at.0 & !(PAGE_SIZE - 1);
        let seen = window.0 + (page - region.base.0);
        let Ok(owner) = self.spaces.get_mut(manager) else { return false };
        let Some(leaf) = owner.tables.walk_near(seen) else { return false };
        let rights = leaf.rights & (limit | MemRights::DEVICE);
        if !rights.contains(needed(access)) {
            return false;
        }
        let block =
            Range { base: SpaceAddr(page & !(LARGE_PAGE_SIZE - 1)), length: LARGE_PAGE_SIZE };
        let large = leaf.size >= LARGE_PAGE_SIZE
            && region.covers(block)
            && seen % LARGE_PAGE_SIZE == page % LARGE_PAGE_SIZE;
        let range = if large { block } else { Range { base: SpaceAddr(page), length: PAGE_SIZE } };
        let base = HostPhys(leaf.phys.0 - (page - range.base.0));
        let memory = MemoryRange { base, length: range.length, rights };
        self.map_into(client, range, &memory).is_ok()
    }

    /// The commonest case of [`map_window`](Self::map_window): a small page of RAM in place of nothing,
    /// with both tables near. False when it is another case: nothing has happened then.
    #[inline(always)]
    pub fn fill_from_window(
        &mut self,
        client: Id<Space>,
        region: Range,
        (window, manager, limit): View,
        at: SpaceAddr,
        access: Access,
    ) -> bool {
        let page = at.0 & !(PAGE_SIZE - 1);
        let Ok(owner) = self.spaces.get(manager) else { return false };
        let found = owner.tables.near_page(window.0 + (page - region.base.0));
        let Some((phys, has)) = found else { return false };
        // What the region may have as a whole, a page of it may have.
        let rights = has & limit;
        if !rights.contains(needed(access)) || has.contains(MemRights::DEVICE) {
            return false;
        }
        let client = self.spaces.get_mut(client);
        client.is_ok_and(|client| client.tables.fill(page, phys, rights))
    }

    /// A space has lost a range, or some of its rights to it: so do the regions whose windows lie
    /// there.
    pub fn revoke(&mut self, id: Id<Space>, range: Range) {
        for index in 0.. {
            let windows = self.spaces.get(id).map(|space| &space.windows);
            let Some(window) = windows.ok().and_then(|w| w.get(index)).copied() else { return };
            if overlap(window.at, range) {
                let start = range.base.0.max(window.at.base.0);
                let end = range.end().min(window.at.end());
                let base = window.region.base.0 + (start - window.at.base.0);
                let lost = Range { base: SpaceAddr(base), length: end - start };
                // Without a frame to split a large page with, all of the region goes.
                if self.unmap_from(window.client, lost).is_err() {
                    let _ = self.unmap_from(window.client, window.region);
                }
            }
        }
    }

    /// True when windows lie in a range of a space.
    pub fn has_windows(&self, id: Id<Space>, range: Range) -> bool {
        self.spaces.get(id).is_ok_and(|space| space.windows.iter().any(|w| overlap(w.at, range)))
    }

    /// A region that is about to be removed takes the windows in it along; what came through them
    /// has been revoked.
    pub fn close_windows(&mut self, id: Id<Space>, range: Range) {
        let Ok(space) = self.spaces.get(id) else { return };
        let closed = space.windows.iter().find(|w| overlap(w.at, range)).copied();
        let Some(window) = closed else { return };
        if let Ok(client) = self.spaces.get_mut(window.client)
            && let Ok(binding) = client.regions.get_mut(window.region)
        {
            binding.window = None;
        }
        self.forget_window(id, window.client, window.region);
        self.close_windows(id, range);
    }
}
