//! The dispatcher of the service VM; it forks the delegates.
//!
//! Its one argument, if any, is the longest time in microseconds that a worker looks for a request
//! before it sleeps.
#![forbid(unsafe_code)]

use delegate::dispatcher;
use delegate::door::LONGEST_SPIN;
use delegate::hypervisor::Machine;
use std::time::Duration;

fn main() {
    let spin = match std::env::args().nth(1).map(|word| word.parse().map(Duration::from_micros)) {
        None => LONGEST_SPIN,
        Some(Ok(spin)) => spin,
        Some(Err(error)) => {
            eprintln!("trapline-delegate: microseconds: {error}");
            std::process::exit(2);
        }
    };
    if let Err(error) = dispatcher::run(Machine, spin) {
        eprintln!("trapline-delegate: {error}");
        std::process::exit(1);
    }
}
