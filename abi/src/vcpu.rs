//! The vCPU state page, shared by the kernel and the managers of a VM's exits, and the message
//! of a VM exit. Field names and encodings are those of the VMCB (AMD APM volume 2, appendix B).

/// Classes of exits; each can be sent to a portal of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum ExitClass {
    /// Everything that has no class of its own.
    Other = 0,
    /// `#UD`.
    InvalidOpcode = 1,
    /// `VMMCALL`.
    Vmmcall = 2,
    /// Write to CR3.
    Cr3Write = 3,
    /// `IRET`.
    Iret = 4,
    /// Recalled by `VcpuRecall`, or the vCPU's first run.
    Recall = 5,
    /// `HLT`.
    Halt = 6,
    /// RDMSR/WRMSR.
    Msr = 7,
    /// IN/OUT.
    Io = 8,
    /// CPUID.
    Cpuid = 9,
    /// The guest can take an interrupt now (VINTR).
    InterruptWindow = 10,
    /// A manager refused a nested fault, there was no region, or VMRUN failed.
    Error = 11,
    /// Write of STAR, LSTAR, CSTAR or SFMASK, or read of LSTAR or SFMASK, when
    /// `intercept_syscall_msrs` is set.
    SyscallMsr = 12,
}

/// Number of exit classes.
pub const EXIT_CLASSES: usize = 13;

/// A segment register; `attributes` in the VMCB's packed 12-bit form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes (VMCB form).
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base address.
    pub base: u64,
}

/// General registers, in the processor's encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Registers {
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … r15.
    pub r: [u64; 16],
}

/// Indices into [`Registers`].
#[allow(missing_docs)]
pub mod reg {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// The state page. The kernel writes it at every exit that reaches a portal, and takes it back
/// when that portal's handler replies with status zero. It checks what it takes back: reserved
/// bits, EFER.SVME and host state are its own.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VcpuState {
    /// General registers; `rsp` and `rax` included.
    pub regs: Registers,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Control registers.
    pub cr0: u64,
    /// Last page-fault address.
    pub cr2: u64,
    /// Page-table root.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// EFER as the processor uses it (SVME excepted).
    pub efer: u64,
    /// Debug registers.
    pub dr6: u64,
    /// Debug registers.
    pub dr7: u64,
    /// `FS.base` is `segments[4].base`.
    pub kernel_gs_base: u64,
    /// System-call MSRs.
    pub star: u64,
    /// Entry of 64-bit system calls.
    pub lstar: u64,
    /// Entry of compatibility-mode system calls.
    pub cstar: u64,
    /// Flags cleared by SYSCALL.
    pub sfmask: u64,
    /// SYSENTER_CS, ESP, EIP.
    pub sysenter: [u64; 3],
    /// Guest page-attribute table.
    pub pat: u64,
    /// es, cs, ss, ds, fs, gs.
    pub segments: [Segment; 6],
    /// gdtr, ldtr, idtr, tr.
    pub tables: [Segment; 4],
    /// Current privilege level, from the VMCB.
    pub cpl: u64,
    /// EXITCODE.
    pub exit_code: u64,
    /// EXITINFO1.
    pub exit_info1: u64,
    /// EXITINFO2.
    pub exit_info2: u64,
    /// EXITINTINFO; bit 31 set: an event was being delivered and must be delivered again.
    pub exit_int_info: u64,
    /// Non-zero: in an interrupt shadow.
    pub interrupt_shadow: u64,
    /// Fault address for device regions (guest-physical), with the access in `fault_access`.
    pub fault_address: u64,
    /// `Access` of that fault.
    pub fault_access: u64,
    /// In: EVENTINJ of the next entry; the kernel clears it once the entry has happened. At an
    /// exit it is preset to the event whose delivery the exit interrupted, or to zero: a handler
    /// that leaves it alone loses no event.
    pub inject: u64,
    /// In: non-zero asks for an `InterruptWindow` exit as soon as the guest can take one.
    pub want_window: u64,
    /// In: non-zero leaves the vCPU blocked (after HLT) until a recall.
    pub blocked: u64,
    /// In: added to the TSC for the guest.
    pub tsc_offset: u64,
    /// In: exceptions to intercept, a bit per vector.
    pub intercept_exceptions: u64,
    /// In: non-zero intercepts CR3 writes.
    pub intercept_cr3_write: u64,
    /// In: non-zero intercepts IRET.
    pub intercept_iret: u64,
    /// In: non-zero intercepts writes to STAR, LSTAR, CSTAR, SFMASK, and reads of LSTAR and SFMASK:
    /// so a guest can be shown other values of these two than the processor uses.
    pub intercept_syscall_msrs: u64,
    /// In: non-zero flushes the guest's TLB entries at the next entry.
    pub flush_tlb: u64,
    /// Out: exits so far.
    pub exits: u64,
}

const _: () = assert!(core::mem::size_of::<VcpuState>() <= 4096);

impl VcpuState {
    /// A state with every field zero.
    pub const ZERO: Self = Self {
        regs: Registers { r: [0; 16] },
        rip: 0,
        rflags: 2,
        cr0: 0,
        cr2: 0,
        cr3: 0,
        cr4: 0,
        efer: 0,
        dr6: 0,
        dr7: 0,
        kernel_gs_base: 0,
        star: 0,
        lstar: 0,
        cstar: 0,
        sfmask: 0,
        sysenter: [0; 3],
        pat: 0,
        segments: [Segment { selector: 0, attributes: 0, limit: 0, base: 0 }; 6],
        tables: [Segment { selector: 0, attributes: 0, limit: 0, base: 0 }; 4],
        cpl: 0,
        exit_code: 0,
        exit_info1: 0,
        exit_info2: 0,
        exit_int_info: 0,
        interrupt_shadow: 0,
        fault_address: 0,
        fault_access: 0,
        inject: 0,
        want_window: 0,
        blocked: 0,
        tsc_offset: 0,
        intercept_exceptions: 0,
        intercept_cr3_write: 0,
        intercept_iret: 0,
        intercept_syscall_msrs: 0,
        flush_tlb: 0,
        exits: 0,
    };
}

/// A VM exit as its portal gets it; everything else is in the state page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitMessage {
    /// `ExitClass` as a number.
    pub class: u64,
    /// EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
}

impl ExitMessage {
    /// The message words.
    #[must_use]
    pub const fn encode(self) -> crate::Message {
        [self.class, self.code, self.info1, self.info2, 0, 0, 0, 0]
    }

    /// Reads the words of an `Event::Exit`.
    #[must_use]
    pub const fn decode(words: &crate::Message) -> Self {
        Self { class: words[0], code: words[1], info1: words[2], info2: words[3] }
    }
}
