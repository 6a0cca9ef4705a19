//! String instructions that write: `stos` and `movs`, repeated or not.
use crate::Error;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// One of them, with 64-bit addresses and without a segment of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringWrite {
    /// Length of the instruction in bytes.
    pub length: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub width: u8,
    /// What is written comes from `[RSI]`; otherwise it is the accumulator.
    pub copies: bool,
    /// As often as RCX says; otherwise once.
    pub repeated: bool,
}

/// The string instruction that this is.
pub(crate) fn of(instruction: &Instruction) -> Result<StringWrite, Error> {
    let (width, copies) = match instruction.mnemonic() {
        Mnemonic::Stosb => (1, false),
        Mnemonic::Stosw => (2, false),
        Mnemonic::Stosd => (4, false),
        Mnemonic::Stosq => (8, false),
        Mnemonic::Movsb => (1, true),
        Mnemonic::Movsw => (2, true),
        Mnemonic::Movsd => (4, true),
        Mnemonic::Movsq => (8, true),
        _ => return Err(Error::Unsupported),
    };
    let from = instruction.op1_kind() == OpKind::MemorySegRSI
        && instruction.memory_segment() == Register::DS;
    // `movsd` is also a move of a floating-point number.
    if instruction.op0_kind() != OpKind::MemoryESRDI || copies && !from {
        return Err(Error::Unsupported);
    }
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    Ok(StringWrite { length: instruction.len() as u64, width, copies, repeated })
}
