//! Stacks: a region of a declared size whose pages come into being from the top downwards, above a
//! guard that never does.
use crate::{Object, Piece};
use core::ops::Range;

/// Bytes of the guard, the lowest part of a stack's region. Whoever needs more at once than that
/// must touch what is in between, as compilers see to.
pub const GUARD: u64 = 64 << 10;
/// A stack grows by multiples of this many bytes, and is a multiple of it.
pub const STEP: u64 = 16 << 10;

/// What is to be done when a stack's region is touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Touch {
    /// It was the guard: the thread has used up its stack.
    Overflow,
    /// These pages are to be mapped.
    Map {
        /// The pages. `chunk` counts [`STEP`]s.
        piece: Piece,
        /// The part of the object that comes into being, and has to be zeroed before; empty where
        /// all of it was there.
        fresh: Range<u64>,
    },
}

/// A touch at `offset` of the region of a stack, of which the `grown` highest bytes are there
/// (a multiple of [`STEP`]). `None` outside of the region.
#[must_use]
pub fn touch(object: Object, grown: u64, offset: u64, region_length: u64) -> Option<Touch> {
    if offset >= region_length {
        return None;
    }
    let Some(at) = offset.checked_sub(GUARD) else { return Some(Touch::Overflow) };
    if at >= object.length {
        return None;
    }
    let lowest = object.length.checked_sub(grown)?;
    let start = at - at % STEP;
    let end = start.checked_add(STEP)?.max(if start < lowest { lowest } else { 0 });
    let end = end.min(object.length).min(region_length - GUARD);
    let piece = Piece {
        memory_offset: object.base.checked_add(start)?,
        region_offset: start + GUARD,
        length: end - start,
        chunk: start / STEP,
    };
    Some(Touch::Map { piece, fresh: start.min(lowest)..lowest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OBJECT: Object = Object { base: 1 << 20, length: 16 * STEP };
    const REGION: u64 = GUARD + OBJECT.length;

    #[test]
    fn the_first_touch_is_at_the_top_and_the_last_below_the_bottom() {
        let top = touch(OBJECT, 0, REGION - 8, REGION);
        let piece = Piece {
            memory_offset: OBJECT.base + 15 * STEP,
            region_offset: GUARD + 15 * STEP,
            length: STEP,
            chunk: 15,
        };
        assert_eq!(top, Some(Touch::Map { piece, fresh: 15 * STEP..16 * STEP }));
        assert_eq!(touch(OBJECT, OBJECT.length, GUARD - 1, REGION), Some(Touch::Overflow));
        assert_eq!(touch(OBJECT, 0, 0, REGION), Some(Touch::Overflow));
        assert_eq!(touch(OBJECT, 0, REGION, REGION), None);
    }

    proptest! {
        #[test]
        fn what_is_mapped_is_there_and_what_is_there_is_the_top(
            touches in proptest::collection::vec(0..REGION, 1..40),
        ) {
            let mut grown = 0;
            for offset in touches {
                match touch(OBJECT, grown, offset, REGION) {
                    Some(Touch::Overflow) => prop_assert!(offset < GUARD),
                    Some(Touch::Map { piece, fresh }) => {
                        // What was there is never zeroed, and nothing is left out in between.
                        prop_assert_eq!(fresh.end, OBJECT.length - grown);
                        grown += fresh.end - fresh.start;
                        let end = piece.region_offset + piece.length;
                        prop_assert!((piece.region_offset..end).contains(&offset));
                        prop_assert!(piece.region_offset - GUARD >= OBJECT.length - grown);
                        prop_assert!(piece.region_offset >= GUARD && end <= REGION);
                        prop_assert_eq!(piece.memory_offset - OBJECT.base, piece.region_offset - GUARD);
                        prop_assert!(piece.length.is_multiple_of(4096) && grown.is_multiple_of(STEP));
                    }
                    None => prop_assert!(false, "inside the region"),
                }
            }
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(
            length in 0u64..1 << 40, grown: u64, offset: u64, region: u64,
        ) {
            let object = Object { base: 0, length };
            if let Some(Touch::Map { piece, .. }) = touch(object, grown, offset, region) {
                prop_assert!(piece.memory_offset + piece.length <= length);
                prop_assert!(piece.region_offset + piece.length <= region);
            }
        }
    }
}
