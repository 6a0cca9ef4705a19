//! Just enough of ACPI: the list of processors (MADT; ACPI specification 6.4, section 5.2.12).
use super::cpu::MAX_CPUS;
use super::phys;
use abi::HostPhys;

/// Local-APIC ids of the processors that may be started.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    ids: [u32; MAX_CPUS],
    count: usize,
}

impl Processors {
    /// The ids, in the table's order.
    pub fn ids(&self) -> &[u32] {
        &self.ids[..self.count]
    }

    fn add(&mut self, id: u32) {
        if self.count < MAX_CPUS {
            self.ids[self.count] = id;
            self.count += 1;
        }
    }
}

/// The direct map of the boot page tables ends here; tables above are not looked at.
const REACH: u64 = 4 << 30;
/// Entry of the MADT: processor local APIC.
const LOCAL_APIC: u8 = 0;
/// Flags of that entry: enabled, online capable.
const USABLE: u32 = 0b01;

fn half(at: u64) -> u32 {
    phys::read64(HostPhys(at)) as u32
}

fn reachable(at: u64, length: u64) -> bool {
    at != 0 && at.checked_add(length).is_some_and(|end| end <= REACH)
}

fn is_rsdp(at: u64) -> bool {
    phys::read64(HostPhys(at)) == u64::from_le_bytes(*b"RSD PTR ")
}

/// Where the RSDP is: where the boot loader says, or in the BIOS area.
pub fn find_rsdp(hint: u64) -> u64 {
    if reachable(hint, 64) && is_rsdp(hint) {
        return hint;
    }
    (0xe_0000..0x10_0000u64).step_by(16).find(|at| is_rsdp(*at)).unwrap_or(0)
}

/// The processors of the MADT; empty where there is none.
pub fn processors(rsdp: u64) -> Processors {
    let mut found = Processors { ids: [0; MAX_CPUS], count: 0 };
    if let Some(madt) = madt(rsdp) {
        let end = madt + u64::from(half(madt + 4));
        let mut at = madt + 44;
        while reachable(at, 8) && at + 2 <= end {
            let (kind, length) = (phys::read8(HostPhys(at)), phys::read8(HostPhys(at + 1)));
            if kind == LOCAL_APIC && half(at + 4) & USABLE != 0 {
                found.add(u32::from(phys::read8(HostPhys(at + 3))));
            }
            at += u64::from(length.max(2));
        }
    }
    found
}

fn madt(rsdp: u64) -> Option<u64> {
    if rsdp == 0 {
        return None;
    }
    let revision = phys::read8(HostPhys(rsdp + 15));
    let xsdt = if revision >= 2 { phys::read64(HostPhys(rsdp + 24)) } else { 0 };
    let (table, width) = if xsdt != 0 { (xsdt, 8) } else { (u64::from(half(rsdp + 16)), 4) };
    if !reachable(table, 36) {
        return None;
    }
    let length = u64::from(half(table + 4));
    let mut at = table + 36;
    while at + width <= table + length && reachable(at, 8) {
        let entry = if width == 8 { phys::read64(HostPhys(at)) } else { u64::from(half(at)) };
        if reachable(entry, 44) && half(entry) == u32::from_le_bytes(*b"APIC") {
            return Some(entry);
        }
        at += width;
    }
    None
}
