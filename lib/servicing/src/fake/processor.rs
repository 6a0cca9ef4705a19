//! A processor for the stub: decodes its machine code and carries out the few instructions that it
//! may consist of.
use crate::stub::layout as at;
use abi::vcpu::{VcpuState, reg};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memory::{Fake, Memory};
use std::cell::Cell;

/// Where the stub leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `VMMCALL`, at which the state stands.
    Exit,
    /// Out of the window, to this address.
    Jump(u64),
}

/// The window as the guest sees it.
pub struct Window {
    pub code: Fake,
    pub data: Fake,
    /// Instructions that the last run took.
    pub steps: Cell<usize>,
}

impl Default for Window {
    fn default() -> Self {
        let data = Fake::new(at::DATA_LENGTH as usize);
        Self { code: Fake::new(at::CODE_LENGTH), data, steps: Cell::new(0) }
    }
}

/// Bytes of the scratch page, and the flags that the stub tests.
struct Run<'w> {
    window: &'w Window,
    base: u64,
    scratch: [u8; 4096],
    zero: bool,
    carry: bool,
    sign: bool,
}

impl Window {
    /// Runs from the window's start.
    pub fn run(&self, s: &mut VcpuState) -> Way {
        let base = s.rip;
        let mut run = Run {
            window: self,
            base,
            scratch: [0xaa; 4096],
            zero: false,
            carry: false,
            sign: false,
        };
        for steps in 1..10_000 {
            self.steps.set(steps);
            let mut bytes = vec![0; 15];
            self.code.read(s.rip - base, &mut bytes).unwrap();
            let i = Decoder::with_ip(64, &bytes, s.rip, DecoderOptions::NONE).decode();
            assert!(!i.is_invalid(), "{bytes:x?}");
            if i.mnemonic() == Mnemonic::Vmmcall {
                return Way::Exit;
            }
            s.rip = i.next_ip();
            if let Some(to) = run.step(s, &i) {
                s.rip = to;
                if !(base..base + at::CODE_LENGTH as u64).contains(&to) {
                    return Way::Jump(to);
                }
            }
        }
        panic!("the stub does not end");
    }
}

fn index(r: Register) -> usize {
    assert!(r.is_gpr64() || r.is_gpr32() || r == Register::AL, "{r:?}");
    r.number()
}

fn size(r: Register) -> usize {
    r.size()
}

fn mask(size: usize) -> u64 {
    if size == 8 { u64::MAX } else { (1 << (size * 8)) - 1 }
}

impl Run<'_> {
    fn address(s: &VcpuState, i: &Instruction) -> u64 {
        let part = |r: Register| if r == Register::None { 0 } else { s.regs.r[index(r)] };
        assert_eq!(i.memory_index(), Register::None);
        part(i.memory_base()).wrapping_add(i.memory_displacement64())
    }

    fn load(&self, address: u64, size: usize) -> u64 {
        let offset = address.checked_sub(self.base).expect("inside the window");
        let mut b = [0; 8];
        match offset {
            at::SCRATCH..at::DATA => {
                let from = (offset - at::SCRATCH) as usize;
                b[..size].copy_from_slice(&self.scratch[from..from + size]);
            }
            at::DATA.. => self.window.data.read(offset - at::DATA, &mut b[..size]).unwrap(),
            _ => panic!("the stub reads its code"),
        }
        u64::from_le_bytes(b)
    }

    fn store(&mut self, address: u64, value: u64, size: usize) {
        let offset = address - self.base;
        assert!((at::SCRATCH..at::DATA).contains(&offset), "writes to {offset:#x}");
        let to = (offset - at::SCRATCH) as usize;
        self.scratch[to..to + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    fn width(i: &Instruction) -> usize {
        if i.op0_kind() == OpKind::Memory { i.memory_size().size() } else { size(i.op0_register()) }
    }

    fn value(&self, s: &VcpuState, i: &Instruction, n: u32) -> u64 {
        match i.op_kind(n) {
            OpKind::Register if i.op_register(n) == Register::CR3 => s.cr3,
            OpKind::Register => {
                let r = i.op_register(n);
                s.regs.r[index(r)] & mask(size(r))
            }
            OpKind::Memory => self.load(Self::address(s, i), i.memory_size().size()),
            _ => i.immediate(n),
        }
    }

    fn set(&mut self, s: &mut VcpuState, i: &Instruction, value: u64) {
        if i.op0_kind() == OpKind::Memory {
            return self.store(Self::address(s, i), value, i.memory_size().size());
        }
        let r = i.op0_register();
        assert!([reg::RAX, reg::RDX].contains(&index(r)), "changes {r:?}");
        s.regs.r[index(r)] = value & mask(size(r));
    }

    fn flags(&mut self, result: u64, carry: bool, width: usize) {
        self.zero = result & mask(width) == 0;
        self.sign = result >> (width * 8 - 1) & 1 != 0;
        self.carry = carry;
    }

    /// Carries out an instruction. Answers where it jumps to.
    fn step(&mut self, s: &mut VcpuState, i: &Instruction) -> Option<u64> {
        let a = if i.op_count() > 0 && i.mnemonic() != Mnemonic::Jmp { Some(0) } else { None };
        let near = i.op_count() == 1;
        let taken = match i.mnemonic() {
            Mnemonic::Jmp => true,
            Mnemonic::Je => self.zero,
            Mnemonic::Jne => !self.zero,
            Mnemonic::Jb => self.carry,
            Mnemonic::Jae => !self.carry,
            Mnemonic::Js => self.sign,
            _ => {
                assert!(a.is_some() && !near);
                self.compute(s, i);
                false
            }
        };
        taken.then(|| i.near_branch_target())
    }

    fn compute(&mut self, s: &mut VcpuState, i: &Instruction) {
        let width = Self::width(i);
        let second = self.value(s, i, 1);
        match i.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx => self.set(s, i, second),
            Mnemonic::Bt => {
                let word = Self::address(s, i) + second / 32 * 4;
                self.carry = self.load(word, 4) >> (second % 32) & 1 != 0;
            }
            other => {
                let first = self.value(s, i, 0);
                let second = second & mask(width);
                let (result, carry, keep) = match other {
                    Mnemonic::Cmp => (first.wrapping_sub(second), first < second, false),
                    Mnemonic::Test => (first & second, false, false),
                    Mnemonic::And => (first & second, false, true),
                    Mnemonic::Add => (first.wrapping_add(second), false, true),
                    Mnemonic::Shr => (first >> second, false, true),
                    Mnemonic::Shl => (first << second, false, true),
                    _ => panic!("the stub uses {other:?}"),
                };
                self.flags(result, carry, width);
                if keep {
                    self.set(s, i, result);
                }
            }
        }
    }
}
