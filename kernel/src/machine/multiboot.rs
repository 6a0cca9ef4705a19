//! The Multiboot2 information structure (Multiboot2 specification, section 3.6).
use super::boot::{BootData, Range};
use super::phys;
use abi::HostPhys;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_ACPI_OLD: u32 = 14;
const TAG_ACPI_NEW: u32 = 15;
/// Memory map entry type: available RAM.
const RAM: u32 = 1;

/// Copies what the kernel needs.
pub fn read(info: u64) -> BootData {
    let mut data = BootData::new();
    let total = half(info);
    let mut at = info + 8;
    while at < info + u64::from(total) {
        let (kind, size) = (half(at), half(at + 4));
        match kind {
            TAG_END => break,
            TAG_COMMAND_LINE => command_line(&mut data, at + 8, at + u64::from(size)),
            TAG_MODULE if data.archive.is_none() => {
                let (start, end) = (u64::from(half(at + 8)), u64::from(half(at + 12)));
                data.archive = Some(Range { start, end });
            }
            TAG_MEMORY_MAP => memory_map(&mut data, at, u64::from(size)),
            TAG_ACPI_OLD | TAG_ACPI_NEW => data.rsdp = at + 8,
            _ => {}
        }
        at += u64::from(size.max(8)).next_multiple_of(8);
    }
    data
}

fn half(at: u64) -> u32 {
    phys::read64(HostPhys(at)) as u32
}

fn command_line(data: &mut BootData, start: u64, end: u64) {
    for at in start..end {
        match phys::read8(HostPhys(at)) {
            0 => break,
            byte => data.add_line_byte(byte),
        }
    }
}

fn memory_map(data: &mut BootData, tag: u64, size: u64) {
    let entry_size = u64::from(half(tag + 8)).max(24);
    let mut at = tag + 16;
    while at + entry_size <= tag + size {
        if half(at + 16) == RAM {
            data.add_ram(phys::read64(HostPhys(at)), phys::read64(HostPhys(at + 8)));
        }
        at += entry_size;
    }
}
