//! Parts of general registers.
use abi::vcpu::Registers;
use iced_x86::Register;

/// A general register or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Number in [`Registers`], 0..=15.
    number: u8,
    /// Bytes: 1, 2, 4, 8.
    width: u8,
    /// AH, CH, DH, BH.
    high: bool,
}

impl Place {
    /// The register of that name; `None` when it is not a general one.
    pub(crate) fn of(register: Register) -> Option<Self> {
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        if !register.is_gpr() {
            return None;
        }
        let number = u8::try_from(register.full_register().number()).ok()?;
        let width = u8::try_from(register.size()).ok()?;
        (number < 16).then_some(Self { number, width, high })
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn width(self) -> u8 {
        self.width
    }

    /// Its value, zero-extended.
    #[must_use]
    pub fn get(self, registers: &Registers) -> u64 {
        let whole = registers.r[usize::from(self.number & 15)];
        let shifted = if self.high { whole >> 8 } else { whole };
        shifted & mask(self.width)
    }

    /// Sets it: a write of 4 bytes clears the upper half, a smaller one keeps the rest.
    pub fn set(self, registers: &mut Registers, value: u64) {
        let whole = &mut registers.r[usize::from(self.number & 15)];
        let shift = if self.high { 8 } else { 0 };
        let mask = mask(self.width);
        let kept = if self.width == 4 { 0 } else { *whole & !(mask << shift) };
        *whole = kept | (value & mask) << shift;
    }
}

/// All ones in so many bytes.
pub(crate) fn mask(width: u8) -> u64 {
    match width {
        8.. => u64::MAX,
        n => (1 << (n * 8)) - 1,
    }
}
