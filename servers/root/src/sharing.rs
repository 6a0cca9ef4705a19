//! Memory that is shared with different rights: what its manager is told, and who sees it.
use crate::boot::Builder;
use crate::program::RW;
use crate::{Failure, own};
use abi::{LARGE_PAGE_SIZE, MemRights, PAGE_SIZE, RootSelector, Selector};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use backing::Tag;
use backing::shares::Notes;
use memory::Memory;
use rt::Shared;
use rt::sys::{self, Bind};
use system::{SharedObject, Sharing, VirtualMachine};

/// What the manager will be told.
#[derive(Default)]
pub struct Shares {
    program: usize,
    grants: String,
    regions: String,
    /// Spaces of the clients: those of programs by the programs' numbers, behind them those of machines.
    spaces: BTreeMap<u64, Selector>,
    quotas: BTreeMap<u64, u64>,
    /// Where in RAM the byte for each client's end is.
    ends: u64,
    /// The manager's bit for them.
    bits: u64,
    /// Threads that have ended, for each program, as bits.
    ended: Vec<u64>,
}

fn tag(object: usize) -> Result<u64, Failure> {
    let tag = Tag { object: object as u32, offset: 0 }.encode();
    tag.ok_or_else(|| Failure("tag".into()))
}

impl Builder {
    /// Shows programs what they share, and gives those the means to share more who may.
    pub fn give_shares(&mut self) -> Result<(), Failure> {
        let Some(sharing) = self.description.sharing.clone() else { return Ok(()) };
        self.shares.program = self.space_number(&sharing.manager) as usize;
        self.shares.ended = alloc::vec![0; self.programs.len()];
        for (number, object) in sharing.objects.iter().enumerate() {
            self.share_object(number, object)?;
        }
        let names: String = self
            .programs
            .iter()
            .enumerate()
            .fold(String::new(), |list, (n, p)| list + &format!("{}:{n},", p.config.name));
        for n in 0..self.programs.len() {
            let Some(bytes) = self.description.programs[n].shares else { continue };
            *self.shares.quotas.entry(n as u64).or_insert(0) += bytes;
            let portal = self.share_portal(n)?;
            let program = &mut self.programs[n];
            program.grant("shared", portal, rt::sys::ALL_RIGHTS)?;
            program.config.parameters.push(("shares".into(), names.clone()));
        }
        self.give_share_memory(&sharing)
    }

    /// A portal of the manager for program `n`.
    fn share_portal(&mut self, n: usize) -> Result<Selector, Failure> {
        self.shares.spaces.insert(n as u64, self.programs[n].space);
        self.portal_on(self.shares.program, self.programs[n].threads[0].cpu, n as u64)
    }

    fn share_object(&mut self, number: usize, object: &SharedObject) -> Result<(), Failure> {
        let owner = self.space_number(&object.owner.program);
        *self.shares.quotas.entry(owner).or_insert(0) += object.size;
        let owned = (&object.owner.program, &object.owner.region, true);
        let used = object.used_by.iter().map(|u| (&u.program, &u.region, u.write));
        for (name, region, write) in core::iter::once(owned).chain(used) {
            let n = self.space_number(name) as usize;
            let portal = self.share_portal(n)?;
            let program = &mut self.programs[n];
            // What it may do there, the manager says.
            let base = program.bind(region, portal, tag(number)?, object.size, RW)?;
            let parameter = (format!("shared-{}", object.name), format!("{number}"));
            program.config.parameters.push(parameter);
            self.note_share(number, n as u64, base, object.size, write);
        }
        Ok(())
    }

    fn note_share(&mut self, number: usize, client: u64, base: u64, length: u64, write: bool) {
        let rights = if write { RW } else { MemRights::READ };
        let shares = &mut self.shares;
        shares.grants.push_str(&format!("{number}:{client}:{},", rights.bits()));
        shares.regions.push_str(&format!("{number}:{client}:{base}:{length},"));
    }

    /// Binds in a guest's space what it shares.
    pub fn share_with_guest(
        &mut self,
        machine: &VirtualMachine,
        space: Selector,
        cpu: u32,
    ) -> Result<(), Failure> {
        let Some(sharing) = self.description.sharing.clone() else { return Ok(()) };
        let client = self.programs.len() as u64 + self.space_number(&machine.monitor);
        for (number, object) in sharing.objects.iter().enumerate() {
            for guest in object.guests.iter().filter(|g| g.machine == machine.name) {
                let portal = self.portal_on(self.shares.program, cpu, client)?;
                let (base, length, tag, rights) = (guest.at, object.size, tag(number)?, RW);
                let bind = Bind { space, base, length, portal, tag, rights, hint: 21 };
                let what = format!("'{}' of machine '{}'", object.name, machine.name);
                self.guests.managed(bind).map_err(Failure::kernel(what))?;
                self.shares.spaces.insert(client, space);
                self.note_share(number, client, base, length, guest.write);
            }
        }
        Ok(())
    }

    fn give_share_memory(&mut self, sharing: &Sharing) -> Result<(), Failure> {
        let pool: u64 = self.shares.quotas.values().sum();
        let pool = pool.next_multiple_of(LARGE_PAGE_SIZE);
        let (ram, memory) = (own(RootSelector::Ram), self.selector());
        let at = self.ram.take(pool, LARGE_PAGE_SIZE, false)?;
        let all = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
        sys::mem_derive(memory, ram, at, pool, all)
            .map_err(Failure::kernel("memory that is shared"))?;
        self.shares.ends = self.ram.take(PAGE_SIZE, PAGE_SIZE, true)?;
        let ends = self.shares.ends;
        let length = Notes::<Shared>::BYTES;
        let notes = self.ram.take(length.next_multiple_of(PAGE_SIZE), PAGE_SIZE, true)?;
        let manager = &mut self.programs[self.shares.program];
        manager.show("pool", memory, 0, pool, RW, None)?;
        manager.grant("pool", memory, rt::sys::ALL_RIGHTS)?;
        manager.show("ends", ram, ends, PAGE_SIZE, MemRights::READ, None)?;
        manager.show("notes", ram, notes, length, RW, None)?;
        self.shares.bits = manager.bit(0)?;
        let owners = sharing.objects.iter().fold(String::new(), |list, object| {
            list + &format!("{}:{},", self.space_number(&object.owner.program), object.size)
        });
        let manager = &mut self.programs[self.shares.program];
        manager.config.parameters.push(("objects".into(), owners));
        Ok(())
    }

    /// Tells the manager what is known when everything is made.
    pub fn finish_shares(&mut self) -> Result<(), Failure> {
        if self.description.sharing.is_none() {
            return Ok(());
        }
        let shares = &self.shares;
        let manager = &mut self.programs[shares.program];
        let mut spaces = String::new();
        for (client, space) in &shares.spaces {
            // No right is needed to say what the regions show that one manages.
            let selector = manager.grant(&format!("space{client}"), *space, 0)?;
            spaces.push_str(&format!("{client}:{selector},"));
        }
        let quotas = shares.quotas.iter().map(|(client, bytes)| format!("{client}:{bytes},"));
        let parameters = &mut manager.config.parameters;
        parameters.push(("spaces".into(), spaces));
        parameters.push(("quotas".into(), quotas.collect()));
        parameters.push(("grants".into(), shares.grants.clone()));
        parameters.push(("regions".into(), shares.regions.clone()));
        Ok(())
    }

    /// A thread of program `n` has ended. When it was the last one, what the program shared ends with it.
    pub fn end_shares(&mut self, n: usize, thread: u64) {
        let Some(ended) = self.shares.ended.get_mut(n) else { return };
        *ended |= 1 << (thread % 64);
        let (all, restarts) = (self.programs[n].threads.len() as u32, &self.description.programs);
        if ended.count_ones() < all || restarts[n].restart {
            return;
        }
        let written = self.ram.view.write(self.shares.ends + n as u64, &[1]);
        let manager = &self.programs[self.shares.program].threads[0];
        if written.is_ok() {
            let _ = sys::signal(manager.notification, self.shares.bits);
        }
    }
}
