//! The instructions: turning SVM on, and the switch between the host's and the guest's world.
use super::Page;
use abi::HostPhys;
use abi::vcpu::Registers;
use core::arch::{
    asm, naked_asm,
    x86_64::{__cpuid, __cpuid_count},
};
use core::ptr::NonNull;

/// EFER.
const MSR_EFER: u32 = 0xc000_0080;
/// EFER.SVME.
const EFER_SVME: u64 = 1 << 12;
/// VM_CR; bit 4 (SVMDIS) means that the firmware turned SVM off.
const MSR_VM_CR: u32 = 0xc001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
/// VM_HSAVE_PA.
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;

/// CPUID: SVM and nested paging.
pub fn supported() -> bool {
    if __cpuid(0x8000_0000).eax < 0x8000_000a {
        return false;
    }
    let svm = __cpuid(0x8000_0001).ecx & 1 << 2 != 0;
    svm && __cpuid(0x8000_000a).edx & 1 != 0
}

/// What the processor allows in guest state; asked once per vCPU, for CPUID may itself exit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bits of CR4 that exist.
    pub cr4: u64,
    /// Bits of a physical address.
    pub physical: u64,
}

impl Limits {
    /// Those of this processor (CPUID 0x8000_0008 and 7).
    pub fn read() -> Self {
        let bits = __cpuid(0x8000_0008).eax & 0xff;
        let physical = 1u64.checked_shl(bits).map_or(u64::MAX, |size| size - 1);
        Self { cr4: cr4_features(), physical }
    }
}

/// The CR4 bits that this processor has: VME to OSXMMEXCPT always, then UMIP, FSGSBASE, SMEP,
/// SMAP.
fn cr4_features() -> u64 {
    let leaf = __cpuid_count(7, 0);
    let bit = |word: u32, from: u32, to: u32| u64::from(word >> from & 1) << to;
    0x7ff
        | bit(leaf.ecx, 2, 11)
        | bit(leaf.ebx, 0, 16)
        | bit(leaf.ebx, 7, 20)
        | bit(leaf.ebx, 20, 21)
}

/// Turns SVM on; `None` where it is missing or locked.
///
/// # Safety
/// `save` is a page that the processor may use from now on.
pub unsafe fn enable(save: HostPhys) -> Option<()> {
    if !supported() {
        return None;
    }
    // SAFETY: these MSRs exist where SVM does; the page is the processor's by our contract.
    unsafe {
        if read_msr(MSR_VM_CR) & VM_CR_SVMDIS != 0 {
            return None;
        }
        write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SVME);
        write_msr(MSR_VM_HSAVE_PA, save.0);
    }
    Some(())
}

/// # Safety
/// The MSR exists.
unsafe fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading an existing MSR has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high,
             options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
/// The MSR exists and the value does not upset what the kernel relies on.
unsafe fn write_msr(number: u32, value: u64) {
    // SAFETY: by our contract.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// `sti; nop; cli`.
pub fn take_interrupts() {
    // SAFETY: the kernel's interrupt entries work at any point where interrupts may come on.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
}

/// Writes the task priority that the host has anyway, zero. After an entry with a virtual interrupt
/// QEMU 7.2 may have forgotten that a physical one is pending (VMRUN marks the virtual one in a word
/// that other threads write too, without a lock); this makes it look again.
pub fn recheck_interrupts() {
    // SAFETY: the kernel never raises its task priority.
    unsafe { asm!("mov cr8, {0}", in(reg) 0u64, options(nomem, nostack, preserves_flags)) };
}

/// Enters the guest and comes back after its exit.
///
/// # Safety
/// Interrupts are off. `vmcb` and the maps that it names are valid, its state passes the checks
/// of VMRUN, `host` is this processor's page for VMSAVE.
pub unsafe fn enter(regs: &mut Registers, vmcb: HostPhys, host: HostPhys) {
    // SAFETY: by our contract; `world_switch` keeps the callee-saved registers, and VMSAVE and
    // VMLOAD bring back FS, GS, TR, LDTR and the system-call MSRs.
    unsafe { world_switch(regs, vmcb.0, host.0) };
}

/// `regs` in rdi, `vmcb` in rsi, `host` in rdx. The VMCB holds rax and rsp of the guest.
///
/// GIF is clear from `clgi` to `stgi`, so that `sti` only sets the IF that VMRUN remembers: with
/// V_INTR_MASKING that is what lets physical interrupts force an exit. After the exit IF is
/// cleared before GIF is set: the interrupt stays pending for the kernel. The instruction between
/// `sti` and VMRUN ends the interrupt shadow of `sti`, which QEMU 7.2 would hand to the guest.
#[unsafe(naked)]
unsafe extern "sysv64" fn world_switch(_regs: *mut Registers, _vmcb: u64, _host: u64) {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "push rdx; push rdi",
        "clgi",
        "mov rax, rdx",
        "vmsave rax",
        "mov rax, rsi",
        "vmload rax",
        "mov rcx, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov rbx, [rdi + 24]",
        "mov rbp, [rdi + 40]",
        "mov rsi, [rdi + 48]",
        "mov r8,  [rdi + 64]",
        "mov r9,  [rdi + 72]",
        "mov r10, [rdi + 80]",
        "mov r11, [rdi + 88]",
        "mov r12, [rdi + 96]",
        "mov r13, [rdi + 104]",
        "mov r14, [rdi + 112]",
        "mov r15, [rdi + 120]",
        "mov rdi, [rdi + 56]",
        "sti",
        "nop",
        "vmrun rax",
        "cli",
        "vmsave rax",
        "push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], rbx",
        "mov [rdi + 40], rbp",
        "mov [rdi + 48], rsi",
        "mov [rdi + 64], r8",
        "mov [rdi + 72], r9",
        "mov [rdi + 80], r10",
        "mov [rdi + 88], r11",
        "mov [rdi + 96], r12",
        "mov [rdi + 104], r13",
        "mov [rdi + 112], r14",
        "mov [rdi + 120], r15",
        "pop rax",
        "mov [rdi + 56], rax",
        "mov rax, [rsp + 8]",
        "vmload rax",
        "stgi",
        "add rsp, 16",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
    )
}

/// Offset of DR0–DR3 in a context page, behind the 512 bytes of FXSAVE.
const DEBUG_REGISTERS: usize = 512;

/// Fills a context page with the state of x87 and SSE after reset: all exceptions masked.
pub fn reset_context(page: Page) {
    // SAFETY: the page is zeroed, aligned and exclusively ours. Offsets are FCW and MXCSR of the
    // FXSAVE image (AMD APM volume 1, section 11.4).
    unsafe {
        page.virt.cast::<u16>().write(0x037f);
        page.virt.add(24).cast::<u32>().write(0x1f80);
    }
}

/// CR0.EM and CR0.TS, which keep native programs from using the FPU.
const CR0_NO_FPU: i32 = 0xc;
/// CR4.OSFXSR, without which FXSAVE leaves out the SSE registers.
const CR4_OSFXSR: i32 = 1 << 9;

/// Saves FPU and DR0–DR3 into `old`, if any, and loads them from `new`.
///
/// # Safety
/// Both are context pages of vCPUs.
pub unsafe fn exchange_context(old: Option<NonNull<u8>>, new: NonNull<u8>) {
    let (cr0, cr4): (u64, u64);
    // SAFETY: the kernel and its programs use neither the FPU nor DR0–DR3; DR7 of the host stays
    // clear. CR0 and CR4 are put back, so that native programs still cannot use the FPU.
    unsafe {
        asm!("mov {cr0}, cr0", "mov {t}, {cr0}", "and {t}, {not}", "mov cr0, {t}",
             cr0 = out(reg) cr0, t = out(reg) _, not = const !CR0_NO_FPU, options(nostack));
        asm!("mov {cr4}, cr4", "mov {t}, {cr4}", "or {t}, {bit}", "mov cr4, {t}",
             cr4 = out(reg) cr4, t = out(reg) _, bit = const CR4_OSFXSR, options(nostack));
        if let Some(old) = old {
            asm!("fxsave64 [{0}]", in(reg) old.as_ptr(), options(nostack));
            let dr = old.add(DEBUG_REGISTERS).cast::<u64>();
            asm!("mov {t}, dr0", "mov [{p}], {t}", "mov {t}, dr1", "mov [{p} + 8], {t}",
                 "mov {t}, dr2", "mov [{p} + 16], {t}", "mov {t}, dr3", "mov [{p} + 24], {t}",
                 p = in(reg) dr.as_ptr(), t = out(reg) _, options(nostack));
        }
        asm!("fxrstor64 [{0}]", in(reg) new.as_ptr(), options(nostack));
        let dr = new.add(DEBUG_REGISTERS).cast::<u64>();
        asm!("mov {t}, [{p}]", "mov dr0, {t}", "mov {t}, [{p} + 8]", "mov dr1, {t}",
             "mov {t}, [{p} + 16]", "mov dr2, {t}", "mov {t}, [{p} + 24]", "mov dr3, {t}",
             p = in(reg) dr.as_ptr(), t = out(reg) _, options(nostack));
        asm!("mov cr4, {0}", "mov cr0, {1}", in(reg) cr4, in(reg) cr0, options(nostack));
    }
}
