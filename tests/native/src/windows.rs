//! Windows: pages that a manager has prepared are mapped without running it; and what must not
//! work.
use crate::env::{
    ABOVE, NONE, PAGE, RAM, READ_WRITE, SPACE, address, cpus, equal, eventually, holds, ok, pinned,
    portal, ram, refused, running, selector, thread, wait_end, watch, words_at,
};
use crate::faults::{asked, manager, prepare, reader, toucher};
use crate::{Outcome, Test};
use abi::{Error, MemRights, Selector, SpaceKind, USER_END};
use alloc::string::String;
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("window: pages are there without the manager", served),
    ("window: malformed, foreign, beyond its end", malformed),
    ("window: rights", rights),
    ("window: changed and removed while in use", changed),
    ("window: its region goes", gone),
    ("window: large pages", large),
    ("window: its region is divided and moved", divided),
    ("window: what it lies in is divided and moved", carried),
    ("window: revoked under a running thread", revoked),
    ("window: agrees with a model", model),
];

const LENGTH: u64 = 16 * PAGE;
const LARGE: u64 = 2 << 20;

/// A managed region of this program, whose manager lives here too, and a window for it.
struct Setup {
    region: Bind,
    window: Bind,
    /// Memory of the window, and what the manager maps itself.
    memory: u64,
    own: u64,
    handler: Selector,
}

impl Setup {
    fn new(length: u64, rights: MemRights) -> Result<Self, String> {
        let own = ram(length);
        prepare(own);
        let handler = thread(0, manager, 0)?;
        let door = portal(handler, 5)?;
        let region = Bind { portal: door, ..pinned(length, rights) };
        ok(sys::region_bind(region), "bind")?;
        let window = pinned(length, READ_WRITE);
        ok(sys::region_bind(window), "bind window")?;
        let memory = ram(length + LARGE).next_multiple_of(LARGE);
        Ok(Self { region, window, memory, own, handler })
    }

    /// Prepares a page.
    fn fill(&self, page: u64, memory: u64, rights: MemRights) -> Outcome {
        let at = self.window.base + page * PAGE;
        ok(sys::map(SPACE, at, RAM, memory, PAGE, rights), "map in the window")
    }

    fn clear(&self, page: u64) -> Outcome {
        ok(sys::unmap(SPACE, self.window.base + page * PAGE, PAGE), "unmap in the window")
    }

    fn show(&self, window: u64) -> Result<(), Error> {
        sys::region_window(NONE, self.region.base, self.region.length, window)
    }

    fn word(&self, page: u64) -> u64 {
        words_at(self.region.base, self.region.length).get(page * PAGE)
    }

    fn end(self) -> Outcome {
        ok(sys::region_unbind(SPACE, self.region.base, self.region.length), "unbind")?;
        let _ = sys::region_unbind(SPACE, self.window.base, self.window.length);
        ok(sys::destroy(self.handler), "destroy")
    }
}

/// Writes a word to a page of RAM.
fn mark(memory: u64, value: u64) -> Outcome {
    let view = pinned(PAGE, READ_WRITE);
    ok(sys::region_bind(view), "bind")?;
    ok(sys::map(SPACE, view.base, RAM, memory, PAGE, READ_WRITE), "map")?;
    words_at(view.base, PAGE).set(0, value);
    ok(sys::region_unbind(SPACE, view.base, PAGE), "unbind")
}

fn served() -> Outcome {
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    ok(setup.show(setup.window.base), "window")?;
    for page in 0..4 {
        mark(setup.memory + page * PAGE, 100 + page)?;
        setup.fill(page, setup.memory + page * PAGE, READ_WRITE)?;
    }
    for page in 0..4 {
        equal(setup.word(page), 100 + page, "seen through the window")?;
    }
    equal(asked(), 0, "questions to the manager")?;
    setup.word(7);
    equal(asked(), 1, "questions about a page that is not in the window")?;
    words_at(setup.region.base, LENGTH).set(2 * PAGE, 55);
    equal(words_at(setup.window.base, LENGTH).get(2 * PAGE), 55, "one page in two places")?;
    let quota = || ok(sys::space_quota(NONE), "quota");
    ok(setup.show(setup.window.base), "window, and an empty region")?;
    let with = quota()?;
    ok(setup.show(0), "no window")?;
    holds(quota()? > with, "a window is paid for")?;
    ok(setup.show(setup.window.base), "window")?;
    equal(quota()?, with, "quota")?;
    setup.end()
}

fn malformed() -> Outcome {
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    let (base, window) = (setup.region.base, setup.window.base);
    let show = |space, base, length, window| sys::region_window(space, base, length, window);
    let (argument, place, region) = (Error::BadArgument, Error::BadAddress, Error::NoRegion);
    refused(show(NONE, base, LENGTH, window + 1), Error::Unaligned, "window")?;
    refused(show(NONE, base + 8, LENGTH, window), Error::Unaligned, "region")?;
    refused(show(NONE, base, 0, window), argument, "empty")?;
    refused(show(NONE, base, LENGTH, window + PAGE), region, "beyond the end")?;
    refused(show(NONE, base, LENGTH, address(LENGTH)), region, "nowhere")?;
    refused(show(NONE, base, LENGTH, 0xffff_8000_0000_0000), place, "in the kernel")?;
    refused(show(NONE, base, LENGTH, USER_END - LENGTH), place, "at the end")?;
    refused(show(NONE, base, LENGTH, !0xfff), Error::WrapsAround, "around the end")?;
    refused(show(NONE, base, LENGTH - PAGE, window), region, "part of a region")?;
    refused(show(NONE, base + PAGE, LENGTH, window), region, "not where a region begins")?;
    refused(show(NONE, base, LENGTH, base), argument, "a managed region as a window")?;
    refused(show(NONE, window, LENGTH, window), region, "window of a pinned region")?;
    refused(show(RAM, base, LENGTH, window), Error::BadCapability, "memory as a space")?;
    let space = selector();
    ok(sys::create_space(space, SpaceKind::Native, 256 << 10), "space")?;
    refused(show(space, base, LENGTH, window), region, "no region there")?;
    ok(sys::region_bind(Bind { space, portal: NONE, ..setup.region }), "bind")?;
    refused(show(space, base, LENGTH, window), region, "not the manager")?;
    ok(sys::destroy(space), "destroy")?;
    setup.end()
}

/// The end of a thread that accesses an address: its reason.
fn access(body: crate::env::Body, at: u64) -> Result<u64, String> {
    let victim = thread(0, body, at)?;
    watch(victim, 91)?;
    ok(sys::create_sc(selector(), victim, ABOVE, crate::env::QUANTUM), "time")?;
    Ok(wait_end(91)?[0])
}

const EXIT: u64 = 0;
const FAULT: u64 = 2;

fn rights() -> Outcome {
    // What the manager may only read, nobody writes through its window.
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    ok(setup.show(setup.window.base), "window")?;
    mark(setup.memory, 7)?;
    setup.fill(0, setup.memory, MemRights::READ)?;
    equal(setup.word(0), 7, "read")?;
    equal(asked(), 0, "questions")?;
    equal(access(toucher, setup.region.base)?, EXIT, "a write goes to the manager")?;
    equal(asked(), 1, "questions")?;
    equal(words_at(setup.window.base, LENGTH).get(0), 7, "the window's page is as it was")?;
    setup.end()?;
    // What the region does not allow, no window allows.
    let setup = Setup::new(LENGTH, MemRights::READ)?;
    ok(setup.show(setup.window.base), "window")?;
    setup.fill(1, setup.memory, READ_WRITE)?;
    equal(access(toucher, setup.region.base + PAGE)?, FAULT, "write to a read-only region")?;
    equal(access(reader, setup.region.base + PAGE)?, EXIT, "read")?;
    equal(access(toucher, setup.region.base + PAGE)?, FAULT, "write after the read")?;
    // The same one after the other, which goes the kernel's short way.
    for page in 2..8 {
        setup.fill(page, setup.memory, READ_WRITE)?;
    }
    (2..8).for_each(|page| {
        setup.word(page);
    });
    for page in 2..8 {
        let end = access(toucher, setup.region.base + page * PAGE)?;
        equal(end, FAULT, "write after reads")?;
    }
    equal(asked(), 0, "questions")?;
    setup.end()
}

fn changed() -> Outcome {
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    let other = pinned(LENGTH, READ_WRITE);
    ok(sys::region_bind(other), "bind")?;
    let second = ram(PAGE);
    ok(sys::map(SPACE, other.base, RAM, second, PAGE, READ_WRITE), "map")?;
    mark(setup.memory, 1)?;
    mark(second, 2)?;
    mark(setup.own, 3)?;
    setup.fill(0, setup.memory, READ_WRITE)?;
    for _ in 0..3 {
        ok(setup.show(setup.window.base), "first window")?;
        equal(setup.word(0), 1, "first")?;
        ok(setup.show(other.base), "second window")?;
        equal(setup.word(0), 2, "second")?;
    }
    equal(asked(), 0, "questions")?;
    ok(setup.show(0), "no window")?;
    equal(setup.word(0), 3, "the manager's")?;
    equal(asked(), 1, "questions")?;
    ok(setup.show(setup.window.base), "again")?;
    equal(setup.word(0), 1, "what the manager mapped is gone too")?;
    // The page is taken away, then another one put in its place.
    setup.clear(0)?;
    equal(setup.word(0), 3, "after unmapping")?;
    setup.fill(0, second, READ_WRITE)?;
    equal(setup.word(0), 3, "the manager's answer stays")?;
    ok(sys::unmap(SPACE, setup.region.base, PAGE), "unmap in the region")?;
    equal(setup.word(0), 2, "the new page")?;
    setup.fill(0, setup.memory, READ_WRITE)?;
    equal(setup.word(0), 1, "a page that replaces it")?;
    ok(sys::region_unbind(SPACE, other.base, LENGTH), "unbind")?;
    setup.end()
}

fn gone() -> Outcome {
    let quota = ok(sys::space_quota(NONE), "quota")?;
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    ok(setup.show(setup.window.base), "window")?;
    mark(setup.memory, 1)?;
    mark(setup.own, 3)?;
    setup.fill(0, setup.memory, READ_WRITE)?;
    equal(setup.word(0), 1, "through the window")?;
    ok(sys::region_unbind(SPACE, setup.window.base, LENGTH), "unbind what the window lies in")?;
    equal(setup.word(0), 3, "the manager's")?;
    // What lies there later is no window.
    ok(sys::region_bind(setup.window), "bind again")?;
    setup.fill(1, setup.memory, READ_WRITE)?;
    setup.word(1);
    equal(asked(), 2, "questions")?;
    ok(setup.show(setup.window.base), "window")?;
    setup.word(1);
    equal(asked(), 2, "questions")?;
    ok(sys::region_unbind(SPACE, setup.region.base, LENGTH), "unbind the region")?;
    setup.clear(1)?;
    ok(sys::region_bind(setup.region), "bind")?;
    setup.end()?;
    // The handler and its portal are not given back here.
    let lost = quota - ok(sys::space_quota(NONE), "quota")?;
    holds(lost < 4 * PAGE, "windows are paid back")
}

fn large() -> Outcome {
    let setup = Setup::new(2 * LARGE, READ_WRITE)?;
    let at = setup.window.base;
    ok(sys::map(SPACE, at, RAM, setup.memory, LARGE, READ_WRITE), "map")?;
    ok(setup.show(at), "window")?;
    let words = words_at(setup.region.base, 2 * LARGE);
    for page in [511, 3, 0] {
        words.set(page * PAGE, page + 1);
        equal(words_at(at, LARGE).get(page * PAGE), page + 1, "the same page")?;
    }
    equal(asked(), 0, "questions")?;
    // One page of the large one goes, the others stay.
    setup.clear(3)?;
    setup.word(3);
    equal((asked(), setup.word(511), setup.word(0)), (1, 512, 1), "the rest")?;
    setup.end()
}

/// The first word of a page.
fn first_word(at: u64) -> u64 {
    words_at(at, PAGE).get(0)
}

/// All pages in the window, and pages in the region that came through it.
fn filled() -> Result<Setup, String> {
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    for page in 0..16 {
        mark(setup.memory + page * PAGE, 100 + page)?;
        mark(setup.own + page * PAGE, 200 + page)?;
        setup.fill(page, setup.memory + page * PAGE, READ_WRITE)?;
    }
    ok(setup.show(setup.window.base), "window")?;
    equal((setup.word(1), setup.word(12), asked()), (101, 112, 0), "before")?;
    Ok(setup)
}

fn divided() -> Outcome {
    let setup = filled()?;
    let (base, half) = (setup.region.base, LENGTH / 2);
    let page = |n| first_word(base + n * PAGE);
    ok(sys::region_split(NONE, base, LENGTH, base + half, 7), "split")?;
    equal((page(2), page(9), page(12)), (102, 109, 112), "both parts")?;
    let to = address(half);
    ok(sys::region_move(NONE, base + half, half, to), "move the upper part")?;
    let moved = |n: u64| first_word(to + (n - 8) * PAGE);
    equal((moved(9), moved(15), asked()), (109, 115, 0), "at its new place")?;
    // What the manager loses, both lose.
    setup.clear(2)?;
    setup.clear(9)?;
    equal((page(2), moved(9), asked()), (202, 201, 2), "what the manager says instead")?;
    equal((page(3), moved(15), asked()), (103, 115, 2), "what it has not lost")?;
    ok(sys::region_window(NONE, to, half, 0), "no window for the upper part")?;
    equal((page(3), moved(15), asked()), (103, 207, 3), "the lower one has its own")?;
    ok(sys::region_unbind(SPACE, to, half), "unbind the upper part")?;
    ok(sys::region_unbind(SPACE, base, half), "unbind the lower part")?;
    ok(sys::region_unbind(SPACE, setup.window.base, LENGTH), "unbind")?;
    ok(sys::destroy(setup.handler), "destroy")
}

fn carried() -> Outcome {
    let setup = filled()?;
    let (at, to) = (setup.window.base, address(LENGTH));
    // It moves with what it lies in: by a page, and far away.
    for (from, to) in [(at, at + PAGE), (at + PAGE, to)] {
        ok(sys::region_move(NONE, from, LENGTH, to), "move")?;
        equal((setup.word(0), asked()), (200, asked()), "nothing is mapped there")?;
        let asked_before = asked();
        ok(sys::map(SPACE, to, RAM, setup.memory, LENGTH, READ_WRITE), "map again")?;
        ok(sys::unmap(SPACE, setup.region.base, PAGE), "unmap in the region")?;
        equal((setup.word(0), setup.word(9)), (100, 109), "through the window")?;
        equal(asked(), asked_before, "questions")?;
    }
    // It stays where that is divided, and what either part loses, the region loses.
    let half = LENGTH / 2;
    ok(sys::region_split(NONE, to, LENGTH, to + half, 0), "split")?;
    equal((setup.word(3), setup.word(13), asked()), (103, 113, 2), "both halves")?;
    ok(sys::unmap(SPACE, to + half, half), "unmap in the upper half")?;
    equal((setup.word(3), setup.word(13), asked()), (103, 213, 3), "the upper half's")?;
    // When a part moves, or goes, the whole window goes, with what came through it.
    ok(sys::region_move(NONE, to + half, half, at), "move the upper half")?;
    equal((setup.word(3), asked()), (203, 4), "no window, and nothing that came through it")?;
    ok(sys::region_unbind(SPACE, to, half), "unbind the lower half")?;
    ok(sys::region_unbind(SPACE, at, half), "unbind the upper half")?;
    setup.end()
}

/// Counts in a word for ever.
extern "C" fn counter(at: u64) -> ! {
    let words = words_at(at, PAGE);
    loop {
        words.set(0, words.get(0) + 1);
    }
}

fn revoked() -> Outcome {
    let cpu = cpus() as u32 - 1;
    let setup = Setup::new(LENGTH, READ_WRITE)?;
    setup.fill(0, setup.memory, READ_WRITE)?;
    ok(setup.show(setup.window.base), "window")?;
    let view = pinned(PAGE, MemRights::READ);
    ok(sys::region_bind(view), "bind")?;
    ok(sys::map(SPACE, view.base, RAM, setup.memory, PAGE, MemRights::READ), "map")?;
    let seen = words_at(view.base, PAGE);
    let before = seen.get(0);
    let victim = running(cpu, counter, setup.region.base, 50)?;
    eventually("it counts", || seen.get(0) > before + 10)?;
    setup.clear(0)?;
    let last = seen.get(0);
    let _ = sys::wait(rt::time::now().0 + 1_000_000);
    equal(seen.get(0), last, "nothing is written after the revocation")?;
    let _ = sys::destroy(victim);
    ok(sys::region_unbind(SPACE, view.base, PAGE), "unbind")?;
    setup.end()
}

/// Something mapped: offset in RAM, and whether it can be written.
type Page = Option<(u64, bool)>;

/// What the pages of window and region are, and how often the manager was asked.
#[derive(Default)]
struct Model {
    shown: bool,
    window: [Page; 4],
    region: [Page; 4],
    asked: u64,
}

impl Model {
    /// An access; the offset of the memory that it reaches.
    fn access(&mut self, page: usize, write: bool, own: u64) -> u64 {
        let fits = |p: &(u64, bool)| p.1 || !write;
        if let Some(found) = self.region[page].filter(fits) {
            return found.0;
        }
        let found = self.window[page].filter(|_| self.shown).filter(fits);
        self.asked += u64::from(found.is_none());
        let found = found.unwrap_or((own + page as u64 * PAGE, true));
        self.region[page] = Some(found);
        found.0
    }

    fn fill(&mut self, page: usize, with: Page) {
        let changed = self.window[page].is_some_and(|old| Some(old) != with);
        self.window[page] = with;
        if self.shown && changed {
            self.region[page] = None;
        }
    }
}

fn model() -> Outcome {
    let setup = Setup::new(4 * PAGE, READ_WRITE)?;
    let place = |n: u64| if n < 4 { setup.own + n * PAGE } else { setup.memory + (n - 4) * PAGE };
    for n in 0..8 {
        mark(place(n), place(n))?;
    }
    let mut model = Model::default();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for step in 0..600 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (page, choice, source) = (state >> 20 & 3, state >> 30 & 7, state >> 40 & 3);
        let write = state >> 50 & 1 == 1;
        match choice {
            0 => {
                model.shown = write;
                model.region = [None; 4];
                ok(setup.show(if write { setup.window.base } else { 0 }), "window")?;
            }
            1 => {
                model.fill(page as usize, None);
                setup.clear(page)?;
            }
            2 | 3 => {
                let rights = if write { READ_WRITE } else { MemRights::READ };
                model.fill(page as usize, Some((place(4 + source), write)));
                setup.fill(page, place(4 + source), rights)?;
            }
            _ => {
                let expected = model.access(page as usize, write, setup.own);
                let words = words_at(setup.region.base, 4 * PAGE);
                if write {
                    words.set(page * PAGE + 8, step);
                }
                equal(words.get(page * PAGE), expected, "memory")?;
            }
        }
        if asked() != model.asked {
            let expected = model.asked;
            return Err(alloc::format!("step {step}: asked {} not {expected} times", asked()));
        }
    }
    setup.end()
}
