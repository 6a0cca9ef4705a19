//! Physical memory through the direct map: the only way in which the kernel touches memory that
//! is not its own (page tables, user pages, state pages, boot structures).
//!
//! All copies are volatile or by `rep movs`; no reference into such memory is ever made.
use abi::HostPhys;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where physical address zero is mapped.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// `virtual - physical` of the kernel's image.
pub const IMAGE_OFFSET: u64 = 0xffff_ffff_8000_0000;

/// Bytes of a word.
const WORD: u64 = size_of::<u64>() as u64;

/// The last word of the direct map. The boot page tables cover 4 GiB.
static LAST_WORD: AtomicU64 = AtomicU64::new((4 << 30) - WORD);

/// Tells how far the direct map reaches.
pub fn set_limit(end: u64) {
    LAST_WORD.store(end - WORD, Ordering::Relaxed);
}

/// The address of a word in the direct map: [`pointer`], in fewer steps.
#[inline(always)]
fn word(at: HostPhys) -> *mut u64 {
    if at.0 > LAST_WORD.load(Ordering::Relaxed) {
        outside(at);
    }
    (DIRECT_MAP + at.0) as *mut u64
}

/// The address of a physical range in the direct map.
///
/// # Panics
/// Where the direct map does not cover it: callers hold ranges that were checked at boot.
#[inline(always)]
pub(super) fn pointer(at: HostPhys, length: u64) -> *mut u8 {
    let last = (LAST_WORD.load(Ordering::Relaxed) + WORD).checked_sub(length);
    if last.is_none_or(|last| at.0 > last) {
        outside(at);
    }
    (DIRECT_MAP + at.0) as *mut u8
}

#[cold]
#[inline(never)]
fn outside(at: HostPhys) -> ! {
    panic!("physical {at:#x} is not in the direct map");
}

/// Physical address of something in the kernel's image.
pub fn of_image<T>(object: *const T) -> HostPhys {
    HostPhys((object.addr() as u64).wrapping_sub(IMAGE_OFFSET))
}

/// One byte.
pub fn read8(at: HostPhys) -> u8 {
    // SAFETY: the direct map covers the byte; any value is valid.
    unsafe { pointer(at, 1).read_volatile() }
}

/// Eight bytes at any alignment.
#[inline(always)]
pub fn read64(at: HostPhys) -> u64 {
    // SAFETY: the direct map covers the bytes; any value is valid.
    unsafe { word(at).read_unaligned() }
}

/// Writes eight bytes at any alignment. For memory that holds no kernel object.
#[inline(always)]
pub fn write64(at: HostPhys, value: u64) {
    // SAFETY: the direct map covers the bytes, and the caller names memory outside the kernel.
    unsafe { word(at).write_unaligned(value) };
}

/// Writes eight bytes where none of some bits is set; false when there is one.
#[inline(always)]
pub fn set_absent64(at: HostPhys, bits: u64, value: u64) -> bool {
    let place = word(at);
    // SAFETY: as in `write64`.
    unsafe {
        let absent = place.read_unaligned() & bits == 0;
        if absent {
            place.write_unaligned(value);
        }
        absent
    }
}

/// Copies out of physical memory.
pub fn copy_out(from: HostPhys, to: &mut [u8]) {
    let source = pointer(from, to.len() as u64);
    // SAFETY: the direct map covers the source, the slice is the kernel's own.
    unsafe { core::ptr::copy(source, to.as_mut_ptr(), to.len()) };
}

/// Copies into physical memory outside the kernel.
pub fn copy_in(to: HostPhys, from: &[u8]) {
    let target = pointer(to, from.len() as u64);
    // SAFETY: the direct map covers the target, which holds no kernel object.
    unsafe { core::ptr::copy(from.as_ptr(), target, from.len()) };
}

/// Copies between physical ranges outside the kernel.
pub fn copy(from: HostPhys, to: HostPhys, length: u64) {
    let (source, target) = (pointer(from, length), pointer(to, length));
    // SAFETY: the direct map covers both; `copy` allows overlap.
    unsafe { core::ptr::copy(source, target, length as usize) };
}

/// Fills a physical range outside the kernel with zeros.
pub fn zero(at: HostPhys, length: u64) {
    let target = pointer(at, length);
    // SAFETY: the direct map covers the range, which holds no kernel object.
    unsafe { core::ptr::write_bytes(target, 0, length as usize) };
}

/// True when the frame around an address outside the kernel holds nothing but zeros. Looks there
/// first where `at` is, then upwards, and around.
pub fn is_zero_around(at: HostPhys) -> bool {
    const LINE: u64 = size_of::<[u64; 8]>() as u64;
    let start = at.0 & !(abi::PAGE_SIZE - 1);
    let frame = pointer(HostPhys(start), abi::PAGE_SIZE);
    let first = at.0 - start;
    (0..abi::PAGE_SIZE / LINE).all(|line| {
        let offset = (first + line * LINE) & (abi::PAGE_SIZE - 1) & !(LINE - 1);
        // SAFETY: the direct map covers the frame; any value is valid.
        let words = unsafe { frame.add(offset as usize).cast::<[u64; 8]>().read_volatile() };
        words.iter().fold(0, |all, word| all | word) == 0
    })
}

/// Copies a vCPU's state out of its state page, once.
pub fn read_state(page: HostPhys) -> abi::vcpu::VcpuState {
    let source = pointer(page, size_of::<abi::vcpu::VcpuState>() as u64);
    // SAFETY: the direct map covers the page; it consists of integers, so that any bytes are a
    // value; another processor may write meanwhile, hence volatile.
    unsafe { source.cast::<abi::vcpu::VcpuState>().read_volatile() }
}

/// Changes a vCPU's state page in place.
pub fn update_state(page: HostPhys, change: impl FnOnce(&mut abi::vcpu::VcpuState)) {
    let target = pointer(page, size_of::<abi::vcpu::VcpuState>() as u64);
    // SAFETY: as in `read_state`; the page belongs to a memory capability, not to the kernel.
    // Callers only write. A program that writes at the same time spoils its own data.
    change(unsafe { &mut *target.cast::<abi::vcpu::VcpuState>() });
}
