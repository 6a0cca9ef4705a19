//! Folders: blocks that begin with fixed entries, the names behind them.
use crate::fields::Fields;
use crate::{Error, Image, Inode, Kind, Source};
use alloc::vec::Vec;

/// Bytes of an entry without its name.
const ENTRY: usize = 12;

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Number of the inode.
    pub number: u64,
}

impl<S: Source + ?Sized> Image<'_, S> {
    /// What a folder holds, without itself and the one above it.
    ///
    /// # Errors
    /// `NotFound` for what is no folder; `Damaged`.
    pub fn list(&self, folder: &Inode) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.blocks(folder, |block| {
            read_block(block, &mut entries)?;
            Ok(false)
        })?;
        entries.retain(|e| e.name != b"." && e.name != b"..");
        Ok(entries)
    }

    /// Number of the inode of a name in a folder.
    pub(crate) fn look_up(&self, folder: &Inode, name: &[u8]) -> Result<Option<u64>, Error> {
        let mut found = None;
        self.blocks(folder, |block| {
            let mut entries = Vec::new();
            read_block(block, &mut entries)?;
            found = entries.iter().find(|e| e.name == name).map(|e| e.number);
            Ok(found.is_some())
        })?;
        Ok(found)
    }

    /// Runs `read` over the blocks of a folder, until it answers true.
    fn blocks(
        &self,
        folder: &Inode,
        mut read: impl FnMut(&[u8]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if folder.kind != Kind::Folder {
            return Err(Error::NotFound);
        }
        if folder.size > self.source.length() {
            return Err(Error::Damaged);
        }
        let whole = 1u64 << self.block_bits;
        let mut at = 0;
        while at < folder.size {
            let length = whole.min(folder.size - at);
            let mut block = alloc::vec![0; length as usize];
            self.read(folder, at, &mut block)?;
            if read(&block)? {
                break;
            }
            at += length;
        }
        Ok(())
    }
}

fn read_block(block: &[u8], entries: &mut Vec<Entry>) -> Result<(), Error> {
    let name_at = |n: usize| Fields(block).u16(n * ENTRY + 8).map(usize::from);
    // The first name stands behind the last entry.
    let names = name_at(0)?;
    let count = names / ENTRY;
    if count == 0 || !names.is_multiple_of(ENTRY) {
        return Err(Error::Damaged);
    }
    for n in 0..count {
        let start = name_at(n)?;
        let end = if n + 1 < count { name_at(n + 1)? } else { block.len() };
        let name = block.get(start..end).ok_or(Error::Damaged)?;
        // The last one ends with a NUL, or with the block.
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        entries.push(Entry { name: name.to_vec(), number: Fields(block).u64(n * ENTRY)? });
    }
    Ok(())
}
