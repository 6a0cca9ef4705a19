use super::{Range, RegionMap};
use abi::{Error, PAGE_SIZE, SpaceAddr};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 47;

fn pages(base: u64, length: u64) -> Range {
    Range::new(base * PAGE_SIZE, length * PAGE_SIZE, LIMIT).unwrap()
}

#[test]
fn malformed_ranges_are_refused() {
    assert_eq!(Range::new(0, 0, LIMIT), Err(Error::BadArgument));
    assert_eq!(Range::new(1, PAGE_SIZE, LIMIT), Err(Error::BadArgument));
    assert_eq!(Range::new(0, 1, LIMIT), Err(Error::BadArgument));
    assert_eq!(Range::new(LIMIT, PAGE_SIZE, LIMIT), Err(Error::BadAddress));
    assert_eq!(Range::new(!0xfff, 0x2000, u64::MAX), Err(Error::BadAddress));
    assert!(Range::new(LIMIT - PAGE_SIZE, PAGE_SIZE, LIMIT).is_ok());
}

#[test]
fn neighbours_do_not_overlap() {
    let mut map = RegionMap::new();
    map.bind(pages(10, 5), 'a').unwrap();
    map.bind(pages(15, 1), 'b').unwrap();
    map.bind(pages(9, 1), 'c').unwrap();
    assert_eq!(map.bind(pages(0, 100), 'd'), Err(Error::Overlap));
    assert_eq!(map.find(SpaceAddr(15 * PAGE_SIZE - 1)).map(|f| *f.1), Some('a'));
    assert_eq!(map.find(SpaceAddr(15 * PAGE_SIZE)).map(|f| *f.1), Some('b'));
    assert!(map.find(SpaceAddr(16 * PAGE_SIZE)).is_none());
    assert_eq!(map.unbind(pages(10, 4)), Err(Error::NoRegion));
    assert_eq!(map.unbind(pages(10, 5)), Ok('a'));
}

#[test]
fn a_hundred_thousand_regions_are_practical() {
    let mut map = RegionMap::new();
    for i in 0..100_000u64 {
        map.bind(pages(i * 2, 1), i).unwrap();
    }
    for i in (0..100_000u64).rev() {
        assert_eq!(map.find(SpaceAddr(i * 2 * PAGE_SIZE + 7)).map(|f| *f.1), Some(i));
        assert!(map.find(SpaceAddr((i * 2 + 1) * PAGE_SIZE)).is_none());
    }
}

#[test]
fn a_changed_binding_is_found() {
    let mut map = RegionMap::new();
    map.bind(pages(1, 2), 'a').unwrap();
    assert_eq!(map.find_near(SpaceAddr(PAGE_SIZE)).map(|f| *f.1), Some('a'));
    *map.get_mut(pages(1, 2)).unwrap() = 'b';
    assert_eq!(map.find_near(SpaceAddr(2 * PAGE_SIZE)).map(|f| *f.1), Some('b'));
    assert_eq!(map.get_mut(pages(1, 1)), Err(Error::NoRegion));
}

proptest! {
    /// The map agrees with a page-by-page array, and its regions stay disjoint.
    #[test]
    fn behaves_like_an_array(steps in proptest::collection::vec((0u64..64, 1u64..16, any::<bool>()), 0..200)) {
        let mut map = RegionMap::new();
        let mut model = [None; 80];
        for (step, (base, length, bind)) in steps.into_iter().enumerate() {
            let range = pages(base, length);
            let slots = base as usize..(base + length) as usize;
            if bind {
                let free = model[slots.clone()].iter().all(Option::is_none);
                prop_assert_eq!(map.bind(range, step).is_ok(), free);
                if free {
                    model[slots].fill(Some(step));
                }
            } else {
                let exact = map.find(SpaceAddr(base * PAGE_SIZE)).is_some_and(|f| f.0 == range);
                prop_assert_eq!(map.unbind(range).is_ok(), exact);
                if exact {
                    model[slots].fill(None);
                }
            }
            for (page, expected) in model.iter().enumerate() {
                let found = map.find(SpaceAddr(page as u64 * PAGE_SIZE + 5));
                prop_assert_eq!(found.map(|f| *f.1), *expected);
                let found = map.find_near(SpaceAddr(page as u64 * PAGE_SIZE + 5));
                prop_assert_eq!(found.map(|f| *f.1), *expected);
            }
        }
        let mut end = 0;
        for (range, _) in map.iter() {
            prop_assert!(range.base.0 >= end);
            end = range.end();
        }
    }
}
