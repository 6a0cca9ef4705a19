//! Managers that end at any moment, and others that go on in their place: after any write of theirs to
//! memory, notes or disk.
use super::*;

fn stored(bench: &mut Bench, model: &HashMap<u32, Vec<u8>>) -> Result<(), TestCaseError> {
    for page in 0..PAGES {
        let expected = model.get(&page).cloned().unwrap_or(alloc::vec![0; PAGE]);
        prop_assert!(bench.read(0, page) == Ok(expected), "page {page}");
    }
    Ok(())
}

/// Carries out steps until the manager has ended.
fn live(bench: &mut Bench, model: &mut HashMap<u32, Vec<u8>>, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Write { space, page, kind, seed } => {
                let bytes = contents(kind, seed);
                if bench.write(space, page, &bytes).is_ok() {
                    model.insert(page, bytes);
                }
            }
            Step::Read { space, page } => drop(bench.read(space, page)),
            Step::Complete(choice) => drop(bench.complete(choice)),
        }
        if bench.life.ended() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_lost_whenever_a_manager_ends(
        lives in proptest::collection::vec(
            (proptest::collection::vec(step(), 1..120), 0usize..4000, 0usize..8), 1..4),
    ) {
        let mut bench = Bench::new(PAGES + 10);
        let mut model: HashMap<u32, Vec<u8>> = HashMap::new();
        for (steps, writes, arrived) in lives {
            bench.life.left(writes);
            live(&mut bench, &mut model, steps);
            let damages = bench.again(arrived);
            prop_assert_eq!(damages, Vec::new());
            let now = bench.swap.now();
            prop_assert!(now.resident <= FRAMES && now.away <= PAGES + 10);
        }
        stored(&mut bench, &model)?;
        prop_assert_eq!(bench.swap.counters().lost, 0);
    }

    #[test]
    fn nonsense_in_the_notes_harms_nobody_else(
        damage in proptest::collection::vec((any::<usize>(), any::<u64>()), 1..12),
    ) {
        let mut bench = Bench::new(PAGES);
        for page in 0..PAGES {
            bench.write(0, page, &contents(page as u8 % 3, page)).expect("room");
        }
        while bench.complete(0).is_some() {}
        let mut struck = HashSet::new();
        for (page, word) in damage {
            let page = page % PAGES as usize;
            struck.insert(page as u32);
            bench.notes.write(64 + page as u64 * 16, &word.to_le_bytes()).expect("inside");
        }
        bench.again(0);
        for page in (0..PAGES).filter(|page| !struck.contains(page)) {
            // The place of a page may be claimed by one with nonsense in its notes. Then the later of them is lost, and known
            // to be.
            let found = bench.read(0, page);
            let right = found == Ok(contents(page as u8 % 3, page));
            prop_assert!(right || found == Err(Answer::Lost), "page {page}");
        }
    }
}

#[test]
fn versions_go_on() {
    let mut bench = Bench::new(PAGES);
    bench.push_out(1);
    // The fake disk does not take the same sealed bytes twice.
    bench.again(0);
    bench.push_out(1);
    let sealed = bench.disk.0.borrow().seen.len();
    assert!(sealed > 2);
}
