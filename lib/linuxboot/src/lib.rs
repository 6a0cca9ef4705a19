//! Starts a Linux kernel in a VM by the 64-bit boot protocol: checks the bzImage, lays kernel,
//! initial RAM disk, command line, boot parameters, page tables, descriptor table and ACPI
//! tables out in guest RAM, and gives the first state of the processor.
//!
//! (Linux, `Documentation/arch/x86/boot.rst` and `zero-page.rst`.)
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
mod entry;
mod error;
mod header;
mod load;
mod params;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use header::Header;
pub use load::{Boot, Loaded, load};

/// Where things are put in the first MiB of guest RAM. Nothing here outlives the guest's start,
/// except the ACPI tables, which the memory map marks as such.
pub mod layout {
    /// Global descriptor table.
    pub const GDT: u64 = 0x1000;
    /// Boot parameters ("zero page").
    pub const PARAMS: u64 = 0x2000;
    /// Command line, zero-terminated, at most one page.
    pub const COMMAND_LINE: u64 = 0x3000;
    /// Top level of the page tables; the pages that follow hold the lower levels.
    pub const PAGE_TABLES: u64 = 0x4000;
    /// First bytes that are not free for the kernel.
    pub const LOW_END: u64 = 0x9_f000;
    /// ACPI tables.
    pub const ACPI: u64 = 0xe_0000;
    /// Where the low MiB ends and RAM goes on.
    pub const HIGH: u64 = 0x10_0000;
}
