//! What the kernel tells the root program.
use crate::Selector;

/// Selectors that the kernel fills in the root program's table before it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RootSelector {
    /// The root program's own space (CONTROL | GRANT).
    Space = 1,
    /// The root program's first thread.
    Thread = 2,
    /// Largest part of free RAM, one memory capability (READ | WRITE | EXEC).
    Ram = 3,
    /// The boot archive, as loaded (READ | EXEC).
    Archive = 4,
    /// All physical addresses that are not RAM, below 1 TiB (READ | WRITE | DEVICE), offset =
    /// physical address.
    Devices = 5,
    /// Right to bind interrupts.
    Irq = 6,
    /// Right to system counters, trace masks and shutdown.
    System = 7,
    /// The boot information page (READ).
    BootInfo = 8,
    /// The trace rings (READ).
    Trace = 9,
}

/// All selectors of [`RootSelector`], in order.
pub const ROOT_SELECTORS: [Selector; 9] = [
    Selector(1),
    Selector(2),
    Selector(3),
    Selector(4),
    Selector(5),
    Selector(6),
    Selector(7),
    Selector(8),
    Selector(9),
];

/// One page that the kernel maps read-only at [`BootInfo::ADDRESS`] in the root program.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// [`BootInfo::MAGIC`].
    pub magic: u64,
    /// Processors that run.
    pub cpus: u64,
    /// Rate of the time-stamp counter.
    pub tsc_khz: u64,
    /// Length of the boot archive in bytes (its capability is rounded up to pages).
    pub archive_length: u64,
    /// Bytes of free RAM behind `RootSelector::Ram`.
    pub ram_length: u64,
    /// Physical address of the ACPI RSDP, or zero.
    pub rsdp: u64,
    /// 1 where the processor offers SVM with nested paging.
    pub svm: u64,
    /// Valid bytes of `command_line`.
    pub command_line_length: u64,
    /// The command line that the boot loader handed over.
    pub command_line: [u8; 2048],
}

impl BootInfo {
    /// "TRAPLINE" in ASCII, little endian.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"TRAPLINE");
    /// Where the page is mapped in the root program.
    pub const ADDRESS: u64 = 0x1000_0000;
}

const _: () = assert!(core::mem::size_of::<BootInfo>() <= 4096);
