//! Memory that is larger than the RAM behind it: what its manager, a program of its own, is told.
use crate::boot::Builder;
use crate::program::RW;
use crate::{Failure, own};
use abi::{LARGE_PAGE_SIZE, MemRights, ObjRights, RootSelector, Selector};
use alloc::format;
use alloc::string::String;
use system::{MemoryObject, MemoryUse};

/// Least RAM behind such memory: what a guest's instruction and the manager's batches need at once,
/// and much more.
const LEAST: u64 = 32 << 20;

/// What such a manager writes down for the one that may be started in its place: in all, for each page, and one byte for so
/// many of RAM.
const NOTES: u64 = 4096;
const NOTES_PAGE: u64 = 16;
const NOTES_PART: u64 = 512;

/// A memory object with a manager that swaps.
pub struct Swapped {
    /// Number of the manager.
    program: usize,
    /// Where its RAM is, and how much.
    at: u64,
    resident: u64,
    /// Where in RAM it tells which pages are lost, and with how many bytes.
    losses: (u64, u64),
    /// Regions that show it so far.
    clients: u32,
    /// The list of them.
    list: String,
}

impl Builder {
    /// What the command line says about an object of this size; `None` when all of it is to be in RAM.
    pub fn plan_swapped(
        &mut self,
        object: &MemoryObject,
        size: u64,
    ) -> Result<Option<Swapped>, Failure> {
        let Some(swap) = &object.swap else { return Ok(None) };
        let Some(text) = system::word(&self.info.command_line, &swap.resident_from_command_line)
        else {
            return Ok(None);
        };
        let resident = system::parse_size(text)
            .filter(|r| (LEAST..=size).contains(r) && r.is_multiple_of(LARGE_PAGE_SIZE))
            .ok_or_else(|| Failure(format!("resident size '{text}' of '{}'", object.name)))?;
        let programs = &self.description.programs;
        let program = programs.iter().position(|p| p.name == swap.manager);
        let program = program.ok_or_else(|| Failure(format!("no program '{}'", swap.manager)))?;
        let at = self.ram.take(resident, LARGE_PAGE_SIZE, false)?;
        let length = memory::losses::length(size / abi::PAGE_SIZE);
        let losses = (self.ram.take(length, abi::PAGE_SIZE, true)?, length);
        Ok(Some(Swapped { program, at, resident, losses, clients: 0, list: String::new() }))
    }

    /// Portal, for a thread on `cpu` in space number `space`, of the manager of memory object `number`. What is bound to it
    /// is to be told by [`Builder::shown`] before the next one is asked for.
    pub fn manager_of(&mut self, number: usize, cpu: u32, space: u64) -> Result<Selector, Failure> {
        match self.swapped.get(number).and_then(Option::as_ref) {
            None => self.portal_on(0, cpu, space),
            Some(swapped) => self.portal_on(swapped.program, cpu, swapped.clients.into()),
        }
    }

    /// A region of a space shows memory object `number` from `base` on.
    pub fn shown(
        &mut self,
        number: usize,
        space: Selector,
        base: u64,
        kind: &str,
    ) -> Result<(), Failure> {
        let Some(swapped) = self.swapped.get_mut(number).and_then(Option::as_mut) else {
            return Ok(());
        };
        let name = format!("space{}", swapped.clients);
        // No right is needed to unmap what one manages.
        let selector = self.programs[swapped.program].grant(&name, space, 0)?;
        swapped.clients += 1;
        swapped.list.push_str(&format!("{selector}:{base}:{kind},"));
        Ok(())
    }

    /// Shows a program which pages of its region are lost, if it looks at that, and lets the monitor of a virtual machine with
    /// such memory call the manager by the region's `portal`: what kind of client it is.
    pub fn tell_losses(
        &mut self,
        number: usize,
        object: &MemoryObject,
        used: &MemoryUse,
        portal: Selector,
    ) -> Result<&'static str, Failure> {
        let losses = self.swapped.get(number).and_then(Option::as_ref).map(|s| s.losses);
        let Some((at, length)) = losses.filter(|_| used.losses) else { return Ok("program") };
        let monitors = &self.description.machines;
        let is_monitor = monitors.iter().any(|m| m.ram == object.name && m.monitor == used.program);
        let program = self.program(&used.program)?;
        let name = format!("{}{}", used.region, system::LOSSES_SUFFIX);
        program.show(&name, own(RootSelector::Ram), at, length, MemRights::READ, None)?;
        if !is_monitor {
            return Ok("view");
        }
        program.grant(&used.region, portal, ObjRights::USE.bits())?;
        Ok("monitor")
    }

    /// Gives the managers their RAM and tells them who shows it.
    pub fn give_swapped(&mut self) -> Result<(), Failure> {
        for number in 0..self.swapped.len() {
            let Some(swapped) = self.swapped[number].take() else { continue };
            let derived = self.selector();
            let rights = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
            let (at, length) = (swapped.at, swapped.resident);
            rt::sys::mem_derive(derived, own(RootSelector::Ram), at, length, rights)
                .map_err(Failure::kernel("RAM of a swapping manager"))?;
            let pages = self.objects[number].1 / abi::PAGE_SIZE;
            let notes = NOTES + pages * NOTES_PAGE + length / NOTES_PART;
            let notes_at = self.ram.take(notes.next_multiple_of(abi::PAGE_SIZE), 4096, true)?;
            let manager = &mut self.programs[swapped.program];
            manager.show("pool", derived, 0, length, RW, None)?;
            manager.show("notes", own(RootSelector::Ram), notes_at, notes, RW, None)?;
            let (losses, bytes) = swapped.losses;
            manager.show("losses", own(RootSelector::Ram), losses, bytes, RW, None)?;
            manager.grant("pool", derived, rt::sys::ALL_RIGHTS)?;
            manager.config.parameters.push(("pages".into(), format!("{pages}")));
            manager.config.parameters.push(("clients".into(), swapped.list));
        }
        Ok(())
    }
}
