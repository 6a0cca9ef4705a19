//! Regions of other spaces, native and guest-physical ones alike: each operation, each refusal by its own
//! error, who may do what, and who pays.
use crate::ends::Program;
use crate::env::{
    NONE, PAGE, RAM, READ_WRITE, SPACE, equal, holds, ok, pinned, portal, ram, refused, selector,
    thread,
};
use crate::faults::manager;
use crate::illegal::Blob;
use crate::{Outcome, Test};
use abi::{
    Error, MemRights, ObjRights, RegionInfo, RootSelector, Selector, SpaceAddr, SpaceKind, USER_END,
};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("spaces: regions bound, divided, moved, changed, listed", || each(operations)),
    ("spaces: regions refused", || each(refusals)),
    ("spaces: no more rights than the manager's", || each(rights)),
    ("spaces: what a manager may do", || each(managers)),
    ("spaces: without control", || each(weak)),
    ("spaces: out of kernel memory", || each(exhausted)),
    ("spaces: a divided window is the client's to pay", || each(windows)),
    ("spaces: large pages at a border", || each(borders)),
];

/// Where the regions lie.
const BASE: u64 = 0x4000_0000;
const LENGTH: u64 = 8 * PAGE;
const LARGE: u64 = 2 << 20;
const HUGE: u64 = 1 << 30;

fn each(test: fn(Selector, SpaceKind) -> Outcome) -> Outcome {
    let kinds = [SpaceKind::Native, SpaceKind::Guest];
    let many = if crate::guest::available() { 2 } else { 1 };
    for kind in kinds.into_iter().take(many) {
        let space = selector();
        ok(sys::create_space(space, kind, 512 << 10), "space")?;
        test(space, kind).map_err(|why| format!("{kind:?}: {why}"))?;
        ok(sys::destroy(space), "destroy")?;
    }
    Ok(())
}

fn quota(space: Selector) -> Result<u64, String> {
    ok(sys::space_quota(space), "quota")
}

/// A portal of a manager in this program.
fn door() -> Result<(Selector, Selector), String> {
    let handler = thread(0, manager, 0)?;
    Ok((handler, portal(handler, 5)?))
}

fn region(space: Selector, base: u64, portal: Selector) -> Bind {
    Bind { space, base, length: LENGTH, portal, tag: 1, rights: READ_WRITE, hint: 12 }
}

fn info(bind: Bind) -> RegionInfo {
    RegionInfo {
        base: SpaceAddr(bind.base),
        length: bind.length,
        rights: bind.rights | MemRights::READ,
        hint: bind.hint as u8,
        managed: bind.portal != NONE,
        window: false,
        tag: bind.tag,
    }
}

/// Checks that the regions of a space are these.
fn listed(space: Selector, expected: &[Bind], what: &str) -> Outcome {
    let found: Vec<_> = rt::regions::of(space).collect();
    let expected: Vec<_> = expected.iter().copied().map(info).collect();
    equal(found, expected, what)
}

fn operations(space: Selector, _: SpaceKind) -> Outcome {
    let (handler, door) = door()?;
    let before = quota(space)?;
    let one = Bind { hint: 21, tag: u64::MAX, ..region(space, BASE, door) };
    let two = Bind { hint: 30, rights: MemRights::READ, ..region(space, BASE + LENGTH, NONE) };
    ok(sys::region_bind(two), "bind")?;
    ok(sys::region_bind(one), "bind")?;
    listed(space, &[one, two], "both")?;
    holds(quota(space)? < before, "regions are paid for by their space")?;
    let at = |address| sys::region_list(space, address).map(|r| r.base.0);
    equal(at(BASE + PAGE + 3), Ok(BASE), "inside the first")?;
    equal(at(BASE + LENGTH), Ok(two.base), "the second's first byte")?;
    refused(at(two.base + LENGTH), Error::NoRegion, "behind the last")?;
    let memory = ram(LENGTH);
    ok(sys::map(space, BASE, RAM, memory, LENGTH, READ_WRITE), "map")?;
    ok(sys::region_split(space, BASE, LENGTH, BASE + 3 * PAGE, 8), "split")?;
    let lower = Bind { length: 3 * PAGE, ..one };
    let upper = Bind { base: BASE + 3 * PAGE, length: 5 * PAGE, tag: 8, ..one };
    listed(space, &[lower, upper, two], "three")?;
    let crossing = sys::map(space, BASE, RAM, memory, LENGTH, READ_WRITE);
    refused(crossing, Error::NoRegion, "map across both")?;
    ok(sys::region_move(space, upper.base, upper.length, BASE + HUGE), "move")?;
    let upper = Bind { base: BASE + HUGE, ..upper };
    ok(sys::region_rights(space, BASE, lower.length, MemRights::READ), "rights")?;
    let lower = Bind { rights: MemRights::READ, ..lower };
    ok(sys::region_manager(space, two.base, LENGTH, door, 9), "manager")?;
    let two = Bind { portal: door, tag: 9, ..two };
    listed(space, &[lower, two, upper], "after all changes")?;
    let more = sys::map(space, BASE, RAM, memory, PAGE, READ_WRITE);
    refused(more, Error::NoRight, "more rights than it has left")?;
    for bind in [lower, two, upper] {
        ok(sys::region_unbind(space, bind.base, bind.length), "unbind")?;
    }
    listed(space, &[], "none")?;
    equal(quota(space)?, before, "kernel memory is back")?;
    ok(sys::destroy(handler), "destroy")
}

fn refusals(space: Selector, kind: SpaceKind) -> Outcome {
    let good = region(space, BASE, NONE);
    let limit = if kind == SpaceKind::Native { USER_END - PAGE } else { 1 << 48 };
    let bind = |base, length| sys::region_bind(Bind { base, length, ..good });
    let (argument, place, region) = (Error::BadArgument, Error::BadAddress, Error::NoRegion);
    let (unaligned, wraps) = (Error::Unaligned, Error::WrapsAround);
    refused(bind(BASE, 0), argument, "empty")?;
    refused(bind(BASE + 8, LENGTH), unaligned, "base")?;
    refused(bind(BASE, LENGTH + 8), unaligned, "length")?;
    refused(bind(limit - PAGE, 2 * PAGE), place, "beyond the end")?;
    refused(bind(!0xfff, 2 * PAGE), wraps, "around the end")?;
    refused(bind(PAGE, !0xfff), wraps, "all there is")?;
    ok(bind(limit - PAGE, PAGE), "the last page")?;
    ok(sys::region_unbind(space, limit - PAGE, PAGE), "unbind")?;
    let hint = sys::region_bind(Bind { hint: 22, ..good });
    refused(hint, argument, "a page size that does not exist")?;
    let executable = Bind { rights: READ_WRITE | MemRights::EXEC, ..good };
    match kind {
        SpaceKind::Native => {
            refused(sys::region_bind(executable), argument, "writable and executable")?;
            ok(sys::region_bind(good), "bind")?;
        }
        SpaceKind::Guest => ok(sys::region_bind(executable), "a guest decides that itself")?,
    }
    for (base, length) in [(BASE, LENGTH), (BASE - PAGE, 2 * PAGE), (BASE + PAGE, PAGE)] {
        refused(bind(base, length), Error::Overlap, "overlap")?;
    }
    for (base, length) in [(BASE, PAGE), (BASE + PAGE, PAGE), (BASE - PAGE, LENGTH)] {
        refused(sys::region_unbind(space, base, length), region, "unbind of no region")?;
        let split = sys::region_split(space, base, length, base + PAGE, 0);
        refused(split, region, "split of no region")?;
        refused(sys::region_move(space, base, length, BASE + HUGE), region, "move of none")?;
        let rights = sys::region_rights(space, base, length, MemRights::READ);
        refused(rights, region, "rights of none")?;
        refused(sys::region_manager(space, base, length, NONE, 0), region, "manager of none")?;
    }
    refused(sys::region_move(space, BASE, LENGTH, limit - PAGE), place, "move beyond the end")?;
    refused(sys::region_move(space, BASE, LENGTH, !0xfff), wraps, "move around the end")?;
    refused(sys::region_move(space, BASE, LENGTH, BASE + 8), unaligned, "move to no page")?;
    for address in [limit, 0xffff_8000_0000_0000, u64::MAX] {
        refused(sys::region_list(space, address), region, "list from where nothing can be")?;
    }
    Ok(())
}

/// No region has rights that its manager does not give: neither when it is bound, nor later, nor when it gets
/// another manager.
fn rights(space: Selector, kind: SpaceKind) -> Outcome {
    let (handler, any) = door()?;
    let read = MemRights::READ;
    let code = read | MemRights::EXEC;
    let made = |most| {
        let to = selector();
        ok(sys::create_manager_portal(to, handler, 5, most), "portal").map(|()| to)
    };
    let (reader, writer, runner) = (made(read)?, made(READ_WRITE)?, made(code)?);
    let bind = |portal, rights| sys::region_bind(Bind { rights, ..region(space, BASE, portal) });
    let unbind = || ok(sys::region_unbind(space, BASE, LENGTH), "unbind");
    let no = Error::NoRight;
    let before = quota(space)?;
    for (portal, rights) in
        [(reader, READ_WRITE), (reader, code), (writer, code), (runner, READ_WRITE)]
    {
        refused(bind(portal, rights), no, "bind with more")?;
    }
    equal(quota(space)?, before, "nothing was charged for what was refused")?;
    for (portal, rights) in [(reader, read), (writer, READ_WRITE), (runner, code), (any, code)] {
        ok(bind(portal, rights), "bind with as much")?;
        unbind()?;
    }
    ok(bind(writer, read), "bind with less")?;
    let set = |rights| sys::region_rights(space, BASE, LENGTH, rights);
    ok(set(READ_WRITE), "as much as the manager's")?;
    refused(set(code), no, "more")?;
    let manager = |portal| sys::region_manager(space, BASE, LENGTH, portal, 1);
    refused(manager(reader), no, "a manager that gives less")?;
    listed(space, &[region(space, BASE, writer)], "nothing has changed")?;
    ok(set(read), "less")?;
    ok(manager(reader), "the same manager")?;
    refused(set(READ_WRITE), no, "more than the new one's")?;
    ok(manager(any), "one that gives everything")?;
    ok(set(READ_WRITE), "more again")?;
    if kind == SpaceKind::Guest {
        ok(set(READ_WRITE | code), "all")?;
        refused(manager(writer), no, "a manager that gives less")?;
    }
    unbind()?;
    refused(
        sys::create_manager_portal(selector(), handler, 5, MemRights::from_bits_retain(1 << 20)),
        Error::BadArgument,
        "rights that there are not",
    )?;
    ok(sys::destroy(handler), "destroy")
}

/// What is bound to others, and what is nobody's, is out of a manager's reach; and so is memory that it
/// does not own.
fn managers(space: Selector, _: SpaceKind) -> Outcome {
    let (handler, own_door) = door()?;
    let other = Program::new(Blob::Spinner, 0, 0)?;
    let own = region(space, BASE, own_door);
    let foreign = region(space, BASE + LENGTH, portal(other.thread, 1)?);
    ok(sys::region_bind(own), "bind")?;
    ok(sys::region_bind(foreign), "bind")?;
    let (memory, part, gone) = (ram(LENGTH), selector(), selector());
    ok(sys::mem_derive(part, RAM, memory, 2 * PAGE, MemRights::READ), "derive")?;
    ok(sys::mem_derive(gone, RAM, memory, PAGE, READ_WRITE), "derive")?;
    ok(sys::cap_drop(NONE, gone), "drop")?;
    let map =
        |base, from, offset, length, rights| sys::map(space, base, from, offset, length, rights);
    let read = MemRights::READ;
    let (argument, none) = (Error::BadArgument, Error::NoRegion);
    ok(map(BASE, part, 0, 2 * PAGE, read), "what it owns, where it manages")?;
    refused(map(BASE + LENGTH, part, 0, PAGE, read), none, "another manager's region")?;
    refused(map(BASE + LENGTH - PAGE, part, 0, 2 * PAGE, read), none, "across the border")?;
    refused(map(BASE - PAGE, part, 0, PAGE, read), none, "where no region is")?;
    refused(map(BASE, part, 0, PAGE, READ_WRITE), Error::NoRight, "more than it may itself")?;
    refused(map(BASE, part, 2 * PAGE, PAGE, read), argument, "behind its memory")?;
    refused(map(BASE, part, PAGE, 2 * PAGE, read), argument, "beyond its memory")?;
    refused(map(BASE, part, !0xfff, 2 * PAGE, read), argument, "around its memory")?;
    refused(map(BASE, part, 8, PAGE, read), argument, "misaligned memory")?;
    refused(map(BASE, part, 0, 0, read), argument, "nothing")?;
    for (bad, what) in [(gone, "dropped"), (Selector(4000), "forged"), (SPACE, "not memory")] {
        refused(map(BASE, bad, 0, PAGE, read), Error::BadCapability, what)?;
    }
    let devices = Selector(RootSelector::Devices as u32);
    let (base, ..) = ok(sys::mem_info(RAM), "info")?;
    refused(map(BASE, devices, base, PAGE, read), Error::NoRight, "RAM as a device")?;
    refused(sys::unmap(space, BASE + LENGTH, PAGE), none, "unmap in another manager's region")?;
    refused(sys::pages_used(space, BASE + LENGTH, PAGE).map(drop), none, "use of its pages")?;
    let window = pinned(LENGTH, READ_WRITE);
    ok(sys::region_bind(window), "bind")?;
    let show = sys::region_window(space, BASE + LENGTH, LENGTH, window.base);
    refused(show, none, "a window for another manager's region")?;
    ok(sys::region_unbind(SPACE, window.base, LENGTH), "unbind")?;
    ok(sys::cap_drop(NONE, part), "drop")?;
    ok(sys::destroy(other.space), "destroy")?;
    ok(sys::destroy(handler), "destroy")
}

/// Who has no control over a space can fill what it manages there, and nothing else.
fn weak(space: Selector, _: SpaceKind) -> Outcome {
    let (handler, door) = door()?;
    let (managed, pinned) = (region(space, BASE, door), region(space, BASE + LENGTH, NONE));
    ok(sys::region_bind(managed), "bind")?;
    ok(sys::region_bind(pinned), "bind")?;
    let weak = selector();
    ok(sys::cap_copy(space, NONE, weak, ObjRights::USE.bits()), "copy without control")?;
    let memory = ram(PAGE);
    let map = |base| sys::map(weak, base, RAM, memory, PAGE, MemRights::READ);
    let no = Error::NoRight;
    ok(map(BASE), "map where it is the manager")?;
    ok(sys::unmap(weak, BASE, PAGE), "unmap there")?;
    refused(map(BASE + LENGTH), no, "map into a pinned region")?;
    refused(sys::unmap(weak, BASE + LENGTH, PAGE), no, "unmap there")?;
    refused(sys::region_list(weak, 0), no, "list")?;
    refused(sys::region_bind(region(weak, BASE + HUGE, door)), no, "bind")?;
    refused(sys::region_unbind(weak, BASE, LENGTH), no, "unbind")?;
    refused(sys::region_split(weak, BASE, LENGTH, BASE + PAGE, 0), no, "split")?;
    refused(sys::region_move(weak, BASE, LENGTH, BASE + HUGE), no, "move")?;
    refused(sys::region_rights(weak, BASE, LENGTH, MemRights::READ), no, "rights")?;
    refused(sys::region_manager(weak, BASE, LENGTH, NONE, 0), no, "manager")?;
    for (bad, what) in [(RAM, "memory as a space"), (Selector(4000), "no capability")] {
        refused(sys::region_list(bad, 0), Error::BadCapability, what)?;
    }
    listed(space, &[managed, pinned], "nothing has changed")?;
    ok(sys::cap_drop(NONE, weak), "drop")?;
    ok(sys::destroy(handler), "destroy")
}

fn exhausted(space: Selector, _: SpaceKind) -> Outcome {
    let before = quota(space)?;
    let at = |n: u64| region(space, BASE + n * LENGTH, NONE);
    let mut count = 0;
    let end = loop {
        match sys::region_bind(at(count)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    equal(end, Error::Quota, "the end of the quota")?;
    holds(count > 100, "a hundred regions fit")?;
    refused(sys::region_split(space, BASE, LENGTH, BASE + PAGE, 0), Error::Quota, "split")?;
    equal(rt::regions::of(space).count() as u64, count, "regions")?;
    ok(sys::region_move(space, BASE, LENGTH, BASE + HUGE), "moving takes no more")?;
    ok(sys::region_move(space, BASE + HUGE, LENGTH, BASE), "nor does moving back")?;
    (0..count).try_for_each(|n| ok(sys::region_unbind(space, at(n).base, LENGTH), "unbind"))?;
    equal(quota(space)?, before, "kernel memory is back")
}

fn windows(space: Selector, _: SpaceKind) -> Outcome {
    let (handler, door) = door()?;
    let bind = region(space, BASE, door);
    ok(sys::region_bind(bind), "bind")?;
    let window = pinned(LENGTH, READ_WRITE);
    ok(sys::region_bind(window), "bind")?;
    let (without, client) = (quota(NONE)?, quota(space)?);
    ok(sys::region_window(space, BASE, LENGTH, window.base), "window")?;
    let (with, half) = (quota(NONE)?, LENGTH / 2);
    holds(with < without, "the manager pays for its window")?;
    equal(quota(space)?, client, "the client does not")?;
    ok(sys::region_split(space, BASE, LENGTH, BASE + half, 2), "split")?;
    equal(quota(NONE)?, with, "the manager pays no more for two")?;
    let (region, two) = (client - quota(space)?, without - with);
    holds(region > two, "the client pays for a region and a window")?;
    let shown: Vec<_> = rt::regions::of(space).map(|region| region.window).collect();
    equal(shown, [true, true].into(), "both parts have one")?;
    // The upper part's window gets the manager's own.
    ok(sys::region_window(space, BASE + half, half, window.base), "another window")?;
    equal(client - quota(space)?, region - two, "the client's payment is back")?;
    equal(quota(NONE)?, with - two, "the manager pays for both")?;
    ok(sys::region_split(space, BASE, half, BASE + PAGE, 2), "split")?;
    ok(sys::region_unbind(SPACE, window.base, LENGTH), "unbind where all of them lie")?;
    let shown = rt::regions::of(space).filter(|region| region.window).count();
    equal(shown, 0, "no region has one")?;
    for (base, length) in [(BASE, PAGE), (BASE + PAGE, half - PAGE), (BASE + half, half)] {
        ok(sys::region_unbind(space, base, length), "unbind")?;
    }
    holds(quota(space)? > client, "nothing is left to pay for the client")?;
    ok(sys::destroy(handler), "destroy")
}

/// No page lies across a region's border, so that each part can go when there is no memory for tables.
fn borders(space: Selector, _: SpaceKind) -> Outcome {
    let (length, border) = (2 * HUGE, BASE + HUGE + LARGE + PAGE);
    let bind = Bind { length, hint: 30, ..region(space, BASE, NONE) };
    let devices = Selector(RootSelector::Devices as u32);
    let before = quota(space)?;
    ok(sys::region_bind(bind), "bind")?;
    let bound = quota(space)?;
    // Nothing is behind it; only the page tables matter.
    let map = |base, length| sys::map(space, base, devices, 512 * HUGE, length, MemRights::READ);
    ok(map(BASE, length), "map")?;
    let tables = |expected, what| equal((bound - quota(space)?) / PAGE, expected, what);
    tables(1, "no table below that of the large pages")?;
    ok(sys::region_split(space, BASE, length, border, 0), "split")?;
    // The rest of the kernel memory goes into regions.
    let mut count = 0;
    while sys::region_bind(region(space, 64 * HUGE + count * LENGTH, NONE)).is_ok() {
        count += 1;
    }
    ok(sys::region_unbind(space, BASE, border - BASE), "the lower part goes without a frame")?;
    ok(sys::region_unbind(space, border, BASE + length - border), "so does the upper one")?;
    for n in 0..count {
        ok(sys::region_unbind(space, 64 * HUGE + n * LENGTH, LENGTH), "unbind")?;
    }
    equal(quota(space)?, before, "kernel memory is back")?;
    Ok(())
}
