//! Permission maps (AMD APM volume 2, sections 15.10 and 15.11): constants, one copy for all.
use super::super::phys;
use abi::HostPhys;

/// Every port is intercepted; 64 Ki bits and the three that a wide access at the end reaches.
#[repr(C, align(4096))]
struct IoMap([u8; 3 * 4096]);

/// Two bits per MSR: intercept reads, intercept writes.
#[repr(C, align(4096))]
struct MsrMap([u8; 2 * 4096]);

static IO: IoMap = IoMap([0xff; 3 * 4096]);
static MSR: MsrMap = MsrMap::new(false);
static MSR_WITH_SYSCALL: MsrMap = MsrMap::new(true);

/// MSRs that VMLOAD and VMSAVE switch, so that the guest may use them freely: SYSENTER_CS, ESP,
/// EIP; FS.base, GS.base, KERNEL_GS_BASE.
const OWN: [u32; 6] = [0x174, 0x175, 0x176, 0xc000_0100, 0xc000_0101, 0xc000_0102];
/// The same, but a monitor may want to see them written: STAR, LSTAR, CSTAR, SFMASK.
const SYSCALL: [u32; 4] = [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084];
/// Of these, LSTAR and SFMASK may hold other values than the guest gave: it must not read them then.
const SHADOWED: [u32; 2] = [0xc000_0082, 0xc000_0084];

impl MsrMap {
    const fn new(intercept_syscall: bool) -> Self {
        let mut map = Self([0xff; 2 * 4096]);
        let mut i = 0;
        while i < OWN.len() {
            map.allow(OWN[i], 0b11);
            i += 1;
        }
        i = 0;
        while i < SYSCALL.len() {
            map.allow(SYSCALL[i], if intercept_syscall { 0b01 } else { 0b11 });
            i += 1;
        }
        i = 0;
        while i < SHADOWED.len() && intercept_syscall {
            map.refuse_reads(SHADOWED[i]);
            i += 1;
        }
        map
    }

    /// Place of an MSR in one of the first two ranges: its byte, and its bits' position there.
    const fn place(msr: u32) -> (usize, usize) {
        let index = match msr {
            0..0x2000 => msr,
            _ => msr - 0xc000_0000 + 0x2000,
        } as usize;
        (index / 4, index % 4 * 2)
    }

    /// Clears intercept bits of an MSR.
    const fn allow(&mut self, msr: u32, bits: u8) {
        let (byte, shift) = Self::place(msr);
        self.0[byte] &= !(bits << shift);
    }

    /// Intercepts reads of an MSR.
    const fn refuse_reads(&mut self, msr: u32) {
        let (byte, shift) = Self::place(msr);
        self.0[byte] |= 0b01 << shift;
    }
}

/// True for STAR, LSTAR, CSTAR, SFMASK.
pub fn is_syscall_msr(number: u32) -> bool {
    SYSCALL.contains(&number)
}

/// The I/O permission map.
pub fn io() -> HostPhys {
    phys::of_image(&raw const IO)
}

/// The MSR permission map.
pub fn msr(intercept_syscall: bool) -> HostPhys {
    phys::of_image(if intercept_syscall { &raw const MSR_WITH_SYSCALL } else { &raw const MSR })
}
