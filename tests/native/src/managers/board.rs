//! The board: a page of words that all roles see.
use alloc::format;
use alloc::string::String;
use rt::{Shared, sys, time};

/// A word of the board.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Word {
    /// Roles that failed.
    Failed,
    /// Who wanted a deep stack had it.
    Deep,
    /// Who is to use up its stack is about to.
    Overflow,
    /// The first client has written to its copy.
    First,
    /// The second one has.
    Second,
    /// Rounds of the first one since, each with all that it has looked at.
    FirstRounds,
    /// Rounds of the second one.
    SecondRounds,
    /// Pages that the one with a quota has written to.
    Spent,
    /// Who can only read has read.
    Read,
}

/// Time for one step; the host may be busy.
const PATIENCE_US: u64 = 60_000_000;

fn board() -> Shared {
    match Shared::region("board") {
        Some(board) => board,
        None => panic!("no region 'board'"),
    }
}

/// A word.
pub fn get(word: Word) -> u64 {
    board().read_register(word as u64 * 8, 8).unwrap_or(0)
}

/// Sets a word.
pub fn set(word: Word, value: u64) {
    let _ = board().write_register(word as u64 * 8, 8, value);
}

/// This role has failed.
pub fn fail() {
    set(Word::Failed, 1);
}

/// Sleeps for some microseconds.
pub fn sleep(us: u64) {
    let _ = sys::wait(time::now().get() + time::microseconds(us));
}

/// Waits until something holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let end = time::now().get() + time::microseconds(PATIENCE_US);
    while !holds() {
        if time::now().get() > end {
            return Err(format!("{what}: not within {} s", PATIENCE_US / 1_000_000));
        }
        sleep(1000);
    }
    Ok(())
}

/// Waits until a word is at least so large.
pub fn wait_until(word: Word, least: u64) -> Result<(), String> {
    wait_for(&format!("{word:?}"), || get(word) >= least)
}

/// Says again and again how far the others are, which keeps those informed who only read the log. It needs nothing but
/// the board.
pub fn cry() -> ! {
    for round in 0u64.. {
        let [first, second] = [Word::FirstRounds, Word::SecondRounds].map(get);
        rt::log!("crier: {round} {first} {second}");
        sleep(100_000);
    }
    sys::exit(0)
}
