//! Starting the other processors (AMD APM volume 2, section 15.27.8; INIT, SIPI, SIPI).
use super::table::{KernelRights, KernelTables, NoFrames};
use super::{FramePool, apic, cpu, lock::SpinLock, phys, time, tlb};
use abi::{HostPhys, PAGE_SIZE};
use core::sync::atomic::{AtomicU64, Ordering};

/// Where the trampoline is copied; `boot.s` knows it too.
pub const START_PAGE: u64 = 0x8000;
/// Stacks of started processors: a slot each, of which the lower half is not mapped.
const STACKS: u64 = 0xffff_fe00_0000_0000;
const STACK_SLOT: u64 = 64 << 10;
const STACK: u64 = 32 << 10;
/// Rounds of a microsecond to wait for a processor.
const PATIENCE: u64 = 2_000_000;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

#[unsafe(no_mangle)]
static started_stack: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static started_root: AtomicU64 = AtomicU64::new(0);
static STARTED_ID: AtomicU64 = AtomicU64::new(0);
static ENTRY: SpinLock<Option<fn() -> !>> = SpinLock::new(None);

/// Virtual range of the stack of the n-th processor that is started.
fn stack(number: usize) -> (u64, u64) {
    let end = STACKS + (number as u64 + 1) * STACK_SLOT;
    (end - STACK, end)
}

/// Maps stacks for as many processors.
///
/// # Errors
/// `NoFrames`.
pub fn map_stacks(
    count: usize,
    tables: &mut KernelTables,
    frames: &mut FramePool,
) -> Result<(), NoFrames> {
    for number in 0..count {
        let (start, end) = stack(number);
        for page in (start..end).step_by(PAGE_SIZE as usize) {
            let frame = frames.take().ok_or(NoFrames)?;
            tables.map((page, page + PAGE_SIZE), frame, KernelRights::Write, false, frames)?;
        }
    }
    Ok(())
}

/// Starts the processors with these APIC ids, one after the other; each ends up in `entry`.
/// Those that do not answer are left out.
pub fn start(ids: &[u32], kernel_root: HostPhys, entry: fn() -> !) {
    let own = apic::id();
    *ENTRY.lock() = Some(entry);
    started_root.store(kernel_root.0, Ordering::Release);
    let (from, to) = (&raw const trampoline_start, &raw const trampoline_end);
    let length = to.addr() - from.addr();
    // SAFETY: the assembly between the two labels, read-only.
    let code = unsafe { core::slice::from_raw_parts(from, length) };
    phys::copy_in(HostPhys(START_PAGE), code);
    let others = ids.iter().filter(|id| **id != own);
    for (number, id) in others.take(cpu::MAX_CPUS - 1).enumerate() {
        started_stack.store(stack(number).1, Ordering::Release);
        STARTED_ID.store(u64::from(*id), Ordering::Release);
        start_one(*id);
    }
}

/// Processors that said they are ready.
static READY: AtomicU64 = AtomicU64::new(0);

/// A started processor is ready: the next one may be started.
pub fn announce() {
    READY.fetch_add(1, Ordering::SeqCst);
}

fn start_one(id: u32) {
    let ready = READY.load(Ordering::SeqCst);
    let before = cpu::count();
    apic::send_init(id);
    time::delay(10_000);
    for _ in 0..2 {
        apic::send_startup(id, START_PAGE);
        time::delay(200);
        if cpu::count() > before {
            break;
        }
    }
    let mut patience = PATIENCE;
    while READY.load(Ordering::SeqCst) == ready && patience > 0 {
        time::delay(1);
        patience -= 1;
    }
    if patience == 0 {
        crate::log!("processor with APIC id {id} does not start");
    }
}

/// First Rust function of a started processor. Runs on its own stack, on the kernel's tables.
#[unsafe(no_mangle)]
extern "C" fn started_processor() -> ! {
    cpu::init(STARTED_ID.load(Ordering::Acquire) as u32);
    tlb::leave_root();
    apic::init();
    let entry = *ENTRY.lock();
    match entry {
        Some(entry) => entry(),
        None => cpu::halt(),
    }
}
