//! Page tables, in physical memory as the kernel reaches it.
use super::{cpu, phys};
use abi::HostPhys;
use tables::Physical;
pub use tables::{FrameSource, KernelRights, NoFrames};

/// Physical memory through the direct map.
#[derive(Debug)]
pub struct Direct;

/// Page tables of a space.
pub type Tables = tables::Tables<Direct>;
/// The kernel's own.
pub type KernelTables = tables::KernelTables<Direct>;

impl Physical for Direct {
    #[inline(always)]
    fn read(at: HostPhys) -> u64 {
        phys::read64(at)
    }

    #[inline(always)]
    fn write(at: HostPhys, value: u64) {
        phys::write64(at, value);
    }

    #[inline(always)]
    fn set_absent(at: HostPhys, bits: u64, value: u64) -> bool {
        phys::set_absent64(at, bits, value)
    }

    fn copy(from: HostPhys, to: HostPhys, length: u64) {
        phys::copy(from, to, length);
    }

    #[inline(always)]
    fn is_zero_around(at: HostPhys) -> bool {
        phys::is_zero_around(at)
    }

    fn has_huge_pages() -> bool {
        cpu::has_huge_pages()
    }
}
