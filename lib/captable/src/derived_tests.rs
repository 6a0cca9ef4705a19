//! Many tables that hand capabilities on, against a model that knows for each where it came from: nobody ever has
//! more than what his was made of had, and what one table loses, others keep.
use super::{MemoryRange, Quota, Table, copied};
use abi::{Error, HostPhys, MemRights, ObjRights, PAGE_SIZE, Selector};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cap {
    Memory(MemoryRange),
    Object(u32, ObjRights),
}

/// What the model knows of a capability: pages of the first memory with their rights, or an object.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Known {
    Memory { pages: std::ops::Range<u64>, rights: u64 },
    Object { number: u32, rights: u64 },
}

impl Known {
    fn of(cap: Cap) -> Self {
        match cap {
            Cap::Memory(memory) => {
                let first = memory.base.0 / PAGE_SIZE;
                let pages = first..first + memory.length / PAGE_SIZE;
                Self::Memory { pages, rights: memory.rights.bits() }
            }
            Cap::Object(number, rights) => Self::Object { number, rights: rights.bits() },
        }
    }
}

const TABLES: usize = 4;
const SLOTS: u32 = 6;
const PAGES: u64 = 32;

#[derive(Clone, Debug)]
enum Step {
    /// From a slot of a table into a slot of another one.
    Copy {
        from: (usize, u32),
        to: (usize, u32),
        mask: u64,
    },
    /// A part of memory, into another slot of the same table: first page, pages.
    Derive {
        table: usize,
        from: u32,
        to: u32,
        part: (u64, u64),
        rights: u64,
    },
    Drop {
        table: usize,
        slot: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..TABLES, 1..SLOTS);
    prop_oneof![
        4 => (place(), place(), 0u64..32).prop_map(|(from, to, mask)| Step::Copy { from, to, mask }),
        4 => (place(), 1..SLOTS, (0..PAGES + 2, 0..PAGES + 2), 0u64..16).prop_map(
            |((table, from), to, part, rights)| Step::Derive { table, from, to, part, rights }
        ),
        2 => place().prop_map(|(table, slot)| Step::Drop { table, slot }),
    ]
}

/// As the kernel does it.
fn carry_out(tables: &mut [Table<Cap>], step: &Step) -> Result<(), Error> {
    match *step {
        Step::Copy { from, to, mask } => {
            let copy = match tables[from.0].get(Selector(from.1))? {
                Cap::Memory(memory) => Cap::Memory(memory.masked(mask)),
                Cap::Object(n, rights) => Cap::Object(n, copied(rights, mask, from.0 == to.0)?),
            };
            tables[to.0].insert(Selector(to.1), copy)
        }
        Step::Derive { table, from, to, part, rights } => {
            let Cap::Memory(memory) = tables[table].get(Selector(from))? else {
                return Err(Error::BadCapability);
            };
            let rights = MemRights::from_bits_truncate(rights);
            let part = memory.part(part.0 * PAGE_SIZE, part.1 * PAGE_SIZE, rights)?;
            tables[table].insert(Selector(to), Cap::Memory(part))
        }
        Step::Drop { table, slot } => tables[table].remove(Selector(slot)).map(drop),
    }
}

const DEVICE: u64 = 8;
const GRANT: u64 = 4;

/// What the model says that a step makes: a capability in a slot, an empty slot, or an error.
fn expected(
    model: &HashMap<(usize, u32), Known>,
    step: &Step,
) -> Option<((usize, u32), Option<Known>)> {
    let (to, made) = match step.clone() {
        Step::Copy { from, to, mask } => {
            let made = match model.get(&from)?.clone() {
                Known::Memory { pages, rights } => {
                    Known::Memory { pages, rights: rights & (mask | DEVICE) }
                }
                Known::Object { rights, .. } if from.0 != to.0 && rights & GRANT == 0 => {
                    return None;
                }
                Known::Object { number, rights } => Known::Object { number, rights: rights & mask },
            };
            (to, made)
        }
        Step::Derive { table, from, to, part, rights } => {
            let Known::Memory { pages, rights: has } = model.get(&(table, from))?.clone() else {
                return None;
            };
            let (first, end) = (pages.start + part.0, pages.start + part.0 + part.1);
            if part.1 == 0 || end > pages.end || rights & !has != 0 {
                return None;
            }
            let rights = rights | has & DEVICE;
            ((table, to), Known::Memory { pages: first..end, rights })
        }
        Step::Drop { table, slot } => {
            return model.contains_key(&(table, slot)).then_some(((table, slot), None));
        }
    };
    (!model.contains_key(&to)).then_some((to, Some(made)))
}

proptest! {
    #[test]
    fn what_is_made_of_a_capability_has_no_more_than_it(
        device in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let rights = if device { MemRights::all() } else { MemRights::all() - MemRights::DEVICE };
        let memory = MemoryRange { base: HostPhys(0), length: PAGES * PAGE_SIZE, rights };
        let first = [Cap::Memory(memory), Cap::Object(1, ObjRights::all()), Cap::Object(2, ObjRights::USE)];
        let mut tables: Vec<Table<Cap>> = (0..TABLES).map(|_| Table::new()).collect();
        let mut model = HashMap::new();
        for (slot, cap) in (1..).zip(first) {
            tables[0].insert(Selector(slot), cap).unwrap();
            model.insert((0, slot), Known::of(cap));
        }
        for step in steps {
            let wanted = expected(&model, &step);
            let done = carry_out(&mut tables, &step);
            prop_assert_eq!(done.is_ok(), wanted.is_some(), "{:?}: {:?}", step, done);
            if let Some((at, made)) = wanted {
                match made {
                    Some(known) => model.insert(at, known),
                    None => model.remove(&at),
                };
            }
            for (table, own) in tables.iter().enumerate() {
                for slot in 1..SLOTS {
                    let found = own.get(Selector(slot)).ok().map(Known::of);
                    prop_assert_eq!(found.as_ref(), model.get(&(table, slot)));
                }
            }
            // Who never got the object that may not be granted, never has it.
            let elsewhere = model.iter().any(|(at, known)| at.0 != 0 && matches!(known, Known::Object { number: 2, .. }));
            prop_assert!(!elsewhere);
        }
    }

    /// Spaces that give parts of their quota to others, and get them back when those end: no byte comes into being or is lost.
    #[test]
    fn quota_is_conserved(steps in prop::collection::vec((0usize..8, 0u8..3, 0u64..200), 0..100)) {
        const ALL: u64 = 1000;
        // Quota, parent, and bytes used by the space itself.
        let mut spaces = vec![(Quota { limit: ALL, used: 0 }, None::<usize>, 0u64)];
        let mut live = vec![true];
        for (which, what, bytes) in steps {
            let at = which % spaces.len();
            if !live[at] {
                continue;
            }
            let left = spaces[at].0.left();
            match what {
                0 => {
                    let done = spaces[at].0.charge(bytes);
                    prop_assert_eq!(done.is_ok(), bytes <= left);
                    spaces[at].2 += if done.is_ok() { bytes } else { 0 };
                }
                1 => {
                    let done = spaces[at].0.charge(bytes);
                    prop_assert_eq!(done.is_ok(), bytes <= left);
                    if done.is_ok() {
                        spaces.push((Quota { limit: bytes, used: 0 }, Some(at), 0));
                        live.push(true);
                    }
                }
                _ if at > 0 => {
                    // It ends with all that got theirs from it.
                    for n in (at..spaces.len()).rev() {
                        let mut up = Some(n);
                        while up.is_some_and(|u| u > at) {
                            up = up.and_then(|u| spaces[u].1);
                        }
                        if up != Some(at) || !live[n] {
                            continue;
                        }
                        live[n] = false;
                        let (quota, parent, _) = spaces[n];
                        spaces[parent.unwrap_or(0)].0.credit(quota.limit);
                    }
                }
                _ => {}
            }
            let there = || (0..spaces.len()).filter(|n| live[*n]);
            for n in there() {
                let given: u64 = there().filter(|c| spaces[*c].1 == Some(n)).map(|c| spaces[c].0.limit).sum();
                prop_assert_eq!(spaces[n].0.used, spaces[n].2 + given);
                prop_assert!(spaces[n].0.used <= spaces[n].0.limit);
            }
            let total: u64 = there().map(|n| spaces[n].2 + spaces[n].0.left()).sum();
            prop_assert_eq!(total, ALL);
        }
    }
}
