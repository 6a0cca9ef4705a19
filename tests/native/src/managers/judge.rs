//! The judge.
use crate::Outcome;
use crate::board::{self, Word};
use crate::copies;
use abi::{Selector, SystemCounter};
use rt::{log, sys};

/// Roles that end because their manager refuses what they do: `overflow`, `greedy`, `spender`. (The
/// region of `reader` does not allow what it tries, so its manager is not asked.)
const REFUSED: u64 = 3;
/// Rounds that the clients must have made after the last failure of a manager.
const ROUNDS: u64 = 20;

/// Waits for all roles, then ends the machine.
pub fn run() -> Outcome {
    let outcome = judge();
    let failed = board::get(Word::Failed);
    if let Err(why) = &outcome {
        log!("FAILED judge: {why}");
    }
    let code = u64::from(outcome.is_err() || failed != 0);
    log!("judge: {}", if code == 0 { "all is as it should be" } else { "something is wrong" });
    if let Some(system) = rt::config().capability("system") {
        let _ = sys::shutdown(Selector(system), code);
    }
    outcome
}

fn judge() -> Outcome {
    let system = rt::config().capability("system").ok_or("no capability 'system'")?;
    board::wait_until(Word::Deep, 1)?;
    board::wait_until(Word::Overflow, 1)?;
    board::wait_until(Word::Spent, 2)?;
    board::wait_until(Word::Read, 1)?;
    board::wait_until(Word::Second, 1)?;
    board::wait_for("refused faults", || {
        sys::system_count(Selector(system), SystemCounter::FaultsRefused) == Ok(REFUSED)
    })?;
    let until = rt::config().number("until").unwrap_or(0);
    board::sleep(until * 1000);
    let rounds = [Word::FirstRounds, Word::SecondRounds].map(|w| (w, board::get(w)));
    for (word, before) in rounds {
        board::wait_until(word, before + ROUNDS)?;
    }
    if board::get(Word::Spent) != 2 {
        return Err("a client got more copies than its quota".into());
    }
    // Nobody's copies have changed the file.
    copies::check(&copies::file()?, |_| None)
}
