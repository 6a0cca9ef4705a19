//! Callers and servers on one processor, scheduled as the kernel does it (`kernel/src/sched.rs`), against a model in which
//! nobody calls: who has what part of the time does not depend on who works for whom.
use crate::lend::{Slice, Use, follow};
use crate::{Arena, Id, Links, Queued, RunQueue};
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug)]
struct Sc {
    thread: usize,
    priority: u8,
    slice: Slice,
    active: bool,
    links: Links<Sc>,
    /// Ticks that were spent on its turn.
    spent: u64,
}

impl Queued for Sc {
    fn priority(&self) -> u8 {
        self.priority
    }
    fn links(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

const LONGEST: usize = 16;
const NOBODY: usize = usize::MAX;

/// A processor: the first threads have time of their own, those behind them are servers without any.
struct Machine {
    scs: Arena<Sc>,
    ids: Vec<Id<Sc>>,
    queue: RunQueue<Sc>,
    current: Option<Id<Sc>>,
    end: u64,
    now: u64,
    /// For each thread, whom it waits for; itself: it sleeps.
    waits: Vec<Option<usize>>,
    /// For each server, whom it serves, and who queues.
    serves: Vec<Option<usize>>,
    queues: Vec<VecDeque<usize>>,
    /// Ticks that each thread ran.
    ran: Vec<u64>,
}

impl Machine {
    fn new(clients: &[u8], servers: usize, quantum: u64) -> Self {
        let mut scs = Arena::new();
        let new = |(thread, priority): (usize, &u8)| {
            let slice = Slice::new(quantum);
            let (priority, links) = (*priority, Links::default());
            scs.insert(Sc { thread, priority, slice, active: true, links, spent: 0 })
        };
        let ids: Vec<_> = clients.iter().enumerate().map(new).collect();
        let mut queue = RunQueue::new();
        ids.iter().for_each(|id| queue.push(&mut scs, *id, false));
        let all = clients.len() + servers;
        let mut waits = vec![None; all];
        waits[clients.len()..].iter_mut().for_each(|wait| *wait = Some(NOBODY));
        let (serves, queues, ran) = (vec![None; all], vec![VecDeque::new(); all], vec![0; all]);
        Self { scs, ids, queue, current: None, end: 0, now: 0, waits, serves, queues, ran }
    }

    fn tip(&self, thread: usize) -> Option<usize> {
        follow(thread, LONGEST, |thread| match self.waits[*thread] {
            None => Use::Runs,
            Some(NOBODY) => Use::Waits,
            Some(other) => Use::Lends(other),
        })
    }

    /// As `Kernel::pick`.
    fn pick(&mut self) -> Option<usize> {
        loop {
            let highest = self.queue.highest();
            if let Some(id) = self.current {
                let (thread, priority) =
                    self.scs.get(id).map(|sc| (sc.thread, sc.priority)).unwrap();
                match self.tip(thread) {
                    Some(tip) if highest.is_none_or(|h| h <= priority) => return Some(tip),
                    Some(_) => {
                        let front =
                            self.scs.get_mut(id).unwrap().slice.interrupt(self.end, self.now);
                        self.queue.push(&mut self.scs, id, front);
                    }
                    None => {
                        let sc = self.scs.get_mut(id).unwrap();
                        sc.active = false;
                        sc.slice.renew();
                    }
                }
                self.current = None;
                continue;
            }
            let id = self.queue.pop(&mut self.scs)?;
            self.end = self.scs.get(id).unwrap().slice.end(self.now);
            self.current = Some(id);
        }
    }

    /// As `Kernel::rotate`.
    fn rotate(&mut self) {
        let Some(id) = self.current.take() else { return };
        self.scs.get_mut(id).unwrap().slice.renew();
        self.queue.push(&mut self.scs, id, false);
    }

    fn wake(&mut self, thread: usize) {
        let Some(id) = self.ids.get(thread).copied() else { return };
        let sc = self.scs.get_mut(id).unwrap();
        if !std::mem::replace(&mut sc.active, true) {
            self.queue.push(&mut self.scs, id, false);
        }
    }

    fn sleep(&mut self, thread: usize) {
        self.waits[thread] = Some(NOBODY);
    }

    fn call(&mut self, caller: usize, server: usize) {
        self.waits[caller] = Some(server);
        if self.serves[server].is_none() {
            self.serves[server] = Some(caller);
            self.waits[server] = None;
        } else {
            self.queues[server].push_back(caller);
        }
    }

    fn reply(&mut self, server: usize) {
        let Some(caller) = self.serves[server].take() else { return };
        self.waits[caller] = None;
        self.wake(caller);
        match self.queues[server].pop_front() {
            Some(next) => self.serves[server] = Some(next),
            None => self.waits[server] = Some(NOBODY),
        }
    }

    /// A tick of whoever's turn it is.
    fn tick(&mut self) -> Option<(usize, usize)> {
        let tip = self.pick()?;
        let id = self.current.unwrap();
        let sc = self.scs.get_mut(id).unwrap();
        sc.spent += 1;
        let owner = sc.thread;
        self.ran[tip] += 1;
        self.now += 1;
        if self.now >= self.end {
            self.rotate();
        }
        Some((owner, tip))
    }

    fn spent(&self, client: usize) -> u64 {
        self.scs.get(self.ids[client]).unwrap().spent
    }
}

proptest! {
    /// Some call servers, which may call others, and some only spin: each has the same part, though it is the servers that
    /// run. What all servers ran is exactly what their callers paid beyond what they ran themselves.
    #[test]
    fn lent_time_counts_as_the_lender_s(
        clients in 2usize..6,
        servers in 1usize..4,
        quantum in 1u64..9,
        steps in prop::collection::vec((0u8..6, any::<usize>()), 0..400),
    ) {
        let mut machine = Machine::new(&vec![100; clients], servers, quantum);
        for (what, choice) in steps {
            let Some((owner, tip)) = machine.tick() else { break };
            prop_assert_eq!(machine.tip(owner), Some(tip));
            match what {
                // It calls a server further down, so that there is no circle.
                0 | 1 => {
                    let from = tip.max(clients - 1) + 1;
                    if from < clients + servers {
                        machine.call(tip, from + choice % (clients + servers - from));
                    }
                }
                2 | 3 if tip >= clients => machine.reply(tip),
                _ => {}
            }
            // Nobody ever waits for what does not lead to somebody who runs, so all turns are alike.
            let spent: Vec<u64> = (0..clients).map(|n| machine.spent(n)).collect();
            let (least, most) = (spent.iter().min().unwrap(), spent.iter().max().unwrap());
            prop_assert!(most - least <= quantum, "{:?}, quantum {}", spent, quantum);
        }
        let paid: u64 = (0..clients).map(|n| machine.spent(n)).sum();
        prop_assert_eq!(paid, machine.now);
        prop_assert_eq!(machine.ran.iter().sum::<u64>(), paid);
        let own: u64 = machine.ran[..clients].iter().sum();
        prop_assert_eq!(machine.ran[clients..].iter().sum::<u64>(), paid - own);
    }

    /// With priorities and with some that sleep: a tick always goes to the highest priority that leads to anybody who can run,
    /// also where a server works for a lower one at that moment.
    #[test]
    fn the_highest_that_leads_anywhere_runs(
        priorities in prop::collection::vec(0u8..4, 1..6),
        servers in 1usize..4,
        quantum in 1u64..6,
        steps in prop::collection::vec((0u8..7, any::<usize>()), 0..300),
    ) {
        let clients = priorities.len();
        let mut machine = Machine::new(&priorities, servers, quantum);
        for (what, choice) in steps {
            let able = |n: &usize| machine.tip(*n).is_some();
            let wanted = (0..clients).filter(able).map(|n| priorities[n]).max();
            let ticked = machine.tick();
            prop_assert_eq!(ticked.map(|(owner, _)| priorities[owner]), wanted);
            let sleeper = choice % clients;
            match (what, ticked) {
                (0 | 1, Some((_, tip))) => {
                    let from = tip.max(clients - 1) + 1;
                    if from < clients + servers {
                        machine.call(tip, from + choice % (clients + servers - from));
                    }
                }
                (2, Some((_, tip))) if tip >= clients => machine.reply(tip),
                (3, Some((_, tip))) if tip < clients => machine.sleep(tip),
                (4 | 5, _) if machine.waits[sleeper] == Some(NOBODY) => {
                    machine.waits[sleeper] = None;
                    machine.wake(sleeper);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_slice_goes_on_where_it_was_interrupted() {
    let mut slice = Slice::new(10);
    let end = slice.end(100);
    assert_eq!((end, slice.interrupt(end, 103), slice.end(200)), (110, true, 207));
    assert_eq!((slice.interrupt(207, 207), slice.end(300)), (false, 310), "used up: a whole one");
    assert!(slice.interrupt(310, 301));
    slice.renew();
    assert_eq!(slice.end(0), 10);
    assert!(slice.interrupt(u64::MAX, 0), "never more than a quantum");
    assert_eq!(slice.end(0), 10);
}

#[test]
fn long_chains_and_circles_end() {
    let next = |n: &u32| if *n == 0 { Use::Runs } else { Use::Lends(n - 1) };
    assert_eq!(follow(16, 16, next), Some(0));
    assert_eq!(follow(17, 16, next), None);
    assert_eq!(follow(1, 16, |n| Use::Lends(1 - n)), None);
    assert_eq!(follow(1, 16, |_| Use::Waits), None);
}
