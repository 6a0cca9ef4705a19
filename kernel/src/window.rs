//! Windows. A manager can name a range of its own space as the *window* of a region that it manages:
//! what is mapped there, the kernel maps into the region without running the manager, with at most
//! the rights that the manager has itself. What the manager loses, the region loses.
//!
//! A window lies in pinned regions, so that no window shows what came through another one. It is made in
//! one of them; when that is divided, the window stays, and goes with the first part that goes.
use crate::fault::needed;
use crate::kernel::Kernel;
use crate::memory::MemoryRange;
use crate::object::{Binding, Place, Space, View};
use abi::{Access, Error, HostPhys, LARGE_PAGE_SIZE, MemRights, PAGE_SIZE, SpaceAddr};
use regions::{Key, Overlaps, Range};
use scheduling::Id;

/// A window, as the space knows it in which it lies.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The space of the region that it belongs to.
    client: Id<Space>,
    /// That region.
    region: Range,
    /// Who pays for it: its manager, or whoever divided the region.
    payer: Id<Space>,
}

/// The windows in a space.
pub type Windows = Overlaps<Window>;

/// Heap bytes that a window takes.
pub const COST: u64 = Windows::COST as u64;

/// Sizes of pages larger than the smallest, the largest first.
const LARGE_SIZES: [u64; 2] = [LARGE_PAGE_SIZE << 9, LARGE_PAGE_SIZE];

fn key(client: Id<Space>, region: Range) -> Key {
    (client.index(), region.base.0)
}

impl Kernel {
    /// Sets, changes or (`None`) removes the window of a region, which `payer` pays for. The region is emptied.
    ///
    /// # Errors
    /// `NoRegion` when it is not a region that `manager` manages, or the window is not inside a
    /// region of the manager's; `BadArgument` when that one is not pinned; `Quota`.
    pub fn set_window(
        &mut self,
        (manager, payer): (Id<Space>, Id<Space>),
        client: Id<Space>,
        region: Range,
        at: Option<Range>,
    ) -> Result<(), Error> {
        let binding = *self.spaces.get(client)?.regions.get(region)?;
        if binding.manager != Some(manager) {
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
            self.charge(payer, COST)?;
        }
        // What came through an old window must not stay.
        if let Err(error) = self.unmap_from(client, region) {
            if at.is_some() {
                self.credit(payer, COST);
            }
            return Err(error);
        }
        self.forget_window(client, region, &binding);
        if let Some(at) = at {
            self.record_window(manager, at, Window { client, region, payer });
        }
        let binding = self.spaces.get_mut(client)?.regions.get_mut(region)?;
        binding.window = at.map(|at| at.base).into();
        Ok(())
    }

    /// Gives the region that a fault is about the window that its manager answers with. `asked` is what the manager was
    /// asked about. False when that does not help the access.
    ///
    /// # Errors
    /// As [`set_window`](Self::set_window).
    pub fn answer_window(
        &mut self,
        (client, asked): (Id<Space>, (Range, u64)),
        manager: Id<Space>,
        (address, access): (SpaceAddr, Access),
        at: u64,
    ) -> Result<bool, Error> {
        let regions = &self.spaces.get(client)?.regions;
        let (region, binding) = regions.find(address).ok_or(Error::NoRegion)?;
        // As for pages: it is another one by now, so ask again.
        if (region, binding.tag) != asked || binding.manager != Some(manager) {
            return Ok(true);
        }
        let at = Range::new(at, region.length, self.spaces.get(manager)?.limit())?;
        // Another thread's fault may have been answered alike.
        if binding.window != Place::At(at.base) {
            self.set_window((manager, client), client, region, Some(at))?;
        }
        let view = self.spaces.get(client)?.regions.get(region)?.view();
        Ok(view.is_some_and(|view| self.map_window(client, region, view, address, access)))
    }

    fn record_window(&mut self, manager: Id<Space>, at: Range, window: Window) {
        if let Ok(space) = self.spaces.get_mut(manager) {
            space.windows.insert(at, key(window.client, window.region), window);
        }
    }

    /// Takes the window of a region, as it is bound, out of its manager's list.
    fn take_window(
        &mut self,
        client: Id<Space>,
        region: Range,
        binding: &Binding,
    ) -> Option<Window> {
        let (base, manager, _) = binding.view()?;
        let space = self.spaces.get_mut(manager).ok()?;
        space.windows.remove(Range { base, length: region.length }, key(client, region))
    }

    /// A region, as it is bound, has no window any more.
    pub fn forget_window(&mut self, client: Id<Space>, region: Range, binding: &Binding) {
        if let Some(window) = self.take_window(client, region, binding) {
            self.credit(window.payer, COST);
        }
    }

    /// A region, as it was bound, has been divided: each part shows its part of the window. What one
    /// window more costs was charged to the region's space.
    pub fn split_window(
        &mut self,
        client: Id<Space>,
        region: Range,
        binding: &Binding,
        (lower, upper): (Range, Range),
    ) {
        if let Ok(space) = self.spaces.get_mut(client)
            && let Ok(second) = space.regions.get_mut(upper)
        {
            second.window = binding.window.behind(lower.length);
        }
        let Some((base, manager, _)) = binding.view() else { return };
        let Some(window) = self.take_window(client, region, binding) else {
            // Its manager is gone.
            return self.credit(client, COST);
        };
        let second = SpaceAddr(base.0 + lower.length);
        let at = |base, part: Range| Range { base, length: part.length };
        self.record_window(manager, at(base, lower), Window { region: lower, ..window });
        let window = Window { client, region: upper, payer: client };
        self.record_window(manager, at(second, upper), window);
    }

    /// A region, as it is bound, has moved.
    pub fn move_window(&mut self, client: Id<Space>, from: Range, to: Range, binding: &Binding) {
        let window = self.take_window(client, from, binding);
        if let (Some(window), Some((base, manager, _))) = (window, binding.view()) {
            let at = Range { base, length: to.length };
            self.record_window(manager, at, Window { region: to, ..window });
        }
    }

    /// What lay in a range of a space has moved, and all of it has been revoked: windows there move along.
    /// Those that lie in the range in part only are closed.
    pub fn shift_windows(&mut self, id: Id<Space>, from: Range, to: Range) {
        let mut moved = Windows::new();
        while let Some((at, window)) = self.next_window(id, from, None) {
            if !from.covers(at) {
                self.close_window(id, at, &window);
                continue;
            }
            let base = SpaceAddr(to.base.0 + (at.base.0 - from.base.0));
            self.remove_window(id, at, &window);
            moved.insert(Range { base, ..at }, key(window.client, window.region), window);
        }
        for (at, _, window) in moved.iter() {
            self.record_window(id, at, *window);
            self.name_window(window, Some(at.base));
        }
    }

    /// Tells a region where its window is.
    fn name_window(&mut self, window: &Window, at: Option<SpaceAddr>) {
        if let Ok(client) = self.spaces.get_mut(window.client)
            && let Ok(binding) = client.regions.get_mut(window.region)
        {
            binding.window = at.into();
        }
    }

    fn remove_window(&mut self, id: Id<Space>, at: Range, window: &Window) {
        if let Ok(space) = self.spaces.get_mut(id) {
            space.windows.remove(at, key(window.client, window.region));
        }
    }

    /// The next window of a space that lies in a range, if only in part.
    fn next_window(
        &self,
        id: Id<Space>,
        range: Range,
        after: Option<(Range, &Window)>,
    ) -> Option<(Range, Window)> {
        let after = after.map(|(at, window)| (at, key(window.client, window.region)));
        let (at, _, window) = self.spaces.get(id).ok()?.windows.next(range, after)?;
        Some((at, *window))
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
        let around = |size: u64| Range { base: SpaceAddr(page & !(size - 1)), length: size };
        let fits = |size: &u64| {
            leaf.size >= *size && region.covers(around(*size)) && seen % size == page % size
        };
        let range = around(LARGE_SIZES.into_iter().find(fits).unwrap_or(PAGE_SIZE));
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
        let mut last = None;
        while let Some((at, window)) =
            self.next_window(id, range, last.as_ref().map(|(at, window)| (*at, window)))
        {
            let start = range.base.0.max(at.base.0);
            let end = range.end().min(at.end());
            let base = window.region.base.0 + (start - at.base.0);
            let lost = Range { base: SpaceAddr(base), length: end - start };
            // Without a frame to split a large page with, all of the region goes: no page lies across
            // its borders.
            if self.unmap_from(window.client, lost).is_err() {
                let _ = self.unmap_from(window.client, window.region);
            }
            last = Some((at, window));
        }
    }

    /// A region that is about to be removed takes the windows in it along; what came through them
    /// from there has been revoked.
    pub fn close_windows(&mut self, id: Id<Space>, range: Range) {
        while let Some((at, window)) = self.next_window(id, range, None) {
            if range.covers(at) {
                self.drop_window(id, at, &window);
            } else {
                self.close_window(id, at, &window);
            }
        }
    }

    /// Closes a window with what came through it.
    fn close_window(&mut self, id: Id<Space>, at: Range, window: &Window) {
        // No page lies across its borders, so this takes no frame.
        let _ = self.unmap_from(window.client, window.region);
        self.drop_window(id, at, window);
    }

    fn drop_window(&mut self, id: Id<Space>, at: Range, window: &Window) {
        self.name_window(window, None);
        self.remove_window(id, at, window);
        self.credit(window.payer, COST);
    }

    /// A space ends, and the windows in it: others than itself get back what they paid.
    pub fn end_windows(&mut self, id: Id<Space>) {
        let windows = self.spaces.get_mut(id).map(|space| core::mem::take(&mut space.windows));
        for (_, _, window) in windows.unwrap_or_default().iter().filter(|w| w.2.payer != id) {
            self.credit(window.payer, COST);
        }
    }
}
