//! ELF files of native programs: text straight from the boot archive, data copied.
use crate::boot::Builder;
use crate::program::RW;
use crate::window::pinned_in;
use crate::{Failure, own};
use abi::{MemRights, RootSelector};
use alloc::format;
use backing::Tag;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use memory::Memory;
use rt::sys::{self, Bind};

type Elf<'a> = ElfBytes<'a, LittleEndian>;

fn parse<'a>(name: &str, bytes: &'a [u8]) -> Result<Elf<'a>, Failure> {
    let elf = Elf::minimal_parse(bytes);
    let elf = elf.map_err(|e| Failure(format!("'{name}' is not a usable ELF file: {e}")))?;
    if elf.ehdr.e_machine != EM_X86_64 {
        return Err(Failure(format!("'{name}' is not for x86-64")));
    }
    Ok(elf)
}

/// First instruction of a program.
pub fn entry(name: &str, bytes: &[u8]) -> Result<u64, Failure> {
    Ok(parse(name, bytes)?.ehdr.e_entry)
}

/// One segment, checked.
struct Segment {
    address: u64,
    offset: u64,
    in_file: u64,
    in_memory: u64,
    rights: MemRights,
}

fn segments(name: &str, bytes: &[u8]) -> Result<alloc::vec::Vec<Segment>, Failure> {
    let elf = parse(name, bytes)?;
    let table = elf.segments().ok_or_else(|| Failure(format!("'{name}' has no segments")))?;
    let loaded = table.iter().filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0);
    loaded
        .map(|p| {
            let end = p.p_offset.checked_add(p.p_filesz);
            let aligned = p.p_vaddr.is_multiple_of(4096) && p.p_offset.is_multiple_of(4096);
            if !aligned || end.is_none_or(|e| e > bytes.len() as u64) || p.p_filesz > p.p_memsz {
                return Err(Failure(format!("'{name}': segment at {:#x} is bad", p.p_vaddr)));
            }
            let rights = match (p.p_flags & PF_W != 0, p.p_flags & PF_X != 0) {
                (false, false) => MemRights::READ,
                (true, false) => RW,
                (false, true) => MemRights::READ | MemRights::EXEC,
                (true, true) => {
                    return Err(Failure(format!("'{name}' wants memory to write and execute")));
                }
            };
            let (address, offset) = (p.p_vaddr, p.p_offset);
            Ok(Segment { address, offset, in_file: p.p_filesz, in_memory: p.p_memsz, rights })
        })
        .collect()
}

impl Builder {
    /// Gives program `n` its code and data.
    pub fn load_program(&mut self, n: usize) -> Result<(), Failure> {
        let declared = self.description.programs[n].clone();
        let bytes = self.contents(&declared.file)?;
        let (number, file) = self.file(&declared.file)?;
        let start = file.offset;
        let space = self.programs[n].space;
        for segment in segments(&declared.file, &bytes)? {
            let length = segment.in_memory.next_multiple_of(4096);
            if segment.rights.contains(MemRights::WRITE) {
                let at = self.ram.take(length, 4096, true)?;
                let (from, to) = (segment.offset as usize, segment.in_file as usize);
                let data = bytes.get(from..from + to).unwrap_or(&[]);
                let written = self.ram.view.write(at, data);
                written.map_err(|_| Failure("RAM window".into()))?;
                let ram = own(RootSelector::Ram);
                pinned_in(space, segment.address, ram, at, length, segment.rights)?;
            } else if declared.pinned {
                let (archive, at) = (own(RootSelector::Archive), start + segment.offset);
                pinned_in(space, segment.address, archive, at, length, segment.rights)?;
            } else {
                let portal = self.portal_on(1, self.programs[n].threads[0].cpu, n as u64)?;
                let tag = Tag { object: number, offset: segment.offset };
                let tag = tag.encode().ok_or_else(|| Failure("tag".into()))?;
                let rights = segment.rights;
                let base = segment.address;
                let bind = Bind { space, base, length, portal, tag, rights, hint: 12 };
                sys::region_bind(bind)
                    .map_err(Failure::kernel(format!("code of {}", declared.name)))?;
            }
        }
        Ok(())
    }
}
