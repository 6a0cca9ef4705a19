use super::*;
use alloc::vec;
use proptest::prelude::*;

const FRAMES: usize = 12;
const CLIENTS: u64 = 2;

/// Two clients with a private view each of the same file of four and a half pages; one page of zeros
/// behind it.
fn views() -> Vec<View> {
    let file = Object { base: 16 * PAGE, length: 4 * PAGE + PAGE / 2 };
    (0..CLIENTS).map(|client| View { file, length: 6 * PAGE, client }).collect()
}

fn copies(limit: u64) -> Copies {
    let limits = alloc::format!("0:{limit},1:{limit}");
    Copies::recover(views(), Accounts::list(&limits).expect("a list"), [0; FRAMES])
}

fn region() -> u64 {
    6 * PAGE
}

#[test]
fn reading_shows_the_file_and_writing_a_copy() {
    let mut copies = copies(100 * PAGE);
    let read = copies.answer((0, 0), 0, (PAGE + 5, region()), Access::Read);
    let whole = Piece { memory_offset: 16 * PAGE, region_offset: 0, length: 4 * PAGE, chunk: 0 };
    assert_eq!(read, Ok(Answer::File(whole)));
    let write = copies.answer((0, 0), 0, (PAGE + 5, region()), Access::Write);
    let fresh = Some(Object { base: 17 * PAGE, length: PAGE });
    assert_eq!(write, Ok(Answer::Own { frame: 0, region_offset: PAGE, fresh }));
    // The pages around it are the file's still, and the other client's are all.
    let read = copies.answer((0, 0), 0, (3 * PAGE, region()), Access::Read);
    let rest =
        Piece { memory_offset: 18 * PAGE, region_offset: 2 * PAGE, length: 2 * PAGE, chunk: 0 };
    assert_eq!(read, Ok(Answer::File(rest)));
    let other = copies.answer((1, 1), 0, (PAGE, region()), Access::Read);
    assert_eq!(other, Ok(Answer::File(whole)));
}

#[test]
fn what_the_file_does_not_fill_is_the_clients_own_from_the_beginning() {
    let mut copies = copies(100 * PAGE);
    let half = copies.answer((0, 0), 0, (4 * PAGE, region()), Access::Read);
    let fresh = Some(Object { base: 20 * PAGE, length: PAGE / 2 });
    assert_eq!(half, Ok(Answer::Own { frame: 0, region_offset: 4 * PAGE, fresh }));
    let zeros = copies.answer((0, 0), 0, (5 * PAGE, region()), Access::Read);
    let fresh = Some(Object { base: 21 * PAGE, length: 0 });
    assert_eq!(zeros, Ok(Answer::Own { frame: 1, region_offset: 5 * PAGE, fresh }));
}

#[test]
fn a_quota_ends_one_client_only_and_reading_goes_on() {
    let mut copies = copies(2 * PAGE);
    let mut write = |client: u64, page: u64| {
        copies.answer((client, client as u32), 0, (page * PAGE, region()), Access::Write)
    };
    assert!(write(0, 0).is_ok() && write(0, 1).is_ok());
    assert_eq!(write(0, 2), Err(Refusal::Exhausted));
    assert!(write(0, 1).is_ok(), "what it has it keeps");
    assert!(write(1, 2).is_ok());
    let read = copies.answer((0, 0), 0, (2 * PAGE, region()), Access::Read);
    assert!(matches!(read, Ok(Answer::File(_))));
}

#[test]
fn nobody_gets_anothers_view_or_what_is_outside() {
    let mut copies = copies(100 * PAGE);
    let mut ask = |client, view, start, offset, length| {
        copies.answer((client, view), start, (offset, length), Access::Write)
    };
    assert_eq!(ask(1, 0, 0, 0, region()), Err(Refusal::Foreign));
    assert_eq!(ask(0, 2, 0, 0, region()), Err(Refusal::NoView));
    assert_eq!(ask(0, 0, 0, region(), region()), Err(Refusal::Outside));
    assert_eq!(ask(0, 0, 0, region(), u64::MAX), Err(Refusal::Outside));
    assert_eq!(ask(0, 0, u64::MAX, 1, 2), Err(Refusal::Outside));
}

/// What a page of a view is to hold, as the server would fill it: where its bytes come from.
type Page = Option<Object>;

proptest! {
    #[test]
    fn copies_are_private_and_survive_the_manager(
        steps in proptest::collection::vec(
            (0..CLIENTS, 0u64..6, any::<bool>(), 0u8..12), 1..60,
        ),
        limit in 0u64..10,
    ) {
        let limits = alloc::format!("0:{0},1:{0}", limit * PAGE);
        let accounts = Accounts::list(&limits).expect("a list");
        let mut table = [0u64; FRAMES];
        let mut frames: Vec<Page> = vec![None; FRAMES];
        let mut copies = Copies::recover(views(), accounts.clone(), table);
        let mut model: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        for (client, page, write, restart) in steps {
            if restart == 0 {
                copies = Copies::recover(views(), accounts.clone(), table);
            }
            let access = if write { Access::Write } else { Access::Read };
            let place = (page * PAGE, region());
            let owned = model.get(&(client, page)).copied();
            let mine = model.keys().filter(|key| key.0 == client).count() as u64;
            match copies.answer((client, client as u32), 0, place, access) {
                Ok(Answer::File(piece)) => {
                    prop_assert!(!write && owned.is_none() && page < 4);
                    let pages = piece.region_offset / PAGE..(piece.region_offset + piece.length) / PAGE;
                    prop_assert!(pages.contains(&page) && pages.end <= 4);
                    prop_assert!(!pages.into_iter().any(|p| model.contains_key(&(client, p))));
                    prop_assert_eq!(piece.memory_offset, 16 * PAGE + piece.region_offset);
                }
                Ok(Answer::Own { frame, region_offset, fresh }) => {
                    prop_assert_eq!(region_offset, page * PAGE);
                    prop_assert_eq!(owned.is_none(), fresh.is_some());
                    if fresh.is_some() {
                        prop_assert!(!model.values().any(|f| *f == frame), "a frame of its own");
                        frames[frame as usize] = fresh;
                        table[frame as usize] = word(client as u32, page);
                        model.insert((client, page), frame);
                    }
                    prop_assert_eq!(model.get(&(client, page)), Some(&frame));
                    let from = frames[frame as usize].expect("filled");
                    prop_assert_eq!(from.base, (16 + page) * PAGE);
                }
                Err(refusal) => {
                    prop_assert_eq!(refusal, Refusal::Exhausted);
                    prop_assert!(owned.is_none() && (mine >= limit || model.len() == FRAMES));
                }
            }
        }
    }

    #[test]
    fn a_table_of_nonsense_is_no_danger(table in proptest::collection::vec(any::<u64>(), FRAMES)) {
        let limits = alloc::format!("0:{},1:{}", PAGE, PAGE);
        let accounts = Accounts::list(&limits).expect("a list");
        let small = table.iter().map(|w| w & 0x3_0000_0000_0007);
        let mut copies = Copies::recover(views(), accounts, small);
        let _ = copies.answer((0, 0), 0, (0, region()), Access::Write);
        prop_assert!(copies.count(0) + copies.count(1) <= FRAMES as u64);
    }
}
