//! The role that owns the memory, and judges.
use crate::board::{self, Word};
use crate::hostile::Order;
use crate::monitor::SHARED_AT;
use crate::users::{MARK, MARK_AT};
use crate::{
    NOTHING, Outcome, PAGE, READ, WRITE, capability, client, end, lasting, ok, persistently,
    region, request,
};
use abi::{Error, MemRights, Selector, SpaceAddr, SystemCounter};
use alloc::format;
use alloc::string::String;
use backing::Tag;
use backing::shares::Request;
use ledger::Row;
use rt::sys::{self, Bind};
use rt::{Shared, log};

/// Where the writer and the guest count in object 0, which is there from the start.
const WRITER_AT: u64 = 0;
pub const GUEST_AT: u64 = 2 * PAGE;
/// Where the owner sees the object that it makes.
const SECOND: u64 = 0x70_0000_0000;
pub const SECOND_LENGTH: u64 = 4 * PAGE;
/// Places of that object in which the hostile one counts.
pub const SCATTERED: [u64; 3] = [0, PAGE + 8, 2 * PAGE + 16];
/// All that the owner may own, by the description.
const QUOTA: u64 = 16384 + 65536;
/// Rounds of giving and taking.
const ROUNDS: u64 = 150;

struct Owner {
    page: Shared,
    system: Selector,
    /// Faults that were refused so far.
    refused: u64,
}

/// Runs all, then ends the machine.
pub fn run() -> Outcome {
    let outcome = judge();
    let good = outcome.is_ok() && board::get(Word::Failed) == 0;
    log!("owner: {}", if good { "all is as it should be" } else { "something is wrong" });
    if let Err(why) = &outcome {
        log!("FAILED owner: {why}");
    }
    let _ = sys::shutdown(capability("system")?, u64::from(!good));
    outcome
}

fn judge() -> Outcome {
    let mut owner = Owner { page: region("page")?, system: capability("system")?, refused: 0 };
    let _ = owner.page.write_register(MARK_AT, 8, MARK);
    if rt::config().parameter("until").is_some() {
        board::set(Word::Failing, 1);
    }
    owner.declared()?;
    owner.made_later()?;
    board::order(Order::Outlive as u64)?;
    // All the time the reader has seen what it may see.
    let read = board::get(Word::Read);
    board::wait_until(Word::Read, read + 10)
}

/// The number of the guest, which has them behind the programs'.
pub fn guest() -> Result<u64, String> {
    let programs = rt::config().parameter("shares").unwrap_or("").matches(':').count() as u64;
    client("monitor").map(|monitor| programs + monitor)
}

/// Says what a user may do from now on.
pub fn give(object: u32, user: u64, rights: MemRights) -> Outcome {
    ok(request(Request::Give { object, user, rights }), "give").map(drop)
}

/// Half a word.
pub fn word(of: &Shared, at: u64) -> u64 {
    of.read_register(at, 4).unwrap_or(u64::MAX)
}

/// Waits until somebody counts there.
pub fn counts(of: &Shared, at: u64) -> Outcome {
    let before = word(of, at);
    board::wait_for("somebody counts", || word(of, at) != before)
}

/// Nobody writes there any more, from now on.
pub fn still(of: &Shared, places: &[u64], us: u64) -> Outcome {
    let now = |at: &u64| word(of, *at);
    let before: alloc::vec::Vec<u64> = places.iter().map(now).collect();
    let end = rt::time::now().get() + rt::time::microseconds(us);
    while rt::time::now().get() < end {
        let after = places.iter().map(now);
        if !after.eq(before.iter().copied()) {
            return Err(format!("{places:x?} were written to after that was forbidden"));
        }
    }
    Ok(())
}

impl Owner {
    /// Waits until so many more faults were refused, and sees that it is not one more.
    fn refusals(&mut self, more: u64) -> Outcome {
        self.refused += more;
        let (system, expected) = (self.system, self.refused);
        let count = || sys::system_count(system, SystemCounter::FaultsRefused);
        board::wait_for("refused faults", || count().is_ok_and(|n| n >= expected))?;
        let found = ok(count(), "count")?;
        if found == expected { Ok(()) } else { Err(format!("{found} refusals, not {expected}")) }
    }

    /// Who is named in the description: a writer, a reader, a guest, and a reader that writes.
    fn declared(&mut self) -> Outcome {
        let (writer, guest) = (client("writer")?, guest()?);
        counts(&self.page, WRITER_AT)?;
        counts(&self.page, GUEST_AT)?;
        board::wait_until(Word::Read, 5)?;
        board::set(Word::Intrude, 1);
        self.refusals(1)?;
        if word(&self.page, 8) != 0 {
            return Err("who may only read has written".into());
        }
        // A writer on another processor may only read from now on.
        give(0, writer, READ)?;
        still(&self.page, &[WRITER_AT], 20_000)?;
        self.refusals(1)?;
        for rights in [NOTHING, READ, NOTHING] {
            let stopped = board::get(Word::Stopped);
            give(0, guest, rights)?;
            still(&self.page, &[GUEST_AT], 20_000)?;
            board::wait_until(Word::Stopped, stopped + 1)?;
            self.refusals(1)?;
            let at = board::get(Word::StoppedAt);
            if at != SHARED_AT + GUEST_AT {
                return Err(format!("the guest was stopped at {at:#x}"));
            }
            give(0, guest, WRITE)?;
            board::add(Word::Go);
            counts(&self.page, GUEST_AT)?;
        }
        Ok(())
    }

    /// An object that is made now, and one who tries everything.
    fn made_later(&mut self) -> Outcome {
        let object = ok(
            request(Request::Create { length: SECOND_LENGTH, rights: WRITE, name: 1 }),
            "create",
        );
        let object = object? as u32;
        board::set(Word::Object, object.into());
        board::order(Order::Ask as u64)?;
        let seen = see(object)?;
        if (0..SECOND_LENGTH).step_by(8).any(|at| word(&seen, at) != 0) {
            return Err("a new object is not empty".into());
        }
        let user = client("hostile")?;
        give(object, user, WRITE)?;
        board::order(Order::Scatter as u64)?;
        SCATTERED.iter().try_for_each(|at| counts(&seen, *at))?;
        give(object, user, NOTHING)?;
        still(&seen, &SCATTERED, 20_000)?;
        board::order(Order::Lose as u64)?;
        self.refusals(3)?;
        give(object, user, WRITE)?;
        board::order(Order::Squat as u64)?;
        self.refusals(1)?;
        self.flicker(object, user, &seen)?;
        lasting::owner(&self.page, object, &seen)?;
        board::set(Word::Order, Order::Last as u64 + 1);
        // Nobody has more than the owner, and the owner can't raise itself.
        give(object, client("owner")?, READ)?;
        let raised = request(Request::Give { object, user, rights: WRITE });
        if raised != Err(Error::NoRight) {
            return Err(format!("{raised:?} for more than the owner has"));
        }
        told(object, (SECOND_LENGTH, 2))?;
        end(object)?;
        // The first one is seen by owner, reader, hostile one and guest; the others have ended.
        told(object, (0, 0)).and(told(0, (4 * PAGE, 4)))
    }

    /// Gives and takes, while the user faults all the time.
    fn flicker(&mut self, object: u32, user: u64, seen: &Shared) -> Outcome {
        board::order(Order::Flicker as u64)?;
        for _ in 0..ROUNDS {
            counts(seen, 0)?;
            give(object, user, NOTHING)?;
            still(seen, &[0], 100)?;
            give(object, user, WRITE)?;
        }
        counts(seen, 0)?;
        board::set(Word::Order, Order::Flicker as u64 + 1);
        give(object, user, NOTHING)?;
        still(seen, &[0], 20_000)?;
        // As many as there were, each for one reason: it may not.
        self.refused = ok(sys::system_count(self.system, SystemCounter::FaultsRefused), "count")?;
        Ok(())
    }
}

/// What the manager tells of an object: its length, and how many see it, each for all that it may.
fn told(object: u32, (length, seeing): (u64, u64)) -> Outcome {
    let row = Row::read(&region("ledger-shared")?, object.into()).map_err(|_| "no row")?;
    let quota = if length == 0 { 0 } else { QUOTA };
    let expected = Row {
        size: length,
        quota,
        resident: length,
        resident_most: length,
        shown: length * seeing,
        spaces: seeing,
        faults: row.faults,
        ..Row::default()
    };
    let named =
        rt::config().parameter("rows-shared").is_some_and(|rows| rows.starts_with("page,1,"));
    if row == expected && named && (row.faults > 0) == (length > 0) {
        return Ok(());
    }
    Err(format!("{row:?} is told of object {object}, not {expected:?}; named: {named}"))
}

/// Shows an object to its owner.
fn see(object: u32) -> Result<Shared, String> {
    let (portal, tag) = (capability("shared")?, Tag { object, offset: 0 }.encode().unwrap_or(0));
    let (space, base, length) = (Selector(0), SECOND, SECOND_LENGTH);
    let bind = Bind { space, base, length, portal, tag, rights: WRITE, hint: 12 };
    ok(persistently(|| sys::region_bind(bind)), "bind")?;
    let base = SpaceAddr(base);
    ok(request(Request::Attach { object, base, length, offset: 0 }), "attach")?;
    Ok(Shared::own(SECOND, SECOND_LENGTH))
}
