//! Starting the root program: the first file of the boot archive, in a space of its own.
use crate::kernel::Kernel;
use crate::layout::{Carver, Layout};
use crate::machine::boot::{BootData, Range as Piece};
use crate::machine::entry::{Frame, FrameBox};
use crate::machine::phys;
use crate::machine::table::Tables;
use crate::memory::{Charged, MemoryRange, Quota};
use crate::object::{Binding, Body, Capability, Place, Space, Thread};
use crate::window::Windows;
use abi::{
    BootInfo, Error, HostPhys, MemRights, ObjRights, PAGE_SIZE, RootSelector, Selector, SpaceKind,
};
use alloc::vec::Vec;
use archive::Archive;
use captable::Table;
use core::fmt;
use executable::{Defect, Executable, Segment};
use regions::{Range, RegionMap};
use scheduling::{Arena, Id};

/// Bytes of the root program's stack.
const STACK: u64 = 64 << 10;
/// Where it ends.
const STACK_TOP: u64 = 0x7fff_0000_0000;
/// Its scheduling context.
const PRIORITY: u8 = 128;
const QUANTUM_MICROSECONDS: u64 = 10_000;
/// End of the capability to all devices.
const DEVICES_END: u64 = 1 << 40;

/// What the root program is told about the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Physical address of the RSDP.
    pub rsdp: u64,
    /// SVM with nested paging.
    pub svm: bool,
    /// Processors that run.
    pub cpus: usize,
    /// Base and length of the trace rings.
    pub rings: (HostPhys, u64),
}

/// Why there is no root program.
#[derive(Debug)]
pub enum Failure {
    /// The boot loader passed no archive.
    NoArchive,
    /// It is damaged, or not an archive at all.
    Archive(archive::Error),
    /// It has no file, or the first one is not called `root`.
    NoRoot,
    /// The file can't be run.
    File(Defect),
    /// Memory, or a segment that the kernel refuses.
    Refused(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoArchive => f.write_str("the boot loader passed no boot archive"),
            Failure::Archive(error) => write!(f, "{error}"),
            Failure::NoRoot => f.write_str("the first file of the boot archive is not `root`"),
            Failure::File(defect) => write!(f, "`root`: {defect}"),
            Failure::Refused(error) => write!(f, "{}", error.text()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Refused(error)
    }
}

/// Copy of a piece of the archive.
fn bytes_at(at: u64, length: u64) -> Vec<u8> {
    let mut bytes = alloc::vec![0; length as usize];
    phys::copy_out(HostPhys(at), &mut bytes);
    bytes
}

fn find_root(data: &BootData) -> Result<(Piece, Vec<u8>), Failure> {
    let archive = data.archive.ok_or(Failure::NoArchive)?;
    let total = archive.end - archive.start;
    let index = bytes_at(archive.start, total.min(Archive::INDEX_LIMIT as u64));
    let files = Archive::parse(&index, total).map_err(Failure::Archive)?;
    let root = files.entries().next().filter(|e| e.name == "root").ok_or(Failure::NoRoot)?;
    Ok((archive, bytes_at(archive.start + root.offset, root.length)))
}

/// Makes the root program, ready to run.
pub fn load(
    k: &mut Kernel,
    data: &BootData,
    layout: &mut Layout,
    machine: &Machine,
) -> Result<(), Failure> {
    let (archive, file) = find_root(data)?;
    let head = &file[..executable::HEAD.min(file.len())];
    let program = Executable::read(head, file.len() as u64, &(PAGE_SIZE..BootInfo::ADDRESS))
        .map_err(Failure::File)?;
    let space = make_space(k)?;
    for segment in &program.segments {
        load_segment(k, space, &file, segment, &mut layout.carver)?;
    }
    let stack = layout.carver.take(STACK).ok_or(Error::Quota)?;
    phys::zero(stack, STACK);
    place(k, space, STACK_TOP - STACK, stack, STACK, MemRights::READ | MemRights::WRITE)?;
    let info = layout.carver.take(PAGE_SIZE).ok_or(Error::Quota)?;
    place(k, space, BootInfo::ADDRESS, info, PAGE_SIZE, MemRights::READ)?;
    let ram = layout.carver.rest();
    phys::zero(info, PAGE_SIZE);
    write_info(info, data, machine, archive, ram, k.tsc_khz);
    let cost = Arena::<Thread>::COST + size_of::<Frame>() as u64;
    k.charge(space, cost + Arena::<crate::object::Sc>::COST)?;
    let tables = k.spaces.get(space)?.root();
    let body = Body::Native(FrameBox::new(program.entry, STACK_TOP, 0));
    let thread = k.add_thread(Thread::new((space, tables), 0, body, cost));
    install(k, space, thread, machine, (archive, ram, info))?;
    k.add_sc(thread, space, PRIORITY, QUANTUM_MICROSECONDS)?;
    Ok(())
}

fn make_space(k: &mut Kernel) -> Result<Id<Space>, Error> {
    let limit = k.memory.heap.limit + k.memory.frames.available() * PAGE_SIZE;
    let mut quota = Quota { limit, used: 0 };
    k.memory.charge(&mut quota, Arena::<Space>::COST)?;
    let mut frames = Charged { pool: &mut k.memory.frames, quota: &mut quota };
    let tables = Tables::new(Some(k.root), &mut frames).map_err(|_| Error::Quota)?;
    Ok(k.spaces.insert(Space {
        kind: SpaceKind::Native,
        table: Table::new(),
        regions: RegionMap::new(),
        tables,
        quota,
        parent: None,
        managers: Vec::new(),
        windows: Windows::new(),
        patience: u64::MAX,
    }))
}

/// A pinned region with memory behind it.
fn place(
    k: &mut Kernel,
    space: Id<Space>,
    at: u64,
    base: HostPhys,
    length: u64,
    rights: MemRights,
) -> Result<(), Error> {
    let limit = k.spaces.get(space)?.limit();
    let range = Range::new(at, length, limit)?;
    k.charge(space, RegionMap::<Binding>::COST as u64)?;
    let binding =
        Binding { portal: None, manager: None, tag: 0, rights, hint: 12, window: Place::None };
    k.spaces.get_mut(space)?.regions.bind(range, binding)?;
    k.map_into(space, range, &MemoryRange { base, length, rights })
}

fn load_segment(
    k: &mut Kernel,
    space: Id<Space>,
    file: &[u8],
    segment: &Segment,
    carver: &mut Carver,
) -> Result<(), Failure> {
    let from = segment.offset as usize;
    let bytes = file.get(from..from + segment.in_file as usize);
    let bytes = bytes.ok_or(Failure::File(Defect::Truncated(segment.address)))?;
    let memory = carver.take(segment.in_memory).ok_or(Error::Quota)?;
    phys::zero(memory, segment.in_memory);
    phys::copy_in(memory, bytes);
    Ok(place(k, space, segment.address, memory, segment.in_memory, segment.rights)?)
}

fn write_info(
    page: HostPhys,
    data: &BootData,
    machine: &Machine,
    archive: Piece,
    ram: Piece,
    tsc_khz: u64,
) {
    let line = data.command_line();
    let words = [
        BootInfo::MAGIC,
        machine.cpus as u64,
        tsc_khz,
        archive.end - archive.start,
        ram.end - ram.start,
        machine.rsdp,
        u64::from(machine.svm),
        line.len() as u64,
    ];
    const { assert!(core::mem::offset_of!(BootInfo, command_line) == 8 * 8) };
    for (index, word) in words.into_iter().enumerate() {
        phys::write64(HostPhys(page.0 + index as u64 * 8), word);
    }
    phys::copy_in(HostPhys(page.0 + words.len() as u64 * 8), line);
}

fn install(
    k: &mut Kernel,
    space: Id<Space>,
    thread: Id<Thread>,
    machine: &Machine,
    (archive, ram, info): (Piece, Piece, HostPhys),
) -> Result<(), Error> {
    let memory = |start: u64, end: u64, rights| {
        Capability::Memory(MemoryRange { base: HostPhys(start), length: end - start, rights })
    };
    let (rings, rings_length) = machine.rings;
    let read = MemRights::READ;
    let device = read | MemRights::WRITE | MemRights::DEVICE;
    let archive_start = archive.start / PAGE_SIZE * PAGE_SIZE;
    let archive_end = archive.end.next_multiple_of(PAGE_SIZE);
    let list = [
        (RootSelector::Space, Capability::Space(space, ObjRights::CONTROL | ObjRights::GRANT)),
        (RootSelector::Thread, Capability::Thread(thread, ObjRights::all())),
        (RootSelector::Ram, memory(ram.start, ram.end, read | MemRights::WRITE | MemRights::EXEC)),
        (RootSelector::Archive, memory(archive_start, archive_end, read | MemRights::EXEC)),
        (RootSelector::Devices, memory(0, DEVICES_END, device)),
        (RootSelector::Irq, Capability::Irq(ObjRights::all())),
        (RootSelector::System, Capability::System(ObjRights::all())),
        (RootSelector::BootInfo, memory(info.0, info.0 + PAGE_SIZE, read)),
        (RootSelector::Trace, memory(rings.0, rings.0 + rings_length, read)),
    ];
    for (selector, capability) in list {
        let selector = Selector(selector as u32);
        k.prepare_slot(space, selector)?;
        k.install(space, selector, capability)?;
    }
    Ok(())
}
