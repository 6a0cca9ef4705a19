//! What the processor would have done: `SYSCALL`, `SYSRET` and `IRET` carried out on the state
//! of a stopped vCPU (AMD APM volume 3), and the few instructions that exits are about.
use abi::vcpu::{Registers, Segment, VcpuState, reg};
use memory::Memory;
use paging::Space;

/// `RFLAGS.RF`.
const RF: u64 = 1 << 16;
/// Flags that `SYSRET` and `IRET` take from their source (APM 3, SYSRET).
const RETURN_FLAGS: u64 = 0x003f_7fd7;
/// Bit 1 of RFLAGS is always set.
const FLAGS_ONE: u64 = 2;
/// `EFER.SCE`.
pub const SCE: u64 = 1;
/// Bit of `#UD` among intercepted exceptions.
pub const UD_BIT: u64 = 1 << 6;
/// EVENTINJ: valid, exception, vector 6.
const INJECT_UD: u64 = 0x8000_0306;

const CS: usize = 1;
const SS: usize = 2;
/// Index of FS in the state page's segments.
pub const FS: usize = 4;
/// Index of GDTR in the state page's tables.
const GDTR: usize = 0;

/// `L` of a code segment in the VMCB's packed attributes.
const LONG: u16 = 1 << 9;
const KERNEL_CODE: u16 = 0xa9b;
const KERNEL_DATA: u16 = 0xc93;
const USER_CODE: u16 = 0xafb;
const USER_CODE_32: u16 = 0xcfb;
const USER_DATA: u16 = 0xcf3;

/// Length of RDMSR and WRMSR without prefixes, which no kernel gives them.
pub const MSR_LENGTH: u64 = 2;
/// Length of `SYSCALL`.
pub const SYSCALL_LENGTH: u64 = 2;
/// Length of `VMMCALL`.
pub const VMMCALL_LENGTH: u64 = 3;

/// An instruction that the relay knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction {
    /// `SYSCALL`.
    Syscall,
    /// `SYSRET`; `wide` with REX.W, back to 64-bit code.
    Sysret {
        /// REX.W.
        wide: bool,
    },
    /// `MOV CR3, r64`.
    LoadCr3 {
        /// Number of the register.
        register: usize,
        /// Bytes of the instruction.
        length: u64,
    },
    /// `IRETQ`.
    Iret,
    /// Anything else.
    Other,
}

/// The general registers and what else a call's return needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved {
    /// General registers.
    pub regs: Registers,
    /// Address of the `SYSCALL`.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

impl Saved {
    /// Out of a vCPU that stands at a `SYSCALL`.
    #[must_use]
    pub fn of(s: &VcpuState) -> Self {
        Self { regs: s.regs, rip: s.rip, rflags: s.rflags }
    }

    /// Puts the vCPU back at the `SYSCALL`.
    pub fn restore(&self, s: &mut VcpuState) {
        s.regs = self.regs;
        s.rip = self.rip;
        s.rflags = self.rflags;
    }

    /// Puts the vCPU behind the `SYSCALL`, as if it had returned `result`.
    pub fn finish(&self, s: &mut VcpuState, result: i64) {
        self.restore(s);
        s.rip = self.rip.wrapping_add(SYSCALL_LENGTH);
        s.regs.r[reg::RAX] = result as u64;
        s.regs.r[reg::RCX] = s.rip;
        s.regs.r[reg::R11] = self.rflags & !RF;
    }

    /// True when both make the same call from the same place of code and stack.
    #[must_use]
    pub fn is_same_call(&self, other: &Self) -> bool {
        let rsp = |saved: &Self| saved.regs.r[reg::RSP];
        self.rip == other.rip
            && rsp(self) == rsp(other)
            && self.number() == other.number()
            && self.arguments() == other.arguments()
    }

    /// The call's number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.regs.r[reg::RAX]
    }

    /// The call's arguments.
    #[must_use]
    pub fn arguments(&self) -> [u64; 6] {
        let r = &self.regs.r;
        [r[reg::RDI], r[reg::RSI], r[reg::RDX], r[reg::R10], r[reg::R8], r[reg::R9]]
    }
}

/// Sets up the registers of a call.
pub fn load_call(s: &mut VcpuState, number: u64, arguments: [u64; 6]) {
    s.regs.r[reg::RAX] = number;
    let places = [reg::RDI, reg::RSI, reg::RDX, reg::R10, reg::R8, reg::R9];
    for (place, argument) in places.into_iter().zip(arguments) {
        s.regs.r[place] = argument;
    }
}

/// True in 64-bit user code.
#[must_use]
pub fn in_long_user(s: &VcpuState) -> bool {
    s.cpl == 3 && s.segments[CS].attributes & LONG != 0
}

fn flat(selector: u16, attributes: u16) -> Segment {
    Segment { selector, attributes, limit: u32::MAX, base: 0 }
}

/// Carries out `SYSCALL`; the kernel will return to `return_to`.
pub fn syscall(s: &mut VcpuState, return_to: u64) {
    let long = s.segments[CS].attributes & LONG != 0;
    s.regs.r[reg::RCX] = return_to;
    s.regs.r[reg::R11] = s.rflags & !RF;
    s.rip = if long { s.lstar } else { s.cstar };
    s.rflags = s.rflags & !s.sfmask & !RF | FLAGS_ONE;
    let selector = (s.star >> 32) as u16 & 0xfffc;
    s.segments[CS] = flat(selector, KERNEL_CODE);
    s.segments[SS] = flat(selector.wrapping_add(8), KERNEL_DATA);
    s.cpl = 0;
    s.interrupt_shadow = 0;
}

/// The flags that `SYSRET` makes of R11.
pub(crate) const fn flags_after_sysret(r11: u64) -> u64 {
    r11 & RETURN_FLAGS & !RF | FLAGS_ONE
}

/// Carries out `SYSRET`.
pub fn sysret(s: &mut VcpuState, wide: bool) {
    let base = (s.star >> 48) as u16;
    if wide {
        s.rip = s.regs.r[reg::RCX];
        s.segments[CS] = flat(base.wrapping_add(16) | 3, USER_CODE);
    } else {
        s.rip = s.regs.r[reg::RCX] & 0xffff_ffff;
        s.segments[CS] = flat(base | 3, USER_CODE_32);
    }
    s.segments[SS] = flat(base.wrapping_add(8) | 3, USER_DATA);
    s.rflags = flags_after_sysret(s.regs.r[reg::R11]);
    s.cpl = 3;
    s.interrupt_shadow = 0;
}

/// Carries out `IRETQ` from the guest's kernel. False when its stack or descriptors cannot be
/// read; nothing has changed then.
pub fn iret(s: &mut VcpuState, memory: &dyn Memory) -> bool {
    let space = Space::stopped(memory, s.cr3);
    let mut frame = [0; 40];
    if space.read_kernel(s.regs.r[reg::RSP], &mut frame).is_err() {
        return false;
    }
    let word = |n: usize| {
        let mut b = [0; 8];
        b.copy_from_slice(&frame[n * 8..n * 8 + 8]);
        u64::from_le_bytes(b)
    };
    let (cs, ss) = (word(1) as u16, word(4) as u16);
    let (Some(code), Some(stack)) = (descriptor(s, &space, cs), descriptor(s, &space, ss)) else {
        return false;
    };
    s.rip = word(0);
    s.rflags = word(2) & RETURN_FLAGS | FLAGS_ONE;
    s.regs.r[reg::RSP] = word(3);
    s.segments[CS] = code;
    s.segments[SS] = stack;
    s.cpl = u64::from(cs & 3);
    s.interrupt_shadow = 0;
    true
}

/// Loads a segment from the guest's GDT; a null selector is an unusable segment of its level.
fn descriptor(s: &VcpuState, space: &Space<'_, dyn Memory + '_>, selector: u16) -> Option<Segment> {
    if selector & 0xfffc == 0 {
        return Some(Segment { selector, attributes: (selector & 3) << 5, limit: 0, base: 0 });
    }
    let table = s.tables[GDTR];
    let offset = u64::from(selector & 0xfff8);
    if selector & 4 != 0 || offset + 7 > u64::from(table.limit) {
        return None;
    }
    let mut d = [0; 8];
    space.read_kernel(table.base.checked_add(offset)?, &mut d).ok()?;
    let raw = u64::from_le_bytes(d);
    let limit = (raw & 0xffff | (raw >> 32) & 0xf_0000) as u32;
    let granular = raw & 1 << 55 != 0;
    Some(Segment {
        selector,
        attributes: ((raw >> 40) & 0xff | (raw >> 44) & 0xf00) as u16,
        limit: if granular { limit << 12 | 0xfff } else { limit },
        base: (raw >> 16) & 0xff_ffff | (raw >> 32) & 0xff00_0000,
    })
}

/// Injects `#UD`, as if nobody had intercepted it.
pub fn inject_undefined(s: &mut VcpuState) {
    s.inject = INJECT_UD;
}

/// The instruction at which the vCPU stands.
#[must_use]
pub fn instruction(s: &VcpuState, memory: &dyn Memory) -> Instruction {
    let space = Space::stopped(memory, s.cr3);
    let mut bytes = [0; 4];
    let result = if s.cpl == 3 {
        space.fetch(s.rip, &mut bytes)
    } else {
        space.read_kernel(s.rip, &mut bytes)
    };
    let valid = result.map_or_else(|stopped| stopped.done, |()| bytes.len());
    decode(bytes.get(..valid).unwrap_or(&[]))
}

fn decode(bytes: &[u8]) -> Instruction {
    match *bytes {
        [0x0f, 0x05, ..] => Instruction::Syscall,
        [0x0f, 0x07, ..] => Instruction::Sysret { wide: false },
        [rex @ 0x48..=0x4f, 0x0f, 0x07, ..] => Instruction::Sysret { wide: rex & 8 != 0 },
        [0x48..=0x4f, 0xcf, ..] => Instruction::Iret,
        [0x0f, 0x22, modrm, ..] if modrm >> 3 & 7 == 3 => {
            Instruction::LoadCr3 { register: usize::from(modrm & 7), length: 3 }
        }
        // REX.R would name CR11, which does not exist.
        [rex @ 0x40..=0x4f, 0x0f, 0x22, modrm] if modrm >> 3 & 7 == 3 && rex & 4 == 0 => {
            let register = usize::from(modrm & 7 | (rex & 1) << 3);
            Instruction::LoadCr3 { register, length: 4 }
        }
        _ => Instruction::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        assert_eq!(decode(&[0x0f, 0x05]), Instruction::Syscall);
        assert_eq!(decode(&[0x48, 0x0f, 0x07, 0]), Instruction::Sysret { wide: true });
        assert_eq!(decode(&[0x0f, 0x07]), Instruction::Sysret { wide: false });
        let load = |register, length| Instruction::LoadCr3 { register, length };
        assert_eq!(decode(&[0x0f, 0x22, 0xd8, 0x90]), load(0, 3));
        assert_eq!(decode(&[0x41, 0x0f, 0x22, 0xdc]), load(12, 4));
        assert_eq!(decode(&[0x0f, 0x22, 0xe0]), Instruction::Other);
        assert_eq!(decode(&[0x48, 0xcf]), Instruction::Iret);
        assert_eq!(decode(&[0x0f, 0x0b]), Instruction::Other);
        assert_eq!(decode(&[]), Instruction::Other);
    }

    #[test]
    fn a_call_and_its_return_come_back_to_the_same_place() {
        let mut s = VcpuState::ZERO;
        s.star = 0x0023_0010 << 32;
        s.lstar = 0xffff_ffff_8100_0000;
        s.sfmask = 0x4_7700;
        s.rflags = 0x1_0246;
        s.rip = 0x40_1000;
        s.cpl = 3;
        s.segments[CS] = flat(0x33, USER_CODE);
        s.segments[SS] = flat(0x2b, USER_DATA);
        let before = s;
        syscall(&mut s, 0x40_1002);
        assert_eq!((s.rip, s.cpl, s.rflags), (s.lstar, 0, 0x46));
        assert_eq!((s.segments[CS].selector, s.segments[SS].selector), (0x10, 0x18));
        sysret(&mut s, true);
        assert_eq!((s.rip, s.cpl, s.rflags), (0x40_1002, 3, 0x246));
        assert_eq!(s.segments, before.segments);
    }
}
