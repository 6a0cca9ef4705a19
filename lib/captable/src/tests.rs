use super::{CHUNK, CHUNKS, Chunk, Table};
use abi::{Error, SELECTOR_LIMIT, Selector};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

#[test]
fn selectors_out_of_range_are_refused() {
    let mut table = Table::<u32>::new();
    for bad in [0, SELECTOR_LIMIT, u32::MAX] {
        assert_eq!(table.insert(Selector(bad), 1), Err(Error::BadCapability));
        assert_eq!(table.get(Selector(bad)), Err(Error::BadCapability));
        assert_eq!(table.remove(Selector(bad)), Err(Error::BadCapability));
    }
}

#[test]
fn a_slot_is_empty_after_its_capability() {
    let mut table = Table::<u64>::new();
    table.insert(Selector(7), 1).unwrap();
    assert_eq!(table.insert(Selector(7), 2), Err(Error::Occupied));
    assert_eq!(table.remove(Selector(7)), Ok(1));
    assert_eq!(table.remove(Selector(7)), Err(Error::BadCapability));
    assert_eq!(table.look_up(7), Err(Error::BadCapability));
    assert_eq!(table.look_up(u64::from(u32::MAX) + 8), Err(Error::BadCapability));
}

proptest! {
    /// Each chunk is paid for once, before it is made; reserving a slot is paying for it.
    #[test]
    fn memory_is_paid_for_once(steps in proptest::collection::vec((0u32..SELECTOR_LIMIT + 8, 0u8..3), 0..200)) {
        let mut table = Table::<u64>::new();
        let mut chunks = HashSet::new();
        let mut paid = 0;
        for (index, what) in steps {
            let selector = Selector(index);
            let (cost, first) = (table.cost(selector), chunks.is_empty());
            let done = match what {
                0 => table.remove(selector).map(drop),
                1 => table.reserve(selector),
                _ => table.insert(selector, 5),
            };
            if done.is_ok() && what > 0 {
                let new = chunks.insert(index as usize / CHUNK);
                prop_assert_eq!(cost > 0, new);
                // The list of chunks comes with the first one.
                let list = CHUNKS * size_of::<usize>();
                prop_assert_eq!(cost >= list + size_of::<Chunk<u64>>(), new && first);
                paid += cost;
            }
            if (1..SELECTOR_LIMIT).contains(&index) {
                let expected = chunks.contains(&(index as usize / CHUNK));
                prop_assert_eq!(table.cost(selector) == 0, expected);
            }
        }
        prop_assert!(paid <= Table::<u64>::largest());
    }

    /// A table does what a map of the same operations does.
    #[test]
    fn behaves_like_a_map(steps in proptest::collection::vec((0u32..SELECTOR_LIMIT + 8, any::<bool>(), any::<u32>()), 0..400)) {
        let mut table = Table::new();
        let mut model = HashMap::new();
        for (index, insert, value) in steps {
            let selector = Selector(index);
            let valid = index > 0 && index < SELECTOR_LIMIT;
            if insert {
                let expected = match (valid, model.contains_key(&index)) {
                    (false, _) => Err(Error::BadCapability),
                    (true, true) => Err(Error::Occupied),
                    (true, false) => { model.insert(index, value); Ok(()) }
                };
                prop_assert_eq!(table.insert(selector, value), expected);
            } else {
                prop_assert_eq!(table.remove(selector).ok(), model.remove(&index));
            }
            prop_assert_eq!(table.get(selector).ok(), model.get(&index).copied());
            prop_assert_eq!(table.used(), model.len());
        }
        let mut listed: Vec<u32> = table.iter().collect();
        let mut expected: Vec<u32> = model.into_values().collect();
        listed.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(listed, expected);
    }
}
