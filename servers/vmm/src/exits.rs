//! What each exit means.
use crate::end::End;
use crate::monitor::Monitor;
use abi::vcpu::{ExitClass, ExitMessage, VcpuState, reg};
use abi::{FaultMessage, Message};
use memory::Memory;
use platform::code::{self, Expected, Touch};
use platform::cpuid;
use platform::delivery::{self, GENERAL_PROTECTION, INVALID_OPCODE};
use virtio::bus::MONITOR_WINDOW;

/// Exit codes without a class of their own (AMD APM volume 2, appendix C).
mod exit_code {
    /// Write of CR0 that changes more than TS and MP.
    pub const WRITE_CR0: u64 = 0x65;
    pub const RDPMC: u64 = 0x6f;
    pub const INVD: u64 = 0x76;
    pub const INVLPGA: u64 = 0x7a;
    pub const SHUTDOWN: u64 = 0x7f;
    /// VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT.
    pub const SVM: core::ops::RangeInclusive<u64> = 0x80..=0x86;
    pub const WBINVD: u64 = 0x89;
    /// MONITOR, MWAIT (two forms), XSETBV, RDPRU.
    pub const ABSENT: core::ops::RangeInclusive<u64> = 0x8a..=0x8e;
    pub const NESTED_FAULT: u64 = 0x400;
}

/// The class that a word names; an unknown one is "other".
fn class(word: u64) -> ExitClass {
    use ExitClass as C;
    let known = [C::Recall, C::Halt, C::Msr, C::SyscallMsr, C::Io, C::Cpuid, C::InterruptWindow];
    let rest = [C::Error, C::InvalidOpcode, C::Vmmcall, C::Cr3Write, C::Iret];
    known.into_iter().chain(rest).find(|c| *c as u64 == word).unwrap_or(C::Other)
}

impl Monitor {
    /// An exit of the VM's processor.
    pub fn exit(&mut self, words: &Message) {
        let message = ExitMessage::decode(words);
        let class = class(message.class);
        let mut page = self.page;
        page.with(|state| {
            self.begin_exit(class, state);
            self.handle(class, &message, state);
            self.finish_exit(class, state);
        });
    }

    fn handle(&mut self, class: ExitClass, message: &ExitMessage, state: &mut VcpuState) {
        match class {
            // Whatever there is to deliver follows in `finish_exit`.
            ExitClass::Recall | ExitClass::InterruptWindow => {}
            ExitClass::Halt => self.halt(state),
            ExitClass::Msr | ExitClass::SyscallMsr => self.msr_exit(message.info1 & 1 != 0, state),
            ExitClass::Io => self.io_exit(message.info1, message.info2, state),
            ExitClass::Cpuid => self.cpuid_exit(state),
            ExitClass::InvalidOpcode | ExitClass::Vmmcall => {
                delivery::raise(state, INVALID_OPCODE, None);
            }
            ExitClass::Error => self.error_exit(message, state),
            // Intercepted only for others, who are gone: stop intercepting, it runs again.
            ExitClass::Cr3Write => state.intercept_cr3_write = 0,
            ExitClass::Iret => state.intercept_iret = 0,
            ExitClass::Other => self.other_exit(message, state),
        }
    }

    fn cpuid_exit(&mut self, state: &mut VcpuState) {
        let (leaf, subleaf) = (state.regs.r[reg::RAX] as u32, state.regs.r[reg::RCX] as u32);
        let answer = cpuid::answer(leaf, subleaf, cpuid::host);
        state.regs.r[reg::RAX] = answer.eax.into();
        state.regs.r[reg::RBX] = answer.ebx.into();
        state.regs.r[reg::RCX] = answer.ecx.into();
        state.regs.r[reg::RDX] = answer.edx.into();
        code::skip(&self.ram, state, Expected::Cpuid);
    }

    fn other_exit(&mut self, message: &ExitMessage, state: &mut VcpuState) {
        match message.code {
            exit_code::WRITE_CR0 => self.cr0_exit(state),
            exit_code::INVD | exit_code::WBINVD => {
                code::skip(&self.ram, state, Expected::CacheFlush);
            }
            exit_code::RDPMC => delivery::raise(state, GENERAL_PROTECTION, Some(0)),
            exit_code::INVLPGA => delivery::raise(state, INVALID_OPCODE, None),
            code if exit_code::SVM.contains(&code) || exit_code::ABSENT.contains(&code) => {
                delivery::raise(state, INVALID_OPCODE, None);
            }
            exit_code::SHUTDOWN => self.end(&End::TripleFault { rip: state.rip }),
            code => self.end(&End::Unexpected { code, rip: state.rip }),
        }
    }

    /// A write of CR0. Guests start in long mode and stay there: none turns paging off.
    fn cr0_exit(&mut self, state: &mut VcpuState) {
        match code::write_of_cr0(&self.ram, state) {
            Some((value, _)) if value & code::PAGING == 0 => {
                self.end(&End::PagingOff { rip: state.rip });
            }
            Some((value, length)) if value >> 32 == 0 => {
                state.cr0 = value;
                code::advance(state, length);
            }
            _ => delivery::raise(state, GENERAL_PROTECTION, Some(0)),
        }
    }

    /// A nested fault that nobody could resolve, or a state that the processor refuses.
    fn error_exit(&mut self, message: &ExitMessage, state: &mut VcpuState) {
        if message.code != exit_code::NESTED_FAULT {
            self.end(&End::InvalidState);
            return;
        }
        let address = message.info2;
        if address < self.ram.len() {
            self.lost_access(message, state);
            return;
        }
        let rip = state.rip;
        // As on a bus where nobody answers: ones are read, writes get lost.
        if code::carry_out(&self.ram, state, |_| u64::MAX) {
            self.report(format_args!(
                "access to {address:#x}, where there is nothing, by {rip:#x}"
            ));
        } else {
            self.end(&End::NoMemory { address, rip });
        }
    }

    /// An access to the devices' memory, which the processor left to us.
    pub fn device_access(&mut self, fault: &FaultMessage) {
        let address = MONITOR_WINDOW.start.saturating_add(fault.offset);
        let mut page = self.page;
        page.with(|state| {
            self.begin_exit(ExitClass::Other, state);
            let devices = &mut self.devices;
            let done = code::carry_out(&self.ram, state, |touch| match touch {
                Touch::Read(width) => devices.memory_read(address, width),
                Touch::Write(width, value) => {
                    devices.memory_write(address, width, value);
                    0
                }
            });
            if !done {
                let rip = state.rip;
                self.report(format_args!("strange access to a device at {address:#x} by {rip:#x}"));
                delivery::raise(state, GENERAL_PROTECTION, Some(0));
            }
            self.finish_exit(ExitClass::Other, state);
        });
    }
}
