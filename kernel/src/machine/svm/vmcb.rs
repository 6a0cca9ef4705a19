//! Layout of the virtual machine control block (AMD APM volume 2, appendix B).
use abi::vcpu::Segment;
use core::mem::{offset_of, size_of};

/// The control area and the state save area.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// Reads of CR0–15, writes of CR0–15.
    pub intercept_cr: u32,
    /// Reads of DR0–15, writes of DR0–15.
    pub intercept_dr: u32,
    /// Exceptions by vector.
    pub intercept_exceptions: u32,
    /// The intercepts of offset 0x00c.
    pub intercept_3: u32,
    /// The intercepts of offset 0x010.
    pub intercept_4: u32,
    reserved_014: [u32; 11],
    /// Physical address of the I/O permission map.
    pub io_map: u64,
    /// Physical address of the MSR permission map.
    pub msr_map: u64,
    /// Added to the TSC.
    pub tsc_offset: u64,
    /// Address-space identifier of the guest; never 0.
    pub asid: u32,
    /// TLB_CONTROL in the low byte.
    pub tlb_control: u32,
    /// V_TPR, V_IRQ, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING, V_INTR_VECTOR.
    pub virtual_interrupt: u64,
    /// Bit 0: interrupt shadow.
    pub interrupt_shadow: u64,
    /// EXITCODE.
    pub exit_code: u64,
    /// EXITINFO1.
    pub exit_info1: u64,
    /// EXITINFO2.
    pub exit_info2: u64,
    /// EXITINTINFO.
    pub exit_int_info: u64,
    /// Bit 0: nested paging.
    pub nested_control: u64,
    reserved_098: [u64; 2],
    /// EVENTINJ.
    pub event_inject: u64,
    /// Root of the nested page tables.
    pub nested_root: u64,
    reserved_0b8: u64,
    /// VMCB clean bits.
    pub clean: u64,
    reserved_0c8: [u64; 103],

    /// es, cs, ss, ds, fs, gs.
    pub segments: [Segment; 6],
    /// gdtr, ldtr, idtr, tr.
    pub tables: [Segment; 4],
    reserved_4a0: [u8; 43],
    /// Current privilege level.
    pub cpl: u8,
    reserved_4cc: u32,
    /// EFER.
    pub efer: u64,
    reserved_4d8: [u64; 14],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    reserved_580: [u64; 11],
    /// RSP.
    pub rsp: u64,
    reserved_5e0: [u64; 3],
    /// RAX.
    pub rax: u64,
    /// STAR.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// CSTAR.
    pub cstar: u64,
    /// SFMASK.
    pub sfmask: u64,
    /// KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// SYSENTER_CS, ESP, EIP.
    pub sysenter: [u64; 3],
    /// CR2.
    pub cr2: u64,
    reserved_648: [u64; 4],
    /// Guest page-attribute table.
    pub pat: u64,
    reserved_670: [u64; 306],
}

const _: () = {
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, io_map) == 0x040);
    assert!(offset_of!(Vmcb, tsc_offset) == 0x050);
    assert!(offset_of!(Vmcb, tlb_control) == 0x05c);
    assert!(offset_of!(Vmcb, exit_code) == 0x070);
    assert!(offset_of!(Vmcb, exit_int_info) == 0x088);
    assert!(offset_of!(Vmcb, event_inject) == 0x0a8);
    assert!(offset_of!(Vmcb, nested_root) == 0x0b0);
    assert!(offset_of!(Vmcb, clean) == 0x0c0);
    assert!(offset_of!(Vmcb, segments) == 0x400);
    assert!(offset_of!(Vmcb, tables) == 0x460);
    assert!(offset_of!(Vmcb, cpl) == 0x4cb);
    assert!(offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548);
    assert!(offset_of!(Vmcb, rip) == 0x578);
    assert!(offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8);
    assert!(offset_of!(Vmcb, star) == 0x600);
    assert!(offset_of!(Vmcb, kernel_gs_base) == 0x620);
    assert!(offset_of!(Vmcb, sysenter) == 0x628);
    assert!(offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, pat) == 0x668);
};

/// The one address-space identifier in use: the TLB is flushed when another vCPU is entered.
pub const ASID: u32 = 1;
/// TLB_CONTROL: flush everything.
pub const FLUSH_ALL: u32 = 1;
/// Nested control: nested paging.
pub const NESTED_PAGING: u64 = 1;

/// V_IRQ: a virtual interrupt is pending.
pub const V_IRQ: u64 = 1 << 8;
/// V_INTR_PRIO: highest.
pub const V_INTR_PRIO: u64 = 0xf << 16;
/// V_IGN_TPR: whatever the guest's task priority is.
pub const V_IGN_TPR: u64 = 1 << 20;
/// V_INTR_MASKING: the guest's IF and TPR do not mask physical interrupts.
pub const V_INTR_MASKING: u64 = 1 << 24;

/// Intercepted write of CR3, in `intercept_cr`.
pub const WRITE_CR3: u32 = 1 << (16 + 3);

/// VINTR, in `intercept_3`.
pub const VINTR: u32 = 1 << 4;
/// IRET, in `intercept_3`.
pub const IRET: u32 = 1 << 20;

/// Exceptions that are always intercepted, and raised again: a guest that makes `#DB` or `#AC`
/// recur while it is being delivered would keep the processor for ever (CVE-2015-8104,
/// CVE-2015-5307).
pub const ALWAYS_EXCEPTIONS: u32 = 1 << 1 | 1 << 17;

/// Intercepts of offset 0x00c that are always on: INTR, NMI, SMI, INIT, writes of CR0 that change
/// more than TS and MP, RDPMC, CPUID, RSM, INVD, HLT, INVLPGA, IOIO, MSR, task switch,
/// FERR_FREEZE, shutdown.
///
/// CR0: a guest must not turn paging off by itself. QEMU 7.2 does not bring the host's CR0 back
/// after an exit from a guest with EFER.LME set, CR0.PG and CR4.PAE clear.
pub const ALWAYS_3: u32 = 0b1111
    | 1 << 5
    | 1 << 15
    | 1 << 18
    | 1 << 19
    | 1 << 22
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 28
    | 1 << 29
    | 1 << 30
    | 1 << 31;

/// Intercepts of offset 0x010 that are always on: VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI,
/// SKINIT, WBINVD, MONITOR, MWAIT (both forms), XSETBV, RDPRU.
pub const ALWAYS_4: u32 = 0b111_1111 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14;
