mod again;

use super::*;
use abi::MESSAGE_WORDS;
use alloc::collections::BTreeSet;
use alloc::vec;
use memory::Fake;
use proptest::prelude::*;

const READ: MemRights = MemRights::READ;
const WRITE: MemRights = MemRights::READ.union(MemRights::WRITE);
const EXEC: MemRights = MemRights::READ.union(MemRights::EXEC);
const NONE: MemRights = MemRights::empty();

fn shares(pool: u64, quotas: &str) -> Shares<Fake> {
    Shares::new(pool, Accounts::list(quotas).expect("a list"), Notes::new(None))
}

impl<M: Memory> Shares<M> {
    /// An object without a name: its number.
    fn made_now(&mut self, owner: u64, length: u64, rights: MemRights) -> Result<u32, Error> {
        match self.create(owner, length, rights, 0)? {
            Created::Fresh(object) => {
                self.made(object);
                Ok(object)
            }
            Created::There(object) => panic!("object {object} was there"),
        }
    }
}

fn change(user: u64, rights: MemRights) -> Change {
    Change { user, rights }
}

#[test]
fn nobody_gets_more_than_the_owner_has() {
    let mut shares = shares(1 << 20, "1:1048576");
    let readable = shares.made_now(1, PAGE, READ).expect("an object");
    assert_eq!(shares.give(1, readable, 2, WRITE), Err(Error::NoRight));
    assert_eq!(shares.give(1, readable, 2, EXEC), Err(Error::NoRight));
    assert_eq!(shares.give(1, readable, 1, WRITE), Err(Error::NoRight));
    assert_eq!(shares.give(1, readable, 2, READ), Ok(vec![change(2, READ)]));
    assert_eq!(shares.give(2, readable, 3, READ), Err(Error::NoRight), "not the owner");
    assert_eq!(shares.give(1, readable, CLIENT_LIMIT, READ), Err(Error::BadArgument));
    for both in [WRITE | EXEC, MemRights::WRITE | MemRights::EXEC, MemRights::DEVICE] {
        assert_eq!(shares.made_now(1, PAGE, both), Err(Error::BadArgument));
    }
}

#[test]
fn an_owner_that_lowers_itself_lowers_all() {
    let mut shares = shares(1 << 20, "1:1048576");
    let object = shares.made_now(1, PAGE, MemRights::WRITE).expect("an object");
    for (user, rights) in [(2, WRITE), (3, READ)] {
        assert_eq!(shares.give(1, object, user, rights), Ok(vec![change(user, rights)]));
    }
    assert_eq!(shares.give(1, object, 2, WRITE), Ok(vec![]), "as before");
    assert_eq!(shares.give(1, object, 1, READ), Ok(vec![change(1, READ), change(2, READ)]));
    assert_eq!(shares.give(1, object, 2, WRITE), Err(Error::NoRight));
    let all = vec![change(1, NONE), change(2, NONE), change(3, NONE)];
    assert_eq!(shares.give(1, object, 1, NONE), Ok(all));
}

#[test]
fn an_owner_s_end_is_the_end_of_its_objects() {
    let mut shares = shares(3 * PAGE, "1:8192,2:4096");
    let (first, second) = (shares.made_now(1, 1, WRITE), shares.made_now(1, PAGE, WRITE));
    let other = shares.made_now(2, PAGE, WRITE).expect("an object");
    assert_eq!((first, second), (Ok(0), Ok(1)));
    assert_eq!(shares.made_now(1, 1, WRITE), Err(Error::NoMemory), "the quota is used up");
    shares.give(1, 1, 2, READ).expect("given");
    shares.give(2, other, 1, READ).expect("given");
    let (ended, left) = shares.client_ended(1);
    let ended: Vec<_> = ended.into_iter().map(|e| (e.object, e.users)).collect();
    assert_eq!((ended, left), (vec![(0, vec![1]), (1, vec![1, 2])], vec![other]));
    assert_eq!(shares.user(1, 2), User::default());
    assert_eq!((shares.total(), shares.end(1, 1)), ((1, PAGE), Err(Error::Refused)));
    assert_eq!(shares.made_now(1, 2 * PAGE, WRITE), Ok(0), "quota and memory are back");
}

#[test]
fn a_name_is_one_object() {
    let mut shares = shares(1 << 20, "1:65536,2:65536");
    let mut create =
        |owner, length, name| shares.create(owner, length, WRITE, name).map_err(|e| e.text());
    assert_eq!(create(1, 1, 7), Ok(Created::Fresh(0)));
    assert_eq!(create(1, PAGE, 7), Ok(Created::There(0)));
    assert_eq!(create(1, PAGE + 1, 7), Err(Error::BadArgument.text()));
    assert_eq!(create(1, PAGE, 8), Ok(Created::Fresh(1)));
    assert_eq!(create(2, PAGE, 7), Ok(Created::Fresh(2)), "names are each owner's own");
    assert_eq!(create(2, PAGE, 0), Ok(Created::Fresh(3)), "no name");
    assert_eq!(create(2, PAGE, 0), Ok(Created::Fresh(4)), "no name");
    shares.end(1, 0).expect("it was there");
    assert_eq!(shares.create(1, PAGE, WRITE, 7), Ok(Created::Fresh(0)));
}

#[test]
fn regions_are_inside_and_not_too_many() {
    let mut shares = shares(1 << 20, "1:1048576");
    let object = shares.made_now(1, 4 * PAGE, WRITE).expect("an object");
    assert_eq!(shares.attach(2, object, 0, PAGE), Err(Error::NoRight));
    assert_eq!(shares.attach(1, object + 1, 0, PAGE), Err(Error::Refused));
    for (offset, length) in
        [(0, 5 * PAGE), (0, 0), (PAGE, 4 * PAGE), (1, PAGE), (!0, PAGE), (PAGE, !0)]
    {
        assert_eq!(shares.attach(1, object, offset, length), Err(Error::BadArgument));
    }
    for _ in 0..MOST_REGIONS {
        assert_eq!(shares.attach(1, object, PAGE, 3 * PAGE), Ok(4 * PAGE));
    }
    assert_eq!(shares.attach(1, object, 0, PAGE), Err(Error::Quota));
    assert_eq!(shares.detach(1, object), Ok(()));
    assert_eq!(shares.attach(1, object, 0, PAGE), Ok(PAGE));
}

/// What an object is to a model: owner, bytes, rights of each client.
type Simple = (u64, u64, [MemRights; 4]);

#[derive(Clone, Debug)]
enum Step {
    Create(u64, u64, MemRights),
    Give(u64, u32, u64, MemRights),
    End(u64, u32),
    ClientEnded(u64),
}

fn rights() -> impl Strategy<Value = MemRights> {
    (0u64..8).prop_map(MemRights::from_bits_truncate)
}

fn step() -> impl Strategy<Value = Step> {
    let (client, object) = (|| 0u64..3, || 0u32..3);
    prop_oneof![
        3 => (client(), 1u64..6, rights()).prop_map(|(c, pages, r)| Step::Create(c, pages, r)),
        6 => (client(), object(), client(), rights()).prop_map(|(c, o, u, r)| Step::Give(c, o, u, r)),
        2 => (client(), object()).prop_map(|(c, o)| Step::End(c, o)),
        1 => client().prop_map(Step::ClientEnded),
    ]
}

/// Rights as the model understands them: `None` for those that there are not.
fn sensible(rights: MemRights) -> Option<MemRights> {
    match rights.bits() {
        0 => Some(NONE),
        1 => Some(READ),
        2 | 3 => Some(WRITE),
        4 | 5 => Some(EXEC),
        _ => None,
    }
}

const POOL: u64 = 12;
const QUOTA: u64 = 5;

#[derive(Clone, Default)]
struct Model(BTreeMap<u32, Simple>);

impl Model {
    fn used(&self, client: u64) -> u64 {
        self.0.values().filter(|o| o.0 == client).map(|o| o.1).sum()
    }

    /// True when the owner may.
    fn give(&mut self, caller: u64, object: u32, user: u64, rights: MemRights) -> bool {
        let Some((owner, _, all)) = self.0.get_mut(&object) else { return false };
        let Some(rights) = sensible(rights) else { return false };
        if *owner != caller || !all[caller as usize].contains(rights) {
            return false;
        }
        all[user as usize] = rights;
        if user == caller {
            all.iter_mut().for_each(|other| *other &= rights);
        }
        true
    }
}

/// Makes an object in both.
fn create<M: Memory>(
    shares: &mut Shares<M>,
    model: &mut Model,
    owner: u64,
    pages: u64,
    rights: MemRights,
) -> Result<(), TestCaseError> {
    let made = shares.made_now(owner, pages * PAGE, rights);
    let good = sensible(rights).filter(|r| !r.is_empty());
    let Some(rights) = good.filter(|_| model.used(owner) + pages <= QUOTA) else {
        prop_assert!(made.is_err());
        return Ok(());
    };
    if let Ok(object) = made {
        let mut all = [NONE; 4];
        all[owner as usize] = rights;
        prop_assert!(model.0.insert(object, (owner, pages, all)).is_none());
    } else {
        // No part that is free is long enough.
        prop_assert_eq!(made, Err(Error::NoMemory));
    }
    Ok(())
}

/// Ends a client in both.
fn client_ended<M: Memory>(
    shares: &mut Shares<M>,
    model: &mut Model,
    client: u64,
) -> Result<(), TestCaseError> {
    let (ended, left) = shares.client_ended(client);
    let own: Vec<u32> = model.0.iter().filter(|(_, o)| o.0 == client).map(|(n, _)| *n).collect();
    prop_assert_eq!(ended.iter().map(|e| e.object).collect::<Vec<_>>(), own.clone());
    model.0.retain(|n, _| !own.contains(n));
    for (number, object) in &mut model.0 {
        let had = !object.2[client as usize].is_empty();
        prop_assert!(!had || left.contains(number));
        object.2[client as usize] = NONE;
    }
    Ok(())
}

/// Both say the same.
fn agree<M: Memory>(shares: &Shares<M>, model: &Model) -> Result<(), TestCaseError> {
    let mut places = Vec::new();
    for object in 0..8 {
        let known = model.0.get(&object);
        prop_assert_eq!(shares.owner(object), known.map(|o| o.0));
        prop_assert_eq!(shares.place(object).map(|p| p.length).ok(), known.map(|o| o.1 * PAGE));
        places.extend(shares.place(object));
        for client in 0..4 {
            let expected = known.map_or(NONE, |o| o.2[client as usize]);
            prop_assert_eq!(shares.user(object, client).rights, expected);
        }
    }
    places.sort_unstable_by_key(|p| p.base);
    prop_assert!(places.windows(2).all(|two| two[0].base + two[0].length <= two[1].base));
    prop_assert!(places.iter().all(|p| p.base + p.length <= POOL * PAGE));
    for client in 0..4 {
        prop_assert_eq!(shares.accounts.of(client).used, model.used(client) * PAGE);
    }
    Ok(())
}

proptest! {
    /// Who may do what is what a map says that only owners write to; quotas hold; no two objects lie in the same memory; and
    /// each loss of rights is told, exactly once.
    #[test]
    fn behaves_like_a_table_of_rights(steps in proptest::collection::vec(step(), 0..100)) {
        let quotas = (0..4).map(|c| alloc::format!("{c}:{},", QUOTA * PAGE)).collect::<alloc::string::String>();
        let mut shares = shares(POOL * PAGE, &quotas);
        let mut model = Model::default();
        for step in steps {
            let before = model.0.clone();
            match step {
                Step::Create(owner, pages, rights) => {
                    create(&mut shares, &mut model, owner, pages, rights)?;
                }
                Step::Give(caller, object, user, rights) => {
                    let done = shares.give(caller, object, user, rights);
                    prop_assert_eq!(done.is_ok(), model.give(caller, object, user, rights));
                    let told: BTreeMap<_, _> = done.unwrap_or_default().into_iter().map(|c| (c.user, c.rights)).collect();
                    let was = before.get(&object).map_or([NONE; 4], |o| o.2);
                    let is = model.0.get(&object).map_or([NONE; 4], |o| o.2);
                    let expected = (0..4).filter(|c| was[*c] != is[*c]).map(|c| (c as u64, is[c])).collect();
                    prop_assert_eq!(told, expected);
                }
                Step::End(caller, object) => {
                    let ended = shares.end(caller, object);
                    let own = before.get(&object).is_some_and(|o| o.0 == caller);
                    prop_assert_eq!(ended.is_ok(), own);
                    if let Ok(ended) = ended {
                        let (_, _, all) = model.0.remove(&object).expect("it was there");
                        let told: BTreeSet<u64> = ended.users.into_iter().collect();
                        prop_assert!((0..4).all(|c| all[c as usize].is_empty() || told.contains(&c)));
                    }
                }
                Step::ClientEnded(client) => client_ended(&mut shares, &mut model, client)?,
            }
            agree(&shares, &model)?;
        }
    }

    /// What a client sends is understood as it was meant, or not at all.
    #[test]
    fn requests_survive_the_way(words in any::<[u64; MESSAGE_WORDS]>(), kind in 0u64..9, small in any::<[u16; 5]>()) {
        for words in [words, [kind, small[0].into(), small[1].into(), small[2].into(), small[3].into(), 0, 0, 0]] {
            if let Some(request) = Request::decode(&words) {
                prop_assert_eq!(Request::decode(&request.encode()), Some(request));
            }
        }
    }
}
