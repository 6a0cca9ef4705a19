//! For comparison only: page faults in the manner of a classic region mapper, on the same kernel. A
//! thread inside the space gets all its faults, looks up whose region it is, asks that manager in its
//! own space, and maps what it answers; it has to be trusted with the whole space, and with the memory.
use crate::Outcome;
use crate::child::WHERE;
use abi::{Error, Event, FaultMessage, FaultReply, NO_DEADLINE, Selector};
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use native_tests::env::{PAGE, RAM, READ_WRITE, ok, portal, thread};
use rt::sys;

/// The manager behind all regions, and the base of the one that is measured: its own tag.
static MANAGER: AtomicU32 = AtomicU32::new(0);
static BASE: AtomicU64 = AtomicU64::new(0);
static TAG: AtomicU64 = AtomicU64::new(0);

/// Regions that the mapper knows.
const REGIONS: u64 = 10;
const LENGTH: u64 = 2 << 20;

/// A region as the mapper knows it.
struct Known {
    length: u64,
    manager: Selector,
    tag: u64,
}

/// The list, with the measured region among others.
fn known() -> BTreeMap<u64, Known> {
    let base = BASE.load(Ordering::SeqCst);
    let manager = Selector(MANAGER.load(Ordering::SeqCst));
    let tag = TAG.load(Ordering::SeqCst);
    let at = |n: u64| base + n * 2 * LENGTH - REGIONS / 2 * 2 * LENGTH;
    (0..REGIONS).map(|n| (at(n), Known { length: LENGTH, manager, tag })).collect()
}

fn answer(known: &BTreeMap<u64, Known>, fault: &FaultMessage) -> Result<FaultReply, Error> {
    // The tag of a region of this space is its address.
    let address = fault.tag + fault.offset;
    let (base, region) = known.range(..=address).next_back().ok_or(Error::NoRegion)?;
    let offset = address - base;
    if offset >= region.length {
        return Err(Error::NoRegion);
    }
    let question = [region.tag, offset, WHERE, fault.access as u64, fault.ip, 0, 0, 0];
    let [memory_offset, length, ..] = sys::call(region.manager, question)?;
    Ok(FaultReply::Map {
        memory: RAM,
        memory_offset,
        region_offset: fault.offset & !(PAGE - 1),
        length,
        rights: READ_WRITE,
    })
}

extern "C" fn mapper(_: u64) -> ! {
    let known = known();
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        next = match answer(&known, &FaultMessage::decode(&words)) {
            Ok(reply) => sys::reply_wait(0, reply.encode(), NO_DEADLINE),
            Err(error) => sys::reply_wait(error as u64, [0; 8], NO_DEADLINE),
        };
    }
}

/// A mapper for a region at `base`, whose manager is behind `door` and knows it by `tag`: the portal
/// that the region is to be bound to, with its address as the tag.
pub fn start(
    base: u64,
    door: Selector,
    tag: u64,
) -> Result<(Selector, Selector), alloc::string::String> {
    BASE.store(base, Ordering::SeqCst);
    MANAGER.store(door.0, Ordering::SeqCst);
    TAG.store(tag, Ordering::SeqCst);
    let thread = thread(0, mapper, 0)?;
    Ok((thread, portal(thread, 7)?))
}

/// Ends it.
pub fn end(thread: Selector) -> Outcome {
    ok(sys::destroy(thread), "destroy")
}
