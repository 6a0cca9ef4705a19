//! All pages that user-mode code can execute.
use crate::{ADDRESS, LARGE, NO_EXECUTE, PAGE, PRESENT, Space, USER, WRITABLE};
use core::ops::ControlFlow;
use memory::Memory;

/// Tables that one walk reads at most: enough for what a guest of 3 GiB can map, with room for pages
/// that are mapped often.
pub const TABLES: u32 = 8192;
/// Entries that are copied at a time.
const PIECE: u64 = 64;
/// Entries of the top table that belong to programs.
const USER_HALF: u64 = 256;

/// A page, of any size, that user-mode code can execute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Executable {
    /// Its first address.
    pub address: u64,
    /// Guest-physical address of its first byte.
    pub physical: u64,
    /// Bytes: 4 KiB, 2 MiB or 1 GiB.
    pub length: u64,
    /// User-mode code can write to it, too.
    pub writable: bool,
}

/// Why a walk ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwalked<B> {
    /// A table that no processor would accept, or outside of memory; the first address it is about.
    Bad(u64),
    /// More than [`TABLES`] tables.
    Endless,
    /// The visitor has seen enough.
    Broken(B),
}

struct Walk<'w, M: ?Sized, V> {
    memory: &'w M,
    left: u32,
    visit: V,
}

impl<M: Memory + ?Sized> Space<'_, M> {
    /// Shows every present page that user-mode code can execute to `visit`, by rising addresses, until
    /// that breaks off. Only the user half is walked; the tables are not written to.
    ///
    /// # Errors
    /// `Unwalked`.
    pub fn executable<B>(
        &self,
        visit: impl FnMut(Executable) -> ControlFlow<B>,
    ) -> Result<(), Unwalked<B>> {
        Walk { memory: self.memory, left: TABLES, visit }.table(self.root, 39, 0, true)
    }
}

impl<M: Memory + ?Sized, B, V: FnMut(Executable) -> ControlFlow<B>> Walk<'_, M, V> {
    /// Walks a table whose entries are about `1 << shift` bytes each. It calls itself three times
    /// deep at most.
    fn table(
        &mut self,
        table: u64,
        shift: u32,
        base: u64,
        writable: bool,
    ) -> Result<(), Unwalked<B>> {
        self.left = self.left.checked_sub(1).ok_or(Unwalked::Endless)?;
        let entries = if shift == 39 { USER_HALF } else { 512 };
        let mut piece = [0; PIECE as usize * 8];
        for first in (0..entries).step_by(PIECE as usize) {
            let read = self.memory.read(table + first * 8, &mut piece);
            read.map_err(|_| Unwalked::Bad(base + (first << shift)))?;
            for (n, entry) in piece.chunks_exact(8).enumerate() {
                let entry = entry.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                if entry & (PRESENT | USER | NO_EXECUTE) == PRESENT | USER {
                    let address = base + ((first + n as u64) << shift);
                    self.entry(entry, shift, address, writable && entry & WRITABLE != 0)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: u64,
        shift: u32,
        address: u64,
        writable: bool,
    ) -> Result<(), Unwalked<B>> {
        if shift != 12 && entry & LARGE == 0 {
            return self.table(entry & ADDRESS, shift - 9, address, writable);
        }
        if shift == 39 {
            return Err(Unwalked::Bad(address));
        }
        let length = PAGE << (shift - 12);
        let physical = entry & ADDRESS & !(length - 1);
        let page = Executable { address, physical, length, writable };
        match (self.visit)(page) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(why) => Err(Unwalked::Broken(why)),
        }
    }
}
