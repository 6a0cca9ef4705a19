//! Pages of every size, as their region's hint wants them, on a machine that has memory for one of 1 GiB.
use crate::env::{
    PAGE, RAM, READ_WRITE, SPACE, equal, holds, ok, portal, thread, window, words_at,
};
use crate::{Outcome, Test};
use abi::{Event, FaultMessage, FaultReply, LARGE_PAGE_SIZE, NO_DEADLINE};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[("fault: pages-of-all-sizes", sizes)];

const HUGE: u64 = 1 << 30;
const BASE: u64 = 1 << 42;
/// Steps in which a region is touched; not a multiple of any page.
const STEP: u64 = (5 << 20) + 8;

/// Where in RAM a page of 1 GiB begins.
static OFFSET: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Maps one page of the size that the region's hint says.
extern "C" fn manager(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        FAULTS.fetch_add(1, Ordering::SeqCst);
        let fault = FaultMessage::decode(&words);
        let length = 1 << (fault.page_hint & 63);
        let region_offset = fault.offset & !(length - 1);
        let memory_offset = OFFSET.load(Ordering::SeqCst) + region_offset;
        let rights = READ_WRITE;
        let reply = FaultReply::Map { memory: RAM, memory_offset, region_offset, length, rights };
        next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
    }
}

fn sizes() -> Outcome {
    let (physical, length, _) = ok(sys::mem_info(RAM), "RAM")?;
    let at = physical.next_multiple_of(HUGE) - physical;
    holds(at + HUGE <= length, "the machine has memory for a page of 1 GiB")?;
    OFFSET.store(at, Ordering::SeqCst);
    let door = portal(thread(0, manager, 0)?, 1)?;
    // A word of that memory, seen by another way.
    let (elsewhere, _) = window(PAGE)?;
    for (hint, page) in [(30, HUGE), (21, LARGE_PAGE_SIZE), (12, PAGE)] {
        let bind = Bind {
            space: SPACE,
            base: BASE,
            length: HUGE,
            portal: door,
            tag: 0,
            rights: READ_WRITE,
            hint,
        };
        ok(sys::region_bind(bind), "bind")?;
        FAULTS.store(0, Ordering::SeqCst);
        let words = words_at(BASE, HUGE);
        let places = || (0..HUGE - 8).step_by(STEP as usize).chain([HUGE - 8]);
        let mut pages = 0;
        let mut last = u64::MAX;
        for place in places() {
            pages += u64::from(place / page != last);
            last = place / page;
            words.set(place, place ^ hint);
        }
        equal(FAULTS.load(Ordering::SeqCst), pages, "faults")?;
        for place in places() {
            equal(words.get(place), place ^ hint, "what was written")?;
            let inside = place & (PAGE - 1);
            ok(sys::unmap(SPACE, elsewhere, PAGE), "unmap")?;
            ok(sys::map(SPACE, elsewhere, RAM, at + place - inside, PAGE, READ_WRITE), "map")?;
            equal(words_at(elsewhere, PAGE).get(inside), place ^ hint, "the right memory")?;
        }
        ok(sys::region_unbind(SPACE, BASE, HUGE), "unbind")?;
    }
    Ok(())
}
