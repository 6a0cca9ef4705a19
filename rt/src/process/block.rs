//! The memory of a process: its part of what its parent has for processes.
use super::{Error, File, Means, Start};
use crate::sys::Pinned;
use abi::{MemRights, PAGE_SIZE, Selector};
use executable::{Executable, Segment};
use memory::Memory;

/// Bytes copied at a time.
const CHUNK: usize = 4096;
/// Pages of the smallest size.
const HINT: u64 = 12;
/// Reading and writing.
pub const RW: MemRights = MemRights::READ.union(MemRights::WRITE);

/// Whole pages.
pub const fn whole(bytes: u64) -> u64 {
    bytes.saturating_add(PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE
}

/// The memory of one process.
pub struct Block<'a> {
    means: &'a Means,
    space: Selector,
    start: u64,
    used: u64,
}

impl<'a> Block<'a> {
    /// The part number `place`, for the process with that space.
    pub fn of(means: &'a Means, place: usize, space: Selector) -> Self {
        Self { means, space, start: place as u64 * means.each, used: 0 }
    }

    /// Refuses what will not fit, before anything of it is made.
    pub fn need(&self, program: &Executable, start: &Start<'_>) -> Result<(), Error> {
        let parts = [program.data_bytes(), whole(start.heap), whole(start.stack), PAGE_SIZE];
        let bytes = parts.into_iter().fold(0, u64::saturating_add);
        if bytes > self.means.each { Err(Error::Memory(bytes)) } else { Ok(()) }
    }

    /// Takes memory, writes `contents` and zeros into it, and maps it at `address` of the process.
    pub fn take(
        &mut self,
        address: u64,
        length: u64,
        rights: MemRights,
        contents: &[u8],
    ) -> Result<(), Error> {
        let at = self.reserve(length)?;
        let rest = length - contents.len() as u64;
        let view = &self.means.view;
        view.write(at, contents)
            .and_then(|()| view.zero(at + contents.len() as u64, rest))
            .map_err(|_| Error::Memory(self.used))?;
        self.map(address, at, length, rights)
    }

    /// A segment of data: copied from the file.
    pub fn data(&mut self, file: &File, segment: &Segment) -> Result<(), Error> {
        let at = self.reserve(segment.in_memory)?;
        let (view, mut done) = (&self.means.view, 0);
        let mut chunk = [0; CHUNK];
        while done < segment.in_file {
            let part = (segment.in_file - done).min(CHUNK as u64);
            let bytes = &mut chunk[..part as usize];
            file.view
                .read(segment.offset + done, bytes)
                .and_then(|()| view.write(at + done, bytes))
                .map_err(|_| Error::Memory(self.used))?;
            done += part;
        }
        view.zero(at + done, segment.in_memory - done).map_err(|_| Error::Memory(self.used))?;
        self.map(segment.address, at, segment.in_memory, segment.rights)
    }

    fn reserve(&mut self, length: u64) -> Result<u64, Error> {
        let at = self.start + self.used;
        self.used = self.used.saturating_add(length);
        if self.used > self.means.each { Err(Error::Memory(self.used)) } else { Ok(at) }
    }

    fn map(&self, address: u64, at: u64, length: u64, rights: MemRights) -> Result<(), Error> {
        let (memory, offset) = (self.means.memory, self.means.offset + at);
        show(self.space, Pinned { base: address, memory, offset, length, rights })
    }
}

/// A pinned region, mapped; nothing for no bytes.
pub fn show(space: Selector, pinned: Pinned) -> Result<(), Error> {
    if pinned.length == 0 { Ok(()) } else { pinned.show(space, HINT).map_err(Error::at("memory")) }
}
