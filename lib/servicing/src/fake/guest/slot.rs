//! What stands in the slots of a gate, carried out; and `select`, which is called from there.
use super::kernel::Effect;
use super::{Guest, Signal};
use abi::vcpu::reg;
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use linux_abi::FdSet;

impl Guest {
    /// Runs the instructions that a slot consists of, up to its `VMMCALL` or out of it. Answers
    /// whether there were any.
    pub(super) fn slot(&mut self, process: usize) -> bool {
        let flags = self.s.rflags;
        for steps in 0..16 {
            let bytes = self.read(process, self.s.rip, 10);
            let i = Decoder::with_ip(64, &bytes, self.s.rip, DecoderOptions::NONE).decode();
            let rcx = self.s.regs.r[reg::RCX];
            let mut to = reg::RCX;
            let value = match (i.mnemonic(), i.op1_kind()) {
                (Mnemonic::Mov, OpKind::Register) => self.s.regs.r[i.op1_register().number()],
                (Mnemonic::Mov, OpKind::Immediate64) => {
                    to = i.op0_register().number();
                    i.immediate64()
                }
                (Mnemonic::Bswap, _) => rcx.swap_bytes(),
                (Mnemonic::Movzx, _) => rcx & 0xff,
                (Mnemonic::Jrcxz, _) => rcx,
                (Mnemonic::Jmp, _) => {
                    self.s.rip = rcx;
                    return true;
                }
                _ => return steps > 0,
            };
            self.s.rip = i.next_ip();
            if i.mnemonic() == Mnemonic::Jrcxz {
                self.s.rip = if rcx == 0 { i.near_branch_target() } else { self.s.rip };
            } else {
                assert_eq!(i.op0_register().number(), to, "{i:?}");
                self.s.regs.r[to] = value;
            }
            assert_eq!(self.s.rflags, flags);
        }
        false
    }

    /// `select` without waiting, on what is local.
    pub(super) fn select(&mut self, process: usize, a: [u64; 6]) -> Option<Effect> {
        self.events();
        assert_eq!(self.read(process, a[4], 16), [0; 16], "it would wait");
        let count = a[0] as usize;
        let mut sets = [const { Vec::new() }; 3];
        for (set, at) in sets.iter_mut().zip(&a[1..4]).filter(|(_, at)| **at != 0) {
            *set = self.read(process, *at, FdSet::bytes(count));
        }
        let mut ready = 0;
        for fd in 0..count {
            if !sets.iter().any(|set| FdSet::contains(set, fd)) {
                continue;
            }
            let Some(readable) = self.readable(process, fd as i32) else {
                return Some(Effect::Result(-9));
            };
            let found = readable && FdSet::contains(&sets[0], fd);
            sets.iter_mut().for_each(|set| FdSet::remove(set, fd));
            if found {
                FdSet::insert(&mut sets[0], fd);
                ready += 1;
            }
        }
        if ready == 0 {
            match self.processes[process].signal.take() {
                // One that has no handler.
                Some(Signal::Restart) => return Some(Effect::Restart),
                Some(Signal::Interrupt) => return Some(Effect::Result(-4)),
                None => {}
            }
        }
        for (set, at) in sets.iter().zip(&a[1..4]).filter(|(_, at)| **at != 0) {
            self.write(process, *at, set);
        }
        Some(Effect::Result(ready))
    }
}
