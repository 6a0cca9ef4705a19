//! From the boot loader's hand-over to Rust: PVH (QEMU's `-kernel`) and Multiboot2 (GRUB).
use super::multiboot;
use super::pvh;
use core::arch::global_asm;

/// Most entries of the memory map that are kept.
const MAX_RANGES: usize = 64;
/// Longest command line that is kept.
const COMMAND_LINE: usize = 2048;

/// A physical range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// What the boot loader told, copied out of its structures.
#[derive(Clone, Debug)]
pub struct BootData {
    ranges: [Range; MAX_RANGES],
    count: usize,
    /// The boot archive (first module).
    pub archive: Option<Range>,
    /// Physical address of the ACPI RSDP, or zero.
    pub rsdp: u64,
    line: [u8; COMMAND_LINE],
    line_length: usize,
}

impl BootData {
    /// Nothing known.
    pub(super) const fn new() -> Self {
        Self {
            ranges: [Range { start: 0, end: 0 }; MAX_RANGES],
            count: 0,
            archive: None,
            rsdp: 0,
            line: [0; COMMAND_LINE],
            line_length: 0,
        }
    }

    /// Usable RAM, as the firmware lists it.
    pub fn ram(&self) -> &[Range] {
        &self.ranges[..self.count]
    }

    /// The command line.
    pub fn command_line(&self) -> &[u8] {
        &self.line[..self.line_length]
    }

    /// Notes a range of usable RAM; more than fit are left unused.
    pub(super) fn add_ram(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if self.count < MAX_RANGES && start < end {
            self.ranges[self.count] = Range { start, end };
            self.count += 1;
        }
    }

    /// Notes a byte of the command line.
    pub(super) fn add_line_byte(&mut self, byte: u8) {
        if self.line_length < COMMAND_LINE {
            self.line[self.line_length] = byte;
            self.line_length += 1;
        }
    }
}

global_asm!(include_str!("boot.s"), options(att_syntax));

/// First Rust function of the boot processor. Runs on the boot stack, on the boot page tables.
#[unsafe(no_mangle)]
extern "C" fn boot_processor(kind: u64, info: u64) -> ! {
    super::serial::init();
    let data = if kind == 0 { pvh::read(info) } else { multiboot::read(info) };
    crate::start::boot(&data)
}
