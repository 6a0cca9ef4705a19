//! The one firmware table that the root server needs: where PCI configuration space is mapped
//! (MCFG; PCI Firmware Specification 3.0, section 4.1.2).
use crate::Failure;
use crate::window::look;
use alloc::format;
use memory::Memory;

/// Longest table that is believed.
const LIMIT: u64 = 1 << 20;

struct Table {
    address: u64,
    signature: [u8; 4],
    length: u64,
}

fn header(address: u64) -> Result<Table, Failure> {
    let (signature, length) = look(address, 8, |m| {
        let mut signature = [0; 4];
        let _ = m.read(0, &mut signature);
        (signature, u64::from(m.load32(4).unwrap_or(0)))
    })?;
    if !(36..=LIMIT).contains(&length) {
        return Err(Failure(format!("ACPI table at {address:#x} has length {length}")));
    }
    Ok(Table { address, signature, length })
}

/// Physical address of PCI configuration space for bus 0.
pub fn configuration_space(rsdp: u64) -> Result<u64, Failure> {
    let (revision, rsdt, xsdt) = look(rsdp, 36, |m| {
        let mut revision = [0];
        let _ = m.read(15, &mut revision);
        let mut rsdt = [0; 4];
        let _ = m.read(16, &mut rsdt);
        (revision[0], u64::from(u32::from_le_bytes(rsdt)), m.read64(24).unwrap_or(0))
    })?;
    let (root, width) = if revision >= 2 && xsdt != 0 { (xsdt, 8) } else { (rsdt, 4) };
    let root = header(root)?;
    for n in 0..(root.length - 36) / width {
        let entry = look(root.address + 36 + n * width, width, |m| {
            let mut bytes = [0; 8];
            let _ = m.read(0, &mut bytes[..width as usize]);
            u64::from_le_bytes(bytes)
        })?;
        let table = header(entry)?;
        if table.signature == *b"MCFG" && table.length >= 44 + 16 {
            return look(table.address + 44, 8, |m| m.read64(0).unwrap_or(0));
        }
    }
    Err(Failure("the firmware names no PCI configuration space (MCFG)".into()))
}
