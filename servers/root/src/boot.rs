//! What the kernel hands over, and the first steps.
use crate::given::Given;
use crate::layout::{HEAP, OWN_ARCHIVE, OWN_HEAP};
use crate::machine::Machine;
use crate::program::Program;
use crate::ram::Ram;
use crate::sharing::Shares;
use crate::swapped::Swapped;
use crate::views::View;
use crate::{Failure, own};
use abi::{BootInfo, FIRST_FREE_SELECTOR, MemRights, RootSelector, Selector};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use archive::Archive;
use memory::Memory;
use rt::sys::Pinned;
use rt::{Shared, log};
use system::{Config, Description};

/// A file of the boot archive.
pub struct File {
    /// Name.
    pub name: String,
    /// Offset in the archive.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A portal of a memory manager.
pub struct Door {
    /// The portal.
    pub portal: Selector,
    /// Number of the manager.
    pub program: usize,
    /// Its thread.
    pub thread: Selector,
    /// The badge.
    pub badge: u64,
    /// Most rights of a region that is bound to it; none: any.
    pub rights: MemRights,
    /// Portals that were there before it, and may still be named by regions.
    pub former: Vec<Selector>,
}

/// The facts of the boot information page.
pub struct Info {
    /// Processors.
    pub cpus: u32,
    /// Rate of the time-stamp counter.
    pub tsc_khz: u64,
    /// The ACPI root pointer, or zero.
    pub rsdp: u64,
    /// True where virtual machines can run.
    pub svm: bool,
    /// The machine's command line.
    pub command_line: String,
    archive_length: u64,
}

impl Info {
    /// The processor that a number of the system description means: it counts round.
    #[must_use]
    pub fn processor(&self, number: u32) -> u32 {
        number % self.cpus.max(1)
    }
}

/// Everything that is known while the system is built.
pub struct Builder {
    /// Facts from the kernel.
    pub info: Info,
    /// What to build.
    pub description: Description,
    /// RAM.
    pub ram: Ram,
    /// Files of the boot archive, in order.
    pub files: Vec<File>,
    /// The boot archive.
    pub archive: Shared,
    /// Portals of memory managers.
    pub doors: Vec<Door>,
    /// Regions of virtual machines that have managers.
    pub guests: Given,
    /// Selectors that were used, and are free again.
    pub spare: Vec<Selector>,
    /// The virtual machines.
    pub machines: Vec<Machine>,
    /// Private views of files.
    pub views: Vec<View>,
    /// Memory that is shared with different rights.
    pub shares: Shares,
    /// Programs made so far, in the description's order.
    pub programs: Vec<Program>,
    /// The anonymous-memory manager's pool: offset in RAM, bytes.
    pub pool: (u64, u64),
    /// Its objects: offset in the pool, bytes. First those of the description, then the private
    /// memory of each program that is not pinned.
    pub objects: Vec<(u64, u64)>,
    /// Those of the description that another manager keeps: they take no part of the pool.
    pub swapped: Vec<Option<Swapped>>,
    next: u32,
}

impl Builder {
    /// A selector of the own table that nobody has.
    pub fn selector(&mut self) -> Selector {
        self.next += 1;
        Selector(self.next - 1)
    }

    /// The selector that was taken last is free again.
    pub fn give_back(&mut self, selector: Selector) {
        if selector.0 + 1 == self.next {
            self.next -= 1;
        }
    }

    /// The file of that name: its number and where it is.
    pub fn file(&self, name: &str) -> Result<(u32, &File), Failure> {
        let found = self.files.iter().enumerate().find(|(_, f)| f.name == name);
        let (number, file) =
            found.ok_or_else(|| Failure(format!("no file '{name}' in the boot archive")))?;
        Ok((number as u32, file))
    }

    /// The contents of a file, copied.
    pub fn contents(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let (_, file) = self.file(name)?;
        let length = usize::try_from(file.length).map_err(|_| Failure("huge file".into()))?;
        let mut bytes = vec![0; length];
        let read = self.archive.read(file.offset, &mut bytes);
        read.map_err(|_| Failure(format!("'{name}' lies outside the archive")))?;
        Ok(bytes)
    }

    /// The program of that name.
    pub fn program(&mut self, name: &str) -> Result<&mut Program, Failure> {
        let found = self.programs.iter_mut().find(|p| p.config.name == name);
        found.ok_or_else(|| Failure(format!("no program '{name}'")))
    }
}

fn read_info() -> Result<Info, Failure> {
    let page = Shared::own(BootInfo::ADDRESS, 4096);
    let word = |n: u64| page.read64(n * 8).unwrap_or(0);
    if word(0) != BootInfo::MAGIC {
        return Err(Failure("the kernel's boot information is not there".into()));
    }
    let mut text = vec![0; (word(7) as usize).min(2048)];
    let _ = page.read(64, &mut text);
    Ok(Info {
        cpus: word(1) as u32,
        tsc_khz: word(2),
        archive_length: word(3),
        rsdp: word(5),
        svm: word(6) != 0,
        command_line: String::from_utf8_lossy(&text).trim_end_matches('\0').into(),
    })
}

fn read_archive(info: &Info) -> Result<(Shared, Vec<File>), Failure> {
    let mapped = info.archive_length.next_multiple_of(4096);
    let rights = MemRights::READ;
    let memory = own(RootSelector::Archive);
    let shown = Pinned { base: OWN_ARCHIVE, memory, offset: 0, length: mapped, rights };
    crate::window::own_window(shown)?;
    let view = Shared::own(OWN_ARCHIVE, mapped);
    let mut index = vec![0; Archive::INDEX_LIMIT.min(mapped as usize)];
    let _ = view.read(0, &mut index);
    let parsed = Archive::parse(&index, info.archive_length);
    let parsed = parsed.map_err(|error| Failure(format!("{error}")))?;
    let files =
        parsed.entries().map(|e| File { name: e.name.into(), offset: e.offset, length: e.length });
    Ok((view, files.collect()))
}

/// Sets up the root server itself and reads the description.
pub fn start() -> Result<Builder, Failure> {
    // Nothing may allocate before the heap is there; a failure here can only end the program.
    let rights = MemRights::READ | MemRights::WRITE;
    let ram = own(RootSelector::Ram);
    let bind = rt::sys::Bind {
        space: own(RootSelector::Space),
        base: HEAP,
        length: OWN_HEAP,
        portal: Selector(0),
        tag: 0,
        rights,
        hint: 21,
    };
    if rt::sys::region_bind(bind).is_err()
        || rt::sys::map(own(RootSelector::Space), HEAP, ram, 0, OWN_HEAP, rights).is_err()
    {
        log!("fatal: no memory for the root server's heap");
        rt::sys::exit(4);
    }
    rt::add_heap(HEAP, OWN_HEAP);
    let info = read_info()?;
    rt::install_config(Config {
        name: "root".into(),
        tsc_khz: info.tsc_khz,
        cpus: info.cpus,
        ..Config::default()
    });
    let dirty = system::word(&info.command_line, "dirty").is_some();
    let ram = Ram::new(OWN_HEAP, dirty)?;
    let (archive, files) = read_archive(&info)?;
    let mut builder = Builder {
        info,
        description: Description::default(),
        ram,
        files,
        archive,
        doors: Vec::new(),
        guests: Given::default(),
        spare: Vec::new(),
        machines: Vec::new(),
        views: Vec::new(),
        shares: Shares::default(),
        programs: Vec::new(),
        pool: (0, 0),
        objects: Vec::new(),
        swapped: Vec::new(),
        next: FIRST_FREE_SELECTOR,
    };
    let bytes = builder.contents(system::DESCRIPTION_FILE)?;
    let description = system::decode::<Description>(&bytes);
    builder.description =
        description.map_err(|_| Failure("the system description is malformed".into()))?;
    builder.description.check().map_err(Failure)?;
    Ok(builder)
}
