//! What calls leave that may end without being seen again.
use super::{LocalCall, Space};
use crate::calls::Question;
use crate::cpu::Saved;
use abi::vcpu::reg;
use alloc::vec::Vec;
use linux_abi::nr;
use wire::PollEntry;

/// What a call leaves that may end without being seen again. It holds nothing but memory: most are
/// over, and only replaced when their thread makes such a call from the same place again.
pub struct Alone {
    /// FS base of the thread.
    pub fs: u64,
    /// Its registers at the call.
    pub saved: Saved,
    /// The slot through which it comes back, if it does.
    pub slot: u64,
    /// What it asked.
    pub question: Question,
    /// What is made in its place.
    pub call: LocalCall,
    /// What was left in the program's sets for that.
    pub local: [Vec<u8>; 3],
    /// What is out.
    pub remote: Vec<PollEntry>,
}

impl Alone {
    /// True where all that it asked stands in registers and sets: it has neither a time nor a mask.
    pub fn is_plain(&self) -> bool {
        let [.., time, mask] = self.saved.arguments();
        time == 0 && (mask == 0 || self.saved.number() == nr::select)
    }
}

/// Most of them for one process. Beyond, the oldest is forgotten.
const ALONE: usize = 64;

impl Space {
    /// Notes what a call leaves that may end by itself.
    pub fn leave_alone(&self, left: Alone) {
        drop(self.come_back(left.fs, &left.saved));
        let mut alone = self.alone.borrow_mut();
        if alone.len() >= ALONE {
            alone.pop_front();
        }
        alone.push_back(left);
    }

    /// Takes out what a thread's call from that place of the stack has left.
    pub fn come_back(&self, fs: u64, registers: &Saved) -> Option<Alone> {
        let mut alone = self.alone.borrow_mut();
        let rsp = |saved: &Saved| saved.regs.r[reg::RSP];
        let place = alone.iter().position(|a| a.fs == fs && rsp(&a.saved) == rsp(registers))?;
        alone.remove(place)
    }

    /// Looks at what the last one has left.
    pub fn last_alone<R>(&self, look: impl FnOnce(&Alone) -> R) -> Option<R> {
        self.alone.borrow().back().map(look)
    }

    /// The last one is made once more, with these registers.
    pub fn repeat_alone(&self, saved: &Saved) -> Option<(u64, LocalCall)> {
        let mut alone = self.alone.borrow_mut();
        let left = alone.back_mut()?;
        left.saved = *saved;
        Some((left.slot, left.call))
    }
}
