//! The board: words that all roles see.
use alloc::format;
use alloc::string::String;
use rt::{Shared, sys, time};

/// A word of the board.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Word {
    /// Roles that failed.
    Failed,
    /// Rounds in which the reader has found what it should.
    Read,
    /// How often the guest is to go on.
    Go,
    /// How often it was stopped because it may not do what it tried.
    Stopped,
    /// Where that was, the last time.
    StoppedAt,
    /// The intruder may write.
    Intrude,
    /// The one that is to end may do so.
    Leave,
    /// Number of its object, and one.
    Left,
    /// What the hostile one is to do now.
    Order,
    /// What it has done.
    Done,
    /// Number of the object that is made for it.
    Object,
    /// Calls that were made once more because the manager had failed.
    Repeated,
    /// The manager fails while this runs.
    Failing,
}

/// Time for one step; the host may be busy.
const PATIENCE_US: u64 = 60_000_000;

fn words() -> Option<Shared> {
    Shared::region("board")
}

/// A word.
pub fn get(word: Word) -> u64 {
    words().and_then(|words| words.read_register(word as u64 * 8, 8).ok()).unwrap_or(0)
}

/// Sets a word.
pub fn set(word: Word, value: u64) {
    if let Some(words) = words() {
        let _ = words.write_register(word as u64 * 8, 8, value);
    }
}

/// One more.
pub fn add(word: Word) {
    set(word, get(word) + 1);
}

/// Sleeps for some microseconds.
pub fn sleep(us: u64) {
    let _ = sys::wait(time::now().get() + time::microseconds(us));
}

/// When patience ends with what begins now.
pub fn patience() -> u64 {
    time::now().get() + time::microseconds(PATIENCE_US)
}

/// Waits until something holds, or somebody has failed.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let end = patience();
    while !holds() {
        if get(Word::Failed) != 0 {
            return Err(format!("{what}: another role has failed"));
        }
        if time::now().get() > end {
            return Err(format!("{what}: not within {} s", PATIENCE_US / 1_000_000));
        }
        sleep(200);
    }
    Ok(())
}

/// Waits until a word is at least so large.
pub fn wait_until(word: Word, least: u64) -> Result<(), String> {
    wait_for(&format!("{word:?} {least}"), || get(word) >= least)
}

/// Waits until a word is set: as long as the owner has patience.
pub fn wait_long(word: Word) {
    while get(word) == 0 {
        sleep(1000);
    }
}

/// Has the hostile one do something, and waits until it has done that, or begun to.
pub fn order(order: u64) -> Result<(), String> {
    set(Word::Order, order);
    wait_until(Word::Done, order)
}
