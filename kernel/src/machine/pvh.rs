//! `hvm_start_info` of the PVH boot protocol (Xen, public/arch-x86/hvm/start_info.h).
use super::boot::{BootData, Range};
use super::phys;
use abi::HostPhys;

const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;

/// Copies what the kernel needs. An unknown structure yields no memory, which the caller reports.
pub fn read(info: u64) -> BootData {
    let mut data = BootData::new();
    let word = |offset: u64| phys::read64(HostPhys(info + offset));
    let half = |offset: u64| word(offset) as u32;
    if half(0) != MAGIC {
        return data;
    }
    if half(12) > 0 {
        let module = word(16);
        let start = phys::read64(HostPhys(module));
        let size = phys::read64(HostPhys(module + 8));
        data.archive = Some(Range { start, end: start.saturating_add(size) });
    }
    let mut line = word(24);
    while line != 0 {
        let byte = phys::read8(HostPhys(line));
        if byte == 0 {
            break;
        }
        data.add_line_byte(byte);
        line += 1;
    }
    data.rsdp = word(32);
    if half(4) >= 1 {
        let map = word(40);
        for index in 0..u64::from(half(48)) {
            let entry = HostPhys(map + index * 24);
            let kind = phys::read64(HostPhys(entry.0 + 16)) as u32;
            if kind == RAM {
                data.add_ram(phys::read64(entry), phys::read64(HostPhys(entry.0 + 8)));
            }
        }
    }
    data
}
