//! Per-processor trace rings (layout: `abi::trace`), in memory that the root program can map.
use super::{cpu, phys};
use abi::HostPhys;
use abi::trace::{BOOT_STAGES, BootStage, Kind, RING, Record};
use core::sync::atomic::{AtomicU64, Ordering};

const RECORDS: u64 = RING / size_of::<Record>() as u64;

const ZERO: Record = Record { tsc: 0, kind: 0, cpu: 0, thread: 0, a: 0, b: 0 };

static BASE: AtomicU64 = AtomicU64::new(0);
static WRITTEN: [AtomicU64; cpu::MAX_CPUS] = [const { AtomicU64::new(0) }; cpu::MAX_CPUS];

/// When the boot processor came to each stage.
static STAGES: [AtomicU64; BOOT_STAGES] = [const { AtomicU64::new(0) }; BOOT_STAGES];

/// The boot processor has come to a stage; told when there are rings.
pub fn reached(stage: BootStage) {
    STAGES[stage as usize].store(cpu::ticks(), Ordering::Relaxed);
}

/// Names the rings' memory: [`RING`] bytes per processor, zeroed. Runs on the boot processor.
pub fn init(base: HostPhys) {
    BASE.store(base.0, Ordering::Relaxed);
    for (stage, tsc) in (0..).zip(&STAGES) {
        let tsc = tsc.load(Ordering::Relaxed);
        write(0, Record { tsc, kind: Kind::Boot as u16, thread: u32::MAX, a: stage, ..ZERO });
    }
}

/// Sets a processor's mask.
pub fn set_mask(cpu: usize, mask: u64) {
    if let Some(local) = cpu::local_of(cpu) {
        local.trace.store(mask, Ordering::Relaxed);
    }
}

/// Writes a record of the calling processor when its kind is on.
#[inline]
pub fn record(cpu: usize, kind: Kind, thread: u32, a: u64, b: u64) {
    if cpu::local().trace.load(Ordering::Relaxed) & 1 << kind as u32 != 0 {
        write(cpu, Record { tsc: cpu::ticks(), kind: kind as u16, cpu: cpu as u16, thread, a, b });
    }
}

fn slot(cpu: usize, index: u64) -> HostPhys {
    let offset = cpu as u64 * RING + index * size_of::<Record>() as u64;
    HostPhys(BASE.load(Ordering::Relaxed) + offset)
}

#[cold]
fn write(cpu: usize, record: Record) {
    let number = WRITTEN[cpu].load(Ordering::Relaxed);
    store(slot(cpu, 1 + number % (RECORDS - 1)), record);
    WRITTEN[cpu].store(number + 1, Ordering::Relaxed);
    phys::write64(slot(cpu, 0), number + 1);
}

fn store(at: HostPhys, record: Record) {
    let target = phys::pointer(at, size_of::<Record>() as u64).cast::<Record>();
    // SAFETY: inside the rings' memory, which holds nothing else; only this processor writes its
    // ring.
    unsafe { target.write_volatile(record) };
}

/// Calls `show` with a processor's last records, oldest first.
pub fn last(cpu: usize, most: u64, mut show: impl FnMut(&Record)) {
    let written = WRITTEN[cpu].load(Ordering::Relaxed);
    for number in written.saturating_sub(most.min(RECORDS - 1))..written {
        let at = phys::pointer(slot(cpu, 1 + number % (RECORDS - 1)), 32).cast::<Record>();
        // SAFETY: inside the rings' memory; a record consists of integers.
        show(&unsafe { at.read_volatile() });
    }
}
