use super::{FrameSource, Leaf, NoFrames, Physical, Tables};
use abi::{HostPhys, LARGE_PAGE_SIZE, MemRights, PAGE_SIZE};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

const HUGE_PAGE: u64 = 1 << 30;
/// Where the memory for tables begins.
const FIRST: u64 = 0x10_0000;

thread_local! {
    /// The memory for tables: one a test, for each has a thread of its own.
    static FRAMES: RefCell<HashMap<u64, [u64; 512]>> = RefCell::default();
    static HUGE: RefCell<bool> = const { RefCell::new(true) };
}

#[derive(Debug)]
struct Fake;

fn with_word<R>(at: HostPhys, act: impl FnOnce(&mut u64) -> R) -> R {
    FRAMES.with_borrow_mut(|frames| {
        let frame = frames.get_mut(&(at.0 / PAGE_SIZE)).expect("a frame that is in use");
        act(&mut frame[(at.0 % PAGE_SIZE / 8) as usize])
    })
}

impl Physical for Fake {
    fn read(at: HostPhys) -> u64 {
        with_word(at, |word| *word)
    }
    fn write(at: HostPhys, value: u64) {
        with_word(at, |word| *word = value);
    }
    fn set_absent(at: HostPhys, bits: u64, value: u64) -> bool {
        with_word(at, |word| {
            let absent = *word & bits == 0;
            if absent {
                *word = value;
            }
            absent
        })
    }
    fn copy(from: HostPhys, to: HostPhys, length: u64) {
        for offset in (0..length).step_by(8) {
            Self::write(HostPhys(to.0 + offset), Self::read(HostPhys(from.0 + offset)));
        }
    }
    fn is_zero_around(at: HostPhys) -> bool {
        FRAMES.with_borrow(|frames| frames[&(at.0 / PAGE_SIZE)] == [0; 512])
    }
    fn has_huge_pages() -> bool {
        HUGE.with_borrow(|huge| *huge)
    }
}

/// Frames up to a limit. A frame that was given back must not be touched.
#[derive(Debug)]
struct Pool {
    left: usize,
    next: u64,
}

impl Pool {
    fn new(left: usize) -> Self {
        FRAMES.with_borrow_mut(HashMap::clear);
        Self { left, next: FIRST / PAGE_SIZE }
    }

    fn in_use() -> usize {
        FRAMES.with_borrow(HashMap::len)
    }
}

impl FrameSource for Pool {
    fn take(&mut self) -> Option<HostPhys> {
        self.left = self.left.checked_sub(1)?;
        self.next += 1;
        FRAMES.with_borrow_mut(|frames| frames.insert(self.next, [0; 512]));
        Some(HostPhys(self.next * PAGE_SIZE))
    }
    fn give(&mut self, frame: HostPhys) {
        self.left += 1;
        let known = FRAMES.with_borrow_mut(|frames| frames.remove(&(frame.0 / PAGE_SIZE)));
        assert!(known.is_some(), "{frame:?} is given back once");
    }
}

fn tables(pool: &mut Pool) -> Tables<Fake> {
    Tables::new(None, pool).expect("a frame for the root")
}

const READ_WRITE: MemRights = MemRights::READ.union(MemRights::WRITE);

#[test]
fn a_page_of_each_size_needs_no_table_below_it() {
    for (size, frames) in [(PAGE_SIZE, 4), (LARGE_PAGE_SIZE, 3), (HUGE_PAGE, 2)] {
        let mut pool = Pool::new(100);
        let mut space = tables(&mut pool);
        let (at, to) = (5 * HUGE_PAGE, HostPhys(3 * HUGE_PAGE));
        assert_eq!(space.map(at, to, size, READ_WRITE, &mut pool), Ok(false));
        assert_eq!(Pool::in_use(), frames);
        let last = Leaf { phys: HostPhys(to.0 + size - 1), rest: 1, size, rights: READ_WRITE };
        assert_eq!(space.walk(at + size - 1), Some(last));
        assert_eq!(space.walk(at + size), None);
        assert_eq!(space.unmap(at, size, &mut pool), Ok(true));
        assert_eq!(Pool::in_use(), 1, "only the root is left");
    }
}

#[test]
fn a_processor_without_huge_pages_gets_none() {
    let mut pool = Pool::new(100);
    HUGE.set(false);
    let mut space = tables(&mut pool);
    assert_eq!(space.map(0, HostPhys(0), HUGE_PAGE, READ_WRITE, &mut pool), Ok(false));
    assert_eq!(space.walk(0).map(|leaf| leaf.size), Some(LARGE_PAGE_SIZE));
    HUGE.set(true);
}

#[test]
fn a_huge_page_is_divided_for_a_small_part_of_it() {
    let mut pool = Pool::new(100);
    let mut space = tables(&mut pool);
    let hole = HUGE_PAGE + 7 * LARGE_PAGE_SIZE + 9 * PAGE_SIZE;
    space.map(HUGE_PAGE, HostPhys(0), HUGE_PAGE, READ_WRITE, &mut pool).unwrap();
    assert_eq!(space.unmap(hole, PAGE_SIZE, &mut pool), Ok(true));
    assert_eq!(space.walk(hole), None);
    let sizes = [hole - PAGE_SIZE, hole + LARGE_PAGE_SIZE].map(|at| space.walk(at).unwrap().size);
    assert_eq!(sizes, [PAGE_SIZE, LARGE_PAGE_SIZE]);
    assert_eq!(Pool::in_use(), 4);
    // A large page takes the place of all that again.
    assert_eq!(space.map(HUGE_PAGE, HostPhys(0), HUGE_PAGE, READ_WRITE, &mut pool), Ok(true));
    assert_eq!(Pool::in_use(), 2);
}

#[test]
fn without_a_frame_nothing_is_lost() {
    let mut pool = Pool::new(3);
    let mut space = tables(&mut pool);
    space.map(0, HostPhys(0), HUGE_PAGE, READ_WRITE, &mut pool).unwrap();
    // One frame is left, and two are needed.
    assert_eq!(space.unmap(PAGE_SIZE, PAGE_SIZE, &mut pool), Err(NoFrames));
    assert_eq!(space.divide(PAGE_SIZE, &mut pool), Err(NoFrames));
    let phys = |at| space.walk(at).map(|leaf| leaf.phys);
    assert_eq!(phys(PAGE_SIZE + 5), Some(HostPhys(PAGE_SIZE + 5)));
    assert_eq!(phys(HUGE_PAGE - 1), Some(HostPhys(HUGE_PAGE - 1)));
    assert_eq!(space.unmap(0, HUGE_PAGE, &mut pool), Ok(true));
    assert_eq!(Pool::in_use(), 1);
    assert_eq!(space.map(0, HostPhys(0), PAGE_SIZE, READ_WRITE, &mut pool), Err(NoFrames));
    space.clear(false, &mut pool);
    assert_eq!(Pool::in_use(), 0);
}

#[test]
fn what_is_divided_goes_without_a_frame() {
    for at in [PAGE_SIZE, 3 * LARGE_PAGE_SIZE, HUGE_PAGE - PAGE_SIZE] {
        let mut pool = Pool::new(10);
        let mut space = tables(&mut pool);
        space.map(0, HostPhys(0), 2 * HUGE_PAGE, READ_WRITE, &mut pool).unwrap();
        space.divide(at, &mut pool).unwrap();
        space.divide(HUGE_PAGE, &mut pool).unwrap();
        pool.left = 0;
        assert_eq!(space.unmap(0, at, &mut pool), Ok(true));
        assert_eq!(space.walk(at - 1), None);
        assert_eq!(space.walk(at).map(|leaf| leaf.phys), Some(HostPhys(at)));
        assert_eq!(space.unmap(at, 2 * HUGE_PAGE - at, &mut pool), Ok(true));
        assert_eq!(Pool::in_use(), 1);
    }
}

#[test]
fn used_pages_are_told_once() {
    let mut pool = Pool::new(10);
    let mut space = tables(&mut pool);
    space.map(0, HostPhys(0), 3 * PAGE_SIZE, READ_WRITE, &mut pool).unwrap();
    space.map(LARGE_PAGE_SIZE, HostPhys(0), LARGE_PAGE_SIZE, READ_WRITE, &mut pool).unwrap();
    assert_eq!(space.take_used(PAGE_SIZE, 4 * PAGE_SIZE), 0b0011);
    assert_eq!(space.take_used(0, 4 * PAGE_SIZE), 0b0001);
    for _ in 0..2 {
        assert_eq!(space.take_used(LARGE_PAGE_SIZE, 64 * PAGE_SIZE), u64::MAX);
    }
}

/// What each small page of the tested ranges shows.
type Model = BTreeMap<u64, (u64, MemRights)>;

/// Parts of the address space that the steps are about: 1 GiB, its border, and far away.
const BASES: [u64; 3] = [0, HUGE_PAGE - LARGE_PAGE_SIZE, 1 << 46];
/// Pages from each of these that steps can be about.
const TOUCHED: u64 = 2 * 1100;
/// Those that are looked at.
const SEEN: u64 = 3 * 512;

fn seen() -> impl Iterator<Item = u64> {
    // All pages are too many for every step; these are all borders of large ones, and their neighbours.
    BASES.into_iter().flat_map(|base| {
        let near = |page: &u64| matches!(page % 512, 0..=8 | 255 | 256 | 505..=511);
        (0..SEEN).filter(near).map(move |page| base + page * PAGE_SIZE)
    })
}

fn rights(bits: u8) -> MemRights {
    let mut rights = MemRights::READ;
    rights.set(MemRights::WRITE, bits & 1 != 0);
    rights.set(MemRights::EXEC, bits & 2 != 0);
    rights.set(MemRights::DEVICE, bits & 4 != 0);
    rights
}

/// One step: what, in which part, from which page, how many, to where.
type Step = (u8, usize, u64, u64, u64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = prop_oneof![Just(0u64), Just(512), 0u64..1100];
    let count = prop_oneof![Just(1u64), Just(512), Just(1024), 1u64..12, 1u64..1100];
    let to = prop_oneof![Just(0u64), Just(512), 0u64..600];
    proptest::collection::vec((0u8..16, 0..BASES.len(), page, count, to), 1..40)
}

/// Carries a step out on both.
fn act(
    space: &mut Tables<Fake>,
    model: &mut Model,
    pool: &mut Pool,
    (what, part, page, count, to): Step,
) -> Result<(), TestCaseError> {
    let at = BASES[part] + page * PAGE_SIZE;
    let target = HUGE_PAGE + to * PAGE_SIZE;
    let pages = (0..count).map(|n| (at + n * PAGE_SIZE, target + n * PAGE_SIZE));
    let length = count * PAGE_SIZE;
    match what {
        0..=7 => {
            let changed = space.map(at, HostPhys(target), length, rights(what), pool);
            let mut expected = false;
            for (at, to) in pages {
                let old = model.insert(at, (to, rights(what)));
                expected |= old.is_some_and(|old| old != (to, rights(what)));
            }
            // A large page in place of a table counts as a change, even if it shows the same.
            prop_assert!(changed == Ok(expected) || (changed == Ok(true) && count > 1));
        }
        8..=10 => {
            let mut expected = false;
            for (at, _) in pages {
                expected |= model.remove(&at).is_some();
            }
            prop_assert_eq!(space.unmap(at, length, pool), Ok(expected));
        }
        11 => prop_assert_eq!(space.divide(at, pool), Ok(())),
        12 => {
            let filled = space.fill(at, HostPhys(target), rights(0));
            prop_assert!(!filled || !model.contains_key(&at));
            if filled {
                model.insert(at, (target, rights(0)));
            }
        }
        13 | 14 => huge(space, model, pool, (part as u64 % 2 * HUGE_PAGE, what == 13)),
        _ => {
            let near = space.near_page(at).map(|(phys, rights)| (phys.0, rights));
            prop_assert!(near.is_none() || near.as_ref() == model.get(&at));
            let found = space.walk_near(at).map(|leaf| (leaf.phys.0, leaf.rights));
            prop_assert_eq!(found.as_ref(), model.get(&at));
        }
    }
    Ok(())
}

/// Maps or unmaps 1 GiB.
fn huge(space: &mut Tables<Fake>, model: &mut Model, pool: &mut Pool, (at, map): (u64, bool)) {
    let target = 8 * HUGE_PAGE;
    let pages = BASES.into_iter().flat_map(|base| (0..TOUCHED).map(move |n| base + n * PAGE_SIZE));
    for page in pages.filter(|page| page / HUGE_PAGE == at / HUGE_PAGE) {
        if map {
            model.insert(page, (target + page % HUGE_PAGE, rights(1)));
        } else {
            model.remove(&page);
        }
    }
    if map {
        space.map(at, HostPhys(target), HUGE_PAGE, rights(1), pool).unwrap();
        assert_eq!(space.walk(at).map(|leaf| leaf.size), Some(HUGE_PAGE));
    } else {
        space.unmap(at, HUGE_PAGE, pool).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The tables show what a map of small pages shows; afterwards all frames come back.
    #[test]
    fn behaves_like_a_map(steps in steps()) {
        let mut pool = Pool::new(10_000);
        let mut space = tables(&mut pool);
        let mut model = Model::new();
        for step in steps {
            act(&mut space, &mut model, &mut pool, step)?;
            for at in seen() {
                let found = space.walk(at + 8).map(|leaf| (leaf.phys.0 - 8, leaf.rights));
                prop_assert_eq!(found.as_ref(), model.get(&at), "{:#x}", at);
            }
            prop_assert_eq!(pool.left + Pool::in_use(), 10_000);
        }
        // No table is left that shows nothing.
        for base in [0, HUGE_PAGE, BASES[2]] {
            space.unmap(base, HUGE_PAGE, &mut pool).unwrap();
        }
        prop_assert_eq!(Pool::in_use(), 1);
        space.clear(false, &mut pool);
        prop_assert_eq!(Pool::in_use(), 0);
    }

    /// With few frames steps fail, and what they were not about stays as it was.
    #[test]
    fn failure_spares_all_else(steps in steps(), frames in 1usize..12) {
        let mut pool = Pool::new(frames);
        let mut space = tables(&mut pool);
        for (what, part, page, count, to) in steps {
            let at = BASES[part] + page * PAGE_SIZE;
            let length = count * PAGE_SIZE;
            let outside = |page: &u64| *page < at || *page >= at + length;
            let show = |space: &Tables<Fake>| -> Vec<_> {
                let pages = seen().filter(outside);
                pages.map(|at| space.walk(at).map(|l| (l.phys, l.rights))).collect()
            };
            let before = show(&space);
            let to = HostPhys(HUGE_PAGE + to * PAGE_SIZE);
            let _ = match what {
                0..=7 => space.map(at, to, length, rights(what), &mut pool),
                8..=10 => space.unmap(at, length, &mut pool),
                _ => space.divide(at, &mut pool).map(|()| false),
            };
            prop_assert_eq!(show(&space), before);
            prop_assert_eq!(pool.left + Pool::in_use(), frames);
        }
        space.clear(false, &mut pool);
        prop_assert_eq!(Pool::in_use(), 0);
    }
}
