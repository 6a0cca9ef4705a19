//! Devices whose models other programs than the monitors hold: their registers are regions of these programs, which see the
//! machine's memory and its processor's state.
use crate::boot::Builder;
use crate::layout::GUEST_ROOT_IMAGE;
use crate::program::RW;
use crate::{Failure, own};
use abi::{ObjRights, PAGE_SIZE, REGISTERS, RootSelector};
use alloc::format;
use alloc::string::String;
use device_models::AREA;
use rt::sys::Bind;
use system::{MODELLED, Models};
use virtio::bus::window;

impl Builder {
    /// Gives each program that models devices what it needs, and the machines' monitors the way to it.
    pub fn give_models(&mut self) -> Result<(), Failure> {
        for n in 0..self.programs.len() {
            let machines = self.description.machines.clone();
            let (mut list, mut count) = (String::new(), 0);
            for (m, machine) in machines.iter().enumerate() {
                let Some(models) = &machine.models else { continue };
                if self.space_number(&models.program) == n as u64 {
                    list.push_str(&self.model(n, m, count, models)?);
                    count += 1;
                }
            }
            if count > 0 {
                let length = (count * AREA).next_multiple_of(PAGE_SIZE);
                let at = self.ram.take(length, PAGE_SIZE, true)?;
                let program = &mut self.programs[n];
                program.show("notes", own(RootSelector::Ram), at, length, RW, None)?;
                program.config.parameters.push(("machines".into(), list));
            }
        }
        Ok(())
    }

    /// Program `n` models devices of machine `m`, its machine number `number`: what it is told about that.
    fn model(
        &mut self,
        n: usize,
        m: usize,
        number: u64,
        models: &Models,
    ) -> Result<String, Failure> {
        let declared = self.description.machines[m].clone();
        let (name, made) = (&declared.name, &self.machines[m]);
        let (space, cpu, state) = (made.space, made.cpu, made.state);
        let thread = self.programs[n].threads.iter().position(|thread| thread.cpu == cpu);
        let portal = self.manager_on(n, cpu, number, RW)?;
        let mut slots = String::new();
        for slot in &models.slots {
            let (base, end) = (window(*slot).start, window(*slot).end);
            let (tag, hint) = ((*slot).into(), REGISTERS.into());
            let bind = Bind { space, base, length: end - base, portal, tag, rights: RW, hint };
            let what = format!("registers of slot {slot} of machine '{name}'");
            self.guests.managed(bind).map_err(Failure::kernel(what))?;
            let separator = if slots.is_empty() { "" } else { "+" };
            slots.push_str(&format!("{separator}{slot}"));
        }
        let program = &mut self.programs[n];
        let ram = own(RootSelector::Ram);
        program.show(&format!("vcpu-{name}"), ram, state, PAGE_SIZE, RW, None)?;
        let monitor = self.program(&declared.monitor)?;
        monitor.grant("models", portal, ObjRights::USE.bits())?;
        monitor.config.parameters.push(("models".into(), slots.clone()));
        let image = match declared.root_image.as_str() {
            "" => 0,
            image => self.file(image)?.1.length.next_multiple_of(PAGE_SIZE),
        };
        let thread = thread.unwrap_or(0);
        Ok(format!("{name}:{thread}:{GUEST_ROOT_IMAGE}:{image}:{slots},"))
    }

    /// Names of the devices that a program models, in the order of its numbers.
    pub fn modelled(&self, program: &str) -> String {
        let of = |models: &&Models| models.program == program;
        let mut names = String::new();
        for machine in &self.description.machines {
            for slot in machine.models.iter().filter(of).flat_map(|models| &models.slots) {
                let kind = MODELLED.iter().find(|(known, _)| known == slot).map_or("", |(_, k)| k);
                names.push_str(&format!("{kind}-{},", machine.name));
            }
        }
        names
    }
}
