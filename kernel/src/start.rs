//! Boot: from the boot loader's data to the running root program.
use crate::kernel::{KERNEL, Kernel};
use crate::layout::{self, Layout};
use crate::machine::boot::{BootData, Range};
use crate::machine::table::{KernelRights, KernelTables, NoFrames};
use crate::machine::{FramePool, acpi, apic, cpu, image, phys, smp, time, tlb, trace, vcpu};
use crate::memory::Quota;
use crate::{fatal, kernel, log, root};
use abi::trace::BootStage;
use abi::{HostPhys, LARGE_PAGE_SIZE, PAGE_SIZE};

/// The direct map covers at least this much: device registers below 4 GiB.
const LEAST_DIRECT: u64 = 4 << 30;
/// Part of kernel memory that is heap.
const HEAP_PART: u64 = 2;
/// Part of the heap that may be charged; the rest is for fragments and the allocator itself.
const HEAP_CHARGE: (u64, u64) = (3, 4);

/// Runs on the boot processor, once.
pub fn boot(data: &BootData) -> ! {
    log!("Trapline {}", env!("CARGO_PKG_VERSION"));
    let rsdp = acpi::find_rsdp(data.rsdp);
    let processors = acpi::processors(rsdp);
    let image = image::range();
    let Some(layout) = layout::divide(data, image) else {
        fatal!("not enough memory: the boot loader reports {} KiB", ram_kib(data));
    };
    let mut frames = FramePool::new();
    let heap = (layout.kernel.end - layout.kernel.start) / HEAP_PART / PAGE_SIZE * PAGE_SIZE;
    crate::machine::init_heap(HostPhys(layout.kernel.start), heap);
    let rest = layout.kernel.start + heap;
    frames.add(HostPhys(rest), layout.kernel.end - rest);
    let total = frames.available();
    let Ok(tables) = kernel_tables(&layout, processors.ids().len(), &mut frames) else {
        fatal!("not enough memory for the kernel's page tables");
    };
    tlb::load_first(tables.root());
    phys::set_limit(direct_end(&layout));
    cpu::init(cpu::own_apic_id());
    trace::reached(BootStage::TrapTable);
    tlb::set_kernel_root(tables.root());
    apic::init();
    let tsc_khz = time::calibrate();
    trace::reached(BootStage::Timer);
    let svm = vcpu::init(&mut frames);
    {
        let mut kernel = KERNEL.lock();
        kernel.memory.frames = frames;
        kernel.memory.frames_total = total;
        kernel.memory.heap = Quota { limit: heap / HEAP_CHARGE.1 * HEAP_CHARGE.0, used: 0 };
        kernel.root = tables.root();
        kernel.tsc_khz = tsc_khz;
        kernel.add_cpu();
        forbid(&mut kernel, data);
    }
    smp::start(processors.ids(), tables.root(), started);
    begin(data, layout, rsdp, svm)
}

fn ram_kib(data: &BootData) -> u64 {
    data.ram().iter().map(|r| (r.end - r.start) / 1024).sum()
}

/// Loads the root program and becomes an ordinary processor.
fn begin(data: &BootData, mut layout: Layout, rsdp: u64, svm: bool) -> ! {
    let cpus = cpu::count();
    let rings = abi::trace::RING * cpus as u64;
    let Some(ring) = layout.carver.take(rings) else { fatal!("no memory for the trace rings") };
    phys::zero(ring, rings);
    trace::init(ring);
    {
        let mut kernel = KERNEL.lock_with(tlb::flush_if_wanted);
        log!(
            "{cpus} processors, {} MiB, TSC {} MHz, {}",
            layout.ram >> 20,
            kernel.tsc_khz / 1000,
            if svm { "SVM with nested paging" } else { "no SVM" }
        );
        let machine = root::Machine { rsdp, svm, cpus, rings: (ring, rings) };
        if let Err(why) = root::load(&mut kernel, data, &mut layout, &machine) {
            fatal!("cannot start the root program: {why}");
        }
    }
    kernel::run()
}

/// First function of the other processors.
fn started() -> ! {
    {
        let mut kernel = KERNEL.lock_with(tlb::flush_if_wanted);
        vcpu::init(&mut kernel.memory.frames);
        // Processors are started one by one, so the numbers agree.
        kernel.add_cpu();
    }
    smp::announce();
    kernel::run()
}

/// RAM and the local APIC can't be reached as device memory.
fn forbid(kernel: &mut Kernel, data: &BootData) {
    for range in data.ram() {
        kernel.forbidden.add(*range);
    }
    kernel.forbidden.add(Range { start: apic::BASE, end: apic::BASE + PAGE_SIZE });
}

fn direct_end(layout: &Layout) -> u64 {
    layout.ram_end.next_multiple_of(LARGE_PAGE_SIZE).max(LEAST_DIRECT)
}

/// The kernel's final tables: its image, each part with its own rights, and the direct map, never
/// executable.
fn kernel_tables(
    layout: &Layout,
    cpus: usize,
    frames: &mut FramePool,
) -> Result<KernelTables, NoFrames> {
    let mut tables = KernelTables::new(frames)?;
    smp::map_stacks(cpus, &mut tables, frames)?;
    for (start, end, rights) in image::parts() {
        let to = HostPhys(start - phys::IMAGE_OFFSET);
        tables.map((start, end), to, rights, false, frames)?;
    }
    let direct = (phys::DIRECT_MAP, phys::DIRECT_MAP + direct_end(layout));
    tables.map(direct, HostPhys(0), KernelRights::Write, true, frames)?;
    Ok(tables)
}
