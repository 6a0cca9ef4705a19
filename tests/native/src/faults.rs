//! Page faults and their managers.
use crate::env::{
    ABOVE, NONE, PAGE, RAM, READ_WRITE, SPACE, THREAD, address, equal, holds, ok, portal, ram,
    refused, running, thread, wait_end, watch, words_at,
};
use crate::{Outcome, Test};
use abi::{Access, Error, Event, FaultMessage, FaultReply, MemRights, NO_DEADLINE, Selector};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("fault: mapped by its manager", mapped),
    ("fault: what the manager is told", message),
    ("fault: many pages at once", ahead),
    ("fault: refused by its manager", refusing),
    ("fault: manager answers nonsense", nonsense),
    ("fault: manager maps outside its region", outside),
    ("fault: manager in its own region", own_region),
    ("fault: manager dies", dying),
    ("fault: unmapped and faulted again", again),
    ("fault: log of memory that is not there yet", log),
    ("fault: mapping ahead is the manager's right", rights),
];

/// What the manager does with offset 0..: see `serve`.
const LENGTH: u64 = 64 * PAGE;
const TAG: u64 = 4711;

/// Behaviour of the manager, and where its memory starts.
static MODE: AtomicU64 = AtomicU64::new(0);
static OFFSET: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
/// The last message.
static LAST: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

const MODE_PAGE: u64 = 0;
const MODE_ALL: u64 = 1;
const MODE_REFUSE: u64 = 2;
const MODE_NONSENSE: u64 = 3;
const MODE_OUTSIDE: u64 = 4;
const MODE_READ_ONLY: u64 = 5;
const MODE_DIE: u64 = 6;
const MODE_FOREIGN: u64 = 7;

fn answer(fault: &FaultMessage) -> (u64, [u64; 8]) {
    let page = fault.offset & !(PAGE - 1);
    let map = |offset: u64, region_offset, length, rights| {
        let memory_offset = OFFSET.load(Ordering::SeqCst) + offset;
        FaultReply::Map { memory: RAM, memory_offset, region_offset, length, rights }.encode()
    };
    match MODE.load(Ordering::SeqCst) {
        MODE_ALL => (0, map(0, 0, LENGTH, READ_WRITE)),
        MODE_REFUSE => (Error::Refused as u64, [0; 8]),
        MODE_NONSENSE => (0, [99; 8]),
        MODE_OUTSIDE => (0, map(page, page + LENGTH, PAGE, READ_WRITE)),
        MODE_READ_ONLY if fault.access == Access::Read => {
            (0, map(page, page, PAGE, MemRights::READ))
        }
        MODE_DIE => sys::exit(0),
        MODE_FOREIGN => {
            let memory = Selector(4000);
            let rights = READ_WRITE;
            let reply = FaultReply::Map {
                memory,
                memory_offset: 0,
                region_offset: page,
                length: PAGE,
                rights,
            };
            (0, reply.encode())
        }
        _ => (0, map(page, page, PAGE, READ_WRITE)),
    }
}

/// A memory manager.
pub extern "C" fn manager(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        FAULTS.fetch_add(1, Ordering::SeqCst);
        for (place, word) in LAST.iter().zip(words) {
            place.store(word, Ordering::SeqCst);
        }
        let (status, words) = answer(&FaultMessage::decode(&words));
        next = sys::reply_wait(status, words, NO_DEADLINE);
    }
}

/// Makes the next manager map page by page from here.
pub fn prepare(offset: u64) {
    MODE.store(MODE_PAGE, Ordering::SeqCst);
    OFFSET.store(offset, Ordering::SeqCst);
    FAULTS.store(0, Ordering::SeqCst);
}

/// Faults that managers got since [`prepare`].
pub fn asked() -> u64 {
    faults()
}

struct Managed {
    base: u64,
    thread: Selector,
    door: Selector,
}

fn managed(mode: u64) -> Result<Managed, String> {
    MODE.store(mode, Ordering::SeqCst);
    OFFSET.store(ram(LENGTH), Ordering::SeqCst);
    FAULTS.store(0, Ordering::SeqCst);
    let thread = thread(0, manager, 0)?;
    let door = portal(thread, 5)?;
    let base = address(LENGTH);
    let bind = Bind {
        space: SPACE,
        base,
        length: LENGTH,
        portal: door,
        tag: TAG,
        rights: READ_WRITE,
        hint: 21,
    };
    ok(sys::region_bind(bind), "bind")?;
    Ok(Managed { base, thread, door })
}

/// A region with a manager that maps page by page: its thread, base and length.
pub fn served() -> Result<(Selector, u64, u64), String> {
    let managed = managed(MODE_PAGE)?;
    Ok((managed.thread, managed.base, LENGTH))
}

impl Managed {
    fn end(self) -> Outcome {
        ok(sys::region_unbind(SPACE, self.base, LENGTH), "unbind")?;
        let _ = sys::destroy(self.thread);
        ok(sys::cap_drop(NONE, self.door), "drop")
    }
}

/// Writes to an address and exits with what it reads there afterwards.
pub extern "C" fn toucher(at: u64) -> ! {
    let page = words_at(at & !(PAGE - 1), PAGE);
    let offset = at & (PAGE - 1);
    page.set(offset, 0x77);
    sys::exit(page.get(offset))
}

/// Reads at an address and exits with what is there.
pub extern "C" fn reader(at: u64) -> ! {
    sys::exit(words_at(at & !(PAGE - 1), PAGE).get(at & (PAGE - 1)))
}

fn faults() -> u64 {
    FAULTS.load(Ordering::SeqCst)
}

fn mapped() -> Outcome {
    let managed = managed(MODE_PAGE)?;
    let words = words_at(managed.base, LENGTH);
    for page in 0..8 {
        words.set(page * PAGE + 8, page + 1);
    }
    for page in 0..8 {
        equal(words.get(page * PAGE + 8), page + 1, "contents")?;
    }
    equal(faults(), 8, "faults")?;
    managed.end()
}

fn message() -> Outcome {
    let managed = managed(MODE_PAGE)?;
    let last = |n: usize| LAST[n].load(Ordering::SeqCst);
    let words = words_at(managed.base, LENGTH);
    words.set(3 * PAGE + 0x128, 1);
    equal((last(0), last(1)), (TAG, 3 * PAGE + 0x128), "tag and offset")?;
    equal((last(2), last(4), last(5)), (Access::Write as u64, LENGTH, 21), "access, length, hint")?;
    holds(last(3) > 0x40_0000 && last(3) < 0x1000_0000, "instruction pointer")?;
    words.get(5 * PAGE);
    equal((last(1), last(2)), (5 * PAGE, Access::Read as u64), "read")?;
    managed.end()
}

fn ahead() -> Outcome {
    let managed = managed(MODE_ALL)?;
    let words = words_at(managed.base, LENGTH);
    for page in 0..LENGTH / PAGE {
        words.set(page * PAGE, page);
    }
    equal(faults(), 1, "faults")?;
    managed.end()
}

/// A helper that faults, and must end for it with this reason.
fn must_end(managed: Managed, reason: u64, detail: u64) -> Outcome {
    let at = managed.base + 0x2010;
    let victim = thread(0, toucher, at)?;
    watch(victim, 31)?;
    ok(sys::create_sc(crate::env::selector(), victim, ABOVE, 1000), "time")?;
    let end = wait_end(31)?;
    equal((end[0], end[2]), (reason, detail), "reason and detail")?;
    managed.end()
}

fn refusing() -> Outcome {
    let managed = managed(MODE_REFUSE)?;
    let at = managed.base + 0x2010;
    must_end(managed, 3, at)
}

fn nonsense() -> Outcome {
    for mode in [MODE_NONSENSE, MODE_FOREIGN] {
        let managed = managed(mode)?;
        let at = managed.base + 0x2010;
        must_end(managed, 3, at)?;
    }
    Ok(())
}

fn outside() -> Outcome {
    let managed = managed(MODE_OUTSIDE)?;
    let at = managed.base + 0x2010;
    must_end(managed, 3, at)
}

/// Faults in the region that it manages.
extern "C" fn narcissus(at: u64) -> ! {
    let _ = sys::wait(0);
    toucher(at)
}

fn own_region() -> Outcome {
    let base = address(LENGTH);
    let victim = thread(0, narcissus, base)?;
    let door = portal(victim, 5)?;
    let bind = Bind {
        space: SPACE,
        base,
        length: LENGTH,
        portal: door,
        tag: 0,
        rights: READ_WRITE,
        hint: 12,
    };
    ok(sys::region_bind(bind), "bind")?;
    watch(victim, 32)?;
    ok(sys::create_sc(crate::env::selector(), victim, ABOVE, 1000), "time")?;
    let end = wait_end(32)?;
    equal((end[0], end[2]), (2, base), "reason and address")?;
    ok(sys::region_unbind(SPACE, base, LENGTH), "unbind")
}

fn dying() -> Outcome {
    let managed = managed(MODE_DIE)?;
    let at = managed.base + 0x2010;
    must_end(managed, 4, at)?;
    // And afterwards, with the manager gone for good.
    let managed = self::managed(MODE_PAGE)?;
    ok(sys::destroy(managed.thread), "destroy")?;
    let at = managed.base + 0x2010;
    must_end(managed, 2, at)
}

fn again() -> Outcome {
    let managed = managed(MODE_READ_ONLY)?;
    let words = words_at(managed.base, LENGTH);
    words.get(0);
    equal(faults(), 1, "read")?;
    words.set(0, 5);
    equal(faults(), 2, "write after read")?;
    equal(words.get(0), 5, "contents")?;
    ok(sys::unmap(SPACE, managed.base, PAGE), "unmap")?;
    equal(words.get(0), 5, "contents after unmapping")?;
    equal(faults(), 3, "read after unmapping")?;
    managed.end()
}

fn log() -> Outcome {
    let managed = managed(MODE_PAGE)?;
    let (status, _) = sys::arbitrary(abi::CallNumber::Log as u64, &[managed.base + PAGE - 2, 4]);
    equal(status, 0, "status")?;
    equal(faults(), 2, "faults")?;
    managed.end()
}

fn rights() -> Outcome {
    let managed = managed(MODE_PAGE)?;
    let offset = ram(PAGE);
    // The manager lives in this space, so mapping ahead of faults is allowed here.
    ok(sys::map(SPACE, managed.base, RAM, offset, PAGE, READ_WRITE), "map")?;
    words_at(managed.base, PAGE).set(0, 1);
    equal(faults(), 0, "faults")?;
    let victim = running(0, reader, managed.base + PAGE, ABOVE)?;
    refused(sys::destroy(victim), Error::Gone, "it ended by itself")?;
    let _ = THREAD;
    managed.end()
}
