//! Page tables, descriptor table and the first state of the processor.
use crate::{Error, Loaded, layout};
use abi::vcpu::{Segment, VcpuState, reg};
use memory::Memory;

/// Selectors that the boot protocol asks for.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
/// A TSS has to be there; nothing uses it.
const BOOT_TR: u16 = 0x20;

/// Descriptors: null, unused, 64-bit code, data, TSS (two words).
const GDT: [u64; 6] =
    [0, 0, 0x00af_9a00_0000_ffff, 0x00cf_9200_0000_ffff, 0x0000_8b00_0000_0067, 0];

/// Page-table entry: present, writable.
const TABLE: u64 = 0b11;
/// Page-table entry: present, writable, large page.
const LARGE: u64 = 0b1000_0011;
/// GiB that are identity-mapped.
const MAPPED_GIB: u64 = 4;

/// Writes descriptor table and page tables: 4 GiB, identity, in 2 MiB pages.
pub fn install(ram: &impl Memory) -> Result<(), Error> {
    for (index, descriptor) in GDT.iter().enumerate() {
        ram.write(layout::GDT + index as u64 * 8, &descriptor.to_le_bytes())?;
    }
    let top = layout::PAGE_TABLES;
    let second = top + 0x1000;
    let third = second + 0x1000;
    let mut page = [0; 4096];
    put(&mut page, 0, second | TABLE);
    ram.write(top, &page)?;
    page.fill(0);
    (0..MAPPED_GIB).for_each(|n| put(&mut page, n, (third + n * 0x1000) | TABLE));
    ram.write(second, &page)?;
    for gib in 0..MAPPED_GIB {
        (0..512).for_each(|n| put(&mut page, n, gib << 30 | n << 21 | LARGE));
        ram.write(third + gib * 0x1000, &page)?;
    }
    Ok(())
}

fn put(page: &mut [u8; 4096], index: u64, entry: u64) {
    let at = index as usize * 8;
    page[at..at + 8].copy_from_slice(&entry.to_le_bytes());
}

impl Loaded {
    /// Sets the registers with which the kernel's 64-bit entry point is entered; the rest of the
    /// state stays as it is.
    pub fn start(&self, state: &mut VcpuState) {
        const CODE: u16 = 0xa9b;
        const DATA: u16 = 0xc93;
        let flat =
            |selector, attributes| Segment { selector, attributes, limit: u32::MAX, base: 0 };
        state.regs.r = [0; 16];
        state.regs.r[reg::RSI] = self.params;
        state.rip = self.entry;
        state.rflags = 2;
        // PG, ET, PE; PAE; LME and LMA.
        state.cr0 = 0x8000_0011;
        state.cr2 = 0;
        state.cr3 = layout::PAGE_TABLES;
        state.cr4 = 1 << 5;
        state.efer = 1 << 8 | 1 << 10;
        state.dr6 = 0xffff_0ff0;
        state.dr7 = 0x400;
        let data = flat(BOOT_DS, DATA);
        state.segments = [data, flat(BOOT_CS, CODE), data, data, data, data];
        let limit = size_of_val(&GDT) as u32 - 1;
        state.tables = [
            Segment { limit, base: layout::GDT, ..Segment::default() },
            Segment { attributes: 0x82, ..Segment::default() },
            Segment::default(),
            Segment { selector: BOOT_TR, attributes: 0x8b, limit: 0x67, base: 0 },
        ];
        // Reset value: write-back, write-through, uncached minus, uncached.
        state.pat = 0x0007_0406_0007_0406;
    }
}
