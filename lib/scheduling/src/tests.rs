use super::{Arena, Deadline, Id, Links, Queued, RunQueue, Timers};
use abi::Error;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Debug)]
struct Item {
    priority: u8,
    links: Links<Item>,
    place: Option<usize>,
}

impl Item {
    fn new(priority: u8) -> Self {
        Self { priority, links: Links::default(), place: None }
    }
}

impl Queued for Item {
    fn priority(&self) -> u8 {
        self.priority
    }
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

impl Deadline for Item {
    fn place(&mut self) -> &mut Option<usize> {
        &mut self.place
    }
}

#[test]
fn a_name_does_not_survive_its_object() {
    let mut all = Arena::new();
    let first = all.insert(1);
    assert_eq!(all.remove(first), Some(1));
    let second = all.insert(2);
    assert_eq!(first.index(), second.index());
    assert_eq!(all.get(first), Err(Error::Gone));
    assert_eq!(all.remove(first), None);
    assert_eq!(all.get(second), Ok(&2));
}

#[test]
fn two_objects_are_two_wherever_they_are() {
    let mut all = Arena::new();
    let ids: Vec<_> = (0..300).map(|n| all.insert(n)).collect();
    let places = [0, 1, 127, 128, 130, 159, 160, 255, 299];
    for a in places {
        for b in places {
            let found = all.get_two_mut(ids[a], ids[b]).map(|(a, b)| (*a, *b));
            assert_eq!(found, if a == b { Err(Error::Gone) } else { Ok((a, b)) });
            let named = all.get_with_other(ids[a], |_| Some(ids[b]));
            assert_eq!(named.map(|(a, _, b)| (*a, *b)), found);
        }
        assert_eq!(all.get_two_mut(ids[a], Id::NONE), Err(Error::Gone));
        assert_eq!(all.get_with_other(ids[a], |_| None), Err(Error::Gone));
    }
    all.remove(ids[130]);
    assert_eq!(all.get_two_mut(ids[0], ids[130]), Err(Error::Gone));
    assert_eq!(all.get_two_mut(ids[130], ids[0]), Err(Error::Gone));
    let again = all.insert(0);
    assert_eq!((again.index(), again == ids[130]), (130, false));
}

proptest! {
    /// An arena does what a map from names does.
    #[test]
    fn arena_behaves_like_a_map(steps in proptest::collection::vec((0u8..4, any::<usize>()), 0..500)) {
        let mut all = Arena::new();
        let mut model: Vec<(Id<usize>, Option<usize>)> = Vec::new();
        for (insert, value) in steps {
            if insert > 0 || model.is_empty() {
                model.push((all.insert(value), Some(value)));
            } else {
                let at = value % model.len();
                let (id, expected) = &mut model[at];
                prop_assert_eq!(all.remove(*id), expected.take());
            }
            for (id, expected) in &model {
                prop_assert_eq!(all.get(*id).ok(), expected.as_ref());
            }
            let live = model.iter().filter(|(_, value)| value.is_some()).count();
            prop_assert_eq!(all.live(), live);
            prop_assert_eq!(all.iter().count(), live);
        }
    }

    /// A run queue does what a list per priority does.
    #[test]
    fn queue_behaves_like_lists(steps in proptest::collection::vec((0usize..24, 0u8..3), 0..300)) {
        let mut all = Arena::new();
        let ids: Vec<_> = (0..24u8).map(|n| all.insert(Item::new(n % 5 * 63))).collect();
        let mut queue = RunQueue::new();
        let mut model: BTreeMap<u8, VecDeque<usize>> = BTreeMap::new();
        for (item, action) in steps {
            let priority = item as u8 % 5 * 63;
            let list = model.entry(priority).or_default();
            match (list.contains(&item), action) {
                (true, _) => {
                    queue.remove(&mut all, ids[item]);
                    list.retain(|i| *i != item);
                }
                (false, 0) => {
                    queue.push(&mut all, ids[item], true);
                    list.push_front(item);
                }
                (false, _) => {
                    queue.push(&mut all, ids[item], false);
                    list.push_back(item);
                }
            }
            let highest = model.iter().rev().find(|(_, l)| !l.is_empty());
            prop_assert_eq!(queue.highest(), highest.map(|(p, _)| *p));
        }
        while let Some(id) = queue.pop(&mut all) {
            let (_, list) = model.iter_mut().rev().find(|(_, l)| !l.is_empty()).expect("one more");
            prop_assert_eq!(Some(id), list.pop_front().map(|i| ids[i]));
        }
        prop_assert!(model.values().all(VecDeque::is_empty));
    }

    /// Whoever has used its quantum goes to the end, as the kernel does it: nobody of the highest
    /// priority runs twice before all others of it have run, whoever of other priorities comes meanwhile.
    #[test]
    fn nobody_of_a_priority_starves(
        count in 1usize..9,
        others in proptest::collection::vec(0usize..9, 0..80),
    ) {
        let mut all = Arena::new();
        let own: Vec<_> = (0..count).map(|_| all.insert(Item::new(100))).collect();
        let low: Vec<_> = (0..9).map(|_| all.insert(Item::new(99))).collect();
        let mut queue = RunQueue::new();
        own.iter().for_each(|id| queue.push(&mut all, *id, false));
        let mut queued = [false; 9];
        for (turn, other) in others.into_iter().enumerate() {
            if queued[other] {
                queue.remove(&mut all, low[other]);
            } else {
                queue.push(&mut all, low[other], turn % 2 == 0);
            }
            queued[other] = !queued[other];
            let runs = queue.pop(&mut all).expect("somebody");
            prop_assert_eq!(runs, own[turn % count]);
            // One that was interrupted before its quantum ended goes on first.
            queue.push(&mut all, runs, true);
            prop_assert_eq!(queue.pop(&mut all), Some(runs));
            queue.push(&mut all, runs, false);
        }
    }

    /// Deadlines pass in order, and removed ones do not.
    #[test]
    fn deadlines_pass_in_order(steps in proptest::collection::vec((0usize..16, 0u64..1000), 0..200)) {
        let mut all = Arena::new();
        let ids: Vec<_> = (0..16).map(|_| all.insert(Item::new(0))).collect();
        let mut timers = Timers::new();
        let mut model: HashMap<usize, u64> = HashMap::new();
        for (item, at) in steps {
            if model.remove(&item).is_some() {
                timers.remove(&mut all, ids[item]);
            } else {
                timers.insert(&mut all, ids[item], at);
                model.insert(item, at);
            }
            prop_assert_eq!(timers.first(), model.values().min().copied());
        }
        timers.remove(&mut all, ids[0]);
        model.remove(&0);
        for now in (0..1000).step_by(100) {
            while let Some(id) = timers.take_expired(&mut all, now) {
                let item = ids.iter().position(|i| *i == id).expect("known");
                prop_assert!(model.remove(&item).is_some_and(|at| at <= now));
            }
            prop_assert!(model.values().all(|at| *at > now));
        }
    }
}
