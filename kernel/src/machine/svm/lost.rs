//! A fault of QEMU 7.2: rarely, and only under load, a VM exit is followed at once by a second one that
//! belongs to the host. It is reported as a nested page fault, and the guest's save area then
//! holds the *host's* state, as it is behind VMRUN. What the guest did since its entry is lost
//! with it; as far as its registers show, that is nothing, so the entry is repeated. The other way round
//! it happens as well: the guest's first access ends in a triple fault where it was entered.
use super::Vcpu;
use super::vmcb::{SAVE_OFFSET, SAVE_WORDS, Vmcb};
use abi::vcpu::Registers;

/// EXITCODE of a nested page fault (AMD APM volume 2, appendix C).
const NESTED_FAULT: u64 = 0x400;

/// EXITCODE of a shutdown (triple fault).
const SHUTDOWN: u64 = 0x7f;

/// Where RIP lies in the save area, in words (AMD APM volume 2, appendix B).
const RIP_WORD: usize = 0x178 / 8;

/// The kernel's own code: no guest kernel lies there (Linux begins 16 MiB above its base).
const KERNEL_TEXT: core::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_8100_0000;

/// A guest's state before an entry.
pub struct Saved {
    regs: Registers,
    event: u64,
    area: [u64; SAVE_WORDS],
}

impl Vcpu {
    /// Copies what an entry changes.
    pub(super) fn saved(&self) -> Saved {
        let area = self.vmcb.virt.cast::<u64>();
        let mut copy = [0; SAVE_WORDS];
        // SAFETY: the page is exclusively ours, and the save area lies wholly inside it.
        unsafe {
            let from = area.add(SAVE_OFFSET / 8).as_ptr();
            core::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), SAVE_WORDS);
        }
        Saved { regs: self.regs, event: self.vmcb().event_inject, area: copy }
    }

    /// Whether the last exit was the emulator's own doing.
    pub(super) fn was_lost(&self, before: &Saved) -> bool {
        let vmcb: &Vmcb = self.vmcb();
        let host = vmcb.exit_code == NESTED_FAULT && KERNEL_TEXT.contains(&vmcb.rip);
        // The same fault the other way round: the guest's first access is translated by its own
        // tables alone, as if they lay in the machine's memory. It ends before it has begun.
        let guest = vmcb.exit_code == SHUTDOWN && vmcb.rip == before.area[RIP_WORD];
        if !host && !guest {
            return false;
        }
        let others = |r: &Registers| {
            let mut r = *r;
            (r.r[abi::vcpu::reg::RAX], r.r[abi::vcpu::reg::RSP]) = (0, 0);
            r
        };
        let same = others(&self.regs) == others(&before.regs);
        crate::log!("a VM exit was lost by the emulator; entry repeated: {same}");
        same
    }

    /// Puts the state before the entry back.
    pub(super) fn restore(&mut self, before: &Saved) {
        self.regs = before.regs;
        self.vmcb_mut().event_inject = before.event;
        let area = self.vmcb.virt.cast::<u64>();
        // SAFETY: as in `saved`, and `self` is borrowed exclusively.
        unsafe {
            let to = area.add(SAVE_OFFSET / 8).as_ptr();
            core::ptr::copy_nonoverlapping(before.area.as_ptr(), to, SAVE_WORDS);
        }
    }
}
