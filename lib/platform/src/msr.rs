//! Model-specific registers that the monitor answers itself, beside those of APIC and clock.
use crate::GeneralProtection;
use abi::vcpu::VcpuState;

/// EFER.
const EFER: u32 = 0xc000_0080;
/// EFER bits that a guest may write: SCE, LME, NXE.
const EFER_WRITABLE: u64 = 1 | EFER_LME | 1 << 11;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const CR0_PG: u64 = 1 << 31;

/// STAR, LSTAR, CSTAR, SFMASK.
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SFMASK: u32 = 0xc000_0084;
/// Time-stamp counter.
const TSC: u32 = 0x10;
/// Page-attribute table.
const PAT: u32 = 0x277;
/// Microcode patch level, which Linux compares with what it has in store.
const PATCH_LEVEL: u32 = 0x8b;
/// A level that needs no update.
const PATCH: u64 = 0x0fff_ffff;
/// Decode configuration; bit 1: LFENCE serialises.
const DECODE_CONFIG: u32 = 0xc001_1029;

/// Registers that read as zero and ignore writes, because kernels touch them without asking:
/// debug control, SYSCFG, HWCR, NB_CFG, LS_CFG, instruction-cache and FPU configuration, platform ID,
/// interrupt pending message.
const IGNORED: [u32; 10] = [
    0x17,
    0x1d9,
    0xc001_0010,
    0xc001_0015,
    0xc001_001f,
    0xc001_0055,
    0xc001_1020,
    0xc001_1021,
    0xc001_1023,
    0xc001_1028,
];

/// RDMSR; `now` is the guest's time-stamp counter.
///
/// # Errors
/// The register does not exist.
pub fn read(msr: u32, state: &VcpuState, now: u64) -> Result<u64, GeneralProtection> {
    Ok(match msr {
        EFER => state.efer,
        STAR => state.star,
        LSTAR => state.lstar,
        CSTAR => state.cstar,
        SFMASK => state.sfmask,
        TSC => now,
        PAT => state.pat,
        PATCH_LEVEL => PATCH,
        DECODE_CONFIG => 1 << 1,
        _ if IGNORED.contains(&msr) => 0,
        _ => return Err(GeneralProtection),
    })
}

/// WRMSR.
///
/// # Errors
/// The register does not exist, or does not take that value.
pub fn write(msr: u32, value: u64, state: &mut VcpuState) -> Result<(), GeneralProtection> {
    match msr {
        EFER => return write_efer(value, state),
        STAR => state.star = value,
        LSTAR => state.lstar = canonical(value)?,
        CSTAR => state.cstar = canonical(value)?,
        SFMASK => state.sfmask = value & 0xffff_ffff,
        PAT => {
            if !value.to_le_bytes().into_iter().all(|t| matches!(t, 0 | 1 | 4..=7)) {
                return Err(GeneralProtection);
            }
            state.pat = value;
        }
        DECODE_CONFIG => {}
        _ if IGNORED.contains(&msr) => {}
        _ => return Err(GeneralProtection),
    }
    Ok(())
}

/// LMA is the processor's; LME cannot change while paging is on (APM 14.6).
fn write_efer(value: u64, state: &mut VcpuState) -> Result<(), GeneralProtection> {
    let value = value & !EFER_LMA;
    if value & !EFER_WRITABLE != 0 {
        return Err(GeneralProtection);
    }
    if state.cr0 & CR0_PG != 0 && (value ^ state.efer) & EFER_LME != 0 {
        return Err(GeneralProtection);
    }
    state.efer = value | state.efer & EFER_LMA;
    Ok(())
}

fn canonical(address: u64) -> Result<u64, GeneralProtection> {
    let extended = ((address << 16) as i64 >> 16) as u64;
    if extended == address { Ok(address) } else { Err(GeneralProtection) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efer_keeps_what_the_guest_cannot_change() {
        let mut state = VcpuState { cr0: CR0_PG, efer: 0x500, ..VcpuState::ZERO };
        assert_eq!(write(EFER, 0xd01, &mut state), Ok(()));
        assert_eq!(state.efer, 0xd01);
        assert_eq!(write(EFER, 0x1d01, &mut state), Err(GeneralProtection), "SVME");
        assert_eq!(write(EFER, 0x801, &mut state), Err(GeneralProtection), "LME with paging on");
        assert_eq!(state.efer, 0xd01);
    }

    #[test]
    fn values_are_checked() {
        let mut state = VcpuState::ZERO;
        assert_eq!(write(LSTAR, 1 << 50, &mut state), Err(GeneralProtection));
        assert_eq!(write(PAT, 2, &mut state), Err(GeneralProtection));
        assert_eq!(write(0xdead, 0, &mut state), Err(GeneralProtection));
        assert_eq!(read(0xdead, &state, 0), Err(GeneralProtection));
        assert_eq!(read(TSC, &state, 7), Ok(7));
    }
}
