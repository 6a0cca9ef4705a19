//! Paravirtual end of interrupt (Linux, `Documentation/virt/kvm/x86/msr.rst`): where nothing
//! else waits, the guest ends an interrupt by clearing a bit in its memory instead of an MSR
//! write, which saves one exit an interrupt.
use crate::GeneralProtection;
use apic::Apic;
use memory::Memory;

/// MSR with the address of the guest's word; bit 0 turns it on.
pub const MSR_PV_EOI: u32 = 0x4b56_4d04;
/// In that word: the guest may end the interrupt by clearing this bit.
const PENDING: u32 = 1;

/// State of the agreement with one guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndOfInterrupt {
    msr: u64,
    armed: bool,
}

impl EndOfInterrupt {
    /// RDMSR.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.msr
    }

    /// WRMSR.
    ///
    /// # Errors
    /// An address outside of the guest's memory, reserved bits.
    pub fn write(&mut self, value: u64, ram: &impl Memory) -> Result<(), GeneralProtection> {
        if value & 2 != 0 || (value & 1 != 0 && ram.load32(value & !3).is_err()) {
            return Err(GeneralProtection);
        }
        *self = Self { msr: value, armed: false };
        Ok(())
    }

    /// True while the guest may end its interrupt without an exit.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    fn word(&self) -> Option<u64> {
        (self.msr & 1 != 0).then_some(self.msr & !3)
    }

    /// The guest has exited: learns whether it ended its interrupt, and takes the offer back.
    pub fn after_exit(&mut self, apic: &mut Apic, ram: &impl Memory) {
        if !core::mem::take(&mut self.armed) {
            return;
        }
        let Some((address, word)) = self.word().and_then(|a| Some((a, ram.load32(a).ok()?))) else {
            return;
        };
        if word & PENDING == 0 {
            apic.end_of_interrupt();
        } else {
            // In bounds, as it was for the load.
            let _ = ram.store32(address, word & !PENDING);
        }
    }

    /// The guest is about to run: offers it the short way, if nobody waits for the end.
    pub fn before_entry(&mut self, apic: &Apic, ram: &impl Memory) {
        let Some(address) = self.word().filter(|_| apic.serves_last()) else { return };
        let Ok(word) = ram.load32(address) else { return };
        self.armed = ram.store32(address, word | PENDING).is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Fake;

    fn serving() -> (Apic, EndOfInterrupt, Fake) {
        let (mut apic, mut eoi, ram) = (Apic::new(), EndOfInterrupt::default(), Fake::new(4096));
        apic.write(0x80f, 0x1ff, 0).unwrap();
        eoi.write(0x101, &ram).unwrap();
        apic.raise(0x30);
        apic.accept();
        (apic, eoi, ram)
    }

    #[test]
    fn a_cleared_bit_ends_the_interrupt() {
        let (mut apic, mut eoi, ram) = serving();
        eoi.before_entry(&apic, &ram);
        assert_eq!(ram.load32(0x100), Ok(1));
        ram.store32(0x100, 0).unwrap();
        eoi.after_exit(&mut apic, &ram);
        apic.raise(0x30);
        assert_eq!(apic.pending(), Some(0x30));
    }

    #[test]
    fn a_bit_left_alone_ends_nothing() {
        let (mut apic, mut eoi, ram) = serving();
        eoi.before_entry(&apic, &ram);
        eoi.after_exit(&mut apic, &ram);
        assert_eq!(ram.load32(0x100), Ok(0));
        apic.raise(0x31);
        assert_eq!(apic.pending(), None, "0x30 is still in service");
        eoi.before_entry(&apic, &ram);
        assert_eq!(ram.load32(0x100), Ok(0), "somebody waits: the guest must tell");
    }

    #[test]
    fn addresses_are_checked() {
        let ram = Fake::new(4096);
        let mut eoi = EndOfInterrupt::default();
        assert!(eoi.write(0x1001, &ram).is_err());
        assert!(eoi.write(!2, &ram).is_err());
        assert!(eoi.write(0x2000, &ram).is_ok(), "off");
    }
}
