//! What the root server put into a program's space, noted as it does so: a memory manager that is
//! started again gets the same once more, and regions that it manages get its new portals.
use crate::boot::{Builder, Door};
use crate::window::pinned;
use crate::{Failure, own};
use abi::{Error, MemRights, RootSelector, Selector};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;
use rt::sys::{self, ALL_RIGHTS, Bind, Pinned};

/// RAM that a program finds filled when it starts: from a file, and with zeros behind.
#[derive(Clone, Copy)]
pub struct Filled {
    /// Offset in RAM.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// Offset in the boot archive.
    pub from: u64,
    /// Bytes that come from there.
    pub in_file: u64,
}

/// Everything.
#[derive(Default)]
pub struct Given {
    pinned: Vec<Pinned>,
    capabilities: Vec<(Selector, Selector, u64)>,
    filled: Vec<Filled>,
    /// Regions with a manager.
    pub managed: Vec<Bind>,
}

impl Given {
    /// Maps memory ahead of faults.
    pub fn pinned(&mut self, space: Selector, shown: Pinned) -> Result<(), Failure> {
        self.pinned.push(shown);
        pinned(space, shown)
    }

    /// Where the program's code is.
    pub fn code(&self) -> Option<Range<u64>> {
        let code = self.pinned.iter().find(|p| p.rights.contains(MemRights::EXEC))?;
        Some(code.base..code.base + code.length)
    }

    /// Copies a capability.
    pub fn capability(
        &mut self,
        space: Selector,
        from: Selector,
        slot: Selector,
        mask: u64,
    ) -> Result<(), Error> {
        self.capabilities.push((from, slot, mask));
        sys::cap_copy(from, space, slot, mask)
    }

    /// Binds a region with a manager.
    pub fn managed(&mut self, bind: Bind) -> Result<(), Error> {
        self.managed.push(bind);
        sys::region_bind(bind)
    }

    /// Gives an empty space all that its predecessor was given.
    fn again(&self, space: Selector) -> Result<(), Failure> {
        self.pinned.iter().try_for_each(|shown| pinned(space, *shown))?;
        for (from, slot, mask) in &self.capabilities {
            sys::cap_copy(*from, space, *slot, *mask)
                .map_err(Failure::kernel("a capability of a program that is started again"))?;
        }
        self.managed.iter().try_for_each(|bind| {
            sys::region_bind(*bind)
                .map_err(Failure::kernel("a region of a program that is started again"))
        })
    }
}

impl Builder {
    /// Fills a program's memory.
    pub fn fill(&mut self, n: usize, filled: Filled) -> Result<(), Failure> {
        self.programs[n].given.filled.push(filled);
        self.fill_again(&filled)
    }

    fn fill_again(&self, filled: &Filled) -> Result<(), Failure> {
        let Filled { at, length, from, in_file } = *filled;
        let view = &self.ram.view;
        let zeros = length.saturating_sub(in_file);
        let done = view.zero(at + in_file, zeros);
        let done = done.and_then(|()| self.archive.copy_to(from, view, at, in_file));
        done.map_err(|_| Failure("a program's data lie outside the archive".into()))
    }

    /// Makes program `n` anew, in place of the one that failed. It does not run yet.
    pub fn make_again(&mut self, n: usize) -> Result<(), Failure> {
        let program = &self.programs[n];
        let space = program.space;
        // It may be gone already.
        let _ = sys::destroy(space);
        let threads = program.threads.iter().flat_map(|t| [t.thread, t.context]);
        for selector in threads.chain([space]) {
            let _ = sys::cap_drop(Selector(0), selector);
        }
        self.create_threads(n)?;
        self.tell_successor(n)?;
        let program = &self.programs[n];
        program.given.filled.iter().try_for_each(|filled| self.fill_again(filled))?;
        program.given.again(space)?;
        self.show_again(space);
        Ok(())
    }

    /// Whoever had a capability of a space or portal that was made anew gets the new one's.
    fn show_again(&self, object: Selector) {
        for program in &self.programs {
            let given = program.given.capabilities.iter().filter(|(from, ..)| *from == object);
            for (from, slot, mask) in given {
                let _ = sys::cap_drop(program.space, *slot);
                // It fails where that program has ended.
                let _ = sys::cap_copy(*from, program.space, *slot, *mask);
            }
        }
    }

    /// Gives the regions that program `n` manages to its new threads, wherever their spaces have put them meanwhile; with
    /// `none`, to nobody.
    pub fn manage_again(&mut self, n: usize, none: bool) -> Result<(), Failure> {
        let mut doors = core::mem::take(&mut self.doors);
        let mut done = Ok(());
        for door in doors.iter_mut().filter(|door| door.program == n) {
            // One that fails must not keep the others from theirs.
            done = done.and(self.open_again(door, none));
        }
        self.doors = doors;
        // Nobody sees any more what the one before has shown. Not before that may anybody ask its successor.
        for door in self.doors.iter().filter(|door| door.program == n && !none) {
            self.show_again(door.portal);
        }
        done.map_err(Failure::kernel("portals and regions of a manager that is started again"))
    }

    /// Makes a portal anew, and passes on the regions that name the one before it.
    fn open_again(&mut self, door: &mut Door, none: bool) -> Result<(), Error> {
        let before = self.spare.pop().unwrap_or_else(|| self.selector());
        match sys::cap_copy(door.portal, own(RootSelector::Space), before, ALL_RIGHTS) {
            Ok(()) => door.former.push(before),
            Err(_) => self.spare.push(before),
        }
        let _ = sys::cap_drop(Selector(0), door.portal);
        let mut portal = Selector(0);
        if !none {
            portal = door.portal;
            match sys::create_manager_portal(portal, door.thread, door.badge, door.rights) {
                // It has ended already: its successor will pass on all that is left.
                Err(Error::Gone) => return Ok(()),
                made => made?,
            }
            self.show_again(door.portal);
        }
        let mut done = Ok(());
        for before in core::mem::take(&mut door.former) {
            let passed = self.pass(before, portal);
            if passed == Ok(true) {
                let _ = sys::cap_drop(Selector(0), before);
                self.spare.push(before);
            } else {
                door.former.push(before);
                done = done.and(passed.map(drop));
            }
        }
        done
    }

    /// Passes on the regions of all spaces that name a portal. False when whoever is to have them has ended meanwhile.
    fn pass(&self, before: Selector, portal: Selector) -> Result<bool, Error> {
        let programs = self.programs.iter().map(|program| program.space);
        let spaces: BTreeSet<Selector> =
            programs.chain(self.guests.managed.iter().map(|bind| bind.space)).collect();
        // Those of programs that have ended are no more.
        for space in spaces.into_iter().filter(|space| sys::space_quota(*space).is_ok()) {
            loop {
                match sys::regions_pass(space, before, portal) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(Error::Gone) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    /// The program behind a portal.
    pub fn manager(&self, portal: Selector) -> Option<usize> {
        self.doors.iter().find(|door| door.portal == portal).map(|door| door.program)
    }
}
