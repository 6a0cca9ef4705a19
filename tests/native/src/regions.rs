//! Regions that are divided, moved, or get other rights; also while a fault in them is on its way.
use crate::env::{
    ABOVE, Body, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, address, equal, holds, ok, pinned,
    portal, ram, refused, selector, thread, wait_end, watch, words_at,
};
use crate::faults::{asked, manager, prepare, reader, toucher};
use crate::{Outcome, Test};
use abi::{Error, Event, FaultMessage, FaultReply, MemRights, NO_DEADLINE, Selector, USER_END};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("region: divided", divided),
    ("region: moved", moved),
    ("region: other rights", rights),
    ("region: changed while a fault is on its way", in_flight),
];

const LENGTH: u64 = 8 * PAGE;

/// The region that begins at an address: base, length, rights, tag.
pub fn find(base: u64) -> Option<(u64, u64, MemRights, u64)> {
    let region = rt::regions::of(NONE).find(|region| region.base.0 == base)?;
    Some((region.base.0, region.length, region.rights, region.tag))
}

/// A region of a manager that maps page by page.
fn managed() -> Result<(Bind, Selector), String> {
    prepare(ram(LENGTH));
    let handler = thread(0, manager, 0)?;
    let bind = Bind { portal: portal(handler, 5)?, tag: 1, ..pinned(LENGTH, READ_WRITE) };
    ok(sys::region_bind(bind), "bind")?;
    Ok((bind, handler))
}

fn divided() -> Outcome {
    let (bind, handler) = managed()?;
    let (base, middle) = (bind.base, bind.base + 3 * PAGE);
    let words = words_at(base, LENGTH);
    (0..8).for_each(|page| words.set(page * PAGE, page + 10));
    let split = |length, at| sys::region_split(NONE, base, length, at, 2);
    let (argument, region, unaligned) = (Error::BadArgument, Error::NoRegion, Error::Unaligned);
    refused(split(LENGTH, base), argument, "at its start")?;
    refused(split(LENGTH, base + LENGTH), argument, "at its end")?;
    refused(split(LENGTH, middle + 8), unaligned, "not at a page")?;
    refused(split(LENGTH, !0xfff), argument, "nowhere")?;
    refused(split(LENGTH - PAGE, middle), region, "a part of it")?;
    let before = ok(sys::space_quota(NONE), "quota")?;
    ok(split(LENGTH, middle), "split")?;
    holds(ok(sys::space_quota(NONE), "quota")? < before, "a region more is paid for")?;
    equal(find(base), Some((base, 3 * PAGE, READ_WRITE, 1)), "lower part")?;
    equal(find(middle), Some((middle, 5 * PAGE, READ_WRITE, 2)), "upper part")?;
    equal(words.get(5 * PAGE), 15, "what is mapped stays")?;
    equal(asked(), 8, "faults")?;
    refused(sys::region_unbind(SPACE, base, LENGTH), region, "the whole")?;
    ok(sys::region_unbind(SPACE, base, 3 * PAGE), "unbind the lower part")?;
    equal(words_at(middle, PAGE).get(0), 13, "the upper part is there")?;
    ok(sys::region_unbind(SPACE, middle, 5 * PAGE), "unbind the upper part")?;
    ok(sys::destroy(handler), "destroy")
}

fn moved() -> Outcome {
    let (bind, handler) = managed()?;
    let (from, to) = (bind.base, address(2 * LENGTH));
    words_at(from, LENGTH).set(PAGE, 77);
    let other = Bind { base: to + LENGTH, ..pinned(PAGE, MemRights::READ) };
    ok(sys::region_bind(other), "bind")?;
    let shift = |to| sys::region_move(NONE, from, LENGTH, to);
    refused(shift(to + PAGE), Error::Overlap, "into another region")?;
    refused(shift(to + 1), Error::Unaligned, "not to a page")?;
    refused(shift(USER_END - LENGTH), Error::BadAddress, "to the end")?;
    refused(shift(!0xfff), Error::WrapsAround, "around the end")?;
    refused(sys::region_move(NONE, from, PAGE, to), Error::NoRegion, "a part")?;
    equal(words_at(from, LENGTH).get(PAGE), 77, "a refusal changes nothing")?;
    ok(shift(to), "move")?;
    equal(find(from), None, "old place")?;
    equal(words_at(to, LENGTH).get(PAGE), 77, "new place")?;
    equal(asked(), 2, "faults")?;
    equal(access(crate::illegal::read, from + PAGE)?, FAULT, "access to the old place")?;
    ok(sys::region_move(NONE, to, LENGTH, to - PAGE), "move by a page")?;
    equal(words_at(to - PAGE, LENGTH).get(PAGE), 77, "third place")?;
    ok(sys::region_unbind(SPACE, to - PAGE, LENGTH), "unbind")?;
    ok(sys::region_unbind(SPACE, other.base, PAGE), "unbind")?;
    ok(sys::destroy(handler), "destroy")
}

/// Reasons for the end of a thread.
const EXIT: u64 = 0;
const FAULT: u64 = 2;
const REFUSED: u64 = 3;

/// The end of a thread that accesses an address: its reason.
fn access(body: Body, at: u64) -> Result<u64, String> {
    let victim = thread(0, body, at)?;
    watch(victim, 92)?;
    ok(sys::create_sc(selector(), victim, ABOVE, QUANTUM), "time")?;
    Ok(wait_end(92)?[0])
}

fn rights() -> Outcome {
    let (bind, handler) = managed()?;
    let set = |rights| sys::region_rights(NONE, bind.base, LENGTH, rights);
    equal(access(toucher, bind.base)?, EXIT, "write")?;
    refused(set(READ_WRITE | MemRights::EXEC), Error::BadArgument, "writable and executable")?;
    refused(sys::region_rights(NONE, bind.base, PAGE, READ_WRITE), Error::NoRegion, "a part")?;
    ok(set(MemRights::READ), "read only")?;
    equal(access(toucher, bind.base)?, FAULT, "write to what was written before")?;
    equal(access(reader, bind.base)?, EXIT, "read")?;
    ok(set(READ_WRITE), "writable")?;
    equal(access(toucher, bind.base)?, EXIT, "write again")?;
    equal(find(bind.base).map(|r| r.2), Some(READ_WRITE), "listed rights")?;
    ok(sys::region_unbind(SPACE, bind.base, LENGTH), "unbind")?;
    ok(sys::destroy(handler), "destroy")
}

/// What the manager does before its first answer: 1 split, 2 move, 3 unbind, 4 bind anew, 5 take the right
/// to write, 6 bind anew without a manager; and the region, and its portal.
static MEDDLE: AtomicU64 = AtomicU64::new(0);
static BASE: AtomicU64 = AtomicU64::new(0);
static DOOR: AtomicU64 = AtomicU64::new(0);
static MEMORY: AtomicU64 = AtomicU64::new(0);
static QUESTIONS: AtomicU64 = AtomicU64::new(0);

/// The region that is changed.
fn meddled(base: u64) -> Bind {
    let portal = Selector(DOOR.load(Ordering::SeqCst) as u32);
    Bind { base, portal, ..pinned(LENGTH, READ_WRITE) }
}

/// A manager that changes the region under the fault that it serves.
extern "C" fn meddler(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        let fault = FaultMessage::decode(&words);
        QUESTIONS.fetch_add(1, Ordering::SeqCst);
        let base = BASE.load(Ordering::SeqCst);
        let _ = match MEDDLE.swap(0, Ordering::SeqCst) {
            1 => sys::region_split(NONE, base, LENGTH, base + 4 * PAGE, 4 * PAGE),
            2 => sys::region_move(NONE, base, LENGTH, base + PAGE),
            3 => sys::region_unbind(NONE, base, LENGTH),
            // Another one in the same place, with the same manager.
            4 => sys::region_unbind(NONE, base, LENGTH)
                .and_then(|()| sys::region_bind(Bind { tag: PAGE, ..meddled(base) })),
            5 => sys::region_rights(NONE, base, LENGTH, MemRights::READ),
            // Its tag is the old one's, but nobody may answer for it.
            6 => sys::region_unbind(NONE, base, LENGTH)
                .and_then(|()| sys::region_bind(Bind { portal: NONE, ..meddled(base) })),
            _ => Ok(()),
        };
        // The tag is the offset of the region's first byte.
        let page = fault.offset & !(PAGE - 1);
        let reply = FaultReply::Map {
            memory: RAM,
            memory_offset: MEMORY.load(Ordering::SeqCst) + fault.tag + page,
            region_offset: page,
            length: PAGE,
            rights: READ_WRITE,
        };
        next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
    }
}

fn in_flight() -> Outcome {
    // What is done, how the thread ends that touches page 5, and how often the manager is asked.
    let cases = [
        (0, EXIT, 1),
        (1, EXIT, 2),
        (2, EXIT, 2),
        (3, REFUSED, 1),
        (4, EXIT, 2),
        (5, FAULT, 1),
        (6, FAULT, 1),
    ];
    for (meddle, end, questions) in cases {
        let handler = thread(0, meddler, 0)?;
        DOOR.store(u64::from(portal(handler, 6)?.0), Ordering::SeqCst);
        let bind = meddled(address(LENGTH));
        ok(sys::region_bind(bind), "bind")?;
        let memory = ram(LENGTH + PAGE);
        MEMORY.store(memory, Ordering::SeqCst);
        BASE.store(bind.base, Ordering::SeqCst);
        MEDDLE.store(meddle, Ordering::SeqCst);
        QUESTIONS.store(0, Ordering::SeqCst);
        equal(access(toucher, bind.base + 5 * PAGE)?, end, "end of the thread")?;
        equal(QUESTIONS.load(Ordering::SeqCst), questions, "questions")?;
        // The page that was written is the right one, at its new offset where it was moved.
        let page = match meddle {
            2 => 4,
            // The new tag is one page further.
            4 => 6,
            _ => 5,
        };
        let view = pinned(PAGE, READ_WRITE);
        ok(sys::region_bind(view), "bind")?;
        ok(sys::map(SPACE, view.base, RAM, memory + page * PAGE, PAGE, READ_WRITE), "map")?;
        if end == EXIT {
            equal(words_at(view.base, PAGE).get(0), 0x77, "memory")?;
        }
        ok(sys::region_unbind(SPACE, view.base, PAGE), "unbind")?;
        for (base, length) in [(0, LENGTH), (0, 4 * PAGE), (4 * PAGE, 4 * PAGE), (PAGE, LENGTH)] {
            let _ = sys::region_unbind(SPACE, bind.base + base, length);
        }
        ok(sys::destroy(handler), "destroy")?;
    }
    Ok(())
}
