//! ACPI tables of a "hardware-reduced" machine: one processor, one PCI bus, registers to sleep
//! and to reset, and nothing from the past (ACPI specification 6.5, chapters 4 and 5).
use crate::Error;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use memory::Memory;

/// Port of the sleep control register: a write with the sleep-enable bit powers the VM off.
pub const SLEEP_CONTROL_PORT: u16 = 0x604;
/// Port of the sleep status register: reads as zero.
pub const SLEEP_STATUS_PORT: u16 = 0x605;
/// Port of the reset register.
pub const RESET_PORT: u16 = 0x606;
/// What the guest writes there.
pub const RESET_VALUE: u8 = 1;
/// Sleep-enable bit of the sleep control register.
pub const SLEEP_ENABLE: u8 = 1 << 5;

/// Ports that the guest may give to PCI devices.
pub const PCI_PORTS: RangeInclusive<u16> = 0x1000..=0xffff;
/// Guest-physical addresses that the guest may give to PCI devices.
pub const PCI_MEMORY: RangeInclusive<u32> = 0xe000_0000..=0xefff_ffff;

const OEM: [u8; 6] = *b"TRAPLN";
const TABLE: [u8; 8] = *b"TRAPLINE";

/// Writes the tables into `start..end` and gives the address of the root pointer.
///
/// # Errors
/// They do not fit.
pub fn install(ram: &impl Memory, start: u64, end: u64) -> Result<u64, Error> {
    let rsdp = start;
    let mut next = start + 64;
    let mut put = |table: &dyn Aml| -> Result<u64, Error> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let at = next;
        next = (at + bytes.len() as u64).next_multiple_of(16);
        if next > end {
            return Err(Error::OutOfBounds);
        }
        ram.write(at, &bytes)?;
        Ok(at)
    };
    let dsdt = put(&dsdt())?;
    let fadt = put(&fadt(dsdt).finalize())?;
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(0xfee0_0000));
    madt.add_structure(ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled));
    let madt = put(&madt)?;
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = put(&xsdt)?;
    let mut bytes = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut bytes);
    ram.write(rsdp, &bytes)?;
    Ok(rsdp)
}

fn fadt(dsdt: u64) -> FADTBuilder {
    let port = |number: u16| GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, number.into());
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    // No VGA to look for, no ASPM, no CMOS clock; and no 8042, no legacy devices (bits clear).
    fadt.iapc_boot_arch = (1 << 2 | 1 << 4 | 1 << 5).into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt
}

fn dsdt() -> Sdt {
    let mut code = Vec::new();
    let id = aml::EISAName::new("PNP0A03");
    let id = aml::Name::new("_HID".into(), &id);
    let bus = aml::AddressSpace::new_bus_number(0u16, 0u16);
    let config = aml::IO::new(0xcf8, 0xcf8, 1, 8);
    let ports = aml::AddressSpace::new_io(*PCI_PORTS.start(), *PCI_PORTS.end(), None);
    let window = aml::AddressSpace::new_memory(
        aml::AddressSpaceCacheable::NotCacheable,
        true,
        *PCI_MEMORY.start(),
        *PCI_MEMORY.end(),
        None,
    );
    let resources = aml::ResourceTemplate::new(vec![&bus, &config, &ports, &window]);
    let resources = aml::Name::new("_CRS".into(), &resources);
    let number = aml::Name::new("_UID".into(), &aml::ZERO);
    aml::Device::new("_SB_.PCI0".into(), vec![&id, &number, &resources]).to_aml_bytes(&mut code);
    // Soft off: sleep type 5.
    let soft_off = aml::Package::new(vec![&5u8]);
    aml::Name::new("_S5_".into(), &soft_off).to_aml_bytes(&mut code);

    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, 1);
    table.append_slice(&code);
    table
}
