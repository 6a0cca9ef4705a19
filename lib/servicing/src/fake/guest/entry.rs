//! The fake guest's entry of system calls, and what may stand in front of it.
use super::{Guest, KERNEL_SYSRET, KERNEL_TEXT};
use crate::fake::processor::Way;
use abi::vcpu::{ExitClass, reg};
use memory::Memory;

impl Guest {
    /// The kernel reads or writes a register of the system-call entry.
    pub fn msr(&mut self, number: u64, value: Option<u64>) {
        self.s.cpl = 0;
        self.s.regs.r[reg::RCX] = number;
        self.s.exit_info1 = u64::from(value.is_some());
        if let Some(value) = value {
            self.s.regs.r[reg::RAX] = value & 0xffff_ffff;
            self.s.regs.r[reg::RDX] = value >> 32;
        }
        self.exit(ExitClass::SyscallMsr);
    }

    /// The page directory that maps the kernel's entry.
    pub fn directory(&self) -> u64 {
        let table = self.kernel & !0xfff;
        self.world.compute.read64(table + 510 * 8).unwrap() & !0xfff
    }

    /// The processor carries out `SYSCALL`, and what stands in front of the kernel's own entry.
    pub fn enter(&mut self) {
        let back = self.s.rip.wrapping_add(2);
        crate::cpu::syscall(&mut self.s, back);
        let own = self.s.lstar == KERNEL_TEXT;
        if !own && self.s.rip == self.s.lstar {
            self.stub();
        }
    }

    /// The guest's kernel returns to a program, by `SYSRET`.
    pub fn sysret(&mut self) {
        if self.s.efer & 1 == 0 {
            self.s.rip = KERNEL_SYSRET;
            self.exit(ExitClass::InvalidOpcode);
        } else {
            crate::cpu::sysret(&mut self.s, true);
        }
    }

    /// What stands in front of the kernel's own entry, if anything does.
    pub(super) fn stub(&mut self) {
        if self.s.rip == KERNEL_TEXT {
            return;
        }
        assert_eq!(self.s.rflags & 0x300, 0, "interrupts and single steps are off");
        let world = self.world.clone();
        match world.window.run(&mut self.s) {
            Way::Exit => self.exit(ExitClass::Vmmcall),
            Way::Jump(to) => assert_eq!(to, KERNEL_TEXT),
        }
    }
}
