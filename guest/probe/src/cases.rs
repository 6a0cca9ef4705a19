//! The cases. Each file has a list of them.
mod datagrams;
mod mixed;
mod streams;

use crate::probe::Probe;

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&mut Probe));

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [streams::CASES, datagrams::CASES, mixed::CASES].into_iter().flatten()
}
