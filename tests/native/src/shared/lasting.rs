//! Rounds of giving and taking, for as long as the manager fails every now and then: what was taken away is not seen, before and
//! after, whatever became of the regions meanwhile; what was not is what it was; and everybody goes on.
use crate::board::{self, Word};
use crate::hostile::{Helpers, Order, attach, scattered};
use crate::monitor::SHARED_AT;
use crate::owner::{GUEST_AT, SCATTERED, SECOND_LENGTH, counts, give, guest, still, word};
use crate::users::{MARK, MARK_AT};
use crate::{NOTHING, Outcome, PAGE, READ, WRITE, client, ok};
use abi::Selector;
use alloc::format;
use rt::{Shared, log, sys, time};

/// Rounds, at least, and how many there are between two lines about them.
const LEAST: u64 = 3;
const EVERY: u64 = 20;
/// Microseconds for which nothing may change.
const STILL_US: u64 = 2000;
/// The word of the last page of the second object at an offset in it.
const fn pattern(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9) & 0xffff_ffff
}

/// The owner's part, with the object that it has made.
pub fn owner(page: &Shared, object: u32, seen: &Shared) -> Outcome {
    let until = rt::config().parameter("until").and_then(|text| text.parse().ok()).unwrap_or(0);
    let end = time::now().get() + time::microseconds(until * 1000);
    let (user, last) = (client("hostile")?, SECOND_LENGTH - PAGE);
    for at in (0..PAGE).step_by(8) {
        let _ = seen.write_register(last + at, 8, pattern(at));
    }
    give(object, user, WRITE)?;
    give(0, user, READ)?;
    board::order(Order::Last as u64)?;
    let mut round = 0;
    while round < LEAST || time::now().get() < end {
        counts(page, GUEST_AT)?;
        SCATTERED.iter().try_for_each(|at| counts(seen, *at))?;
        if (0..PAGE).step_by(8).any(|at| word(seen, last + at) != pattern(at)) {
            return Err(format!("round {round}: other contents"));
        }
        let left = if round % 2 == 0 { NOTHING } else { READ };
        let stopped = board::get(Word::Stopped);
        give(object, user, left)?;
        still(seen, &SCATTERED, STILL_US)?;
        give(0, guest()?, left)?;
        still(page, &[GUEST_AT], STILL_US)?;
        board::wait_until(Word::Stopped, stopped + 1)?;
        let at = board::get(Word::StoppedAt);
        if at != SHARED_AT + GUEST_AT || word(page, MARK_AT) != MARK {
            return Err(format!("round {round}: stopped at {at:#x}, or a mark that is gone"));
        }
        still(seen, &SCATTERED, STILL_US)?;
        give(0, guest()?, WRITE)?;
        board::add(Word::Go);
        give(object, user, WRITE)?;
        round += 1;
        if round % EVERY == 0 {
            log!("owner: round {round}, {} calls repeated", board::get(Word::Repeated));
        }
    }
    log!("owner: {round} rounds, {} calls repeated", board::get(Word::Repeated));
    Ok(())
}

/// The part of the one who counts in all kinds of regions, moves one of them, and tries to write where it may only read.
pub fn hostile(object: u32, helpers: &mut Helpers) -> Outcome {
    let forbidden = helpers.bind(0, PAGE)?;
    while attach(0, forbidden, PAGE, MARK_AT).is_err() {
        helpers.pause();
    }
    let [first, second, moved] = scattered(object, helpers)?;
    let mut places = [first, second, moved, forbidden];
    let mut run = [true; 4];
    for (number, at) in places.into_iter().enumerate() {
        helpers.start(number, at)?;
    }
    board::set(Word::Done, Order::Last as u64);
    while run.contains(&true) {
        let number = helpers.ended()? as usize;
        if board::get(Word::Order) != Order::Last as u64 {
            run[number] = false;
            continue;
        }
        match number {
            2 => {
                let (from, to) = (places[2] & !(PAGE - 1), helpers.place());
                ok(sys::region_move(Selector(0), from, 2 * PAGE, to), "move")?;
                places[2] = places[2] - from + to;
            }
            // The report of each is a line of the log.
            _ => (0..10).for_each(|_| helpers.pause()),
        }
        helpers.start(number, places[number])?;
    }
    Ok(())
}
