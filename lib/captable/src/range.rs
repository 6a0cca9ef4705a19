//! What a capability to memory stands for, and what can be made of it.
use abi::{Error, HostPhys, MemRights, ObjRights, PAGE_SIZE};

/// A range of physical memory with rights: what a memory capability is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    /// First byte, page aligned.
    pub base: HostPhys,
    /// Bytes, whole pages.
    pub length: u64,
    /// Rights.
    pub rights: MemRights,
}

impl MemoryRange {
    /// A part of it, with fewer rights. Device memory stays what it is: it is checked as such
    /// wherever it is mapped.
    ///
    /// # Errors
    /// `BadArgument` when it is not made of whole pages inside, `NoRight` for more rights.
    pub fn part(&self, offset: u64, length: u64, rights: MemRights) -> Result<Self, Error> {
        let aligned = offset.is_multiple_of(PAGE_SIZE) && length.is_multiple_of(PAGE_SIZE);
        let end = offset.checked_add(length).ok_or(Error::BadArgument)?;
        if !aligned || length == 0 || end > self.length {
            return Err(Error::BadArgument);
        }
        if !self.rights.contains(rights) {
            return Err(Error::NoRight);
        }
        let rights = rights | self.rights & MemRights::DEVICE;
        Ok(Self { base: HostPhys(self.base.0 + offset), length, rights })
    }

    /// All of it, with those of its rights that the mask names. Device memory stays what it is.
    #[must_use]
    pub fn masked(self, mask: u64) -> Self {
        let mask = MemRights::from_bits_truncate(mask) | MemRights::DEVICE;
        Self { rights: self.rights & mask, ..self }
    }
}

/// Rights of a copy of a capability with these rights, cut down to a mask: into the table that it is in, or into another one.
///
/// # Errors
/// `NoRight` when it may not leave its table.
pub fn copied(rights: ObjRights, mask: u64, same_table: bool) -> Result<ObjRights, Error> {
    if same_table || rights.contains(ObjRights::GRANT) {
        Ok(rights & ObjRights::from_bits_truncate(mask))
    } else {
        Err(Error::NoRight)
    }
}
