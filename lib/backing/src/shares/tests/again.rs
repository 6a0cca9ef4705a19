//! Managers that end at any moment, and others that go on in their place: after any byte that they write.
use super::*;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::Cell;
use memory::OutOfBounds;

/// Notes as a manager sees them that has so many bytes left to write before it ends; what it does afterwards, nobody sees.
#[derive(Clone, Debug)]
struct Mortal(Fake, Rc<Cell<usize>>);

impl Memory for Mortal {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.0.read(offset, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        for (at, byte) in (offset..).zip(from) {
            if self.ended() {
                break;
            }
            self.1.set(self.1.get() - 1);
            self.0.write(at, &[*byte])?;
        }
        Ok(())
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        self.0.load32(offset)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.write(offset, &value.to_le_bytes())
    }
}

impl Mortal {
    fn new() -> Self {
        Self(Fake::new(Notes::<Fake>::BYTES as usize), Rc::new(Cell::new(usize::MAX)))
    }

    fn ended(&self) -> bool {
        self.1.get() == 0
    }
}

/// What is asked, beside the owners' wishes.
#[derive(Clone, Debug)]
enum Asked {
    Owner(Step),
    Attach(u64, u32),
    Detach(u64, u32),
}

fn asked() -> impl Strategy<Value = Asked> {
    let (client, object) = (|| 0u64..4, || 0u32..3);
    prop_oneof![
        6 => step().prop_map(Asked::Owner),
        2 => (client(), object()).prop_map(|(c, o)| Asked::Attach(c, o)),
        1 => (client(), object()).prop_map(|(c, o)| Asked::Detach(c, o)),
    ]
}

/// Model, and who has regions of what.
#[derive(Clone, Default)]
struct All {
    model: Model,
    shown: BTreeSet<(u64, u32)>,
    /// Clients that have ended: it is written down elsewhere.
    ended: BTreeSet<u64>,
}

fn quotas() -> Accounts {
    let list: String = (0..4).map(|c| alloc::format!("{c}:{},", QUOTA * PAGE)).collect();
    Accounts::list(&list).expect("a list")
}

/// A manager that goes on with these notes.
fn start(notes: &Mortal) -> Shares<Mortal> {
    Shares::new(POOL * PAGE, quotas(), Notes::new(Some(notes.clone())))
}

impl All {
    /// Carries out what is asked, in both.
    fn carry_out(
        &mut self,
        shares: &mut Shares<Mortal>,
        asked: &Asked,
    ) -> Result<(), TestCaseError> {
        match *asked {
            Asked::Owner(Step::Create(owner, pages, rights)) if !self.ended.contains(&owner) => {
                create(shares, &mut self.model, owner, pages, rights)?;
            }
            Asked::Owner(Step::Give(caller, object, user, rights)) => {
                let done = shares.give(caller, object, user, rights);
                prop_assert_eq!(done.is_ok(), self.model.give(caller, object, user, rights));
            }
            Asked::Owner(Step::End(caller, object)) => {
                if shares.end(caller, object).is_ok() {
                    self.model.0.remove(&object);
                }
            }
            Asked::Owner(Step::ClientEnded(client)) => {
                self.ended.insert(client);
                client_ended(shares, &mut self.model, client)?;
                self.shown.retain(|(c, _)| *c != client);
            }
            Asked::Attach(client, object) if !self.ended.contains(&client) => {
                if shares.attach(client, object, 0, PAGE).is_ok() {
                    self.shown.insert((client, object));
                }
            }
            Asked::Detach(client, object) => {
                if shares.detach(client, object).is_ok() {
                    self.shown.remove(&(client, object));
                }
            }
            Asked::Owner(_) | Asked::Attach(..) => {}
        }
        self.shown.retain(|(_, object)| self.model.0.contains_key(object));
        Ok(())
    }

    /// What was given to clients that have ended already is taken from them when the next manager begins.
    fn without_ended(mut self) -> Self {
        for object in self.model.0.values_mut() {
            self.ended.iter().for_each(|client| object.2[*client as usize] = NONE);
        }
        self
    }

    fn agrees(&self, shares: &Shares<Mortal>) -> Result<(), TestCaseError> {
        agree(shares, &self.model)?;
        for (client, object) in (0..4).flat_map(|c| (0..8).map(move |o| (c, o))) {
            let shown = self.shown.contains(&(client, object));
            prop_assert_eq!(shares.user(object, client).shown, shown);
            let again = shares.shows_again(client, object, (0, PAGE), READ);
            let may = !shares.user(object, client).rights.is_empty();
            prop_assert_eq!(again.is_ok(), shown && may);
        }
        Ok(())
    }
}

/// Another manager goes on, and perhaps ends as it does so. What was asked of the one before has happened wholly or not at all.
fn succeed(
    notes: &Mortal,
    bytes: usize,
    (before, after): (&All, &All),
) -> Result<(Shares<Mortal>, All), TestCaseError> {
    notes.1.set(bytes);
    let mut shares = start(notes);
    if notes.ended() {
        notes.1.set(usize::MAX);
        shares = start(notes);
    }
    let mut all = after.clone().without_ended();
    for client in &after.ended {
        shares.client_ended(*client);
    }
    if all.agrees(&shares).is_err() {
        all = All { ended: after.ended.clone(), ..before.clone() }.without_ended();
        all.agrees(&shares)?;
    }
    if notes.ended() {
        notes.1.set(usize::MAX);
        shares = start(notes);
        for client in &after.ended {
            shares.client_ended(*client);
        }
        all.agrees(&shares)?;
    }
    Ok((shares, all))
}

proptest! {
    /// Whatever is asked has happened or not, whenever the manager ends; and what was answered has happened.
    #[test]
    fn a_manager_ends_at_any_moment(
        steps in proptest::collection::vec(asked(), 0..120),
        lives in proptest::collection::vec((0usize..600, 0usize..2000), 1..8),
    ) {
        let notes = Mortal::new();
        let mut shares = start(&notes);
        shares.begin();
        let mut all = All::default();
        let mut lives = lives.into_iter();
        notes.1.set(lives.next().map_or(usize::MAX, |(bytes, _)| bytes));
        for asked in steps {
            let before = all.clone();
            all.carry_out(&mut shares, &asked)?;
            if notes.ended() {
                let (bytes, first) = lives.next().unwrap_or((usize::MAX, usize::MAX));
                (shares, all) = succeed(&notes, first, (&before, &all))?;
                notes.1.set(bytes);
            }
            if !notes.ended() {
                all.agrees(&shares)?;
            }
        }
    }

    /// Notes that say anything are survived: no two objects in one place, nobody with more than the owner, no quota exceeded. What
    /// was not touched is as it was, or, where it was in the way of what was, no more; and all goes on.
    #[test]
    fn any_notes_are_survived(
        steps in proptest::collection::vec(asked(), 0..60),
        damage in proptest::collection::vec((0u32..4, 0u64..128, prop_oneof![any::<u8>(), 0u8..8]), 1..40),
        later in proptest::collection::vec(asked(), 0..60),
    ) {
        let notes = Mortal::new();
        let mut shares = start(&notes);
        shares.begin();
        let mut all = All::default();
        for asked in steps {
            all.carry_out(&mut shares, &asked)?;
        }
        let mut struck = BTreeSet::new();
        for (object, at, byte) in damage {
            struck.insert(object);
            notes.0.write(64 + u64::from(object) * 128 + at, &[byte]).expect("inside");
        }
        let mut shares = start(&notes);
        let mut found = All { ended: all.ended.clone(), ..All::default() };
        for object in 0..8 {
            let Ok(place) = shares.place(object) else { continue };
            let owner = shares.owner(object).expect("an owner");
            let most = shares.user(object, owner).rights;
            let rights = core::array::from_fn(|c| shares.user(object, c as u64).rights);
            for (client, user) in shares.users(object) {
                prop_assert!(most.contains(user.rights));
                prop_assert_eq!(checked(user.rights), Ok(user.rights));
                if user.shown {
                    found.shown.insert((client, object));
                }
            }
            prop_assert!(owner < 4, "no other client has a quota");
            if !struck.contains(&object) {
                let known = all.model.0.get(&object).map(|o| o.2);
                prop_assert_eq!(Some(rights), known);
            }
            found.model.0.insert(object, (owner, place.length / PAGE, rights));
        }
        agree(&shares, &found.model)?;
        for asked in later {
            found.carry_out(&mut shares, &asked)?;
            agree(&shares, &found.model)?;
        }
    }

    /// Notes of random bytes alone.
    #[test]
    fn random_notes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 64 * 128)) {
        let notes = Mortal::new();
        notes.0.write(64, &bytes).expect("inside");
        notes.0.write(0, b"shared\0\0").expect("inside");
        let shares = start(&notes);
        prop_assert!(shares.total().1 <= POOL * PAGE);
    }
}

#[test]
fn what_is_there_from_the_start_is_made_again_until_all_of_it_is() {
    let notes = Mortal::new();
    let mut first = start(&notes);
    assert_eq!(first.made_now(1, PAGE, WRITE), Ok(0));
    assert!(!first.begun());
    let mut second = start(&notes);
    assert_eq!(second.total(), (0, 0));
    assert_eq!(second.made_now(1, PAGE, WRITE), Ok(0));
    second.begin();
    let third = start(&notes);
    assert!(third.begun() && third.total() == (1, PAGE));
}

#[test]
fn an_object_is_there_again_under_its_name() {
    let notes = Mortal::new();
    let mut shares = start(&notes);
    shares.begin();
    // The manager ends before it is made, then before its owner hears of it.
    assert_eq!(shares.create(1, PAGE, WRITE, 5), Ok(Created::Fresh(0)));
    let mut shares = start(&notes);
    assert_eq!(shares.create(1, PAGE, WRITE, 5), Ok(Created::Fresh(0)));
    shares.made(0);
    let mut shares = start(&notes);
    assert_eq!(shares.create(1, PAGE, WRITE, 5), Ok(Created::There(0)));
}

#[test]
fn without_notes_nothing_is_known_later() {
    let short = Fake::new(Notes::<Fake>::BYTES as usize - 1);
    let mut shares = Shares::new(1 << 20, quotas(), Notes::new(Some(short)));
    shares.begin();
    assert_eq!(shares.made_now(1, PAGE, WRITE), Ok(0));
    assert!(!shares.begun());
}

#[test]
fn an_owner_lowers_all_or_none() {
    for bytes in 0..8 {
        let notes = Mortal::new();
        let mut shares = start(&notes);
        shares.begin();
        assert_eq!(shares.made_now(2, PAGE, WRITE), Ok(0));
        for user in [0, 1, 3] {
            shares.give(2, 0, user, WRITE).expect("given");
        }
        notes.1.set(bytes);
        shares.give(2, 0, 2, READ).expect("lowered");
        notes.1.set(usize::MAX);
        let shares = start(&notes);
        let rights = [0, 1, 2, 3].map(|client| shares.user(0, client).rights);
        let expected = if bytes == 0 { WRITE } else { READ };
        assert_eq!(rights, [expected; 4], "after {bytes} bytes");
    }
}

#[test]
fn objects_in_each_other_s_place_are_no_more() {
    let notes = Mortal::new();
    let mut shares = start(&notes);
    shares.begin();
    for length in [2 * PAGE, PAGE, PAGE] {
        shares.made_now(1, length, WRITE).expect("room");
    }
    // The second one claims the second page of the first.
    notes.0.write(64 + 128 + 8, &PAGE.to_le_bytes()).expect("inside");
    let shares = start(&notes);
    assert_eq!([0, 1, 2].map(|object| shares.owner(object)), [None, None, Some(1)]);
    assert_eq!(start(&notes).total(), (1, PAGE), "they stay away");
}
