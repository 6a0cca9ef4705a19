//! Capability tables: slots by selector, made in chunks as they are used; what a capability to memory is; and
//! the quotas that pay for both.
//!
//! A table holds values of any small type; what a capability means is the kernel's business. Slot 0
//! is never used, so that selector 0 can stand for "none".
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

mod quota;
mod range;

pub use quota::Quota;
pub use range::{MemoryRange, copied};

use abi::{Error, SELECTOR_LIMIT, Selector};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Slots of a chunk.
const CHUNK: usize = 64;
/// Chunks of a table.
const CHUNKS: usize = SELECTOR_LIMIT as usize / CHUNK;

type Chunk<C> = [Option<C>; CHUNK];

/// The capabilities of one space.
#[derive(Debug)]
pub struct Table<C> {
    chunks: Vec<Option<Box<Chunk<C>>>>,
    used: usize,
}

impl<C: Copy> Default for Table<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Copy> Table<C> {
    /// An empty table, which takes no memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), used: 0 }
    }

    /// Bytes that [`insert`](Self::insert) at this selector will allocate.
    #[must_use]
    pub fn cost(&self, selector: Selector) -> usize {
        let list =
            if self.chunks.is_empty() { CHUNKS * size_of::<Option<Box<Chunk<C>>>>() } else { 0 };
        match self.chunks.get(selector.0 as usize / CHUNK) {
            Some(Some(_)) => 0,
            _ => list + size_of::<Chunk<C>>(),
        }
    }

    /// Most bytes that a table can allocate.
    #[must_use]
    pub const fn largest() -> usize {
        CHUNKS * (size_of::<Chunk<C>>() + size_of::<Option<Box<Chunk<C>>>>())
    }

    /// The capability in a slot.
    ///
    /// # Errors
    /// `BadCapability` for an empty slot or a selector out of range.
    #[inline]
    pub fn get(&self, selector: Selector) -> Result<C, Error> {
        self.look_up(u64::from(selector.0)).copied()
    }

    /// The capability in the slot of a selector that was not checked before.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline(always)]
    pub fn look_up(&self, selector: u64) -> Result<&C, Error> {
        match self.chunks.get((selector / CHUNK as u64) as usize) {
            Some(Some(chunk)) => {
                chunk[(selector % CHUNK as u64) as usize].as_ref().ok_or(Error::BadCapability)
            }
            _ => Err(Error::BadCapability),
        }
    }

    /// Says whether [`insert`](Self::insert) would be refused.
    ///
    /// # Errors
    /// `BadCapability` for selector 0 or one out of range, `Occupied` for a used slot.
    pub fn check_free(&self, selector: Selector) -> Result<(), Error> {
        if selector.0 == 0 || selector.0 >= SELECTOR_LIMIT {
            return Err(Error::BadCapability);
        }
        match self.get(selector) {
            Ok(_) => Err(Error::Occupied),
            Err(_) => Ok(()),
        }
    }

    /// Allocates what [`cost`](Self::cost) told, so that filling the slot later takes no memory.
    ///
    /// # Errors
    /// As [`check_free`](Self::check_free).
    pub fn reserve(&mut self, selector: Selector) -> Result<(), Error> {
        self.check_free(selector)?;
        if self.chunks.is_empty() {
            self.chunks.reserve_exact(CHUNKS);
            self.chunks.resize_with(CHUNKS, || None);
        }
        let chunk = &mut self.chunks[selector.0 as usize / CHUNK];
        chunk.get_or_insert_with(|| Box::new([None; CHUNK]));
        Ok(())
    }

    /// Fills an empty slot.
    ///
    /// # Errors
    /// As [`check_free`](Self::check_free).
    pub fn insert(&mut self, selector: Selector, capability: C) -> Result<(), Error> {
        self.reserve(selector)?;
        let index = selector.0 as usize;
        if let Some(Some(chunk)) = self.chunks.get_mut(index / CHUNK) {
            chunk[index % CHUNK] = Some(capability);
            self.used += 1;
        }
        Ok(())
    }

    /// Empties a slot and tells what was in it.
    ///
    /// # Errors
    /// `BadCapability` when nothing was.
    pub fn remove(&mut self, selector: Selector) -> Result<C, Error> {
        let index = selector.0 as usize;
        let Some(Some(chunk)) = self.chunks.get_mut(index / CHUNK) else {
            return Err(Error::BadCapability);
        };
        let capability = chunk[index % CHUNK].take().ok_or(Error::BadCapability)?;
        self.used -= 1;
        Ok(capability)
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    /// All capabilities.
    pub fn iter(&self) -> impl Iterator<Item = C> + '_ {
        self.chunks.iter().flatten().flat_map(|chunk| chunk.iter().flatten().copied())
    }
}

#[cfg(test)]
mod derived_tests;
#[cfg(test)]
mod tests;
