//! Between the VMCB and the state page: what managers may see, and what they may set.
use super::{Vcpu, events, maps, vmcb};
use abi::vcpu::{Segment, VcpuState, reg};

/// PAT after reset (AMD APM volume 2, section 7.8.2).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// A state that VMRUN accepts: real mode, everything else zero.
pub const RESET: VcpuState = VcpuState { pat: PAT_RESET, ..VcpuState::ZERO };

/// CR0 bits that exist: PE MP EM TS ET NE, WP, AM, NW CD PG.
const CR0_BITS: u64 = 0xe005_003f;
const CR0_PE: u64 = 1;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
/// CR4 bits that a guest may have: VME … OSXMMEXCPT, UMIP, FSGSBASE, SMEP, SMAP, each only where
/// the processor has it. Not PCIDE and OSXSAVE: FPU state beyond FXSAVE is not switched.
const CR4_BITS: u64 = 0x0031_0fff;
const CR4_PAE: u64 = 1 << 5;
/// EFER bits: SCE, LME, LMA, NXE, FFXSR. SVME is ours.
const EFER_BITS: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11 | 1 << 14;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_SVME: u64 = 1 << 12;
/// RFLAGS bits that exist; bit 1 reads as one.
const RFLAGS_BITS: u64 = 0x003f_7fd5;
const RFLAGS_ONE: u64 = 2;
const RFLAGS_VM: u64 = 1 << 17;
/// Segment attributes in the VMCB's form: DPL, and the L and D bits of code segments.
const SEGMENT_LONG: u16 = 1 << 9;
const SEGMENT_BIG: u16 = 1 << 10;
const SEGMENT_BITS: u16 = 0xfff;

impl Vcpu {
    /// Takes over what a manager left in (a private copy of) the state page. Whatever it holds,
    /// VMRUN accepts the result and the host's own state is out of reach.
    pub fn load_state(&mut self, state: &VcpuState) {
        self.regs = state.regs;
        self.load_modes(state);
        let vmcb = self.vmcb_mut();
        vmcb.rip = state.rip;
        vmcb.rsp = state.regs.r[reg::RSP];
        vmcb.rax = state.regs.r[reg::RAX];
        vmcb.cr2 = state.cr2;
        vmcb.dr6 = state.dr6 & 0xffff_ffff;
        vmcb.dr7 = state.dr7 & 0xffff_ffff;
        vmcb.kernel_gs_base = canonical(state.kernel_gs_base);
        vmcb.star = state.star;
        vmcb.lstar = canonical(state.lstar);
        vmcb.cstar = canonical(state.cstar);
        vmcb.sfmask = state.sfmask & 0xffff_ffff;
        vmcb.sysenter = state.sysenter.map(canonical);
        vmcb.pat = legal_pat(state.pat);
        vmcb.event_inject = events::legal(state.inject);
        vmcb.interrupt_shadow = u64::from(state.interrupt_shadow != 0);
        vmcb.tsc_offset = state.tsc_offset;
        self.load_intercepts(state);
    }

    /// Control registers, EFER, RFLAGS and segments, which VMRUN checks against each other.
    fn load_modes(&mut self, state: &VcpuState) {
        let mut cr0 = state.cr0 & CR0_BITS;
        let mut cr4 = state.cr4 & CR4_BITS & self.limits.cr4;
        let mut efer = state.efer & EFER_BITS & !EFER_LMA | EFER_SVME;
        let mut rflags = state.rflags & RFLAGS_BITS | RFLAGS_ONE;
        if cr0 & CR0_CD == 0 {
            cr0 &= !CR0_NW;
        }
        if cr0 & CR0_PG != 0 {
            cr0 |= CR0_PE;
            if efer & EFER_LME != 0 {
                efer |= EFER_LMA;
                cr4 |= CR4_PAE;
                rflags &= !RFLAGS_VM;
            }
        } else {
            // See `ALWAYS_3`: the write of CR0 that turns paging on exits, and its handler can
            // set LME with it.
            efer &= !EFER_LME;
        }
        let limits = self.limits;
        let vmcb = self.vmcb_mut();
        vmcb.cr0 = cr0;
        vmcb.cr3 = state.cr3 & limits.physical;
        vmcb.cr4 = cr4;
        vmcb.efer = efer;
        vmcb.rflags = rflags;
        vmcb.segments = state.segments.map(legal_segment);
        vmcb.tables = state.tables.map(legal_segment);
        let [_, code, stack, ..] = &mut vmcb.segments;
        if code.attributes & SEGMENT_LONG != 0 {
            code.attributes &= !SEGMENT_BIG;
        }
        // QEMU takes the privilege level from SS.DPL, the hardware from CPL: keep them equal.
        vmcb.cpl = (stack.attributes >> 5 & 3) as u8;
    }

    /// What is intercepted: the mandatory set, and what the state page asks for.
    fn load_intercepts(&mut self, state: &VcpuState) {
        let syscall_msrs = state.intercept_syscall_msrs != 0;
        self.syscall_msrs = syscall_msrs;
        self.exceptions = state.intercept_exceptions as u32;
        if state.flush_tlb != 0 {
            self.flush.set(true);
        }
        let window = state.want_window != 0;
        let vmcb = self.vmcb_mut();
        vmcb.msr_map = maps::msr(syscall_msrs).0;
        vmcb.intercept_exceptions = state.intercept_exceptions as u32 | vmcb::ALWAYS_EXCEPTIONS;
        vmcb.intercept_cr = if state.intercept_cr3_write != 0 { vmcb::WRITE_CR3 } else { 0 };
        vmcb.intercept_3 = vmcb::ALWAYS_3
            | if state.intercept_iret != 0 { vmcb::IRET } else { 0 }
            | if window { vmcb::VINTR } else { 0 };
    }

    /// Writes what managers see after an exit. Fields that only go inwards keep their values,
    /// except `inject`: it is preset to the event whose delivery the exit interrupted, so that a
    /// manager that does nothing about it loses nothing.
    pub fn store_state(&self, state: &mut VcpuState) {
        let vmcb = self.vmcb();
        state.regs = self.regs;
        state.regs.r[reg::RAX] = vmcb.rax;
        state.regs.r[reg::RSP] = vmcb.rsp;
        state.rip = vmcb.rip;
        state.rflags = vmcb.rflags;
        state.cr0 = vmcb.cr0;
        state.cr2 = vmcb.cr2;
        state.cr3 = vmcb.cr3;
        state.cr4 = vmcb.cr4;
        state.efer = vmcb.efer & !EFER_SVME;
        state.dr6 = vmcb.dr6;
        state.dr7 = vmcb.dr7;
        state.kernel_gs_base = vmcb.kernel_gs_base;
        state.star = vmcb.star;
        state.lstar = vmcb.lstar;
        state.cstar = vmcb.cstar;
        state.sfmask = vmcb.sfmask;
        state.sysenter = vmcb.sysenter;
        state.pat = vmcb.pat;
        state.segments = vmcb.segments;
        state.tables = vmcb.tables;
        state.cpl = u64::from(vmcb.cpl);
        state.exit_code = self.last.code;
        state.exit_info1 = self.last.info1;
        state.exit_info2 = self.last.info2;
        state.exit_int_info = self.last.int_info;
        state.interrupt_shadow = vmcb.interrupt_shadow & 1;
        state.inject = vmcb.event_inject;
        state.flush_tlb = 0;
        state.exits = self.exits;
    }
}

/// The PAT, or its reset value when an entry names a reserved type.
fn legal_pat(pat: u64) -> u64 {
    let legal = |entry: u8| matches!(entry, 0 | 1 | 4..=7);
    if pat.to_le_bytes().into_iter().all(legal) { pat } else { PAT_RESET }
}

/// Sign-extends bit 47.
fn canonical(address: u64) -> u64 {
    ((address << 16) as i64 >> 16) as u64
}

fn legal_segment(segment: Segment) -> Segment {
    Segment {
        attributes: segment.attributes & SEGMENT_BITS,
        base: canonical(segment.base),
        ..segment
    }
}
