//! The kernel's own page tables.
use crate::change::next_table;
use crate::entry::{
    ACCESSED, DIRTY, LARGE, NO_EXECUTE, PRESENT, ROOT_LEVEL, USER, WRITE, size_of_level, slot,
};
use crate::{FrameSource, NoFrames, Physical};
use abi::HostPhys;
use core::marker::PhantomData;

/// Rights of a part of the kernel's image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelRights {
    /// Code.
    Execute,
    /// Constants.
    Read,
    /// Everything else.
    Write,
}

impl KernelRights {
    fn flags(self) -> u64 {
        let bits = PRESENT | ACCESSED;
        match self {
            KernelRights::Execute => bits,
            KernelRights::Read => bits | NO_EXECUTE,
            KernelRights::Write => bits | WRITE | DIRTY | NO_EXECUTE,
        }
    }
}

/// The kernel's own tables, built once at boot.
#[derive(Debug)]
pub struct KernelTables<P> {
    root: HostPhys,
    memory: PhantomData<fn() -> P>,
}

impl<P: Physical> KernelTables<P> {
    /// Empty tables, with all roots' shared entries in place.
    pub fn new(frames: &mut impl FrameSource) -> Result<Self, NoFrames> {
        Ok(Self { root: frames.take().ok_or(NoFrames)?, memory: PhantomData })
    }

    /// Physical address of the root.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Maps memory for the kernel, with 2 MiB pages when `large`.
    ///
    /// # Errors
    /// `NoFrames`.
    pub fn map(
        &mut self,
        range: (u64, u64),
        to: HostPhys,
        rights: KernelRights,
        large: bool,
        frames: &mut impl FrameSource,
    ) -> Result<(), NoFrames> {
        let level = u32::from(large);
        let size = size_of_level(level);
        let leaf = rights.flags() | if large { LARGE } else { 0 };
        for (index, at) in (range.0..range.1).step_by(size as usize).enumerate() {
            let mut table = self.root;
            for above in (level + 1..=ROOT_LEVEL).rev() {
                let entry = slot(table, above, at);
                table = next_table::<P>(entry, above, frames)?;
                // The user bit is for user pages only.
                P::write(entry, P::read(entry) & !USER);
            }
            P::write(slot(table, level, at), (to.0 + index as u64 * size) | leaf);
        }
        Ok(())
    }
}
