//! The guest's instructions: fetched from its memory, decoded, carried out where they access a device, skipped.
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

pub(crate) fn mode(state: &VcpuState) -> Mode {
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
    let (bytes, length) = bytes(ram, state);
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
#[must_use]
pub fn at_halt(ram: &impl Memory, state: &VcpuState) -> bool {
    let mut byte = [0];
    fetch(ram, state, &mut byte) == 1 && byte[0] == HLT
}

/// What an instruction does to a device's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// Reads so many bytes: 1, 2, 4 or 8.
    Read(u8),
    /// Writes so many bytes of this value.
    Write(u8, u64),
}

/// Carries out the access that the guest's instruction makes, and goes on behind it: `touch` is told, and answers what is
/// read. False, and nothing has happened, where it is no instruction that can be carried out. Changes nothing of the
/// state but general registers, instruction pointer and interrupt shadow.
#[must_use]
pub fn carry_out(
    ram: &impl Memory,
    state: &mut VcpuState,
    touch: impl FnOnce(Touch) -> u64,
) -> bool {
    let Some(access) = memory_access(ram, state) else { return false };
    match access.stored(&state.regs) {
        Some(value) => {
            touch(Touch::Write(access.width, value));
        }
        None => access.loaded(&mut state.regs, touch(Touch::Read(access.width))),
    }
    advance(state, access.length);
    true
}

/// The bytes of the instruction, as many as can be read.
pub fn bytes(ram: &impl Memory, state: &VcpuState) -> ([u8; MAX_LENGTH], usize) {
    let mut bytes = [0; MAX_LENGTH];
    let length = fetch(ram, state, &mut bytes);
    (bytes, length)
}

/// The access to memory that the instruction makes, if it can be carried out for the guest.
fn memory_access(ram: &impl Memory, state: &VcpuState) -> Option<MemoryAccess> {
    let (bytes, length) = bytes(ram, state);
    decode::memory_access(bytes.get(..length)?, mode(state)).ok()
}

/// The value that the instruction writes to CR0, and its length.
#[must_use]
pub fn write_of_cr0(ram: &impl Memory, state: &VcpuState) -> Option<(u64, u64)> {
    let (bytes, length) = bytes(ram, state);
    let (from, length) = decode::write_of_cr0(bytes.get(..length)?, mode(state)).ok()?;
    Some((from.get(&state.regs), length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::vcpu::reg;
    use memory::Fake;

    /// A guest without paging, in a 32-bit segment, at code in the middle of its memory.
    fn at(code: &[u8]) -> (Fake, VcpuState) {
        let ram = Fake::new(0x1000);
        ram.write(0x100, code).expect("inside");
        let mut state = VcpuState { rip: 0x100, interrupt_shadow: 1, ..VcpuState::ZERO };
        state.segments[1].attributes = 1 << 10;
        (ram, state)
    }

    #[test]
    fn loads_and_stores_are_carried_out_and_left_behind() {
        // mov eax, [ebx]
        let (ram, mut state) = at(&[0x8b, 0x03]);
        state.regs.r[reg::RAX] = u64::MAX;
        assert!(carry_out(&ram, &mut state, |touch| {
            assert_eq!(touch, Touch::Read(4));
            0x1234_5678
        }));
        assert_eq!((state.regs.r[reg::RAX], state.rip), (0x1234_5678, 0x102));
        assert_eq!(state.interrupt_shadow, 0);
        // mov [ebx], cx
        let (ram, mut state) = at(&[0x66, 0x89, 0x0b]);
        state.regs.r[reg::RCX] = 0xabcd_0007;
        assert!(carry_out(&ram, &mut state, |touch| {
            assert_eq!(touch, Touch::Write(2, 7));
            9
        }));
        assert_eq!((state.regs.r[reg::RCX], state.rip), (0xabcd_0007, 0x103));
    }

    #[test]
    fn what_no_device_takes_changes_nothing() {
        // inc dword [ebx]; code that ends; code that is nowhere.
        for (code, rip) in [(&[0xff, 0x03][..], 0x100), (&[0x8b], 0xfff), (&[], 1 << 40)] {
            let (ram, mut state) = at(code);
            ram.write(0xfff, &[0x8b]).expect("inside");
            state.rip = rip;
            let before = state;
            assert!(!carry_out(&ram, &mut state, |_| panic!("touched")));
            assert_eq!((state.rip, state.interrupt_shadow), (before.rip, 1));
            assert_eq!(state.regs.r, before.regs.r);
        }
    }
}
