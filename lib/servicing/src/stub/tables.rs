//! The tables that the stub reads, kept equal to what the relay knows. The guest can read them, not
//! write them; the relay writes while the vCPU stands still.
use super::layout as at;
use super::look::Look;
use crate::core::Core;
use crate::space::{Role, Space};
use crate::table::Table;
use crate::world::Window;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

/// A watched space that has a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    id: u32,
    root: u64,
    /// What the record says, by the versions of what it was made from.
    version: Option<(u64, bool)>,
}

/// What has been written into the tables.
pub struct Tables {
    known: Vec<Option<Known>>,
    /// The list of spaces that has been written: number and record of each.
    order: Vec<(u32, usize)>,
    ready: bool,
    all: Option<bool>,
}

impl Default for Tables {
    fn default() -> Self {
        let known = alloc::vec![None; at::RECORD_COUNT];
        Self { known, order: Vec::new(), ready: false, all: None }
    }
}

impl Tables {
    /// Brings the tables up to date. `current` is the root of the space whose exit was handled:
    /// only its record can have changed without a change of the list of spaces.
    pub fn update(&mut self, core: &Core, window: &Window<'_>, current: u64) {
        if !self.ready {
            self.ready = write(window, at::LOOKS, &looks()[..]);
        }
        let spaces = core.spaces.borrow();
        let mut all = !self.ready || !core.execs.borrow().is_empty();
        if spaces.len() > at::RECORD_COUNT || spaces.iter().any(|s| s.cr3 == 0) {
            all = true;
        } else {
            if !self.is_current(&spaces) {
                self.assign(&spaces);
                all |= !write(window, at::BUCKETS, &self.buckets()[..]);
            }
            for (n, space) in spaces.iter().enumerate() {
                all |= !self.record(window, n, space, space.cr3 == current);
            }
        }
        if self.all != Some(all) && write(window, at::ALL, &u32::from(all).to_le_bytes()) {
            self.all = Some(all);
        }
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.known.iter().position(|k| k.is_some_and(|k| k.id == id))
    }

    /// True while the spaces are those that have been written, in the same order.
    fn is_current(&self, spaces: &[Rc<Space>]) -> bool {
        self.order.iter().map(|(id, _)| *id).eq(spaces.iter().map(|s| s.id))
    }

    /// Gives each space a record; those that have one keep it.
    fn assign(&mut self, spaces: &[Rc<Space>]) {
        for known in &mut self.known {
            *known = known.filter(|k| spaces.iter().any(|s| s.id == k.id));
        }
        for space in spaces {
            if self.place(space.id).is_none()
                && let Some(free) = self.known.iter_mut().find(|k| k.is_none())
            {
                *free = Some(Known { id: space.id, root: space.cr3, version: None });
            }
        }
        let placed = spaces.iter().filter_map(|s| Some((s.id, self.place(s.id)?)));
        self.order = placed.collect();
    }

    /// The hash table: linear probing, at most half full.
    fn buckets(&self) -> Box<[u8; (at::BUCKET_COUNT * at::BUCKET) as usize]> {
        let mut table = Box::new([0; (at::BUCKET_COUNT * at::BUCKET) as usize]);
        for (place, known) in self.known.iter().enumerate() {
            let Some(known) = known else { continue };
            let page = known.root >> 12;
            let mut bucket = (page % at::BUCKET_COUNT) as usize;
            let (entries, _) = table.as_chunks_mut::<{ at::BUCKET as usize }>();
            while entries.get(bucket).is_some_and(|e| e[..8] != [0; 8]) {
                bucket = (bucket + 1) % at::BUCKET_COUNT as usize;
            }
            if let Some(entry) = entries.get_mut(bucket) {
                entry[..8].copy_from_slice(&page.to_le_bytes());
                let record = place as u32 * at::RECORD as u32;
                entry[8..12].copy_from_slice(&record.to_le_bytes());
            }
        }
        table
    }

    /// Writes the record of the `n`th space if it has changed. False when it could not be written.
    fn record(&mut self, window: &Window<'_>, n: usize, space: &Space, current: bool) -> bool {
        let Some((_, place)) = self.order.get(n).copied() else { return false };
        let Some(Some(known)) = self.known.get_mut(place) else { return false };
        if known.version.is_some() && !current {
            return true;
        }
        let version = Some((space.table.version.get(), always(space)));
        if known.version == version {
            return true;
        }
        let bytes = record(&space.table, always(space));
        let written = write(window, at::RECORDS + place as u64 * at::RECORD, &bytes);
        known.version = version.filter(|_| written);
        written
    }
}

fn write(window: &Window<'_>, offset: u64, bytes: &[u8]) -> bool {
    window.data.write(offset, bytes).is_ok()
}

fn looks() -> Box<[u8; at::NUMBERS as usize]> {
    let mut looks = Box::new([0; at::NUMBERS as usize]);
    for (number, look) in looks.iter_mut().enumerate() {
        *look = Look::of(number as u64).0;
    }
    looks
}

/// True while every call of a space must be seen: before its gate is there, for what only asks to
/// be trusted, and where threads have descriptors of their own (`vfork`).
fn always(space: &Space) -> bool {
    !space.ready.get()
        || space.role != Role::Trusted
        || space.forks.borrow().iter().any(|f| f.shares_memory)
        || space
            .threads
            .borrow()
            .iter()
            .any(|t| t.contexts.len() > 1 || t.contexts.iter().any(|c| c.made_by.is_some()))
}

/// The record of a process with these descriptors.
fn record(table: &Table, always: bool) -> [u8; at::RECORD as usize] {
    let mut bytes = [0; at::RECORD as usize];
    let entries = table.entries.borrow();
    let hidden = table.hidden();
    let (mut lowest, mut high) = (u32::MAX, false);
    for fd in entries.keys().copied().chain(hidden) {
        let Ok(fd) = u32::try_from(fd) else { continue };
        lowest = lowest.min(fd);
        high |= fd >= at::DESCRIPTORS;
        let byte = at::RECORD_BITMAP as usize + fd as usize / 8;
        if fd < at::DESCRIPTORS
            && let Some(byte) = bytes.get_mut(byte)
        {
            *byte |= 1 << (fd % 8);
        }
    }
    let fields = [
        (at::RECORD_ALWAYS, u32::from(always)),
        (at::RECORD_LOWEST, lowest),
        (at::RECORD_HIGH, u32::from(high)),
        (at::RECORD_ANY, u32::from(!entries.is_empty())),
        (at::RECORD_PATHS, u32::from(table.view.is_active())),
    ];
    for (place, value) in fields {
        if let Some(field) = bytes.get_mut(place as usize..place as usize + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}
