//! Calls that may end without being seen again, and threads that come back from one all the same.
use super::Engine;
use crate::calls;
use crate::cpu::{FS, Saved};
use crate::gate;
use crate::space::Space;
use abi::vcpu::{VcpuState, reg};
use alloc::rc::Rc;
use linux_abi::Errno;

impl Engine {
    /// Handles a thread that stands in a slot of the gate: its call has not found anything.
    pub(super) fn at_slot(&mut self, s: &mut VcpuState, space: &Rc<Space>) -> bool {
        let gate = space.gate.get();
        let at = |rip| gate.and_then(|g| g.exit_of(rip).or(g.return_of(rip)));
        let Some(slot) = at(s.rip) else { return false };
        let result = s.regs.r[reg::RAX] as i64;
        let left = space.come_back(s.segments[FS].base, &Saved::of(s));
        if let Some(left) = left.filter(|left| left.slot == slot) {
            left.saved.restore(s);
            let table = space.table_of(left.fs);
            let cx = self.context(s, space, &table);
            self.begin(s, space, cx, move |cx| calls::go_on(cx, left.question, result));
            return true;
        }
        // What it asked is forgotten: that was a handler's work, in which many such calls were made, or
        // a `fork`. So it has been interrupted.
        let Some(on) = gate::on(&space.tables(&self.core), slot) else { return false };
        s.rip = on.rip;
        [s.regs.r[reg::RCX], s.regs.r[reg::R8]] = [on.rip, on.r8];
        s.regs.r[reg::RAX] = Errno::EINTR.result() as u64;
        true
    }
}
