//! Regions that change in every way while threads on all processors, or a guest, fault in them: what they see stays
//! right, and all kernel memory comes back.
use crate::env::{
    NONE, PAGE, RAM, READ_WRITE, SPACE, Words, address, cpus, equal, eventually, holds,
    in_milliseconds, ok, pinned, portal, ram, words_at,
};
use crate::guests::{FS_BASE, Running};
use crate::illegal::Blob;
use crate::stress::{Helper, Random};
use crate::{Outcome, Test};
use abi::{Event, FaultMessage, FaultReply, MemRights, NO_DEADLINE, RegionInfo, Selector};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};
use spin::Once;

pub const TESTS: &[Test] = &[
    ("regions: changed in every way under threads", changing),
    ("regions: changed in every way under a guest", under_guest),
];

const PAGES: u64 = 24;
const LENGTH: u64 = PAGES * PAGE;
const READERS: usize = 6;
const MANAGERS: usize = 2;
/// How long it lasts, in milliseconds.
const TIME: u64 = 700;

/// The memory that the regions show. They are one at first, when this is made.
static SEEN: Once<Words> = Once::new();
/// Where that memory is.
static MEMORY: AtomicU64 = AtomicU64::new(0);
/// Pages read, and one that did not hold its number: it, and what was there.
static READS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(u64::MAX);

/// A manager of regions whose tags are the offsets of their first bytes in the memory.
extern "C" fn manager(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        let fault = FaultMessage::decode(&words);
        if fault.lost != 0 {
            let reply = FaultReply::Window { at: fault.lost };
            next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
            continue;
        }
        let page = fault.offset & !(PAGE - 1);
        let reply = FaultReply::Map {
            memory: RAM,
            memory_offset: MEMORY.load(Ordering::Relaxed) + fault.tag + page,
            region_offset: page,
            length: PAGE,
            rights: READ_WRITE,
        };
        next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
    }
}

/// Reads pages, each of which holds its number. It ends where no region is.
extern "C" fn reader(seed: u64) -> ! {
    let mut random = Random(seed);
    let Some(words) = SEEN.get() else { sys::exit(1) };
    loop {
        let page = random.below(PAGES);
        let found = words.get(page * PAGE);
        if found != page {
            WRONG.store(page << 32 | found & 0xffff_ffff, Ordering::Relaxed);
        }
        READS.fetch_add(1, Ordering::Relaxed);
    }
}

struct Changing {
    random: Random,
    /// The space that has the regions: this program's, or a guest's.
    space: Selector,
    base: u64,
    /// A pinned region with all of the memory, for windows; another place for regions.
    window: u64,
    aside: u64,
    managers: Vec<(Helper, Selector)>,
    readers: Vec<Helper>,
}

impl Changing {
    /// Regions of this program.
    fn new() -> Result<Self, String> {
        let base = address(LENGTH);
        Self::of(NONE, base, address(LENGTH))
    }

    /// Regions of any space, at a place, and for a while at another one.
    fn of(space: Selector, base: u64, aside: u64) -> Result<Self, String> {
        let bind = Bind { portal: NONE, ..pinned(LENGTH, READ_WRITE) };
        let window = Bind { base: address(LENGTH), ..bind };
        let memory = ram(LENGTH);
        ok(sys::region_bind(window), "bind")?;
        ok(sys::map(SPACE, window.base, RAM, memory, LENGTH, READ_WRITE), "map")?;
        let words = words_at(window.base, LENGTH);
        (0..PAGES).for_each(|page| words.set(page * PAGE, page));
        MEMORY.store(memory, Ordering::Relaxed);
        let mut managers = Vec::new();
        for cpu in 0..MANAGERS {
            let mut helper = Helper::new();
            let cpu = cpu as u32 % cpus() as u32;
            // Faults come from all processors, so it needs time of its own.
            helper.start(manager, cpu, 0, Some(145))?;
            let door = portal(helper.slot(), 1)?;
            managers.push((helper, door));
        }
        Ok(Self {
            random: Random(rt::time::now().0 | 1),
            space,
            base,
            window: window.base,
            aside,
            managers,
            readers: (0..READERS).map(|_| Helper::new()).collect(),
        })
    }

    fn door(&mut self) -> Selector {
        self.managers[self.random.below(MANAGERS as u64) as usize].1
    }

    fn bind(&mut self, base: u64, length: u64) -> Outcome {
        let (tag, portal) = (base - self.base, self.door());
        let space = if self.space == NONE { SPACE } else { self.space };
        let bind = Bind { space, base, length, tag, portal, ..pinned(PAGE, READ_WRITE) };
        ok(sys::region_bind(bind), "bind")
    }

    fn pieces(&self) -> Vec<RegionInfo> {
        let here = self.base..self.base + LENGTH;
        rt::regions::of(self.space).filter(|region| here.contains(&region.base.0)).collect()
    }

    fn start_reader(&mut self) -> Outcome {
        let index = self.random.below(READERS as u64) as usize;
        let (cpu, seed) = (self.random.below(cpus()) as u32, self.random.below(1 << 40) + 1);
        self.readers[index].end();
        self.readers[index].start(reader, cpu, seed, Some(40))
    }

    /// Changes a piece of what the readers see.
    fn step(&mut self) -> Outcome {
        let pieces = self.pieces();
        let index = self.random.below(pieces.len() as u64) as usize;
        let piece = pieces[index];
        let (base, length, space) = (piece.base.0, piece.length, self.space);
        match self.random.below(11) {
            0 | 1 if length > PAGE => {
                let at = base + (self.random.below(length / PAGE - 1) + 1) * PAGE;
                ok(sys::region_split(space, base, length, at, at - self.base), "split")?;
            }
            2 => {
                // One region in the place of two.
                let second = pieces.get(index + 1).map_or(0, |second| second.length);
                ok(sys::region_unbind(space, base, length), "unbind")?;
                if second > 0 {
                    ok(sys::region_unbind(space, base + length, second), "unbind the next")?;
                }
                self.bind(base, length + second)?;
            }
            3 => {
                ok(sys::region_move(space, base, length, self.aside), "move")?;
                if space != NONE {
                    // Who reads here meanwhile is stopped, and tries again.
                    let _ = sys::wait(rt::time::now().0 + self.random.below(1_000_000));
                }
                ok(sys::region_move(space, self.aside, length, base), "move back")?;
            }
            4 => {
                let rights = if self.random.below(2) == 0 { READ_WRITE } else { MemRights::READ };
                ok(sys::region_rights(space, base, length, rights), "rights")?;
            }
            5 => {
                let at = if piece.window { 0 } else { self.window + piece.tag };
                ok(sys::region_window(space, base, length, at), "window")?;
            }
            6 => {
                let door = self.door();
                ok(sys::region_manager(space, base, length, door, piece.tag), "manager")?;
            }
            9 => {
                // All that one has, to the other.
                let (from, to) = (self.door(), self.door());
                ok(sys::regions_pass(space, from, to), "pass on").map(drop)?;
            }
            7 => ok(sys::unmap(space, base, length), "unmap")?,
            8 => {
                // Out of the window and back.
                let offset = self.random.below(PAGES) * PAGE;
                let (at, memory) = (self.window + offset, MEMORY.load(Ordering::Relaxed) + offset);
                ok(sys::unmap(NONE, at, PAGE), "unmap in the window")?;
                ok(sys::map(SPACE, at, RAM, memory, PAGE, READ_WRITE), "map in the window")?;
            }
            _ => {
                let _ = sys::wait(rt::time::now().0 + self.random.below(400_000));
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Outcome {
        self.bind(self.base, LENGTH)?;
        if self.space == NONE {
            SEEN.call_once(|| words_at(self.base, LENGTH));
        }
        let end = in_milliseconds(TIME);
        while rt::time::now().0 < end {
            self.step()?;
            if self.space == NONE {
                self.start_reader()?;
            }
        }
        self.readers.iter_mut().for_each(Helper::end);
        for piece in self.pieces() {
            ok(sys::region_unbind(self.space, piece.base.0, piece.length), "unbind")?;
        }
        Ok(())
    }

    fn end(mut self) -> Outcome {
        for (manager, door) in &mut self.managers {
            manager.end();
            ok(sys::cap_drop(NONE, *door), "drop")?;
        }
        ok(sys::region_unbind(SPACE, self.window, LENGTH), "unbind")
    }
}

fn changing() -> Outcome {
    let mut all = Changing::new()?;
    // What the helpers' selectors and the first pages cost stays.
    (0..READERS).try_for_each(|index| all.readers[index].start(reader, 0, 1, Some(200)))?;
    all.readers.iter_mut().for_each(Helper::end);
    let before = ok(sys::space_quota(NONE), "quota")?;
    let seed = all.random.0;
    all.run().map_err(|why| format!("seed {seed}: {why}"))?;
    equal(WRONG.load(Ordering::Relaxed), u64::MAX, "a page with another one's content")?;
    holds(READS.load(Ordering::Relaxed) > 0, "pages were read")?;
    equal(ok(sys::space_quota(NONE), "quota")?, before, "kernel memory is back")?;
    all.end()
}

/// The same in a guest's memory, which a guest on another processor reads all the time. Where a region is missing at that
/// moment, or does not allow it, its monitor lets it try again.
fn under_guest() -> Outcome {
    if cpus() < 2 {
        return Ok(());
    }
    let Some(guest) = Running::with(Blob::Walker, 1, 2)? else { return Ok(()) };
    let mut all = Changing::of(guest.space, FS_BASE, FS_BASE + (8 << 20))?;
    guest.go_on()?;
    let result = guest.result();
    let (read, wrong) = (|| result.get(0) & 0xffff_ffff, || result.get(0) >> 32);
    let seed = all.random.0;
    let quota = || {
        Ok::<_, String>((
            ok(sys::space_quota(NONE), "quota")?,
            ok(sys::space_quota(guest.space), "its quota")?,
        ))
    };
    let mut before = None;
    for _ in 0..2 {
        let start = read();
        all.run().map_err(|why| format!("seed {seed}: {why}"))?;
        holds(read() != start, "pages were read")?;
        equal((wrong(), result.get(8)), (0, 0), "pages with another one's content")?;
        // Page tables that the first round needed stay with the guest.
        let now = quota()?;
        equal(*before.get_or_insert(now), now, "kernel memory is back")?;
    }
    rt::log!("the guest read {} pages", read());
    eventually("it stops where no region is any more", || guest.exits() > 0)?;
    guest.end()?;
    all.end()
}
