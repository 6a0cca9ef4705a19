use super::{Key, Overlaps, Range};
use abi::{PAGE_SIZE, SpaceAddr};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn pages(base: u64, length: u64) -> Range {
    Range { base: SpaceAddr(base * PAGE_SIZE), length: length * PAGE_SIZE }
}

fn overlapping(all: &Overlaps<u32>, other: Range) -> Vec<(Range, Key, u32)> {
    let mut found = Vec::new();
    let mut after = None;
    while let Some((range, key, value)) = all.next(other, after) {
        found.push((range, key, *value));
        after = Some((range, key));
    }
    found.sort_by_key(|(range, key, _)| (range.base.0, range.length, *key));
    found
}

#[test]
fn the_ends_of_the_address_space() {
    let mut all = Overlaps::new();
    let whole = Range { base: SpaceAddr(0), length: !0xfff };
    all.insert(whole, (0, 0), 1);
    all.insert(pages(0, 1), (u32::MAX, u64::MAX), 2);
    assert_eq!(overlapping(&all, pages(0, 1)).len(), 2);
    assert_eq!(overlapping(&all, pages(1, 1)), [(whole, (0, 0), 1)]);
    assert_eq!(all.remove(whole, (0, 1)), None);
    assert_eq!(all.remove(whole, (0, 0)), Some(1));
    assert!(overlapping(&all, pages(1, 1 << 50)).is_empty());
}

proptest! {
    /// It finds what a search through all of them finds, each once.
    #[test]
    fn behaves_like_a_list(
        steps in proptest::collection::vec((0u64..300, 1u64..80, 0u32..3, any::<u32>(), 0u8..4), 0..150),
    ) {
        let mut all = Overlaps::new();
        let mut model: BTreeMap<(u64, u64, Key), u32> = BTreeMap::new();
        for (base, length, client, value, what) in steps {
            // Short ones often, long ones seldom.
            let length = if length % 8 == 0 { length } else { length % 3 + 1 };
            let (range, key) = (pages(base, length), (client, length));
            let place = (range.base.0, range.length, key);
            match what {
                0 => prop_assert_eq!(all.remove(range, key), model.remove(&place)),
                1 => prop_assert_eq!(all.get_mut(range, key).copied(), model.get(&place).copied()),
                _ => {
                    all.insert(range, key, value);
                    model.insert(place, value);
                }
            }
            let end = range.end();
            let expected: Vec<_> = model
                .iter()
                .filter(|((base, length, _), _)| *base < end && base + length > range.base.0)
                .map(|((base, length, key), value)| {
                    (Range { base: SpaceAddr(*base), length: *length }, *key, *value)
                })
                .collect();
            prop_assert_eq!(overlapping(&all, range), expected);
            prop_assert_eq!(all.iter().count(), model.len());
        }
    }
}
