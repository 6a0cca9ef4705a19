//! Where the parts of the kernel's own image are (symbols of the link script).
use super::boot::Range;
use super::phys::IMAGE_OFFSET;
use super::table::KernelRights;

unsafe extern "C" {
    static image_start: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static boot_guard: u8;
    static image_end: u8;
}

/// Physical range of the whole image.
pub fn range() -> Range {
    let (start, end) = (&raw const image_start, &raw const image_end);
    Range { start: start.addr() as u64, end: end.addr() as u64 - IMAGE_OFFSET }
}

/// Virtual ranges of the parts, with their rights. The page below the boot processor's stack is
/// left out.
pub fn parts() -> [(u64, u64, KernelRights); 4] {
    let at = |symbol: *const u8| symbol.addr() as u64;
    let (text, constants) = (at(&raw const text_start), at(&raw const text_end));
    let (data, end) = (at(&raw const rodata_end), at(&raw const image_end));
    let guard = at(&raw const boot_guard);
    [
        (text, constants, KernelRights::Execute),
        (constants, data, KernelRights::Read),
        (data, guard, KernelRights::Write),
        (guard + abi::PAGE_SIZE, end, KernelRights::Write),
    ]
}
