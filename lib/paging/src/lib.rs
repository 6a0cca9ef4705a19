//! The address spaces inside a guest: a walk of its 4-level page tables (AMD APM volume 2,
//! section 5.3), and copies in and out of them, page by page.
//!
//! The tables are the guest's and taken for hostile: every address is checked by
//! [`Memory`], every walk has four steps at most, whatever the tables say.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod walk;

pub use walk::{Executable, TABLES, Unwalked};

use memory::Memory;

/// Bytes of the smallest page.
pub const PAGE: u64 = 4096;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 12..=51: physical address of a table or page.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Page-table root in CR3; the low bits hold flags or a PCID.
const ROOT: u64 = ADDRESS;

/// What is going to be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// User-mode read.
    Read,
    /// User-mode write.
    Write,
    /// User-mode instruction fetch.
    Execute,
    /// The guest kernel's read, of its own pages or the user's.
    KernelRead,
}

/// Why an address cannot be accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Absent, or present without the right (copy-on-write, for example): the guest's kernel may
    /// be able to change that.
    NeedsPopulate,
    /// Never: not a canonical user address, or a table that no processor would accept.
    Bad,
}

/// Where a copy stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// Bytes that were copied before.
    pub done: usize,
    /// First address that could not be accessed.
    pub address: u64,
    /// Why.
    pub fault: Fault,
}

/// A found page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Guest-physical address of the byte looked for.
    pub physical: u64,
    /// Bytes from there to the end of the page.
    pub left: u64,
}

/// An address space of a guest, by its page-table root.
#[derive(Clone, Copy, Debug)]
pub struct Space<'m, M: ?Sized> {
    memory: &'m M,
    root: u64,
    mark: bool,
}

impl<'m, M: Memory + ?Sized> Space<'m, M> {
    /// The space that `cr3` names in a guest whose processor **does not run** meanwhile: walks
    /// set the accessed and dirty bits, as the processor does.
    #[must_use]
    pub const fn stopped(memory: &'m M, cr3: u64) -> Self {
        Self { memory, root: cr3 & ROOT, mark: true }
    }

    /// The same without ever writing to the tables, for a guest that runs.
    #[must_use]
    pub const fn running(memory: &'m M, cr3: u64) -> Self {
        Self { memory, root: cr3 & ROOT, mark: false }
    }

    /// Finds the page behind a virtual address.
    ///
    /// # Errors
    /// `Fault`.
    pub fn find(&self, address: u64, access: Access) -> Result<Found, Fault> {
        let canonical = ((address << 16) as i64 >> 16) as u64;
        let user = access != Access::KernelRead;
        if canonical != address || user && address >> 47 != 0 {
            return Err(Fault::Bad);
        }
        let mut table = self.root;
        let mut writable = true;
        for shift in [39u32, 30, 21, 12] {
            let at = table + ((address >> shift) & 511) * 8;
            let entry = self.memory.read64(at).map_err(|_| Fault::Bad)?;
            if entry & PRESENT == 0 || user && entry & USER == 0 {
                return Err(Fault::NeedsPopulate);
            }
            writable &= entry & WRITABLE != 0;
            if access == Access::Execute && entry & NO_EXECUTE != 0 {
                return Err(Fault::NeedsPopulate);
            }
            let leaf = shift == 12 || entry & LARGE != 0;
            if leaf {
                if shift == 39 {
                    return Err(Fault::Bad);
                }
                if access == Access::Write && !writable {
                    return Err(Fault::NeedsPopulate);
                }
                let dirty = if access == Access::Write { DIRTY } else { 0 };
                self.note(at, entry, ACCESSED | dirty)?;
                let size = 1u64 << shift;
                let inside = address & (size - 1);
                let physical = (entry & ADDRESS & !(size - 1)) + inside;
                return Ok(Found { physical, left: size - inside });
            }
            self.note(at, entry, ACCESSED)?;
            table = entry & ADDRESS;
        }
        Err(Fault::Bad)
    }

    /// Sets accessed and dirty bits that are not set yet.
    fn note(&self, at: u64, entry: u64, bits: u64) -> Result<(), Fault> {
        if !self.mark || entry & bits == bits {
            return Ok(());
        }
        // Both bits are in the lower half.
        self.memory.store32(at, (entry | bits) as u32).map_err(|_| Fault::Bad)
    }

    /// Runs `piece(physical address, offset in the whole, length)` for each contiguous part of
    /// `address .. address + length`.
    fn pieces(
        &self,
        address: u64,
        length: usize,
        access: Access,
        mut piece: impl FnMut(u64, usize, usize) -> bool,
    ) -> Result<(), Stopped> {
        let mut done = 0;
        while done < length {
            let stop = |address, fault| Stopped { done, address, fault };
            let at = match address.checked_add(done as u64) {
                Some(at) => at,
                None => return Err(stop(u64::MAX, Fault::Bad)),
            };
            let found = self.find(at, access).map_err(|fault| stop(at, fault))?;
            let left = usize::try_from(found.left).unwrap_or(usize::MAX);
            let part = left.min(length - done);
            if !piece(found.physical, done, part) {
                return Err(stop(at, Fault::Bad));
            }
            done += part;
        }
        Ok(())
    }

    /// Copies out of the space.
    ///
    /// # Errors
    /// `Stopped`; what lies before the bad address has been copied.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Stopped> {
        self.read_as(address, into, Access::Read)
    }

    /// Copies out of the space with the kernel's rights.
    ///
    /// # Errors
    /// `Stopped`.
    pub fn read_kernel(&self, address: u64, into: &mut [u8]) -> Result<(), Stopped> {
        self.read_as(address, into, Access::KernelRead)
    }

    /// Copies instructions out of the space.
    ///
    /// # Errors
    /// `Stopped`.
    pub fn fetch(&self, address: u64, into: &mut [u8]) -> Result<(), Stopped> {
        self.read_as(address, into, Access::Execute)
    }

    fn read_as(&self, address: u64, into: &mut [u8], access: Access) -> Result<(), Stopped> {
        self.pieces(address, into.len(), access, |physical, offset, part| {
            into.get_mut(offset..offset + part)
                .is_some_and(|to| self.memory.read(physical, to).is_ok())
        })
    }

    /// Copies into the space.
    ///
    /// # Errors
    /// `Stopped`; what lies before the bad address has been copied.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Stopped> {
        self.pieces(address, from.len(), Access::Write, |physical, offset, part| {
            from.get(offset..offset + part)
                .is_some_and(|bytes| self.memory.write(physical, bytes).is_ok())
        })
    }

    /// Writes where the program itself may only read or execute (a breakpoint's privilege): the
    /// page must be present, and is changed for everyone who shares it.
    ///
    /// # Errors
    /// `Stopped`.
    pub fn write_through(&self, address: u64, from: &[u8]) -> Result<(), Stopped> {
        self.pieces(address, from.len(), Access::Read, |physical, offset, part| {
            from.get(offset..offset + part)
                .is_some_and(|bytes| self.memory.write(physical, bytes).is_ok())
        })
    }

    /// Checks that a whole range can be accessed now.
    ///
    /// # Errors
    /// `Stopped` at the first page that cannot.
    pub fn probe(&self, address: u64, length: usize, access: Access) -> Result<(), Stopped> {
        self.pieces(address, length, access, |_, _, _| true)
    }

    /// Copies a string up to its NUL, which is left out; at most `into.len()` bytes with the NUL.
    ///
    /// # Errors
    /// `Ok(None)` when there is no NUL within the limit; `Stopped` where a page is missing.
    pub fn read_string(&self, address: u64, into: &mut [u8]) -> Result<Option<usize>, Stopped> {
        let mut end = None;
        let limit = into.len();
        let result = self.pieces(address, limit, Access::Read, |physical, offset, part| {
            let Some(to) = into.get_mut(offset..offset + part) else { return false };
            if self.memory.read(physical, to).is_err() {
                return false;
            }
            end = to.iter().position(|b| *b == 0).map(|n| offset + n);
            end.is_none()
        });
        match (end, result) {
            (Some(n), _) => Ok(Some(n)),
            (None, Err(stopped)) => Err(stopped),
            (None, Ok(())) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk_tests;
