//! A service VM that ended is started again: its sockets are lost, new ones work. A compute VM is not:
//! what ran in it is what the user wanted.
use crate::boot;
use crate::end::End;
use crate::monitor::Monitor;
use abi::vcpu::VcpuState;
use apic::Apic;
use platform::eoi::EndOfInterrupt;
use platform::serial::Serial;
use rt::{log, sys, time};

/// Who ends sooner after its start than this many microseconds, and that so many times in a row,
/// would most likely do so for ever.
const GOOD_RUN_US: u64 = 3_000_000;
const SHORT_RUNS: u32 = 4;

/// Whether a VM starts again.
pub struct Restarts {
    wanted: bool,
    /// Time of the last start.
    start: u64,
    /// Short runs in a row.
    short: u32,
    due: bool,
}

impl Restarts {
    /// For a VM in this role that starts now.
    pub fn new(role: &str) -> Self {
        Self { wanted: role == "service", start: time::now().get(), short: 0, due: false }
    }

    /// The VM starts again now.
    fn begun(&mut self) {
        (self.start, self.due) = (time::now().get(), false);
    }

    /// The VM is over.
    pub fn ended(&mut self, why: &End) {
        let ran = time::now().get().saturating_sub(self.start);
        self.short = if ran < time::microseconds(GOOD_RUN_US) { self.short + 1 } else { 0 };
        let hope = self.short < SHORT_RUNS && !matches!(why, End::NotStarted(_));
        self.due = self.wanted && hope;
        if self.wanted && !hope {
            log!("the service VM ended too soon after its start, again and again: it stays off");
        }
    }
}

impl Monitor {
    /// Has the processor exit, where its VM waits to be started again.
    pub fn wake_to_restart(&mut self) {
        if self.restarts.due && self.last_words.is_empty() {
            // It fails only where a recall is under way.
            let _ = sys::vcpu_recall(self.vcpu);
        }
    }

    /// Starts a VM that is over again, if that is due; true when it runs.
    pub fn restart(&mut self, state: &mut VcpuState) -> bool {
        // The end must be known before anything of the new start is.
        if !self.restarts.due || !self.last_words.is_empty() {
            return false;
        }
        self.restarts.begun();
        self.devices.power_on(&self.settings);
        self.apic = Apic::new();
        self.clock = boot::clock();
        self.eoi = EndOfInterrupt::default();
        self.serial = Serial::default();
        (self.halted, self.window, self.ended) = (false, false, false);
        let loaded = match boot::load(&self.role, &self.ram) {
            Ok(loaded) => loaded,
            Err(text) => {
                self.end(&End::NotStarted(text));
                return false;
            }
        };
        log!("the {} VM starts again", self.role);
        power_on(state);
        loaded.start(state);
        true
    }
}

/// The processor's state as it was before the first start; what is intercepted stays.
fn power_on(state: &mut VcpuState) {
    *state = VcpuState {
        intercept_exceptions: state.intercept_exceptions,
        intercept_cr3_write: state.intercept_cr3_write,
        intercept_iret: state.intercept_iret,
        intercept_syscall_msrs: state.intercept_syscall_msrs,
        exits: state.exits,
        flush_tlb: 1,
        ..VcpuState::ZERO
    };
}
