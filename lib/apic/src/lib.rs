//! Model of the local APIC of a VM with one processor, always in x2APIC mode: its registers are
//! MSRs, there is no memory page (AMD APM volume 2, chapter 16; Intel SDM volume 3, chapter 11).
//!
//! Pure: time is what the caller says (ticks of the guest's time-stamp counter), interrupts are
//! what the caller takes from [`Apic::pending`] and confirms by [`Apic::accept`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod timer;
mod vectors;

#[cfg(test)]
mod tests;

pub use timer::MINIMUM_PERIOD;

use timer::Timer;
use vectors::Vectors;

/// The access raises `#GP` in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

/// APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// First and last of the MSRs that are x2APIC registers.
pub const MSR_X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// APIC_BASE: address, globally enabled, x2APIC mode, boot processor.
const BASE: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10 | 1 << 8;
/// Version register: six local vectors, version 0x14.
const VERSION: u64 = 0x0005_0014;
/// Software enable, in the spurious-vector register.
const SPURIOUS_ENABLE: u32 = 1 << 8;
/// Mask bit of local vectors.
const MASKED: u32 = 1 << 16;

/// Register numbers: MSR minus 0x800.
mod register {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const LDR: u32 = 0x0d;
    pub const SPURIOUS: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const TMR: u32 = 0x18;
    pub const IRR: u32 = 0x20;
    pub const ERROR_STATUS: u32 = 0x28;
    pub const ICR: u32 = 0x30;
    pub const LVT: u32 = 0x32;
    pub const LVT_LAST: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
    pub const SELF_IPI: u32 = 0x3f;
}

/// The local APIC of the VM's processor, number 0.
#[derive(Clone, Debug)]
pub struct Apic {
    task_priority: u8,
    spurious: u32,
    /// Timer, thermal, performance, LINT0, LINT1, error.
    local: [u32; 6],
    interrupt_command: u64,
    requested: Vectors,
    in_service: Vectors,
    nmi: bool,
    timer: Timer,
}

impl Default for Apic {
    fn default() -> Self {
        Self::new()
    }
}

impl Apic {
    /// The state after power-on, already in x2APIC mode.
    #[must_use]
    pub fn new() -> Self {
        Self {
            task_priority: 0,
            spurious: 0xff,
            local: [MASKED; 6],
            interrupt_command: 0,
            requested: Vectors::default(),
            in_service: Vectors::default(),
            nmi: false,
            timer: Timer::default(),
        }
    }

    /// RDMSR of APIC_BASE, TSC_DEADLINE or an x2APIC register.
    ///
    /// # Errors
    /// Unknown and write-only registers.
    pub fn read(&self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        match msr {
            MSR_APIC_BASE => return Ok(BASE),
            MSR_TSC_DEADLINE => return Ok(self.timer.deadline_register()),
            _ => {}
        }
        let number = msr.checked_sub(*MSR_X2APIC.start()).ok_or(GeneralProtection)?;
        Ok(match number {
            register::ID => 0,
            // Cluster 0, member 0 (x2APIC derives it from the ID).
            register::LDR => 1,
            register::VERSION => VERSION,
            register::TPR => self.task_priority.into(),
            register::PPR => self.processor_priority().into(),
            register::SPURIOUS => self.spurious.into(),
            register::ISR..register::TMR => self.in_service.word(number - register::ISR).into(),
            register::TMR..register::IRR | register::ERROR_STATUS => 0,
            register::IRR..register::ERROR_STATUS => {
                self.requested.word(number - register::IRR).into()
            }
            register::ICR => self.interrupt_command,
            register::LVT..=register::LVT_LAST => {
                let local = self.local.get((number - register::LVT) as usize);
                local.copied().ok_or(GeneralProtection)?.into()
            }
            register::INITIAL_COUNT => self.timer.initial_count().into(),
            register::CURRENT_COUNT => self.timer.current_count(now).into(),
            register::DIVIDE => self.timer.divide().into(),
            _ => return Err(GeneralProtection),
        })
    }

    /// WRMSR of APIC_BASE, TSC_DEADLINE or an x2APIC register.
    ///
    /// # Errors
    /// Unknown and read-only registers, reserved bits, and leaving x2APIC mode.
    pub fn write(&mut self, msr: u32, value: u64, now: u64) -> Result<(), GeneralProtection> {
        match msr {
            MSR_APIC_BASE if value == BASE => return Ok(()),
            MSR_APIC_BASE => return Err(GeneralProtection),
            MSR_TSC_DEADLINE => {
                self.timer.set_deadline(value);
                self.expire(now);
                return Ok(());
            }
            _ => {}
        }
        let number = msr.checked_sub(*MSR_X2APIC.start()).ok_or(GeneralProtection)?;
        if number == register::ICR {
            return self.command(value);
        }
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        match number {
            register::TPR => {
                self.task_priority = u8::try_from(value).map_err(|_| GeneralProtection)?;
            }
            register::EOI if value == 0 => self.end_of_interrupt(),
            register::ERROR_STATUS if value == 0 => {}
            register::SPURIOUS => self.set_spurious(value),
            register::LVT..=register::LVT_LAST => self.set_local(number - register::LVT, value),
            register::INITIAL_COUNT => self.timer.start(value, now),
            register::DIVIDE => self.timer.set_divide(value, now),
            register::SELF_IPI if value < 256 => self.raise(value as u8),
            _ => return Err(GeneralProtection),
        }
        Ok(())
    }

    fn set_spurious(&mut self, value: u32) {
        self.spurious = value & 0x3ff;
        if !self.is_enabled() {
            // A disabled APIC masks its local vectors (APM 16.4.7).
            self.local.iter_mut().for_each(|local| *local |= MASKED);
        }
    }

    fn set_local(&mut self, index: u32, value: u32) {
        let value = if self.is_enabled() { value } else { value | MASKED };
        if let Some(local) = self.local.get_mut(index as usize) {
            *local = value & 0x7_17ff;
        }
        if index == 0 {
            self.timer.set_mode(value >> 17 & 3);
        }
    }

    /// A write of the interrupt command register. The VM has one processor: whatever addresses
    /// it or everyone reaches it, "all but self" and others reach nobody.
    fn command(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if value & 0xfff0_3000 & 0xffff_ffff != 0 {
            return Err(GeneralProtection);
        }
        self.interrupt_command = value;
        let destination = (value >> 32) as u32;
        let logical = value & 1 << 11 != 0;
        let meant = match value >> 18 & 3 {
            0 if destination == u32::MAX => true,
            0 if logical => destination >> 16 == 0 && destination & 1 != 0,
            0 => destination == 0,
            1 | 2 => true,
            _ => false,
        };
        if meant {
            self.deliver((value >> 8 & 7) as u8, value as u8);
        }
        Ok(())
    }

    /// A message-signalled interrupt. False when the address is not an APIC's or names another.
    pub fn message(&mut self, address: u64, data: u32) -> bool {
        let destination = address >> 12 & 0xff;
        let logical = address & 1 << 2 != 0;
        let meant = destination == 0xff || destination == u64::from(logical);
        if address >> 20 != 0xfee || !meant {
            return false;
        }
        self.deliver((data >> 8 & 7) as u8, data as u8);
        true
    }

    fn deliver(&mut self, mode: u8, vector: u8) {
        match mode {
            // Fixed, lowest priority.
            0 | 1 => self.raise(vector),
            4 => self.nmi = true,
            // SMI, INIT, start-up, ExtINT: nobody to start, no PIC.
            _ => {}
        }
    }

    /// Requests an interrupt. Vectors below 16 are illegal and ignored.
    pub fn raise(&mut self, vector: u8) {
        if vector >= 16 && self.is_enabled() {
            self.requested.set(vector);
        }
    }

    /// Software-enabled by the guest?
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.spurious & SPURIOUS_ENABLE != 0
    }

    /// The highest of task priority and what is in service, by class.
    fn processor_priority(&self) -> u8 {
        let serving = self.in_service.highest().unwrap_or(0) & 0xf0;
        if self.task_priority & 0xf0 >= serving { self.task_priority } else { serving }
    }

    /// The vector that the processor would take now, if it accepts interrupts.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (vector & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// The processor takes the vector of [`Apic::pending`].
    pub fn accept(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.requested.clear(vector);
        self.in_service.set(vector);
        Some(vector)
    }

    /// True once for each non-maskable interrupt.
    pub fn take_nmi(&mut self) -> bool {
        core::mem::take(&mut self.nmi)
    }

    /// Ends the service of the highest vector in service.
    pub fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.in_service.highest() {
            self.in_service.clear(vector);
        }
    }

    /// True while exactly one vector is in service and nothing is requested: then nobody waits
    /// for the end of that interrupt.
    #[must_use]
    pub fn serves_last(&self) -> bool {
        self.in_service.count() == 1 && !self.has_requests()
    }

    /// True when anything is requested, whether it can be taken now or not.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        self.nmi || self.requested.highest().is_some()
    }

    /// When [`Apic::expire`] has to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.timer.next()
    }

    /// Lets time pass: an expired timer requests its interrupt.
    pub fn expire(&mut self, now: u64) {
        let vector = self.local[0];
        if self.timer.expire(now) && vector & MASKED == 0 {
            self.raise(vector as u8);
        }
    }
}
