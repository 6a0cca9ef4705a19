//! PCI devices of the machine, given to the programs that drive them: one function's
//! configuration space, its memory BARs, and DMA memory.
use crate::boot::Builder;
use crate::program::RW;
use crate::window::look;
use crate::{Failure, own};
use abi::{LARGE_PAGE_SIZE, MemRights, ObjRights, RootSelector};
use alloc::format;
use alloc::vec::Vec;
use rt::Shared;
use system::Device;

/// A memory BAR: index, physical address, bytes.
type Bar = (u64, u64, u64);

const COMMAND: u64 = 4;
const COMMAND_MEMORY: u64 = 2;
const BAR0: u64 = 0x10;

fn size_bar(config: &Shared, index: u64) -> Option<(Bar, bool)> {
    let at = BAR0 + index * 4;
    let low = config.read_register(at, 4).ok()?;
    if low & 1 != 0 || low == 0 && index == 0 {
        return None;
    }
    let wide = low & 6 == 4;
    let high = if wide { config.read_register(at + 4, 4).ok()? } else { 0 };
    config.write_register(at, 4, 0xffff_ffff).ok()?;
    let mut mask = config.read_register(at, 4).ok()? & !0xf | 0xffff_ffff_0000_0000;
    if wide {
        config.write_register(at + 4, 4, 0xffff_ffff).ok()?;
        mask = mask & 0xffff_ffff | config.read_register(at + 4, 4).ok()? << 32;
        config.write_register(at + 4, 4, high).ok()?;
    }
    config.write_register(at, 4, low).ok()?;
    let length = (!mask).wrapping_add(1);
    let address = high << 32 | low & !0xf;
    (length != 0 && address != 0).then_some(((index, address, length), wide))
}

fn size_bars(config: &Shared) -> Vec<Bar> {
    // Decoding is off while BARs hold nonsense (PCI Local Bus Specification 3.0, 6.2.5.1).
    let command = config.read_register(COMMAND, 2).unwrap_or(0);
    let _ = config.write_register(COMMAND, 2, command & !COMMAND_MEMORY);
    let mut bars = Vec::new();
    let mut index = 0;
    while index < 6 {
        let found = size_bar(config, index);
        index += if found.is_some_and(|(_, wide)| wide) { 2 } else { 1 };
        bars.extend(found.map(|(bar, _)| bar));
    }
    let _ = config.write_register(COMMAND, 2, command | COMMAND_MEMORY);
    bars
}

impl Builder {
    /// Gives every declared device to its program.
    pub fn give_devices(&mut self) -> Result<(), Failure> {
        let declared = self.description.devices.clone();
        if declared.is_empty() {
            return Ok(());
        }
        let base = crate::acpi::configuration_space(self.info.rsdp)?;
        let mut taken = Vec::new();
        for device in &declared {
            match find(base, device, &taken)? {
                Some(found) => {
                    taken.push(found);
                    self.give_device(device, found)?;
                }
                None if device.optional => {}
                None => {
                    return Err(Failure(format!(
                        "no PCI device {:04x}:{:04x} for program '{}'",
                        device.vendor, device.device, device.program
                    )));
                }
            }
        }
        Ok(())
    }

    fn give_device(&mut self, device: &Device, config: u64) -> Result<(), Failure> {
        let bars = look(config, 4096, size_bars)?;
        let rights = RW | MemRights::DEVICE;
        let devices = own(RootSelector::Devices);
        let dma = self.ram.take(device.dma, LARGE_PAGE_SIZE, true)?;
        let physical = self.ram.physical(dma);
        let program = self.program(&device.program)?;
        program.show("config", devices, config, 4096, rights, Some(config))?;
        // Its interrupts signal a bit of the first thread's notification, on that thread's CPU.
        let bit = program.bit(0)?;
        let (notification, cpu) = (program.threads[0].notification, program.threads[0].cpu);
        let rights_there = (ObjRights::USE | ObjRights::CONTROL).bits();
        program.grant("notification", notification, rights_there)?;
        program.config.parameters.push(("irq_bits".into(), format!("{bit}")));
        program.config.parameters.push(("irq_cpu".into(), format!("{cpu}")));
        for (index, address, length) in bars {
            // A BAR smaller than a page would show the program its neighbours' registers.
            if !address.is_multiple_of(4096) {
                return Err(Failure(format!("BAR at {address:#x} is not page aligned")));
            }
            let name = format!("bar{index}");
            program.show(&name, devices, address, length, rights, Some(address))?;
        }
        program.show("dma", own(RootSelector::Ram), dma, device.dma, RW, Some(physical))
    }
}

/// Physical address of the configuration space of the first such function on bus 0.
fn find(base: u64, device: &Device, taken: &[u64]) -> Result<Option<u64>, Failure> {
    let want = u64::from(device.device) << 16 | u64::from(device.vendor);
    for function in 0..256 {
        let at = base + (function << 12);
        let id = look(at, 4, |m| m.read_register(0, 4).unwrap_or(0))?;
        if id == want && !taken.contains(&at) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
