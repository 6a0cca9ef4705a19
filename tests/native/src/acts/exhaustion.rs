//! Everything that a program can use up: it is refused at its own quota, others go on, and when its space
//! ends all of it is back.
use super::court::{Court, note, state};
use crate::Outcome;
use crate::env::{NONE, PAGE, RAM, READ_WRITE, THREAD, equal, holds, ok, selector};
use abi::{Error, FIRST_FREE_SELECTOR, MemRights, Selector, SpaceKind, ThreadArgs};
use alloc::format;
use alloc::string::String;
use rt::sys::{self, Bind};

/// Kernel memory of the space that is used up (less than a whole table of capabilities), and most that could be
/// made of it.
const QUOTA: u64 = 128 << 10;
const MOST: u64 = 20_000;

/// Makes number so-and-so of something: `(space, scratch slot, number)`.
type Maker = fn(Selector, Selector, u64) -> Result<(), Error>;

fn thread(space: Selector, scratch: Selector, _: u64) -> Result<(), Error> {
    let args = ThreadArgs { entry: 0x40_0000, stack: 0, argument: 0 };
    sys::create_thread(scratch, space, 0, args)?;
    sys::cap_drop(NONE, scratch)
}

fn bind(space: Selector, base: u64, length: u64, rights: MemRights) -> Result<(), Error> {
    sys::region_bind(Bind { space, base, length, portal: NONE, tag: 0, rights, hint: 12 })
}

fn region(space: Selector, _: Selector, n: u64) -> Result<(), Error> {
    bind(space, 0x40_0000 + 2 * n * PAGE, PAGE, READ_WRITE)
}

fn tables(space: Selector, _: Selector, n: u64) -> Result<(), Error> {
    if n == 0 {
        bind(space, 1 << 30, 1 << 46, MemRights::READ)?;
    }
    sys::map(space, (n + 1) << 30, RAM, 0, PAGE, MemRights::READ)
}

fn capability(space: Selector, _: Selector, n: u64) -> Result<(), Error> {
    // From the lowest free one upwards; beyond the highest the answer would be another one.
    sys::cap_copy(THREAD, space, Selector(n as u32 + FIRST_FREE_SELECTOR), 7)
}

pub fn all() -> Outcome {
    let group = "exhaustion";
    let how = "refused at the quota; back when the space ends";
    let makers: [(&str, Maker); 4] = [
        ("threads", thread),
        ("regions", region),
        ("page tables", tables),
        ("capabilities of one space", capability),
    ];
    let (space, scratch) = (selector(), selector());
    let make = || sys::create_space(space, SpaceKind::Native, QUOTA);
    ok(make(), "space")?;
    ok(sys::destroy(space), "destroy")?;
    ok(sys::cap_drop(NONE, space), "drop")?;
    // The table may have to grow for that slot, too, and stays so.
    ok(sys::create_notification(scratch), "notification")?;
    ok(sys::cap_drop(NONE, scratch), "drop")?;
    let court = Court::new()?;
    for (name, maker) in makers {
        ok(make(), "space")?;
        let made =
            until_refused(|n| maker(space, scratch, n)).map_err(|e| format!("{name}: {e}"))?;
        holds(made > 5, "some fit")?;
        ok(sys::destroy(space), "destroy")?;
        ok(sys::cap_drop(NONE, space), "drop")?;
        court.nothing_else().map_err(|e| format!("{name}: {e}"))?;
        note(group, name, how);
    }
    own(&court, group, scratch)?;
    court.close()
}

/// This program's own table of capabilities, and spaces out of its whole quota.
fn own(court: &Court, group: &str, scratch: Selector) -> Outcome {
    let before = state()?;
    let all = sys::create_space(scratch, SpaceKind::Native, u64::MAX);
    equal(all, Err(Error::Quota), "a space with more quota than there is")?;
    for slot in [0, abi::SELECTOR_LIMIT, u32::MAX] {
        let made = sys::create_notification(Selector(slot));
        equal(made, Err(Error::BadCapability), "selectors that there are not")?;
    }
    equal(state()?, before, "what was refused cost nothing")?;
    note(group, "selectors beyond the table", "refused: bad capability");
    note(group, "a space with more quota than its maker has", "refused: quota");
    court.nothing_else()
}

fn until_refused(mut make: impl FnMut(u64) -> Result<(), Error>) -> Result<u64, String> {
    for n in 0..MOST {
        match make(n) {
            Ok(()) => {}
            Err(Error::Quota) => return Ok(n),
            Err(error) => return Err(format!("number {n}: {}", error.text())),
        }
    }
    Err(String::from("never refused"))
}
