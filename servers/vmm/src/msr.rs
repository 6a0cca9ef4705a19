//! Model-specific registers: those of the interrupt controller, the paravirtual ones, the
//! processor's own.
use crate::monitor::Monitor;
use abi::vcpu::{VcpuState, reg};
use apic::{MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC};
use platform::GeneralProtection;
use platform::clock::{MSR_SYSTEM_TIME, MSR_WALL_CLOCK};
use platform::code::{self, Expected};
use platform::delivery::{self, GENERAL_PROTECTION};
use platform::eoi::MSR_PV_EOI;
use rt::time;

fn is_apic(msr: u32) -> bool {
    MSR_X2APIC.contains(&msr) || msr == MSR_TSC_DEADLINE || msr == MSR_APIC_BASE
}

impl Monitor {
    /// RDMSR or WRMSR.
    pub fn msr_exit(&mut self, write: bool, state: &mut VcpuState) {
        let msr = state.regs.r[reg::RCX] as u32;
        let (low, high) = (state.regs.r[reg::RAX] as u32, state.regs.r[reg::RDX] as u32);
        let done = if write {
            self.write_msr(msr, u64::from(high) << 32 | u64::from(low), state)
        } else {
            self.read_msr(msr, state).map(|value| {
                state.regs.r[reg::RAX] = value & 0xffff_ffff;
                state.regs.r[reg::RDX] = value >> 32;
            })
        };
        match done {
            Ok(()) => code::skip(&self.ram, state, Expected::Msr),
            Err(GeneralProtection) => {
                let verb = if write { "write" } else { "read" };
                self.report(format_args!("{verb} of MSR {msr:#x} refused"));
                delivery::raise(state, GENERAL_PROTECTION, Some(0));
            }
        }
    }

    fn read_msr(&self, msr: u32, state: &VcpuState) -> Result<u64, GeneralProtection> {
        let now = time::now().0;
        match msr {
            _ if is_apic(msr) => self.apic.read(msr, now),
            MSR_SYSTEM_TIME | MSR_WALL_CLOCK => self.clock.read(msr),
            MSR_PV_EOI => Ok(self.eoi.read()),
            _ => platform::msr::read(msr, state, now),
        }
    }

    fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        state: &mut VcpuState,
    ) -> Result<(), GeneralProtection> {
        match msr {
            _ if is_apic(msr) => self.apic.write(msr, value, time::now().0),
            MSR_SYSTEM_TIME | MSR_WALL_CLOCK => self.clock.write(msr, value, &self.ram),
            MSR_PV_EOI => self.eoi.write(value, &self.ram),
            _ => platform::msr::write(msr, value, state),
        }
    }
}
