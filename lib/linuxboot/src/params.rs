//! The boot parameters ("zero page") with the memory map.
use crate::header::{Header, SETUP_HEADER};
use crate::layout;
use alloc::boxed::Box;

/// Types of ranges in the memory map.
mod kind {
    pub const RAM: u32 = 1;
    pub const RESERVED: u32 = 2;
    pub const ACPI: u32 = 3;
}

/// Offsets in the boot parameters.
mod offset {
    pub const ACPI_RSDP: usize = 0x070;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const VIDEO_MODE: usize = 0x1fa;
    pub const LOADER_TYPE: usize = 0x210;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const COMMAND_LINE: usize = 0x228;
    pub const E820_TABLE: usize = 0x2d0;
}

/// What the boot parameters tell the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Bytes of RAM.
    pub memory: u64,
    /// Address and length of the initial RAM disk; zeros for none.
    pub initrd: (u64, u64),
    /// Address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Builds the page.
pub fn build(header: &Header, told: &Told) -> Box<[u8; 4096]> {
    let mut page = Box::new([0; 4096]);
    let setup = header.setup();
    page[SETUP_HEADER..SETUP_HEADER + setup.len()].copy_from_slice(setup);
    put(&mut page, offset::ACPI_RSDP, &told.rsdp.to_le_bytes());
    // "Normal" text mode, and a boot loader without a number of its own.
    put(&mut page, offset::VIDEO_MODE, &0xffff_u16.to_le_bytes());
    put(&mut page, offset::LOADER_TYPE, &[0xff]);
    put(&mut page, offset::RAMDISK_IMAGE, &(told.initrd.0 as u32).to_le_bytes());
    put(&mut page, offset::RAMDISK_SIZE, &(told.initrd.1 as u32).to_le_bytes());
    put(&mut page, offset::COMMAND_LINE, &(layout::COMMAND_LINE as u32).to_le_bytes());
    let map = [
        (0, layout::LOW_END, kind::RAM),
        (layout::LOW_END, layout::ACPI, kind::RESERVED),
        (layout::ACPI, layout::HIGH, kind::ACPI),
        (layout::HIGH, told.memory, kind::RAM),
    ];
    page[offset::E820_ENTRIES] = map.len() as u8;
    for (index, (from, to, kind)) in map.into_iter().enumerate() {
        let at = offset::E820_TABLE + index * 20;
        put(&mut page, at, &u64::to_le_bytes(from));
        put(&mut page, at + 8, &u64::to_le_bytes(to - from));
        put(&mut page, at + 16, &kind.to_le_bytes());
    }
    page
}

fn put(page: &mut [u8; 4096], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}
