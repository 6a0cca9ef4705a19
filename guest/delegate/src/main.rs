//! The dispatcher of the service VM; it forks the delegates.
#![forbid(unsafe_code)]

use delegate::dispatcher;
use delegate::hypervisor::Machine;

fn main() {
    if let Err(error) = dispatcher::run(Machine) {
        eprintln!("trapline-delegate: {error}");
        std::process::exit(1);
    }
}
