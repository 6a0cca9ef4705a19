//! Forms of interception: what makes the processor exit, as one interface, so that they can be
//! changed while the machine runs and measured against each other.
use crate::cpu::{SCE, UD_BIT};
use abi::vcpu::VcpuState;
use wire::hypercall;

/// What a form has to know before the vCPU goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The address space that is loaded is watched.
    pub watched: bool,
    /// There is a watched address space, or one is expected.
    pub any: bool,
}

/// A form of interception.
pub trait Form {
    /// Which one.
    fn number(&self) -> hypercall::Form;

    /// True when trusted processes are serviced.
    fn services(&self) -> bool {
        true
    }

    /// Whether `SYSCALL` and `SYSRET` raise `#UD` from now on.
    fn traps_calls(&self, facts: Facts) -> bool;

    /// Whether writes to CR3 exit.
    fn follows_spaces(&self, facts: Facts) -> bool;

    /// Whether the stub decides in front of the guest's entry of system calls.
    fn needs_stub(&self, _: Facts) -> bool {
        false
    }

    /// Whether `IRET` exits.
    fn traps_returns(&self) -> bool {
        false
    }
}

/// Nothing is intercepted.
pub struct Off;
/// System calls of watched address spaces.
pub struct Watched;
/// All system calls and all returns.
pub struct Paper;
/// What the stub does not let pass.
pub struct Stubbed;

impl Form for Off {
    fn number(&self) -> hypercall::Form {
        hypercall::Form::Off
    }
    fn services(&self) -> bool {
        false
    }
    fn traps_calls(&self, _: Facts) -> bool {
        false
    }
    fn follows_spaces(&self, _: Facts) -> bool {
        false
    }
}

impl Form for Watched {
    fn number(&self) -> hypercall::Form {
        hypercall::Form::Watched
    }
    fn traps_calls(&self, facts: Facts) -> bool {
        facts.watched
    }
    fn follows_spaces(&self, facts: Facts) -> bool {
        facts.any
    }
}

impl Form for Paper {
    fn number(&self) -> hypercall::Form {
        hypercall::Form::Paper
    }
    fn traps_calls(&self, _: Facts) -> bool {
        true
    }
    fn follows_spaces(&self, _: Facts) -> bool {
        false
    }
    fn traps_returns(&self) -> bool {
        true
    }
}

impl Form for Stubbed {
    fn number(&self) -> hypercall::Form {
        hypercall::Form::Stub
    }
    fn traps_calls(&self, _: Facts) -> bool {
        false
    }
    fn follows_spaces(&self, _: Facts) -> bool {
        false
    }
    fn needs_stub(&self, facts: Facts) -> bool {
        facts.any
    }
}

/// The form of that number.
#[must_use]
pub fn form(number: hypercall::Form) -> &'static dyn Form {
    match number {
        hypercall::Form::Off => &Off,
        hypercall::Form::Watched => &Watched,
        hypercall::Form::Paper => &Paper,
        hypercall::Form::Stub => &Stubbed,
    }
}

/// What has been taken away from the guest's EFER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hidden(bool);

impl Hidden {
    /// True while `EFER.SCE` is clear though the guest has set it.
    #[must_use]
    pub const fn get(self) -> bool {
        self.0
    }

    /// Arranges the vCPU for `form`. A guest that has not set `SCE` itself is left alone.
    pub fn arrange(&mut self, form: &dyn Form, facts: Facts, s: &mut VcpuState) {
        let hide = form.traps_calls(facts);
        if hide && s.efer & SCE != 0 {
            s.efer &= !SCE;
            self.0 = true;
        } else if !hide && self.0 {
            s.efer |= SCE;
            self.0 = false;
        }
        let follow = form.follows_spaces(facts);
        let undefined = self.0 || follow;
        let bit = if undefined { UD_BIT } else { 0 };
        s.intercept_exceptions = s.intercept_exceptions & !UD_BIT | bit;
        s.intercept_cr3_write = u64::from(follow);
        s.intercept_iret = u64::from(form.traps_returns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(watched: bool, any: bool) -> Facts {
        Facts { watched, any }
    }

    #[test]
    fn watched_traps_only_in_watched_spaces_and_gives_back_what_it_took() {
        let mut s = VcpuState { efer: 0xd01, ..VcpuState::ZERO };
        let mut hidden = Hidden::default();
        hidden.arrange(&Watched, facts(false, false), &mut s);
        assert_eq!((s.efer, s.intercept_cr3_write, s.intercept_exceptions), (0xd01, 0, 0));
        hidden.arrange(&Watched, facts(false, true), &mut s);
        assert_eq!((s.efer, s.intercept_cr3_write), (0xd01, 1));
        hidden.arrange(&Watched, facts(true, true), &mut s);
        assert_eq!((s.efer, s.intercept_cr3_write, s.intercept_exceptions), (0xd00, 1, UD_BIT));
        hidden.arrange(&Off, facts(true, true), &mut s);
        assert_eq!((s.efer, s.intercept_cr3_write, s.intercept_exceptions), (0xd01, 0, 0));
    }

    #[test]
    fn paper_traps_everything_but_never_invents_sce() {
        let mut s = VcpuState::ZERO;
        let mut hidden = Hidden::default();
        hidden.arrange(&Paper, facts(false, false), &mut s);
        assert_eq!((s.efer, hidden.get(), s.intercept_iret), (0, false, 1));
        hidden.arrange(&Off, facts(false, false), &mut s);
        assert_eq!((s.efer, s.intercept_iret), (0, 0));
        s.efer = 1;
        hidden.arrange(&Paper, facts(false, false), &mut s);
        assert_eq!((s.efer, hidden.get()), (0, true));
    }
}
