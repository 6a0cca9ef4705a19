//! A manager with a few pages, driven by programs that read and write at random, against the simple
//! model: what was written to a page is what is read there.
mod again;
mod disks;

use super::*;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use memory::{Fake, Memory, OutOfBounds};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const PAGES: u32 = 40;
const FRAMES: u32 = 8;
const CHUNKS: u32 = 24;
const REQUESTS: u16 = 6;
const SIZES: Sizes = Sizes { pages: PAGES, frames: FRAMES, chunks: CHUNKS };

/// What is mapped: by space and page, the frame and whether it may be written.
#[derive(Default)]
struct Mappings {
    mapped: HashMap<(u8, u32), (u32, bool)>,
    used: HashSet<(u8, u32)>,
}

#[derive(Clone, Default)]
struct FakeSpaces(Rc<RefCell<Mappings>>);

impl Spaces for FakeSpaces {
    fn unmap(&mut self, page: u32, spaces: u8) {
        let mut all = self.0.borrow_mut();
        for space in (0..MOST_SPACES).filter(|space| spaces & 1 << space != 0) {
            assert!(all.mapped.remove(&(space, page)).is_some(), "unmapped where it was not");
        }
        assert!(all.mapped.keys().all(|(_, other)| *other != page), "a space was forgotten");
    }

    fn used(&mut self, page: u32, spaces: u8) -> bool {
        let used = &mut self.0.borrow_mut().used;
        (0..MOST_SPACES).filter(|s| spaces & 1 << s != 0).any(|space| used.remove(&(space, page)))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Write,
    Read(usize),
}

#[derive(Default)]
struct Platter {
    slots: u32,
    contents: HashMap<u32, Vec<u8>>,
    buffers: HashMap<u16, Vec<u8>>,
    started: Vec<(u16, u32, Work)>,
    /// Sealed bytes that were ever written, to find a nonce that is used twice.
    seen: HashSet<Vec<u8>>,
}

/// How many writes a manager has left before it ends; whatever it does afterwards, nobody sees.
#[derive(Clone)]
struct Life(Rc<Cell<usize>>);

impl Life {
    fn left(&self, writes: usize) {
        self.0.set(writes);
    }

    fn ended(&self) -> bool {
        self.0.get() == 0
    }

    /// True when one more is to be seen.
    fn spend(&self) -> bool {
        self.0.set(self.0.get().saturating_sub(1));
        !self.ended()
    }
}

/// Memory as a manager sees it.
#[derive(Clone)]
struct Mortal(Fake, Life);

impl Memory for Mortal {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.0.read(offset, into)
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        if self.1.spend() { self.0.write(offset, from) } else { Ok(()) }
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        self.0.load32(offset)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        self.0.store32(offset, value)
    }
}

#[derive(Clone)]
struct FakeDisk(Rc<RefCell<Platter>>, Life);

impl FakeDisk {
    /// Carries out a request that was started: the request.
    fn complete(&self, choice: usize) -> Option<u16> {
        let mut disk = self.0.borrow_mut();
        if disk.started.is_empty() {
            return None;
        }
        let choice = choice % disk.started.len();
        let (request, slot, work) = disk.started.remove(choice);
        match work {
            Work::Write => {
                let bytes = disk.buffers[&request].clone();
                disk.contents.insert(slot, bytes);
            }
            Work::Read(length) => {
                let mut bytes = disk.contents.get(&slot).cloned().unwrap_or_default();
                bytes.resize(length, 0);
                disk.buffers.insert(request, bytes);
            }
        }
        Some(request)
    }

    /// Forgets one that was started, as if it had failed.
    fn fail(&self) -> Option<u16> {
        let mut disk = self.0.borrow_mut();
        let (request, ..) = disk.started.first().copied()?;
        disk.started.remove(0);
        Some(request)
    }
}

impl Disk for FakeDisk {
    fn slots(&self) -> u32 {
        self.0.borrow().slots
    }
    fn requests(&self) -> u16 {
        REQUESTS
    }
    fn write(&mut self, request: u16, slot: u32, bytes: &[u8]) {
        if !self.1.spend() {
            return;
        }
        let mut disk = self.0.borrow_mut();
        assert!(slot < disk.slots && bytes.len() <= SLOT);
        assert!(disk.started.iter().all(|(other, ..)| *other != request), "request in use");
        assert!(disk.seen.insert(bytes.to_vec()), "the same bytes twice");
        disk.buffers.insert(request, bytes.to_vec());
        disk.started.push((request, slot, Work::Write));
    }
    fn read(&mut self, request: u16, slot: u32, length: usize) {
        if self.1.ended() {
            return;
        }
        let mut disk = self.0.borrow_mut();
        assert!(disk.started.iter().all(|(other, ..)| *other != request), "request in use");
        disk.started.push((request, slot, Work::Read(length)));
    }
    fn again(&mut self, request: u16) {
        // Only writes fail here.
        let mut disk = self.0.borrow_mut();
        let slot = disk.slots - 1 - u32::from(request);
        disk.started.push((request, slot, Work::Write));
    }
    fn received(&self, request: u16, into: &mut [u8]) {
        // Buffers are as long as a place, and hold what was there before.
        let mut buffer = self.0.borrow().buffers.get(&request).cloned().unwrap_or_default();
        buffer.resize(SLOT, 0);
        into.copy_from_slice(&buffer[..into.len()]);
    }
}

struct Bench {
    swap: Swap<Mortal, FakeSpaces, FakeDisk>,
    memory: Fake,
    notes: Fake,
    spaces: FakeSpaces,
    disk: FakeDisk,
    life: Life,
}

impl Bench {
    fn new(slots: u32) -> Self {
        let bytes = Swap::<Mortal, FakeSpaces, FakeDisk>::bytes(SIZES);
        let memory = Fake::new(bytes as usize);
        let notes = Fake::new(Notes::<Mortal>::bytes(SIZES) as usize);
        let platter = Platter { slots, ..Platter::default() };
        let platter = Rc::new(RefCell::new(platter));
        let (bench, damages) = Self::start(memory, notes, &platter, &[7; KEY]);
        assert_eq!(damages, []);
        bench
    }

    fn start(
        memory: Fake,
        notes: Fake,
        platter: &Rc<RefCell<Platter>>,
        key: &[u8; KEY],
    ) -> (Self, Vec<Damage>) {
        let life = Life(Rc::new(Cell::new(usize::MAX)));
        let disk = FakeDisk(platter.clone(), life.clone());
        let spaces = FakeSpaces::default();
        let mortal = |memory: &Fake| Mortal(memory.clone(), life.clone());
        let places = (mortal(&memory), Some(mortal(&notes)));
        let (swap, damages) = Swap::new(places, SIZES, spaces.clone(), disk.clone(), key);
        (Self { swap, memory, notes, spaces, disk, life }, damages)
    }

    /// Another manager takes over. So many requests of the one before are still carried out; then the disk is reset.
    fn again(&mut self, arrived: usize) -> Vec<Damage> {
        for choice in 0..arrived {
            self.disk.complete(choice);
        }
        let platter = self.disk.0.clone();
        {
            let mut disk = platter.borrow_mut();
            disk.started.clear();
            // What was under way may be written once more.
            let Platter { buffers, seen, .. } = &mut *disk;
            seen.retain(|bytes| buffers.values().all(|other| other != bytes));
        }
        let (bench, damages) =
            Self::start(self.memory.clone(), self.notes.clone(), &platter, &[8; KEY]);
        *self = bench;
        damages
    }

    /// Ends a request; `None` when none is under way.
    fn complete(&mut self, choice: usize) -> Option<Option<Damage>> {
        let request = self.disk.complete(choice)?;
        Some(self.swap.finished(request, true))
    }

    /// The frame in which a space sees a page, after as many faults as it takes.
    fn reach(&mut self, space: u8, page: u32, write: bool, choice: usize) -> Result<u64, Answer> {
        for _ in 0..200 {
            if self.life.ended() {
                return Err(Answer::Later);
            }
            let found = self.spaces.0.borrow().mapped.get(&(space, page)).copied();
            if let Some((frame, writable)) = found
                && (writable || !write)
            {
                self.spaces.0.borrow_mut().used.insert((space, page));
                return Ok(u64::from(frame) * PAGE as u64);
            }
            match self.swap.fault(page, space, write) {
                Answer::Map { frame, write } => {
                    self.spaces.0.borrow_mut().mapped.insert((space, page), (frame, write));
                }
                Answer::Later => {
                    let waits = self.complete(choice).is_some();
                    assert!(waits || self.life.ended(), "nothing to wait for");
                }
                answer => return Err(answer),
            }
        }
        panic!("no progress");
    }

    fn write(&mut self, space: u8, page: u32, contents: &[u8]) -> Result<(), Answer> {
        let at = self.reach(space, page, true, 0)?;
        self.memory.write(at, contents).expect("inside");
        Ok(())
    }

    fn read(&mut self, space: u8, page: u32) -> Result<Vec<u8>, Answer> {
        let at = self.reach(space, page, false, 0)?;
        let mut bytes = alloc::vec![0; PAGE];
        self.memory.read(at, &mut bytes).expect("inside");
        Ok(bytes)
    }

    /// Writes other pages until this many are on the disk.
    fn push_out(&mut self, away: u32) {
        for page in 8..PAGES {
            self.write(0, page, &contents(2, page)).expect("room");
        }
        while self.complete(0).is_some() {}
        assert!(self.swap.now().away >= away, "{:?}", self.swap.now());
    }
}

/// Contents of a kind: zeros, easy to compress, random.
fn contents(kind: u8, seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) << 8 | 0x9e37_79b9_0000_0001;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    match kind {
        0 => alloc::vec![0; PAGE],
        1 => {
            let few: Vec<u8> = (0..700).map(|_| random()).collect();
            few.iter().copied().cycle().take(PAGE).collect()
        }
        _ => (0..PAGE).map(|_| random()).collect(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { space: u8, page: u32, kind: u8, seed: u32 },
    Read { space: u8, page: u32 },
    Complete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (space, page) = (0u8..3, 0u32..PAGES);
    prop_oneof![
        4 => (space.clone(), page.clone(), 0u8..3, any::<u32>())
            .prop_map(|(space, page, kind, seed)| Step::Write { space, page, kind, seed }),
        4 => (space, page).prop_map(|(space, page)| Step::Read { space, page }),
        1 => any::<usize>().prop_map(Step::Complete),
    ]
}

proptest! {
    // Every case encrypts and compresses hundreds of pages.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_written_is_read(steps in proptest::collection::vec(step(), 1..250)) {
        let mut bench = Bench::new(PAGES + 10);
        let mut model: HashMap<u32, Vec<u8>> = HashMap::new();
        for step in steps {
            match step {
                Step::Write { space, page, kind, seed } => {
                    let bytes = contents(kind, seed);
                    prop_assert_eq!(bench.write(space, page, &bytes), Ok(()));
                    model.insert(page, bytes);
                }
                Step::Read { space, page } => {
                    let expected = model.get(&page).cloned().unwrap_or(alloc::vec![0; PAGE]);
                    prop_assert!(bench.read(space, page) == Ok(expected), "page {page}");
                }
                Step::Complete(choice) => {
                    bench.complete(choice);
                }
            }
            let now = bench.swap.now();
            prop_assert!(now.resident <= FRAMES && now.resident_most <= FRAMES);
            prop_assert!(now.packed_bytes <= u64::from(CHUNKS) * Chunks::SIZE as u64);
        }
        // No page was forgotten, and no place is taken by none.
        let held: u32 = bench.swap.now().away + bench.swap.now().packed;
        prop_assert!(held <= PAGES);
        for page in 0..PAGES {
            let expected = model.get(&page).cloned().unwrap_or(alloc::vec![0; PAGE]);
            prop_assert!(bench.read(0, page) == Ok(expected), "page {page} at the end");
        }
        prop_assert_eq!(bench.swap.counters().lost, 0);
    }

    #[test]
    fn a_damaged_disk_harms_only_the_pages_on_it(
        damage in proptest::collection::vec((any::<u32>(), any::<usize>(), 1u8..), 1..20),
    ) {
        let mut bench = Bench::new(PAGES);
        for page in 0..PAGES {
            bench.write(0, page, &contents(2, page)).expect("room");
        }
        while bench.complete(0).is_some() {}
        let mut slots: Vec<u32> = bench.disk.0.borrow().contents.keys().copied().collect();
        slots.sort_unstable();
        let mut struck = HashSet::new();
        for (slot, at, bits) in damage {
            let slot = slots[slot as usize % slots.len()];
            // Bits that are flipped twice are as they were.
            if struck.insert(slot) {
                let mut disk = bench.disk.0.borrow_mut();
                let bytes = disk.contents.get_mut(&slot).expect("written");
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
        }
        let mut lost = 0;
        for page in 0..PAGES {
            match bench.read(0, page) {
                Ok(bytes) => prop_assert!(bytes == contents(2, page), "page {page}"),
                Err(answer) => {
                    prop_assert_eq!(answer, Answer::Lost);
                    lost += 1;
                }
            }
        }
        // Reading evicts clean pages only, which are not written again.
        prop_assert_eq!(lost, struck.len());
        prop_assert_eq!(bench.swap.counters().lost, lost as u64);
    }

    #[test]
    fn chunks_hold_what_was_stored(
        steps in proptest::collection::vec((any::<bool>(), 1usize..4097, any::<usize>()), 1..200),
    ) {
        let memory = Fake::new(100 + 64 * Chunks::SIZE);
        let mut chunks = Chunks::new(100, 64);
        let mut model: Vec<(u32, u32, Vec<u8>)> = Vec::new();
        for (owner, (store, length, choice)) in steps.into_iter().enumerate() {
            let used: usize = model.iter().map(|(.., b)| b.len().div_ceil(Chunks::SIZE)).sum();
            prop_assert_eq!(chunks.free() as usize, 64 - used);
            if store {
                let bytes: Vec<u8> = (0..length).map(|n| (n * 31 + owner) as u8).collect();
                let fits = chunks.fits(length);
                let stored = chunks.store(&memory, owner as u32, &bytes);
                prop_assert_eq!(stored.is_some(), fits);
                model.extend(stored.map(|head| (head, owner as u32, bytes)));
            } else if !model.is_empty() {
                let (head, owner, bytes) = model.swap_remove(choice % model.len());
                let mut found = [0; 4096];
                let length = chunks.load(&memory, head, &mut found);
                prop_assert_eq!(length, Some(bytes.len()));
                prop_assert!(found[..bytes.len()] == bytes[..], "other bytes");
                chunks.release(head);
                // Once more is nothing.
                chunks.release(head);
                prop_assert!(chunks.oldest().is_none_or(|(h, o)| (h, o) != (head, owner)));
            }
        }
    }
}

#[test]
fn without_a_disk_the_memory_is_full_some_day_and_nothing_is_lost() {
    let mut bench = Bench::new(0);
    let written: Vec<u32> = (0..PAGES)
        .take_while(|page| bench.write(0, *page, &contents(2, *page)) == Ok(()))
        .collect();
    // All frames, and as many more as there are chunks for.
    assert_eq!(written.len() as u32, FRAMES + CHUNKS / 8);
    assert_eq!(bench.swap.fault(PAGES - 1, 0, true), Answer::Full);
    for page in written {
        // One that is packed needs a frame, and the page in that one a place.
        let found = bench.read(0, page);
        assert!(found == Ok(contents(2, page)) || found == Err(Answer::Full), "page {page}");
    }
}

#[test]
fn pages_outside_do_not_exist() {
    let mut bench = Bench::new(PAGES);
    assert_eq!(bench.swap.fault(PAGES, 0, true), Answer::Outside);
    assert_eq!(bench.swap.fault(u32::MAX, 0, false), Answer::Outside);
    assert_eq!(bench.swap.finished(99, true), None);
    assert_eq!(bench.swap.finished(0, true), None);
}

#[test]
fn what_left_together_is_read_together() {
    let mut bench = Bench::new(PAGES);
    for page in 0..PAGES {
        bench.write(0, page, &contents(2, page)).expect("room");
    }
    while bench.complete(0).is_some() {}
    let before = bench.swap.counters();
    for page in 0..16 {
        assert!(bench.read(0, page) == Ok(contents(2, page)), "page {page}");
    }
    let after = bench.swap.counters();
    assert!(after.read_ahead > 0);
    // Hardly more is read than was asked for.
    assert!(after.read - before.read <= 16 + u64::from(FRAMES), "{after:?}");
}

#[test]
fn pages_in_use_stay() {
    let mut bench = Bench::new(PAGES);
    bench.write(0, 0, &contents(2, 0)).expect("room");
    for page in 1..PAGES {
        bench.write(0, page, &contents(2, page)).expect("room");
        // It alone is used all the time.
        bench.spaces.0.borrow_mut().used = HashSet::from([(0, 0)]);
    }
    assert!(bench.spaces.0.borrow().mapped.contains_key(&(0, 0)));
}
