//! ELF files of native programs, as nobody vouches for them: what is to be mapped where, and where the
//! program begins. Everything is checked from a copy of the file's first bytes; the rest of the file
//! is contents that the program itself gives a meaning to.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use abi::{MemRights, PAGE_SIZE, USER_END};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use elf::abi::{EI_NIDENT, EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::{ParseAt, ParsingTable};
use elf::segment::ProgramHeader;

/// Bytes at the start of a file that must hold its headers.
pub const HEAD: usize = 4096;
/// Most segments to be loaded.
pub const MOST_SEGMENTS: usize = 16;
/// Most bytes of a segment in memory.
pub const MOST_BYTES: u64 = 1 << 30;

/// Bytes of the file header (ELF-64 Object File Format 1.5, figure 2).
const FILE_HEADER: usize = 64;

/// Why a file can't be run. Addresses are those of the segment, as the file states them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// It does not start with a header of an ELF file, or its table of segments is not within
    /// the first [`HEAD`] bytes.
    NotElf,
    /// It is not a static executable for x86-64 (64 bits, little endian).
    OtherKind,
    /// Nothing to load, or more than [`MOST_SEGMENTS`].
    SegmentCount,
    /// The segment does not begin at a page of memory and of the file.
    Unaligned(u64),
    /// The segment lies, or reaches, outside of the addresses that programs can have.
    Address(u64),
    /// The segment is larger than [`MOST_BYTES`], or smaller in memory than in the file.
    Size(u64),
    /// The file ends before the segment does.
    Truncated(u64),
    /// Memory that is written to and executed.
    WritableCode(u64),
    /// Memory that can't be written to, and that the file has no contents for.
    EmptyConstants(u64),
    /// The segment begins before another one ends.
    Overlap(u64),
    /// The first instruction (this address) is not in a segment that is executed.
    Entry(u64),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Defect::NotElf => f.write_str("not an ELF file, or its headers are not at its start"),
            Defect::OtherKind => f.write_str("not a static x86-64 executable"),
            Defect::SegmentCount => {
                write!(f, "nothing to load, or more than {MOST_SEGMENTS} segments")
            }
            Defect::Unaligned(at) => write!(f, "the segment at {at:#x} is not aligned to pages"),
            Defect::Address(at) => write!(f, "the segment at {at:#x} is outside of user memory"),
            Defect::Size(at) => write!(f, "the segment at {at:#x} has an impossible size"),
            Defect::Truncated(at) => write!(f, "the file ends before its segment at {at:#x} does"),
            Defect::WritableCode(at) => {
                write!(f, "the segment at {at:#x} is writable and executable")
            }
            Defect::EmptyConstants(at) => {
                write!(f, "the segment at {at:#x} is read-only, and longer than its contents")
            }
            Defect::Overlap(at) => write!(f, "the segment at {at:#x} overlaps another one"),
            Defect::Entry(at) => write!(f, "the entry {at:#x} is not in the program's code"),
        }
    }
}

/// A segment to load. Its length in memory is one of whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First address; a multiple of the page size.
    pub address: u64,
    /// Where its contents are in the file; a multiple of the page size.
    pub offset: u64,
    /// Bytes of contents; what follows them is zero.
    pub in_file: u64,
    /// Bytes of memory, in whole pages; never 0.
    pub in_memory: u64,
    /// READ, and WRITE or EXEC but not both.
    pub rights: MemRights,
}

impl Segment {
    /// One past the last address.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address + self.in_memory
    }

    /// True for memory of the program's own; what can't be written may be mapped from the file.
    #[must_use]
    pub const fn is_data(&self) -> bool {
        self.rights.contains(MemRights::WRITE)
    }
}

/// What a file says about a program, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executable {
    /// First instruction; inside an executable segment.
    pub entry: u64,
    /// Segments by ascending address; none overlap.
    pub segments: Vec<Segment>,
}

impl Executable {
    /// Checks the start of a file. `head` is a copy of its first bytes, [`HEAD`] of them where it is that
    /// long; `length` is that of the whole file; segments must lie within `allowed` and below the
    /// kernel.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(head: &[u8], length: u64, allowed: &Range<u64>) -> Result<Self, Defect> {
        let header = file_header(head)?;
        let mut segments = program_headers(head, &header)?
            .filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0)
            .map(|p| segment(&p, length, allowed))
            .take(MOST_SEGMENTS + 1)
            .collect::<Result<Vec<_>, _>>()?;
        if segments.is_empty() || segments.len() > MOST_SEGMENTS {
            return Err(Defect::SegmentCount);
        }
        segments.sort_unstable_by_key(|s| s.address);
        for pair in segments.windows(2) {
            if pair[0].end() > pair[1].address {
                return Err(Defect::Overlap(pair[1].address));
            }
        }
        let entry = header.e_entry;
        let code = |s: &Segment| {
            s.rights.contains(MemRights::EXEC)
                && (s.address..s.address + s.in_file).contains(&entry)
        };
        if !segments.iter().any(code) {
            return Err(Defect::Entry(entry));
        }
        Ok(Self { entry, segments })
    }

    /// Bytes of memory that the program's data takes, in whole pages.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.segments.iter().filter(|s| s.is_data()).map(|s| s.in_memory).sum()
    }
}

fn file_header(head: &[u8]) -> Result<FileHeader<LittleEndian>, Defect> {
    let ident = head.get(..EI_NIDENT).ok_or(Defect::NotElf)?;
    let tail = head.get(EI_NIDENT..FILE_HEADER).ok_or(Defect::NotElf)?;
    let ident = parse_ident::<LittleEndian>(ident).map_err(|_| Defect::NotElf)?;
    if ident.1 != Class::ELF64 {
        return Err(Defect::OtherKind);
    }
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| Defect::NotElf)?;
    if header.e_machine != EM_X86_64 || header.e_type != ET_EXEC {
        return Err(Defect::OtherKind);
    }
    Ok(header)
}

fn program_headers<'a>(
    head: &'a [u8],
    header: &FileHeader<LittleEndian>,
) -> Result<impl Iterator<Item = ProgramHeader> + use<'a>, Defect> {
    let size = ProgramHeader::size_for(Class::ELF64);
    if usize::from(header.e_phentsize) != size {
        return Err(Defect::NotElf);
    }
    let start = usize::try_from(header.e_phoff).map_err(|_| Defect::NotElf)?;
    let end = start.checked_add(usize::from(header.e_phnum) * size).ok_or(Defect::NotElf)?;
    let table = head.get(start..end).ok_or(Defect::NotElf)?;
    let table = ParsingTable::<_, ProgramHeader>::new(LittleEndian, Class::ELF64, table);
    Ok(table.into_iter())
}

fn segment(p: &ProgramHeader, length: u64, allowed: &Range<u64>) -> Result<Segment, Defect> {
    let at = p.p_vaddr;
    if !at.is_multiple_of(PAGE_SIZE) || !p.p_offset.is_multiple_of(PAGE_SIZE) {
        return Err(Defect::Unaligned(at));
    }
    if p.p_memsz > MOST_BYTES || p.p_filesz > p.p_memsz {
        return Err(Defect::Size(at));
    }
    let in_memory = p.p_memsz.next_multiple_of(PAGE_SIZE);
    let end = at.checked_add(in_memory).ok_or(Defect::Address(at))?;
    if at < allowed.start.max(PAGE_SIZE) || end > allowed.end.min(USER_END) {
        return Err(Defect::Address(at));
    }
    if p.p_offset.checked_add(p.p_filesz).is_none_or(|end| end > length) {
        return Err(Defect::Truncated(at));
    }
    let (write, execute) = (p.p_flags & PF_W != 0, p.p_flags & PF_X != 0);
    if write && execute {
        return Err(Defect::WritableCode(at));
    }
    if !write && p.p_filesz.next_multiple_of(PAGE_SIZE) != in_memory {
        return Err(Defect::EmptyConstants(at));
    }
    let mut rights = MemRights::READ;
    rights.set(MemRights::WRITE, write);
    rights.set(MemRights::EXEC, execute);
    Ok(Segment { address: at, offset: p.p_offset, in_file: p.p_filesz, in_memory, rights })
}

#[cfg(test)]
mod tests;
