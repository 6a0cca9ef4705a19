//! What a manager writes down, so that another one can go on where it ends: where each page is, how the chunks of
//! compressed pages hang together, the key, and the number of the last sealing. Each is written after the contents are
//! where they are said to be, and before that place is used for anything else. So at every moment the notes
//! tell the truth about contents, though maybe not the latest.
//!
//! Layout, little-endian: a header of [`HEADER`] bytes; 16 bytes for each page; 4 for each chunk.
use crate::{KEY, PAGE, Sizes};
use memory::Memory;

const HEADER: u64 = 64;
/// In the header: that there are notes, the last version, the key.
const BEGUN: u64 = 0;
const VERSION: u64 = 8;
const KEY_AT: u64 = 16;
const MARK: u64 = u64::from_le_bytes(*b"swapped\0");
const ENTRY: u64 = 16;

/// Where a page is, by its notes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere: it is zeros.
    Fresh,
    /// In a frame.
    Frame(u32),
    /// In a chain of chunks.
    Chain {
        /// The first chunk.
        head: u32,
        /// Bytes.
        length: u16,
    },
    /// On the disk, or on its way there in a request's buffer.
    Disk {
        /// The place.
        slot: u32,
        /// Bytes without the tag.
        length: u16,
        /// Number of the sealing.
        version: u64,
        /// The request that is under way.
        request: Option<u16>,
    },
    /// Lost.
    Lost,
}

/// The notes; none where nobody keeps them.
#[derive(Debug)]
pub struct Notes<M> {
    memory: Option<M>,
    pages: u32,
}

impl<M: Memory> Notes<M> {
    /// Bytes that notes take.
    #[must_use]
    pub const fn bytes(sizes: Sizes) -> u64 {
        HEADER + sizes.pages as u64 * ENTRY + sizes.chunks as u64 * 4
    }

    /// Notes in a memory, for that many pages. A memory that is too short holds none.
    pub fn new(memory: Option<M>, sizes: Sizes) -> Self {
        let memory = memory.filter(|memory| memory.len() >= Self::bytes(sizes));
        Self { memory, pages: sizes.pages }
    }

    /// The key and the last version of those who kept these notes before.
    pub fn inherited(&self) -> Option<([u8; KEY], u64)> {
        let memory = self.memory.as_ref()?;
        let mut key = [0; KEY];
        memory.read(KEY_AT, &mut key).ok()?;
        let begun = memory.read64(BEGUN) == Ok(MARK);
        begun.then_some((key, memory.read64(VERSION).ok()?))
    }

    /// The first manager begins with this key. All pages are fresh: the memory is zeroed.
    pub fn begin(&self, key: &[u8; KEY]) {
        self.write(KEY_AT, key);
        self.write(BEGUN, &MARK.to_le_bytes());
    }

    /// A version is about to be used.
    pub fn version(&self, version: u64) {
        self.write(VERSION, &version.to_le_bytes());
    }

    /// A page is somewhere else from now on.
    pub fn set(&self, page: u32, place: Place) {
        let at = HEADER + u64::from(page) * ENTRY;
        let word = match place {
            Place::Fresh => 0,
            Place::Frame(frame) => 1 | u64::from(frame) << 32,
            Place::Chain { head, length } => 2 | u64::from(length) << 16 | u64::from(head) << 32,
            Place::Disk { slot, length, version, request } => {
                // Before the word that says so; until then it means nothing.
                self.write(at + 8, &version.to_le_bytes());
                let request = request.map_or(3, |n| 4 | u64::from(n) << 3 & 0xfff8);
                request | u64::from(length) << 16 | u64::from(slot) << 32
            }
            Place::Lost => 5,
        };
        self.write(at, &word.to_le_bytes());
    }

    /// Where a page is; nonsense is lost.
    pub fn get(&self, page: u32) -> Place {
        let read = |at| self.memory.as_ref().and_then(|memory| memory.read64(at).ok()).unwrap_or(0);
        let at = HEADER + u64::from(page) * ENTRY;
        let word = read(at);
        let (length, index) = ((word >> 16) as u16, (word >> 32) as u32);
        let fits = (1..=PAGE).contains(&usize::from(length));
        let disk = |request| Place::Disk { slot: index, length, version: read(at + 8), request };
        match word & 7 {
            0 => Place::Fresh,
            1 => Place::Frame(index),
            2 if fits => Place::Chain { head: index, length },
            3 if fits => disk(None),
            4 if fits => disk(Some((word as u16) >> 3)),
            _ => Place::Lost,
        }
    }

    /// A chunk is followed by another one.
    pub fn link(&self, chunk: u32, next: u32) {
        self.write(self.link_at(chunk), &next.to_le_bytes());
    }

    /// What follows a chunk.
    pub fn next(&self, chunk: u32) -> Option<u32> {
        let mut bytes = [0; 4];
        self.memory.as_ref()?.read(self.link_at(chunk), &mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    const fn link_at(&self, chunk: u32) -> u64 {
        HEADER + self.pages as u64 * ENTRY + chunk as u64 * 4
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        if let Some(memory) = &self.memory {
            // It is long enough.
            let _ = memory.write(at, bytes);
        }
    }
}
