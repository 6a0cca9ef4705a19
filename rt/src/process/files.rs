//! Executable files: in the boot archive, or in any other memory.
use super::Error;
use crate::Shared;
use abi::Selector;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use archive::Archive;
use memory::Memory;

/// A file in memory. What is checked of it is copied first; its code is executed where it is, so whoever may
/// write to that memory may change the program.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// The memory; must be executable.
    pub memory: Selector,
    /// Offset of the file in that memory; a multiple of the page size.
    pub offset: u64,
    /// The file's bytes, as this program sees them.
    pub view: Shared,
}

/// The files of an archive.
pub struct Files {
    memory: Selector,
    view: Shared,
    list: Vec<(String, u64, u64)>,
}

impl Files {
    /// The archive that is the whole of `memory`, which is mapped as `view`.
    ///
    /// # Errors
    /// `Archive`.
    pub fn open(memory: Selector, view: Shared) -> Result<Self, Error> {
        let mut index = vec![0; Archive::INDEX_LIMIT.min(view.len() as usize)];
        view.read(0, &mut index).map_err(|_| Error::Archive(archive::Error::Truncated))?;
        let parsed = Archive::parse(&index, view.len()).map_err(Error::Archive)?;
        let list = parsed.entries().map(|e| (String::from(e.name), e.offset, e.length)).collect();
        Ok(Self { memory, view, list })
    }

    /// The boot archive, where the system description lets this program start processes.
    ///
    /// # Errors
    /// `NotAllowed`, `Archive`.
    pub fn of_boot_archive() -> Result<Self, Error> {
        let memory = crate::config().capability("archive").map(Selector);
        let (memory, view) = memory.zip(Shared::region("archive")).ok_or(Error::NotAllowed)?;
        Self::open(memory, view)
    }

    /// The file of that name.
    ///
    /// # Errors
    /// `NoFile`.
    pub fn find(&self, name: &str) -> Result<File, Error> {
        let found = self.list.iter().find(|(n, ..)| n == name).ok_or(Error::NoFile)?;
        let view = self.view.part(found.1, found.2).map_err(|_| Error::NoFile)?;
        Ok(File { memory: self.memory, offset: found.1, view })
    }
}
