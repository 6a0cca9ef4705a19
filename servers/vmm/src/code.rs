//! The guest's instructions: fetched from its memory, decoded, skipped.
use abi::vcpu::VcpuState;
use decode::{MAX_LENGTH, MemoryAccess, Mode, Plain};
use memory::Memory;
use paging::Space;

/// CR0.PG.
pub const PAGING: u64 = 1 << 31;
/// EFER.LMA.
const LONG_MODE: u64 = 1 << 10;
/// Opcode of HLT.
const HLT: u8 = 0xf4;

/// The instruction that an exit speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// HLT.
    Halt,
    /// CPUID.
    Cpuid,
    /// RDMSR or WRMSR.
    Msr,
    /// INVD or WBINVD.
    CacheFlush,
}

impl Expected {
    fn matches(self, kind: Plain) -> bool {
        match self {
            Self::Halt => kind == Plain::Hlt,
            Self::Cpuid => kind == Plain::Cpuid,
            Self::Msr => matches!(kind, Plain::Rdmsr | Plain::Wrmsr),
            Self::CacheFlush => kind == Plain::CacheFlush,
        }
    }

    /// Without prefixes.
    fn shortest(self) -> u64 {
        if self == Self::Halt { 1 } else { 2 }
    }
}

fn mode(state: &VcpuState) -> Mode {
    Mode::of(state.efer, state.segments[1].attributes)
}

/// The bytes at the instruction pointer, as many as can be read: none where the code lies
/// outside of RAM (in the root image), or the paging mode is not the one of long mode.
fn fetch(ram: &impl Memory, state: &VcpuState, bytes: &mut [u8]) -> usize {
    let address = match mode(state) {
        Mode::Bits64 => state.rip,
        _ => state.segments[1].base.wrapping_add(state.rip) & 0xffff_ffff,
    };
    if state.cr0 & PAGING == 0 {
        return if ram.read(address, bytes).is_ok() { bytes.len() } else { 0 };
    }
    if state.efer & LONG_MODE == 0 {
        return 0;
    }
    match Space::stopped(ram, state.cr3).read_kernel(address, bytes) {
        Ok(()) => bytes.len(),
        Err(stopped) => stopped.done.min(bytes.len()),
    }
}

/// Goes on behind the instruction that exited. Where its bytes cannot be read (or are no longer
/// those that exited) it is taken to have no prefixes; a guest that fools us here harms itself.
pub fn skip(ram: &impl Memory, state: &mut VcpuState, expected: Expected) {
    let mut bytes = [0; MAX_LENGTH];
    let length = fetch(ram, state, &mut bytes);
    let found = decode::plain(bytes.get(..length).unwrap_or(&[]), mode(state));
    let length = match found {
        Ok((kind, length)) if expected.matches(kind) => length,
        _ => expected.shortest(),
    };
    advance(state, length);
}

/// Moves the instruction pointer, and ends the interrupt shadow.
pub fn advance(state: &mut VcpuState, length: u64) {
    let next = state.rip.wrapping_add(length);
    state.rip = if mode(state) == Mode::Bits64 { next } else { next & 0xffff_ffff };
    state.interrupt_shadow = 0;
}

/// True when the next instruction is HLT.
pub fn at_halt(ram: &impl Memory, state: &VcpuState) -> bool {
    let mut byte = [0];
    fetch(ram, state, &mut byte) == 1 && byte[0] == HLT
}

/// The access to memory that the instruction makes, if it can be carried out for the guest.
pub fn memory_access(ram: &impl Memory, state: &VcpuState) -> Option<MemoryAccess> {
    let mut bytes = [0; MAX_LENGTH];
    let length = fetch(ram, state, &mut bytes);
    decode::memory_access(bytes.get(..length)?, mode(state)).ok()
}

/// The value that the instruction writes to CR0, and its length.
pub fn write_of_cr0(ram: &impl Memory, state: &VcpuState) -> Option<(u64, u64)> {
    let mut bytes = [0; MAX_LENGTH];
    let length = fetch(ram, state, &mut bytes);
    let (from, length) = decode::write_of_cr0(bytes.get(..length)?, mode(state)).ok()?;
    Some((from.get(&state.regs), length))
}
