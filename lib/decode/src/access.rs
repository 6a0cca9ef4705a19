//! One access to memory by an instruction of the `mov` family.
use crate::Error;
use crate::registers::{Place, mask};
use abi::vcpu::Registers;
use iced_x86::{Instruction, Mnemonic, OpKind};

/// What a store writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A register.
    Register(Place),
    /// A constant.
    Immediate(u64),
}

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Memory into a register, sign-extended or not.
    Load {
        /// The register.
        into: Place,
        /// `movsx`.
        signed: bool,
    },
    /// Into memory.
    Store(Source),
}

/// The access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryAccess {
    /// Length of the instruction in bytes.
    pub length: u64,
    /// Bytes accessed: 1, 2, 4 or 8.
    pub width: u8,
    /// Load or store.
    pub direction: Direction,
}

impl MemoryAccess {
    /// What a store writes; `None` for a load.
    #[must_use]
    pub fn stored(&self, registers: &Registers) -> Option<u64> {
        match self.direction {
            Direction::Store(Source::Register(place)) => Some(place.get(registers)),
            Direction::Store(Source::Immediate(value)) => Some(value & mask(self.width)),
            Direction::Load { .. } => None,
        }
    }

    /// Completes a load with what memory held; does nothing for a store.
    pub fn loaded(&self, registers: &mut Registers, value: u64) {
        let Direction::Load { into, signed } = self.direction else { return };
        let value = value & mask(self.width);
        let unused = 64 - u32::from(self.width) * 8;
        let value = if signed { ((value << unused) as i64 >> unused) as u64 } else { value };
        into.set(registers, value);
    }
}

/// The access of that instruction.
pub(crate) fn of(instruction: &Instruction) -> Result<MemoryAccess, Error> {
    let signed = match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx => false,
        Mnemonic::Movsx | Mnemonic::Movsxd => true,
        _ => return Err(Error::Unsupported),
    };
    let width = match instruction.memory_size().size() {
        width @ (1 | 2 | 4 | 8) => width as u8,
        _ => return Err(Error::Unsupported),
    };
    let direction = match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Memory) => {
            let into = Place::of(instruction.op0_register()).ok_or(Error::Unsupported)?;
            Direction::Load { into, signed }
        }
        (OpKind::Memory, OpKind::Register) => {
            let from = Place::of(instruction.op1_register()).ok_or(Error::Unsupported)?;
            Direction::Store(Source::Register(from))
        }
        (OpKind::Memory, _) => {
            let value = instruction.try_immediate(1).map_err(|_| Error::Unsupported)?;
            Direction::Store(Source::Immediate(value))
        }
        _ => return Err(Error::Unsupported),
    };
    Ok(MemoryAccess { length: instruction.len() as u64, width, direction })
}
