use super::{Entry, MOST, Range, RegionMap};
use abi::{Error, PAGE_SIZE, SpaceAddr};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 47;

fn pages(base: u64, length: u64) -> Range {
    Range::new(base * PAGE_SIZE, length * PAGE_SIZE, LIMIT).unwrap()
}

#[test]
fn malformed_ranges_are_refused() {
    assert_eq!(Range::new(0, 0, LIMIT), Err(Error::BadArgument));
    assert_eq!(Range::new(1, PAGE_SIZE, LIMIT), Err(Error::Unaligned));
    assert_eq!(Range::new(0, 1, LIMIT), Err(Error::Unaligned));
    assert_eq!(Range::new(LIMIT, PAGE_SIZE, LIMIT), Err(Error::BadAddress));
    assert_eq!(Range::new(!0xfff, 0x2000, u64::MAX), Err(Error::WrapsAround));
    // One byte more than there is wraps, too: a range's end is an address.
    assert_eq!(Range::new(!0xfff, 0x1000, u64::MAX), Err(Error::WrapsAround));
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
    assert_eq!(map.get(pages(1, 2)), Ok(&'b'));
    assert_eq!(map.get(pages(1, 1)), Err(Error::NoRegion));
    assert_eq!(map.get_mut(pages(1, 1)), Err(Error::NoRegion));
}

impl<B> RegionMap<B> {
    /// Checks what the lists promise each other, and that no more memory is in use than is paid for.
    fn check(&self) {
        assert_eq!(self.firsts.len(), self.leaves.len());
        assert_eq!(self.count, self.leaves.iter().map(Vec::len).sum::<usize>());
        let mut end = 0;
        for (first, leaf) in self.firsts.iter().zip(&self.leaves) {
            assert_eq!(leaf.first().map(|e| e.range.base.0), Some(*first));
            assert!(leaf.len() <= MOST);
            for entry in leaf {
                assert!(entry.range.base.0 >= end);
                end = entry.range.end();
            }
        }
        for pair in self.leaves.windows(2) {
            assert!(pair[0].len() + pair[1].len() > MOST / 2);
        }
        let leaves: usize = self.leaves.iter().map(|l| l.capacity() * size_of::<Entry<B>>()).sum();
        let lists = self.firsts.capacity() * size_of::<u64>()
            + self.leaves.capacity() * size_of::<Vec<Entry<B>>>();
        assert!(leaves + lists <= self.count * RegionMap::<B>::COST, "{leaves} + {lists}");
    }
}

proptest! {
    /// Many regions, in and out in any order: what is there is found, and nothing else.
    #[test]
    fn many_regions_come_and_go(
        steps in proptest::collection::vec((0u64..400, 0u8..8, 1u64..40), 0..120),
    ) {
        let mut map = RegionMap::new();
        let mut model = std::collections::BTreeMap::new();
        for (number, (start, what, count)) in steps.into_iter().enumerate() {
            // Runs of neighbours, up, down, or with gaps.
            let up: Vec<u64> = (start..start + count).collect();
            let pages: Vec<u64> = match what % 4 {
                0 => up,
                1 => up.into_iter().rev().collect(),
                2 => up.into_iter().step_by(3).collect(),
                _ => up.into_iter().map(|page| page * 7 % 401).collect(),
            };
            for page in pages {
                if what < 4 {
                    let new = !model.contains_key(&page);
                    prop_assert_eq!(map.bind(pages_at(page), number).is_ok(), new);
                    model.entry(page).or_insert(number);
                } else {
                    prop_assert_eq!(map.unbind(pages_at(page)).ok(), model.remove(&page));
                }
                map.check();
            }
        }
        for page in 0..450 {
            let at = SpaceAddr(page * PAGE_SIZE + 9);
            prop_assert_eq!(map.find(at).map(|f| f.1), model.get(&page));
            prop_assert_eq!(map.find_near(at).map(|f| f.1), model.get(&page));
        }
        prop_assert_eq!(map.len(), model.len());
        let listed = map.iter().map(|(range, n)| (range.base.0 / PAGE_SIZE, *n));
        prop_assert!(listed.eq(model));
    }
}

fn pages_at(page: u64) -> Range {
    pages(page, 1)
}

/// What each page is bound to.
type Model = [Option<usize>; 90];

/// Binds (0..=2), divides (3), moves (4) or removes (5) in map and model alike. `other`: a page to
/// divide at or to move to.
fn step(
    map: &mut RegionMap<usize>,
    model: &mut Model,
    step: usize,
    (base, length, what, other): (u64, u64, u8, u64),
) -> Result<(), TestCaseError> {
    // Most ranges are those of no region: often take the one that is there.
    let range = match map.find(SpaceAddr(base * PAGE_SIZE)) {
        Some((found, _)) if what > 1 => found,
        _ => pages(base, length),
    };
    let (first, count) = (range.base.0 / PAGE_SIZE, range.length / PAGE_SIZE);
    let own = first as usize..(first + count) as usize;
    let exact = map.get(range).ok().copied();
    let free =
        |model: &Model, slots: std::ops::Range<usize>| model[slots].iter().all(Option::is_none);
    match what {
        0..=2 if exact.is_none() => {
            let fits = free(model, own.clone());
            prop_assert_eq!(map.bind(range, step).is_ok(), fits);
            if fits {
                model[own].fill(Some(step));
            }
        }
        3 => {
            let at = other * PAGE_SIZE;
            let fits = exact.is_some() && range.contains(at) && at != range.base.0;
            let parts = map.split(range, at);
            prop_assert_eq!(parts.is_ok(), fits);
            if let Ok((_, upper)) = parts {
                *map.get_mut(upper).unwrap() = step;
                model[other as usize..own.end].fill(Some(step));
            }
        }
        4 => {
            let to = pages(other, count);
            let new = other as usize..(other + count) as usize;
            let mut after = *model;
            if exact.is_some() {
                after[own].fill(None);
            }
            let fits = exact.is_some() && free(&after, new.clone());
            prop_assert_eq!(map.relocate(range, to).is_ok(), fits);
            if fits {
                after[new].fill(exact);
                *model = after;
            }
        }
        _ => {
            prop_assert_eq!(map.unbind(range).ok(), exact);
            if exact.is_some() {
                model[own].fill(None);
            }
        }
    }
    Ok(())
}

proptest! {
    /// The map agrees with a page-by-page array, and its regions stay disjoint.
    #[test]
    fn behaves_like_an_array(steps in proptest::collection::vec((0u64..64, 1u64..16, 0u8..6, 0u64..70), 0..200)) {
        let mut map = RegionMap::new();
        let mut model = [None; 90];
        for (number, what) in steps.into_iter().enumerate() {
            step(&mut map, &mut model, number, what)?;
            map.check();
            for (page, expected) in model.iter().enumerate() {
                let at = SpaceAddr(page as u64 * PAGE_SIZE + 5);
                prop_assert_eq!(map.find(at).map(|f| *f.1), *expected);
                prop_assert_eq!(map.find_near(at).map(|f| *f.1), *expected);
                let above = model[page..].iter().flatten().next();
                prop_assert_eq!(map.at_or_above(at.0).map(|f| f.1), above);
            }
        }
        let mut end = 0;
        for (range, _) in map.iter() {
            prop_assert!(range.base.0 >= end);
            prop_assert_eq!(map.at_or_above(end).map(|f| f.0), Some(range));
            end = range.end();
        }
        prop_assert!(map.at_or_above(end).is_none());
    }
}
