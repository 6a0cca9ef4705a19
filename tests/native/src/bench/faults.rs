//! Page faults and regions.
use crate::Outcome;
use crate::child::{Child, FRESH, Image, LARGE, PAGES, manager};
use crate::mapper;
use crate::meter::{Counts, Start, report};
use abi::{Error, MemRights, Selector};
use alloc::string::String;
use alloc::vec::Vec;
use native_tests::env::{
    NONE, PAGE, RAM, READ_WRITE, SPACE, Words, address, ok, pinned, portal, ram, thread, words_at,
};
use rt::sys::{self, Bind};

const LARGE_PAGE: u64 = 2 << 20;
/// Pages that are touched, and the first of each region that is touched before measuring, so that
/// the page tables are there.
const ROUNDS: u64 = 256;

/// All rows.
pub fn run() -> Outcome {
    let image = Image::copy()?;
    let pool = ram(2 * LARGE_PAGE).next_multiple_of(LARGE_PAGE);
    let child = Child::new(&image, manager, pool)?;
    child.give_memory(pool, LARGE_PAGE)?;
    let door = child.door()?;
    let direct = fault("page fault, manager has the page", "direct", door, pool | PAGES)?;
    let mapped = mapper(door, pool | PAGES)?;
    if !mapped.is_times(2, &direct) {
        return Err("the region mapper is not as it is meant".into());
    }
    fault("page fault, fresh zeroed page", "direct", door, pool | FRESH)?;
    window(door, pool)?;
    let local = thread(0, manager, u64::MAX)?;
    let inside = portal(local, 5)?;
    fault("page fault, manager has the page", "one space", inside, pool | PAGES)?;
    ok(sys::destroy(local), "destroy")?;
    large(door, pool)?;
    regions(NONE, "pinned")?;
    regions(door, "managed")?;
    many(door, pool)?;
    child.end();
    Ok(())
}

/// A region of 2 MiB.
fn bound(door: Selector, tag: u64, hint: u64) -> Result<Bind, String> {
    let bind = Bind { portal: door, tag, hint, ..pinned(LARGE_PAGE, READ_WRITE) };
    ok(sys::region_bind(bind), "bind")?;
    Ok(bind)
}

/// What it costs that pages are touched for the first time: the same loop over the same pages, then
/// mapped, is left out.
fn touch(words: &Words, pages: core::ops::Range<u64>) -> Counts {
    let pass = || {
        let start = Start::now();
        for page in pages.clone() {
            words.get(page * PAGE);
        }
        start.end()
    };
    pass().without(pass())
}

fn fault(name: &str, form: &str, door: Selector, tag: u64) -> Result<Counts, String> {
    let bind = bound(door, tag, 12)?;
    let counts = faults_in(&bind, name, form);
    ok(sys::region_unbind(SPACE, bind.base, LARGE_PAGE), "unbind")?;
    Ok(counts)
}

fn faults_in(bind: &Bind, name: &str, form: &str) -> Counts {
    let words = words_at(bind.base, LARGE_PAGE);
    words.get(0);
    let counts = touch(&words, 1..1 + ROUNDS);
    report(name, form, &counts, ROUNDS);
    counts
}

/// The same through a thread in this space that forwards to the manager.
fn mapper(door: Selector, tag: u64) -> Result<Counts, String> {
    let base = address(LARGE_PAGE);
    let (thread, portal) = mapper::start(base, door, tag)?;
    let bind = Bind { base, portal, tag: base, ..pinned(LARGE_PAGE, READ_WRITE) };
    ok(sys::region_bind(bind), "bind")?;
    let counts = faults_in(&bind, "page fault, manager has the page", "region mapper");
    ok(sys::region_unbind(SPACE, base, LARGE_PAGE), "unbind")?;
    mapper::end(thread)?;
    Ok(counts)
}

/// The manager has the pages in its window.
fn window(door: Selector, pool: u64) -> Outcome {
    let bind = bound(door, pool | PAGES, 12)?;
    ok(sys::call(door, [bind.base, LARGE_PAGE, 0, 0, 0, 0, 0, 0]), "window")?;
    let words = words_at(bind.base, LARGE_PAGE);
    words.get(0);
    let name = "page fault, served from the window";
    report(name, "window", &touch(&words, 1..1 + ROUNDS), ROUNDS);
    ok(sys::region_unbind(SPACE, bind.base, LARGE_PAGE), "unbind")
}

/// One fault maps all of it.
fn large(door: Selector, pool: u64) -> Outcome {
    let bind = bound(door, pool | LARGE, 21)?;
    let words = words_at(bind.base, LARGE_PAGE);
    report("2 MiB region, per 4 KiB page touched", "direct", &touch(&words, 0..512), 512);
    ok(sys::region_unbind(SPACE, bind.base, LARGE_PAGE), "unbind")
}

/// Binds `count` regions of a page each, every other page.
fn fill(base: u64, count: u64) -> Result<(), Error> {
    let rights = MemRights::READ;
    let bind = |n| Bind { base: base + n * 2 * PAGE, ..pinned_page(base, rights) };
    (0..count).try_for_each(|n| sys::region_bind(bind(n)))
}

fn pinned_page(base: u64, rights: MemRights) -> Bind {
    Bind { space: SPACE, base, length: PAGE, portal: NONE, tag: 0, rights, hint: 12 }
}

/// Binding and removing a region among 1 000, each with a page mapped in it: pinned ones, or such as a
/// manager in another space has.
fn regions(door: Selector, form: &str) -> Outcome {
    let (count, rounds) = (1000, 100);
    let base = address(count * 2 * PAGE);
    ok(fill(base, count), "bind")?;
    let at = |n: u64| base + (n * 7 + 13) % count * 2 * PAGE + PAGE;
    let offset = ram(PAGE);
    // Page tables are there.
    ok(sys::map(SPACE, base, RAM, offset, PAGE, MemRights::READ), "map")?;
    let mut failed = Ok(());
    let start = Start::now();
    for n in 0..rounds {
        let bind = Bind { portal: door, ..pinned_page(at(n), MemRights::READ) };
        failed = failed.and(sys::region_bind(bind));
    }
    report("bind a region among 1 000", form, &start.end(), rounds);
    for n in 0..rounds {
        if door == NONE {
            failed = failed.and(sys::map(SPACE, at(n), RAM, offset, PAGE, MemRights::READ));
        }
        words_at(at(n), PAGE).get(0);
    }
    let start = Start::now();
    for n in 0..rounds {
        failed = failed.and(sys::region_unbind(SPACE, at(n), PAGE));
    }
    report("unbind a region among 1 000", form, &start.end(), rounds);
    ok(failed, "bind and unbind")?;
    for n in 0..count {
        ok(sys::region_unbind(SPACE, base + n * 2 * PAGE, PAGE), "unbind")?;
    }
    Ok(())
}

/// Regions of two pages each, with the manager's memory behind them, in one block of 2 MiB.
fn small_regions(door: Selector, pool: u64) -> Result<Vec<(u64, Words)>, String> {
    let base = address(LARGE_PAGE);
    (0..128)
        .map(|n| {
            let (at, tag) = (base + n * 4 * PAGE, (pool + n * 2 * PAGE) | PAGES);
            let region = pinned_page(at, READ_WRITE);
            ok(sys::region_bind(Bind { length: 2 * PAGE, portal: door, tag, ..region }), "bind")?;
            Ok((at, words_at(at, 2 * PAGE)))
        })
        .collect()
}

/// Touches one page of each.
fn hop(regions: &[(u64, Words)], page: u64, name: &str) {
    let pass = || {
        let start = Start::now();
        for (_, words) in regions {
            words.get(page * PAGE);
        }
        start.end()
    };
    report(name, "direct", &pass().without(pass()), regions.len() as u64);
}

/// Faults in a space with few and with very many regions, on both sides of the one that faults.
fn many(door: Selector, pool: u64) -> Outcome {
    let half = 50_000;
    let below = address(half * 2 * PAGE);
    let bind = bound(door, pool | PAGES, 12)?;
    let above = address(half * 2 * PAGE);
    let words = words_at(bind.base, LARGE_PAGE);
    words.get(0);
    report("fault with 10 regions", "direct", &touch(&words, 1..129), 128);
    let small = small_regions(door, pool)?;
    hop(&small, 0, "fault in another region, with 150");
    ok(fill(below, half), "bind")?;
    ok(fill(above, half), "bind")?;
    report("fault with 100 000 regions", "direct", &touch(&words, 129..257), 128);
    hop(&small, 1, "fault in another region, with 100 000");
    for region in small {
        ok(sys::region_unbind(SPACE, region.0, 2 * PAGE), "unbind")?;
    }
    for base in [below, above] {
        for n in 0..half {
            ok(sys::region_unbind(SPACE, base + n * 2 * PAGE, PAGE), "unbind")?;
        }
    }
    ok(sys::region_unbind(SPACE, bind.base, LARGE_PAGE), "unbind")
}
