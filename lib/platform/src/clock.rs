//! Paravirtual time, as Linux' `kvm-clock` expects it (Linux, `Documentation/virt/kvm/x86/msr.rst`):
//! the guest learns the rate of its time-stamp counter from it, and the date.
use crate::GeneralProtection;
use memory::Memory;

/// MSR with the address of the wall-clock structure.
pub const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
/// MSR with the address of the time structure; bit 0 turns it on.
pub const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;

/// The time-stamp counters of all processors agree.
const STABLE: u8 = 1;

/// The clock of one VM.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    tsc_khz: u64,
    /// Guest's TSC and seconds since 1970 at the start of the VM.
    start: (u64, u64),
    system_time: u64,
    wall_clock: u64,
}

impl Clock {
    /// A clock that runs since `tsc`, when it was `epoch` seconds after 1970.
    #[must_use]
    pub fn new(tsc_khz: u64, tsc: u64, epoch: u64) -> Self {
        Self { tsc_khz: tsc_khz.max(1), start: (tsc, epoch), system_time: 0, wall_clock: 0 }
    }

    /// RDMSR.
    ///
    /// # Errors
    /// Not an MSR of the clock.
    pub fn read(&self, msr: u32) -> Result<u64, GeneralProtection> {
        match msr {
            MSR_WALL_CLOCK => Ok(self.wall_clock),
            MSR_SYSTEM_TIME => Ok(self.system_time),
            _ => Err(GeneralProtection),
        }
    }

    /// WRMSR: fills the structure that the guest names.
    ///
    /// # Errors
    /// Not an MSR of the clock, or an address outside of the guest's memory.
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        ram: &impl Memory,
    ) -> Result<(), GeneralProtection> {
        match msr {
            MSR_WALL_CLOCK => {
                ram.write(value, &self.wall_time()).map_err(|_| GeneralProtection)?;
                self.wall_clock = value;
            }
            MSR_SYSTEM_TIME => {
                if value & 1 != 0 {
                    ram.write(value & !1, &self.time_info()).map_err(|_| GeneralProtection)?;
                }
                self.system_time = value;
            }
            _ => return Err(GeneralProtection),
        }
        Ok(())
    }

    /// `pvclock_wall_clock`: version, seconds, nanoseconds at the start of the VM.
    fn wall_time(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0..4].copy_from_slice(&2u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.start.1 as u32).to_le_bytes());
        bytes
    }

    /// `pvclock_vcpu_time_info`. Written once: rate and offset never change.
    fn time_info(&self) -> [u8; 32] {
        let (multiplier, shift) = scale(self.tsc_khz);
        let mut bytes = [0; 32];
        // An even version: not being changed.
        bytes[0..4].copy_from_slice(&2u32.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&multiplier.to_le_bytes());
        bytes[28] = shift as u8;
        bytes[29] = STABLE;
        bytes
    }
}

/// Multiplier and shift with `nanoseconds = (ticks << shift) * multiplier >> 32`.
fn scale(khz: u64) -> (u32, i8) {
    let mut shift = 0i8;
    let mut khz = u128::from(khz);
    // Nanoseconds per tick as a fraction of 2^32; made to lie in 2^31..2^32.
    let per_tick = |khz: u128| (1_000_000u128 << 32) / khz;
    while per_tick(khz) > u128::from(u32::MAX) {
        khz *= 2;
        shift += 1;
    }
    while per_tick(khz) <= u128::from(u32::MAX) / 2 && shift > -31 {
        khz /= 2;
        shift -= 1;
    }
    (per_tick(khz).min(u128::from(u32::MAX)) as u32, shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Fake;
    use proptest::prelude::*;

    #[test]
    fn structures_are_written_where_the_guest_says() {
        let ram = Fake::new(8192);
        let mut clock = Clock::new(2_000_000, 1000, 1_700_000_000);
        clock.write(MSR_SYSTEM_TIME, 0x1001, &ram).unwrap();
        assert_eq!(ram.read64(0x1008).unwrap(), 1000);
        clock.write(MSR_WALL_CLOCK, 0x40, &ram).unwrap();
        assert_eq!(ram.load32(0x44).unwrap(), 1_700_000_000);
        assert_eq!(clock.write(MSR_SYSTEM_TIME, 8191, &ram), Err(GeneralProtection));
        assert_eq!(clock.write(MSR_SYSTEM_TIME, u64::MAX, &ram), Err(GeneralProtection));
        assert_eq!(clock.read(MSR_SYSTEM_TIME), Ok(0x1001));
    }

    proptest! {
        #[test]
        fn a_second_is_a_second(khz in 100_000u64..8_000_000) {
            let (multiplier, shift) = scale(khz);
            let ticks = u128::from(khz) * 1000;
            let shifted = if shift < 0 { ticks >> -shift } else { ticks << shift };
            let nanoseconds = (shifted * u128::from(multiplier)) >> 32;
            prop_assert!(nanoseconds.abs_diff(1_000_000_000) < 2000, "{}", nanoseconds);
        }
    }
}
