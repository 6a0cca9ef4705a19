//! Memory capabilities, regions, mappings.
use crate::env::{
    NONE, PAGE, RAM, READ_WRITE, SPACE, address, equal, holds, ok, pinned, ram, refused, selector,
    window, words_at,
};
use crate::{Outcome, Test};
use abi::{Error, MemRights, REGISTERS, RootSelector, Selector, USER_END};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("memory: parts and rights", parts),
    ("memory: device capability does not reach RAM", devices),
    ("regions: malformed and overlapping", malformed),
    ("regions: listed, removed exactly", listed),
    ("mappings: aliases, removal, large pages", mappings),
    ("mappings: only inside regions", outside),
    ("mappings: part of a large page removed", split),
    ("a hundred thousand regions", many),
];

fn parts() -> Outcome {
    let (base, length, rights) = ok(sys::mem_info(RAM), "info")?;
    holds(base % PAGE == 0 && length > 64 << 20, "base and length of RAM")?;
    holds(rights.contains(READ_WRITE), "rights of RAM")?;
    let part = selector();
    ok(sys::mem_derive(part, RAM, PAGE, 2 * PAGE, MemRights::READ), "derive")?;
    equal(
        ok(sys::mem_info(part), "info of the part")?,
        (base + PAGE, 2 * PAGE, MemRights::READ),
        "part",
    )?;
    let to = selector();
    let bad = Error::BadArgument;
    refused(sys::mem_derive(to, part, 0, PAGE, READ_WRITE), Error::NoRight, "more rights")?;
    refused(sys::mem_derive(to, part, PAGE, 2 * PAGE, MemRights::READ), bad, "beyond the end")?;
    refused(sys::mem_derive(to, part, 1, PAGE, MemRights::READ), bad, "misaligned")?;
    refused(sys::mem_derive(to, part, 0, 0, MemRights::READ), bad, "empty")?;
    refused(sys::mem_derive(to, part, !0xfff, 0x2000, MemRights::READ), bad, "wrapping")?;
    ok(sys::cap_drop(NONE, part), "drop")
}

fn devices() -> Outcome {
    let devices = Selector(RootSelector::Devices as u32);
    let (base, _, _) = ok(sys::mem_info(RAM), "info")?;
    let to = selector();
    let device = READ_WRITE | MemRights::DEVICE;
    refused(sys::mem_derive(to, devices, base, PAGE, device), Error::NoRight, "RAM")?;
    refused(sys::mem_derive(to, devices, 0x10_0000, PAGE, device), Error::NoRight, "the kernel")?;
    refused(sys::mem_derive(to, devices, 0xfee0_0000, PAGE, device), Error::NoRight, "the APIC")?;
    let mut bind = pinned(PAGE, READ_WRITE);
    bind.rights |= MemRights::DEVICE;
    ok(sys::region_bind(bind), "bind")?;
    let map = |offset| sys::map(SPACE, bind.base, devices, offset, PAGE, READ_WRITE);
    refused(map(base), Error::NoRight, "mapping RAM as device")?;
    ok(map(0xfed0_0000), "mapping a device")?;
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")
}

fn malformed() -> Outcome {
    let good = pinned(4 * PAGE, READ_WRITE);
    let bind = |change: fn(&mut Bind)| {
        let mut bind = good;
        change(&mut bind);
        sys::region_bind(bind)
    };
    let (argument, place) = (Error::BadArgument, Error::BadAddress);
    refused(bind(|b| b.length = 0), argument, "empty")?;
    // Nobody sees or changes the registers of a native thread.
    refused(bind(|b| b.hint = REGISTERS.into()), argument, "a device's registers")?;
    refused(bind(|b| b.base += 1), Error::Unaligned, "base")?;
    refused(bind(|b| b.length += 1), Error::Unaligned, "length")?;
    refused(bind(|b| b.base = 0xffff_8000_0000_0000), place, "in the kernel")?;
    refused(bind(|b| b.base = !0xfff), Error::WrapsAround, "around the end")?;
    refused(bind(|b| b.base = USER_END - 4 * PAGE), place, "last page")?;
    refused(bind(|b| b.length = 1 << 63), place, "huge")?;
    refused(bind(|b| b.rights |= MemRights::EXEC), argument, "writable and executable")?;
    refused(bind(|b| b.hint = 13), argument, "odd page size")?;
    refused(bind(|b| b.portal = SPACE), Error::BadCapability, "space as portal")?;
    ok(sys::region_bind(good), "good one")?;
    refused(bind(|_| {}), Error::Overlap, "the same again")?;
    refused(bind(|b| b.base += 3 * PAGE), Error::Overlap, "overlap at the end")?;
    refused(bind(|b| b.base -= PAGE), Error::Overlap, "overlap at the start")?;
    refused(bind(|b| (b.base, b.length) = (0x2000_0000, 1 << 40)), Error::Overlap, "around")?;
    ok(sys::region_unbind(SPACE, good.base, good.length), "unbind")
}

fn listed() -> Outcome {
    let bind = Bind { tag: 77, ..pinned(4 * PAGE, MemRights::READ) };
    ok(sys::region_bind(bind), "bind")?;
    let find = || crate::regions::find(bind.base);
    equal(find(), Some((bind.base, bind.length, MemRights::READ, 77)), "in the list")?;
    refused(sys::region_unbind(SPACE, bind.base, PAGE), Error::NoRegion, "shorter")?;
    refused(sys::region_unbind(SPACE, bind.base + PAGE, PAGE), Error::NoRegion, "inside")?;
    ok(sys::region_unbind(SPACE, bind.base, bind.length), "unbind")?;
    equal(find(), None, "after removal")
}

fn mappings() -> Outcome {
    let length = 4 << 20;
    let offset = ram(length);
    let (one, two) = (pinned(length, READ_WRITE), pinned(length, MemRights::READ));
    for bind in [one, two] {
        ok(sys::region_bind(bind), "bind")?;
        ok(sys::map(SPACE, bind.base, RAM, offset, length, bind.rights), "map")?;
    }
    let (writer, reader) = (words_at(one.base, length), words_at(two.base, length));
    for at in (0..length).step_by(0x1238).filter(|at| at % 8 == 0) {
        writer.set(at, at ^ 0x5555);
    }
    for at in (0..length).step_by(0x1238).filter(|at| at % 8 == 0) {
        equal(reader.get(at), at ^ 0x5555, "seen through the other mapping")?;
    }
    // Other memory in the same place.
    let other = ram(PAGE);
    let (page, _) = window(PAGE)?;
    ok(sys::map(SPACE, page, RAM, other, PAGE, READ_WRITE), "replace")?;
    words_at(page, PAGE).set(0, 42);
    ok(sys::map(SPACE, two.base, RAM, other, PAGE, MemRights::READ), "map over")?;
    equal(reader.get(0), 42, "after mapping something else")?;
    refused(
        sys::map(SPACE, two.base, RAM, offset, PAGE, READ_WRITE),
        Error::NoRight,
        "more rights than the region",
    )?;
    ok(sys::region_unbind(SPACE, one.base, length), "unbind")?;
    ok(sys::region_unbind(SPACE, two.base, length), "unbind")
}

fn outside() -> Outcome {
    let at = address(PAGE);
    let bind = pinned(2 * PAGE, READ_WRITE);
    ok(sys::region_bind(bind), "bind")?;
    let offset = ram(4 * PAGE);
    let map = |base, length| sys::map(SPACE, base, RAM, offset, length, READ_WRITE);
    refused(map(at, PAGE), Error::NoRegion, "no region")?;
    refused(map(bind.base, 3 * PAGE), Error::NoRegion, "beyond the region")?;
    refused(map(bind.base + 1, PAGE), Error::Unaligned, "not a page")?;
    refused(map(0xffff_8000_0000_0000, PAGE), Error::BadAddress, "the kernel")?;
    refused(
        sys::map(SPACE, bind.base, RAM, 1 << 50, PAGE, READ_WRITE),
        Error::BadArgument,
        "beyond the memory",
    )?;
    refused(sys::unmap(SPACE, at, PAGE), Error::NoRegion, "unmapping no region")?;
    ok(sys::unmap(SPACE, bind.base, PAGE), "unmapping what is not mapped")?;
    ok(sys::region_unbind(SPACE, bind.base, 2 * PAGE), "unbind")
}

fn split() -> Outcome {
    let large = 2 << 20;
    let bind = pinned(large, READ_WRITE);
    let offset = ram(2 * large).next_multiple_of(large);
    ram(large);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, RAM, offset, large, READ_WRITE), "map")?;
    let words = words_at(bind.base, large);
    words.set(0, 1);
    words.set(large - 8, 2);
    ok(sys::unmap(SPACE, bind.base + 16 * PAGE, PAGE), "unmap a part")?;
    equal((words.get(0), words.get(large - 8)), (1, 2), "what is left")?;
    ok(sys::region_unbind(SPACE, bind.base, large), "unbind")
}

fn many() -> Outcome {
    let base = address(100_000 * 2 * PAGE);
    let before = ok(sys::space_quota(NONE), "quota")?;
    let mut count = 0;
    // A machine with little memory has room for fewer.
    while count < 100_000 {
        match sys::region_bind(Bind { base: base + count * 2 * PAGE, ..pinned_at(base) }) {
            Ok(()) => count += 1,
            Err(Error::Quota) if count > 1000 => break,
            Err(error) => return Err(alloc::format!("bind {count}: {}", error.text())),
        }
    }
    let middle = base + count / 2 * 2 * PAGE;
    let offset = ram(PAGE);
    ok(sys::map(SPACE, middle, RAM, offset, PAGE, READ_WRITE), "map in the middle")?;
    refused(
        sys::region_bind(Bind { base: middle, ..pinned_at(base) }),
        Error::Overlap,
        "in the middle",
    )?;
    for n in 0..count {
        ok(sys::region_unbind(SPACE, base + n * 2 * PAGE, PAGE), "unbind")?;
    }
    equal(ok(sys::space_quota(NONE), "quota")?, before, "quota afterwards")
}

fn pinned_at(base: u64) -> Bind {
    Bind { space: SPACE, base, length: PAGE, portal: NONE, tag: 0, rights: READ_WRITE, hint: 12 }
}
