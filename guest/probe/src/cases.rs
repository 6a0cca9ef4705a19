//! The cases. Each file has a list of them.
mod datagrams;
mod descriptors;
mod epoll;
mod messages;
mod mixed;
mod signals;
mod streams;

use crate::probe::Probe;

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&mut Probe));

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        streams::CASES,
        datagrams::CASES,
        mixed::CASES,
        signals::CASES,
        descriptors::CASES,
        messages::CASES,
        epoll::CASES,
    ]
    .into_iter()
    .flatten()
}
