//! Which part of a manager's memory stands behind which part of an object: the arithmetic that
//! the anonymous-memory manager and the image manager share.
//!
//! [`stack`] is about memory that grows downwards to a limit, [`copies`] about files that a client
//! may write to without anybody else seeing it, [`accounts`] about how much a client may have,
//! [`restarts`] about managers that fail again and again, [`attention`] about those that do not answer, [`shares`] about objects that
//! several clients see with different rights,
//! [`losses`] about pages that cannot be had back.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod accounts;
pub mod attention;
pub mod copies;
pub mod losses;
pub mod restarts;
pub mod shares;
pub mod stack;

use abi::FaultMessage;

/// What is mapped at once where alignment allows it: a large page.
pub const CHUNK: u64 = 2 << 20;
const PAGE: u64 = 4096;
const OFFSET_BITS: u32 = 40;

/// The tag of a region: which object, and where in the object the region begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Number of the object.
    pub object: u32,
    /// Byte offset in the object, page aligned, below 1 TiB.
    pub offset: u64,
}

impl Tag {
    /// The tag as the kernel carries it; `None` when the offset does not fit or is not aligned.
    #[must_use]
    pub const fn encode(self) -> Option<u64> {
        if self.offset >> OFFSET_BITS != 0 || !self.offset.is_multiple_of(PAGE) {
            return None;
        }
        if self.object >= 1 << (64 - OFFSET_BITS) {
            return None;
        }
        Some((self.object as u64) << OFFSET_BITS | self.offset)
    }

    /// Reads a tag.
    #[must_use]
    pub const fn decode(word: u64) -> Self {
        Self {
            object: (word >> OFFSET_BITS) as u32,
            offset: word & ((1 << OFFSET_BITS) - 1) & !(PAGE - 1),
        }
    }
}

/// An object: a contiguous part of the manager's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Object {
    /// Where it begins in the manager's memory; a multiple of [`CHUNK`] or of a page.
    pub base: u64,
    /// Bytes; rounded up to pages for mapping.
    pub length: u64,
}

impl Object {
    /// The objects of a list `base:length,…` (decimal bytes), numbered from zero.
    ///
    /// # Errors
    /// The part of the list that is malformed.
    pub fn list(text: &str) -> impl Iterator<Item = Result<Self, &str>> {
        tuples(text).map(|tuple| tuple.map(|[base, length]| Self { base, length }))
    }
}

/// A list of `number:number:…` with `N` decimal numbers each, separated by commas.
///
/// # Errors
/// The part of the list that is malformed.
pub fn tuples<const N: usize>(text: &str) -> impl Iterator<Item = Result<[u64; N], &str>> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| {
        let mut numbers = [0; N];
        let mut found = part.split(':');
        for number in &mut numbers {
            *number = found.next().and_then(|n| n.parse().ok()).ok_or(part)?;
        }
        if found.next().is_some() { Err(part) } else { Ok(numbers) }
    })
}

/// What to map to serve a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Offset in the manager's memory.
    pub memory_offset: u64,
    /// Offset in the region.
    pub region_offset: u64,
    /// Bytes, a multiple of the page size, not zero.
    pub length: u64,
    /// Which chunk of the object it lies in.
    pub chunk: u64,
}

/// The largest piece, at most one chunk of the object and one page of the size that the region wants, that holds the fault's offset in its region
/// with tag `tag`. `None` when that offset lies outside object or region.
#[must_use]
pub fn piece(object: Object, tag: Tag, fault: &FaultMessage) -> Option<Piece> {
    let (offset, region_length) = (fault.offset, fault.region_length);
    let length = object.length.checked_next_multiple_of(PAGE)?;
    let at = tag.offset.checked_add(offset)?;
    if at >= length || offset >= region_length {
        return None;
    }
    let chunk = at / CHUNK;
    // No more than a chunk, also where a larger page is wanted: who waits for it to be zeroed would wait too long.
    let size = if fault.page_hint < u64::from(CHUNK.ilog2()) { PAGE } else { CHUNK };
    let first = at / size * size;
    let start = first.max(tag.offset);
    let region_end = tag.offset.checked_add(region_length)?;
    let end = first.checked_add(size)?.min(length).min(region_end & !(PAGE - 1));
    if start >= end || at >= end {
        return None;
    }
    Some(Piece {
        memory_offset: object.base.checked_add(start)?,
        region_offset: start - tag.offset,
        length: end - start,
        chunk,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    fn fault(offset: u64, region_length: u64, page_hint: u64) -> FaultMessage {
        let access = abi::Access::Read;
        FaultMessage { tag: 0, offset, access, ip: 0, region_length, page_hint, lost: 0 }
    }

    #[test]
    fn lists_name_the_part_that_is_malformed() {
        let list = |text| Object::list(text).collect::<Result<std::vec::Vec<_>, _>>();
        assert_eq!(list(""), Ok(std::vec![]));
        let both = std::vec![Object { base: 0, length: 4096 }, Object { base: 8192, length: 1 }];
        assert_eq!(list("0:4096,8192:1,"), Ok(both));
        assert_eq!(list("0:1,7,2:2"), Err("7"));
        assert_eq!(list("0:-1"), Err("0:-1"));
        assert_eq!(list("0:99999999999999999999"), Err("0:99999999999999999999"));
    }

    #[test]
    fn a_fault_in_the_middle_gets_its_whole_chunk() {
        let object = Object { base: 10 * CHUNK, length: 4 * CHUNK };
        let tag = Tag { object: 3, offset: 0 };
        let got = piece(object, tag, &fault(CHUNK + 5, 4 * CHUNK, 21));
        let want =
            Piece { memory_offset: 11 * CHUNK, region_offset: CHUNK, length: CHUNK, chunk: 1 };
        assert_eq!(got, Some(want));
        // No more is zeroed at once.
        assert_eq!(piece(object, tag, &fault(CHUNK + 5, 4 * CHUNK, 30)), Some(want));
    }

    #[test]
    fn a_region_that_wants_small_pages_gets_one() {
        let object = Object { base: 10 * CHUNK, length: 4 * CHUNK };
        let tag = Tag { object: 3, offset: PAGE };
        let got = piece(object, tag, &fault(CHUNK + 5, 4 * CHUNK, 12));
        let at = CHUNK + PAGE;
        let want =
            Piece { memory_offset: 10 * CHUNK + at, region_offset: CHUNK, length: PAGE, chunk: 1 };
        assert_eq!(got, Some(want));
    }

    #[test]
    fn the_last_page_of_a_file_is_mapped_whole_and_nothing_behind_it() {
        let object = Object { base: PAGE, length: 5000 };
        let tag = Tag { object: 0, offset: 0 };
        let of = |offset| piece(object, tag, &fault(offset, 1 << 30, 21)).map(|p| p.length);
        assert_eq!((of(4999), of(8192)), (Some(2 * PAGE), None));
    }

    proptest! {
        #[test]
        fn a_piece_holds_its_fault_and_stays_inside(
            base in 0u64..1 << 40, length in 0u64..1 << 32, start in 0u64..1 << 20,
            offset in any::<u64>(), region in any::<u64>(), small in any::<bool>(), hint in any::<u64>(),
        ) {
            let object = Object { base: base & !(PAGE - 1), length };
            let tag = Tag { object: 1, offset: start * PAGE };
            let offset = if small { offset % (length + 1) } else { offset };
            if let Some(p) = piece(object, tag, &fault(offset, region, hint)) {
                prop_assert!(p.region_offset <= offset && offset < p.region_offset + p.length);
                prop_assert!(p.region_offset + p.length <= region);
                prop_assert!(p.memory_offset >= object.base);
                let rounded = length.next_multiple_of(PAGE);
                prop_assert!(p.memory_offset + p.length <= object.base + rounded);
                prop_assert!(p.length <= CHUNK && p.length.is_multiple_of(PAGE));
            }
        }

        #[test]
        fn tags_survive(object in 0u32..1 << 24, page in 0u64..1 << 28) {
            let tag = Tag { object, offset: page * PAGE };
            prop_assert_eq!(tag.encode().map(Tag::decode), Some(tag));
        }
    }
}
