use super::Table;
use abi::{Error, SELECTOR_LIMIT, Selector};
use proptest::prelude::*;
use std::collections::HashMap;

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
fn cost_is_what_insert_allocates_next() {
    let mut table = Table::<u64>::new();
    assert!(table.cost(Selector(1)) > table.cost(Selector(1)) - 1);
    table.insert(Selector(1), 1).unwrap();
    assert_eq!(table.cost(Selector(2)), 0);
    assert!(table.cost(Selector(64)) > 0);
    assert!(table.cost(Selector(64)) < Table::<u64>::largest());
}

proptest! {
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
