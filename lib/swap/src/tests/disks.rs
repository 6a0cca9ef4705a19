//! Disks that lie, or fail.
use super::*;

#[test]
fn an_earlier_version_is_noticed() {
    let mut bench = Bench::new(PAGES);
    bench.write(0, 0, &contents(2, 1)).expect("room");
    bench.push_out(1);
    let old = bench.disk.0.borrow().contents.clone();
    bench.write(0, 0, &contents(2, 2)).expect("room");
    bench.push_out(1);
    // The whole disk as it was before.
    bench.disk.0.borrow_mut().contents = old;
    assert_eq!(bench.read(0, 0), Err(Answer::Lost));
}

#[test]
fn another_page_is_noticed() {
    let mut bench = Bench::new(PAGES);
    for page in 0..PAGES {
        bench.write(0, page, &contents(2, 5)).expect("room");
    }
    while bench.complete(0).is_some() {}
    let mut disk = bench.disk.0.borrow_mut();
    let (a, b) = (disk.contents[&0].clone(), disk.contents[&1].clone());
    disk.contents.insert(0, b);
    disk.contents.insert(1, a);
    drop(disk);
    let lost = (0..PAGES).filter(|page| bench.read(0, *page) == Err(Answer::Lost)).count();
    assert_eq!(lost, 2, "both pages, though they are equal");
}

#[test]
fn a_truncated_disk_is_noticed_and_a_lost_page_can_be_given_up() {
    let mut bench = Bench::new(PAGES);
    bench.write(0, 0, &contents(2, 1)).expect("room");
    bench.push_out(1);
    bench.disk.0.borrow_mut().contents.clear();
    assert_eq!(bench.read(0, 0), Err(Answer::Lost));
    assert_eq!(bench.read(0, 0), Err(Answer::Lost));
    bench.swap.forget(0);
    assert!(bench.read(0, 0) == Ok(contents(0, 0)), "zeros");
}

#[test]
fn a_disk_that_fails_to_write_loses_those_pages() {
    let mut bench = Bench::new(PAGES);
    for page in 0..FRAMES + 1 {
        while bench.swap.fault(page, 0, true) == Answer::Later {
            let request = bench.disk.fail().expect("something to wait for");
            bench.swap.finished(request, false);
        }
        let found = bench.swap.fault(page, 0, true);
        let Answer::Map { frame, .. } = found else { panic!("{found:?}") };
        bench.spaces.0.borrow_mut().mapped.insert((0, page), (frame, true));
        bench.memory.write(u64::from(frame) * PAGE as u64, &contents(2, page)).expect("inside");
    }
    let mut damage = None;
    while let Some(request) = bench.disk.fail() {
        damage = damage.or(bench.swap.finished(request, false));
    }
    let damage = damage.expect("a page is lost");
    assert!(!damage.forged);
    assert_eq!(bench.swap.fault(damage.page, 0, false), Answer::Lost);
    assert!(bench.swap.counters().lost > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Pages that are lost on demand, wherever they are, and given up: all others keep their contents, and no place is lost with them.
    #[test]
    fn pages_can_be_lost_on_demand(
        steps in proptest::collection::vec((0u8..4, 0u32..PAGES, 0u8..3, any::<u32>()), 1..250),
    ) {
        let mut bench = Bench::new(PAGES + 10);
        let mut model: HashMap<u32, Option<Vec<u8>>> = HashMap::new();
        let mut lost = 0;
        for (what, page, kind, seed) in steps {
            let there = model.get(&page).cloned().unwrap_or(Some(contents(0, 0)));
            match what {
                0 => {
                    let done = bench.write(seed as u8 % 3, page, &contents(kind, seed));
                    prop_assert_eq!(done.is_ok(), there.is_some());
                    if done.is_ok() {
                        model.insert(page, Some(contents(kind, seed)));
                    }
                }
                1 => prop_assert!(bench.read(0, page).ok() == there, "page {page}"),
                2 => {
                    if bench.swap.lose(page) {
                        lost += u64::from(there.is_some());
                        model.insert(page, None);
                    } else {
                        prop_assert!(bench.swap.now().under_way > 0);
                    }
                    prop_assert_eq!(bench.swap.counters().lost, lost);
                }
                _ => {
                    bench.swap.forget(page);
                    if there.is_none() {
                        model.insert(page, Some(contents(0, 0)));
                    }
                }
            }
        }
        for page in 0..PAGES {
            let there = model.get(&page).cloned().unwrap_or(Some(contents(0, 0)));
            prop_assert!(bench.read(0, page).ok() == there, "page {page} at the end");
        }
        // When all are lost, nothing takes up any place.
        while bench.complete(0).is_some() {}
        for page in 0..PAGES {
            prop_assert!(bench.swap.lose(page));
        }
        let now = bench.swap.now();
        prop_assert_eq!((now.resident, now.shown, now.packed, now.away), (0, 0, 0, 0));
        prop_assert_eq!(now.packed_bytes, 0);
        prop_assert!(bench.spaces.0.borrow().mapped.is_empty());
        prop_assert!(!bench.swap.lose(PAGES));
    }
}
