//! Roles of those who do what they may, or just a little more.
use crate::board::{self, Word};
use crate::{NOTHING, Outcome, PAGE, READ, WRITE, client, ok, region, request};
use alloc::format;
use backing::shares::Request;

/// What the owner writes into the last page, for the reader to find.
pub const MARK: u64 = 0x5eed;
/// Where.
pub const MARK_AT: u64 = 3 * PAGE;

/// Counts in the first word for ever: until it may not write any more.
pub fn writer() -> Outcome {
    let page = region("page")?;
    for count in 1.. {
        let _ = page.write_register(0, 8, count);
    }
    Ok(())
}

/// Looks at all that it may see, through whatever happens to others.
pub fn reader() -> Outcome {
    let page = region("page")?;
    board::wait_for("the owner's mark", || page.read_register(MARK_AT, 8) == Ok(MARK))?;
    let mut last = 0;
    loop {
        let count = page.read_register(0, 8).unwrap_or(0);
        if count < last {
            return Err(format!("{count} after {last}"));
        }
        last = count;
        board::add(Word::Read);
        board::sleep(500);
    }
}

/// May read, and writes.
pub fn intruder() -> Outcome {
    let page = region("page")?;
    board::wait_long(Word::Intrude);
    let _ = page.read_register(0, 8);
    let _ = page.write_register(8, 8, 1);
    Err("who may only read has written".into())
}

/// Owns an object that another one uses, and ends.
pub fn leaver() -> Outcome {
    let object =
        ok(request(Request::Create { length: PAGE, rights: WRITE, name: 1 }), "create")? as u32;
    let user = client("hostile")?;
    for rights in [READ, NOTHING, WRITE] {
        ok(request(Request::Give { object, user, rights }), "give")?;
    }
    board::set(Word::Left, u64::from(object) + 1);
    // Whatever it asks, it may ask again: it is the same object, and not one more, for which its quota would be too small.
    while board::get(Word::Leave) == 0 {
        let again = Request::Create { length: PAGE, rights: WRITE, name: 1 };
        if ok(request(again), "create again")? != u64::from(object) {
            return Err(format!("another object than {object}"));
        }
        ok(request(Request::Give { object, user, rights: WRITE }), "give again")?;
        board::sleep(200);
    }
    rt::sys::exit(0)
}
