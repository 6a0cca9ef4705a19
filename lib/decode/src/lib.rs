//! What a guest's instruction does, as far as a monitor has to carry it out: the processor that
//! reports neither the next instruction's address nor the bytes leaves that to us.
//!
//! Pure; the caller fetches the bytes. They come from a guest and may be anything.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod access;
mod registers;
mod string;

#[cfg(test)]
mod tests;

pub use access::{Direction, MemoryAccess, Source};
pub use registers::Place;
pub use string::StringWrite;

use abi::vcpu::VcpuState;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, Register};

/// Longest instruction, in bytes.
pub const MAX_LENGTH: usize = 15;

/// Size of code in the current code segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Real mode and 16-bit segments.
    Bits16,
    /// 32-bit segments.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl Mode {
    /// From EFER, and the VMCB's attributes of the code segment: L is bit 9, D is bit 10.
    #[must_use]
    pub const fn of(efer: u64, code_attributes: u16) -> Self {
        match (efer & 1 << 10 != 0, code_attributes & 1 << 9 != 0, code_attributes & 1 << 10 != 0) {
            (true, true, _) => Self::Bits64,
            (_, _, true) => Self::Bits32,
            _ => Self::Bits16,
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }
}

/// Why bytes cannot be made sense of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The bytes end within the instruction.
    Short,
    /// No such instruction.
    Invalid,
    /// An instruction that a monitor does not carry out.
    Unsupported,
}

/// Instructions that exit for what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plain {
    /// CPUID.
    Cpuid,
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// HLT.
    Hlt,
    /// VMMCALL.
    Vmmcall,
    /// WBINVD, INVD, WBNOINVD.
    CacheFlush,
    /// XSETBV.
    Xsetbv,
    /// IN, OUT and their string forms.
    Io,
    /// SYSCALL.
    Syscall,
    /// Anything else.
    Other,
}

fn instruction(bytes: &[u8], mode: Mode) -> Result<Instruction, Error> {
    instruction_at(0, bytes, mode)
}

/// The instruction at an address.
fn instruction_at(address: u64, bytes: &[u8], mode: Mode) -> Result<Instruction, Error> {
    let bytes = bytes.get(..MAX_LENGTH).unwrap_or(bytes);
    let decoder = Decoder::try_with_ip(mode.bits(), bytes, address, DecoderOptions::AMD);
    let mut decoder = decoder.map_err(|_| Error::Invalid)?;
    let instruction = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Ok(instruction),
        DecoderError::NoMoreBytes if bytes.len() < MAX_LENGTH => Err(Error::Short),
        _ => Err(Error::Invalid),
    }
}

/// Kind and length in bytes of the instruction.
///
/// # Errors
/// Not an instruction, or incomplete.
pub fn plain(bytes: &[u8], mode: Mode) -> Result<(Plain, u64), Error> {
    if let Some(known) = common(bytes) {
        return Ok(known);
    }
    let instruction = instruction(bytes, mode)?;
    let kind = match instruction.mnemonic() {
        Mnemonic::Cpuid => Plain::Cpuid,
        Mnemonic::Rdmsr => Plain::Rdmsr,
        Mnemonic::Wrmsr => Plain::Wrmsr,
        Mnemonic::Hlt => Plain::Hlt,
        Mnemonic::Vmmcall => Plain::Vmmcall,
        Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => Plain::CacheFlush,
        Mnemonic::Xsetbv => Plain::Xsetbv,
        Mnemonic::Syscall => Plain::Syscall,
        Mnemonic::In
        | Mnemonic::Out
        | Mnemonic::Insb
        | Mnemonic::Insw
        | Mnemonic::Insd
        | Mnemonic::Outsb
        | Mnemonic::Outsw
        | Mnemonic::Outsd => Plain::Io,
        _ => Plain::Other,
    };
    Ok((kind, instruction.len() as u64))
}

/// The forms without prefix, which are nearly all: the same in every mode.
fn common(bytes: &[u8]) -> Option<(Plain, u64)> {
    Some(match *bytes {
        [0xf4, ..] => (Plain::Hlt, 1),
        [0x0f, 0xa2, ..] => (Plain::Cpuid, 2),
        [0x0f, 0x32, ..] => (Plain::Rdmsr, 2),
        [0x0f, 0x30, ..] => (Plain::Wrmsr, 2),
        [0x0f, 0x01, 0xd9, ..] => (Plain::Vmmcall, 3),
        [0x0f, 0x05, ..] => (Plain::Syscall, 2),
        _ => return None,
    })
}

/// The source of a `mov` to CR0, and the length of the instruction.
///
/// # Errors
/// Not such an instruction.
pub fn write_of_cr0(bytes: &[u8], mode: Mode) -> Result<(Place, u64), Error> {
    let instruction = instruction(bytes, mode)?;
    if instruction.mnemonic() != Mnemonic::Mov || instruction.op0_register() != Register::CR0 {
        return Err(Error::Unsupported);
    }
    let from = Place::of(instruction.op1_register()).ok_or(Error::Unsupported)?;
    Ok((from, instruction.len() as u64))
}

/// The access to memory that an instruction makes, where a monitor can carry it out: the `mov`
/// family with one memory operand.
///
/// # Errors
/// Not such an instruction.
pub fn memory_access(bytes: &[u8], mode: Mode) -> Result<MemoryAccess, Error> {
    access::of(&instruction(bytes, mode)?)
}

/// The string instruction that writes.
///
/// # Errors
/// Not such an instruction, or one with a segment or addresses of 32 bits.
pub fn string_write(bytes: &[u8], mode: Mode) -> Result<StringWrite, Error> {
    string::of(&instruction(bytes, mode)?)
}

/// The virtual address of the first memory operand of an instruction at `state.rip`, in 64-bit mode.
#[must_use]
pub fn operand_address(bytes: &[u8], state: &VcpuState) -> Option<u64> {
    let instruction = instruction_at(state.rip, bytes, Mode::Bits64).ok()?;
    let is_memory = |n: &u32| instruction.op_kind(*n) == iced_x86::OpKind::Memory;
    let operand = (0..instruction.op_count()).find(is_memory)?;
    instruction.virtual_address(operand, 0, |register, _, _| match register {
        Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
        Register::FS => Some(state.segments[4].base),
        Register::GS => Some(state.segments[5].base),
        other => Some(Place::of(other)?.get(&state.regs)),
    })
}
