//! What each processor has of its own: descriptor tables, stacks, the block that GS points to.
use super::entry::{self, Frame};
use super::svm;
use super::tlb::Tlb;
use abi::CpuNumber;
use alloc::boxed::Box;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Most processors that are started.
pub const MAX_CPUS: usize = 32;

/// Selectors. SYSRET takes user data from `STAR + 8` and user code from `STAR + 16`.
const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
/// User data, as SYSRET loads it.
pub const USER_DATA: u64 = 0x1b;
/// User code, 64 bit.
pub const USER_CODE: u64 = 0x23;
const TASK: u16 = 0x28;

const MSR_EFER: u32 = 0xc000_0080;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_CSTAR: u32 = 0xc000_0083;
const MSR_SFMASK: u32 = 0xc000_0084;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// Flags that SYSCALL clears: TF, IF, DF, IOPL, NT, AC.
const SYSCALL_MASK: u64 = 0x4_7700;

/// Task state segment (AMD APM volume 2, section 12.2.5).
#[repr(C, packed)]
struct Task {
    reserved: u32,
    stacks: [u64; 3],
    reserved2: u64,
    ist: [u64; 7],
    reserved3: [u16; 5],
    io_map: u16,
}

/// A stack for traps, with a canary-free simple rule: traps from user mode use a few words only.
#[repr(C, align(16))]
struct Stack<const N: usize>([u8; N]);

impl<const N: usize> Stack<N> {
    fn top(&self) -> u64 {
        (&raw const self.0).addr() as u64 + N as u64
    }
}

/// The block of one processor; GS points to it while the kernel runs. Offsets of the first
/// fields are known to the assembly in `entry`.
#[repr(C)]
pub(super) struct Local {
    /// Frame of the thread that runs, or ran last.
    pub(super) frame: Cell<*mut Frame>,
    /// Kernel stack pointer to return to from user mode.
    pub(super) stack: Cell<u64>,
    /// Room for one register during entry.
    pub(super) scratch: Cell<u64>,
    /// Interrupts that came while the kernel let them in (idle, leaving a guest).
    pub(super) pending: [AtomicU64; 4],
    /// Kinds of events that are traced.
    pub(super) trace: AtomicU64,
    /// Null calls, which the entry answers itself.
    pub(super) nulls: AtomicU64,
    /// This block.
    this: *const Local,
    number: CpuNumber,
    pub(super) apic_id: u32,
    pub(super) tlb: Tlb,
    pub(super) host: Cell<Option<&'static svm::HostArea>>,
    gdt: [u64; 7],
    task: Task,
    trap_stack: Stack<4096>,
    fault_stack: Stack<8192>,
}

pub(super) const LOCAL_FRAME: usize = offset_of!(Local, frame);
pub(super) const LOCAL_STACK: usize = offset_of!(Local, stack);
pub(super) const LOCAL_SCRATCH: usize = offset_of!(Local, scratch);
pub(super) const LOCAL_PENDING: usize = offset_of!(Local, pending);
pub(super) const LOCAL_TRACE: usize = offset_of!(Local, trace);
pub(super) const LOCAL_NULLS: usize = offset_of!(Local, nulls);
const LOCAL_THIS: usize = offset_of!(Local, this);
const LOCAL_ROOT: usize = offset_of!(Local, tlb) + super::tlb::LOADED;

static LOCALS: [AtomicPtr<Local>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Processors that run.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Null calls since boot, on all processors.
pub fn null_calls() -> u64 {
    (0..count()).filter_map(local_of).map(|l| l.nulls.load(Ordering::Relaxed)).sum()
}

/// The calling processor.
pub fn id() -> usize {
    local().number.0 as usize
}

#[inline]
pub(super) fn local() -> &'static Local {
    let this: *const Local;
    // SAFETY: GS points to this processor's block from `init` on, and blocks live for ever.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) this, const LOCAL_THIS,
             options(pure, readonly, nostack, preserves_flags));
        &*this
    }
}

/// The root in CR3: [`Tlb`]'s note of it.
#[inline(always)]
pub(super) fn loaded_root() -> u64 {
    let root: u64;
    // SAFETY: as in `local`; only this processor writes the field.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) root, const LOCAL_ROOT,
             options(readonly, nostack, preserves_flags));
    }
    root
}

/// The block of any processor that was started.
pub(super) fn local_of(cpu: usize) -> Option<&'static Local> {
    let block = LOCALS.get(cpu)?.load(Ordering::Acquire);
    // SAFETY: only blocks that live for ever are stored. Their shared fields are atomics; the
    // cells are used by their own processor only.
    unsafe { block.as_ref() }
}

/// Reads a model-specific register.
///
/// # Safety
/// It exists.
pub(super) unsafe fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise; reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high,
             options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// It exists, and the value does not upset what the kernel relies on.
pub(super) unsafe fn write_msr(number: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Sets the calling processor up as the next number. Needs the heap.
pub fn init(apic_id: u32) {
    let number = COUNT.load(Ordering::Relaxed);
    let local = Box::leak(Box::new(Local {
        frame: Cell::new(null_mut()),
        stack: Cell::new(0),
        scratch: Cell::new(0),
        pending: [const { AtomicU64::new(0) }; 4],
        trace: AtomicU64::new(0),
        nulls: AtomicU64::new(0),
        this: core::ptr::null(),
        number: CpuNumber(number as u32),
        apic_id,
        tlb: Tlb::new(),
        host: Cell::new(None),
        gdt: [
            0,
            0x00af_9a00_0000_ffff,
            0x00cf_9200_0000_ffff,
            0x00cf_f200_0000_ffff,
            0x00af_fa00_0000_ffff,
            0,
            0,
        ],
        task: Task {
            reserved: 0,
            stacks: [0; 3],
            reserved2: 0,
            ist: [0; 7],
            reserved3: [0; 5],
            io_map: size_of::<Task>() as u16,
        },
        trap_stack: Stack([0; 4096]),
        fault_stack: Stack([0; 8192]),
    }));
    local.this = local;
    local.task.stacks = [local.trap_stack.top(), 0, 0];
    local.task.ist = [local.fault_stack.top(), 0, 0, 0, 0, 0, 0];
    let task = (&raw const local.task).addr() as u64;
    local.gdt[5] = (size_of::<Task>() as u64 - 1)
        | (task & 0xff_ffff) << 16
        | 0x89 << 40
        | (task >> 24 & 0xff) << 56;
    local.gdt[6] = task >> 32;
    let local: &'static Local = local;
    load_tables(local);
    set_up_registers(local);
    HUGE_PAGES.store(__cpuid(0x8000_0001).edx >> 26 & 1 != 0, Ordering::Relaxed);
    LOCALS[number].store(core::ptr::from_ref(local).cast_mut(), Ordering::Release);
    COUNT.store(number + 1, Ordering::Release);
}

fn load_tables(local: &'static Local) {
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let gdt = Pointer(size_of_val(&local.gdt) as u16 - 1, local.gdt.as_ptr().addr() as u64);
    // SAFETY: the tables live for ever; the code and data selectors mean the same as the boot
    // tables' ones. GS is loaded before its base is set below.
    unsafe {
        asm!("lgdt [{gdt}]",
             "mov ds, {data:e}", "mov es, {data:e}", "mov ss, {data:e}",
             "mov fs, {zero:e}", "mov gs, {zero:e}",
             "push {code}", "lea {t}, [rip + 2f]", "push {t}", "retfq", "2:",
             "ltr {task:x}",
             gdt = in(reg) &raw const gdt, data = in(reg) u64::from(KERNEL_DATA),
             zero = in(reg) 0u64, code = in(reg) u64::from(KERNEL_CODE),
             task = in(reg) TASK, t = out(reg) _);
        write_msr(MSR_GS_BASE, core::ptr::from_ref(local).addr() as u64);
        write_msr(MSR_KERNEL_GS_BASE, 0);
    }
    entry::load_interrupt_table();
}

/// SYSCALL, no FPU for native programs, and SMEP, SMAP, UMIP where there are such.
fn set_up_registers(_local: &Local) {
    let leaf = __cpuid_count(7, 0);
    let has = |bit: u32, cr4: u64| if leaf.ebx >> bit & 1 != 0 { cr4 } else { 0 };
    let umip = u64::from(leaf.ecx >> 2 & 1) << 11;
    let protect = has(7, 1 << 20) | has(20, 1 << 21) | umip;
    let selectors = u64::from(KERNEL_DATA) << 48 | u64::from(KERNEL_CODE) << 32;
    // SAFETY: these registers exist on every processor in long mode. The kernel reaches user
    // memory only through the direct map, which SMAP does not concern.
    unsafe {
        write_msr(MSR_STAR, selectors);
        write_msr(MSR_LSTAR, entry::syscall_address());
        write_msr(MSR_CSTAR, entry::syscall_address());
        write_msr(MSR_SFMASK, SYSCALL_MASK);
        write_msr(MSR_EFER, read_msr(MSR_EFER) | 1);
        let mut cr4: u64;
        asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
        cr4 |= protect;
        // DE; OSFXSR, for switching the registers of guests.
        cr4 |= 1 << 3 | 1 << 9;
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
        let mut cr0: u64;
        asm!("mov {}, cr0", out(reg) cr0, options(nomem, nostack, preserves_flags));
        // EM: SSE instructions of native programs raise #UD, x87 ones #NM.
        cr0 |= 1 << 2;
        asm!("mov cr0, {}", in(reg) cr0, options(nostack, preserves_flags));
    }
}

/// The time-stamp counter.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether the processors know pages of 1 GiB, once one of them has said so.
static HUGE_PAGES: AtomicBool = AtomicBool::new(false);

/// True where pages of 1 GiB exist (CPUID leaf 0x8000_0001, AMD APM volume 3, appendix E.4.2).
pub fn has_huge_pages() -> bool {
    HUGE_PAGES.load(Ordering::Relaxed)
}

/// APIC id of the calling processor (CPUID leaf 1).
pub fn own_apic_id() -> u32 {
    __cpuid(1).ebx >> 24
}

/// Stops for ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: the processor does nothing any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Waits for an interrupt; what came is then in the pending set.
pub fn wait_for_interrupt() {
    // SAFETY: interrupts are taken by entries that only note them. STI takes effect after HLT
    // has begun, so none is missed.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}
