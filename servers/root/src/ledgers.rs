//! Where memory managers tell what they have, and programs how full their heaps are, and who may look.
use crate::boot::Builder;
use crate::program::RW;
use crate::{Failure, own};
use abi::{MemRights, RootSelector};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of the page that a program tells its heap's use in.
const HEAP_PAGE: u64 = 4096;

impl Builder {
    /// Number of a program's space, by which managers tell spaces apart: the badge of its portals.
    pub fn space_number(&self, program: &str) -> u64 {
        let found = self.programs.iter().position(|p| p.config.name == program);
        found.map_or(u64::MAX, |n| n as u64)
    }

    /// Gives each manager that somebody looks at its ledger, and those who look the names of its rows.
    pub fn give_ledgers(&mut self) -> Result<(), Failure> {
        for n in 0..self.description.programs.len() {
            for manager in self.description.programs[n].ledgers.clone() {
                let at = self.ram.take(ledger::LENGTH, 4096, true)?;
                let ram = own(RootSelector::Ram);
                let rows = self.rows(&manager);
                let kept = self.program(&manager)?;
                kept.show("ledger", ram, at, ledger::LENGTH, RW, None)?;
                let looks = &mut self.programs[n];
                let name = format!("ledger-{manager}");
                looks.show(&name, ram, at, ledger::LENGTH, MemRights::READ, None)?;
                looks.config.parameters.push((format!("rows-{manager}"), rows));
            }
        }
        Ok(())
    }

    /// Gives each program whose heap somebody looks at a page to write its use into.
    pub fn give_heaps(&mut self) -> Result<(), Failure> {
        for n in 0..self.description.programs.len() {
            for program in self.description.programs[n].heaps.clone() {
                let at = self.ram.take(HEAP_PAGE, 4096, true)?;
                let ram = own(RootSelector::Ram);
                let told = self.program(&program)?;
                told.show(system::HEAP_REGION, ram, at, HEAP_PAGE, RW, None)?;
                let name = format!("{}-{program}", system::HEAP_REGION);
                self.programs[n].show(&name, ram, at, HEAP_PAGE, MemRights::READ, None)?;
            }
        }
        Ok(())
    }

    /// Names of all spaces, as rows about them are called, by their numbers: programs, then the guests of those of
    /// them that are monitors.
    fn spaces(&self) -> impl Iterator<Item = String> {
        let programs = self.description.programs.iter();
        let name = |name: &str| format!("{}{name}", ledger::SPACE);
        let guests = programs.clone().map(move |program| {
            let machine = self.description.machines.iter().find(|m| m.monitor == program.name);
            name(machine.map_or("", |machine| &machine.name))
        });
        programs.map(move |program| name(&program.name)).chain(guests)
    }

    fn shares_objects(&self, manager: &str) -> bool {
        self.description.sharing.as_ref().is_some_and(|sharing| sharing.manager == manager)
    }

    /// Objects of the description, which are the first ones; the others have numbers only.
    fn shared_rows(&self) -> String {
        let objects = self.description.sharing.iter().flat_map(|sharing| &sharing.objects);
        let named: Vec<String> = objects.map(|object| object.name.clone()).collect();
        let numbers = named.len() as u64..ledger::ROWS;
        named
            .into_iter()
            .chain(numbers.map(|n| format!("{n}")))
            .fold(String::new(), |list, name| list + &name + ",")
    }

    /// Names of a manager's objects, in order.
    fn rows(&self, manager: &str) -> String {
        let list = |names: &mut dyn Iterator<Item = &str>| {
            names.fold(String::new(), |list, name| format!("{list}{name},"))
        };
        let memory = self.description.memory.iter();
        match self.space_number(manager) {
            0 => {
                let private = self.description.programs.iter().filter(|p| !p.pinned);
                let heaps = private.clone().map(|p| p.name.clone());
                let stacks =
                    private.flat_map(|p| p.cpus.iter().map(|_| format!("{}.stack", p.name)));
                let names = memory.map(|m| m.name.clone()).chain(heaps).chain(stacks);
                names.fold(String::new(), |list, name| format!("{list}{name},"))
            }
            1 => {
                let files = self.files.iter().map(|file| file.name.clone());
                files.chain(self.spaces()).fold(String::new(), |list, name| list + &name + ",")
            }
            _ if self.shares_objects(manager) => self.shared_rows(),
            _ => {
                let own = memory.filter(|m| m.swap.as_ref().is_some_and(|s| s.manager == manager));
                list(&mut own.map(|m| m.name.as_str())) + &self.modelled(manager)
            }
        }
    }
}
