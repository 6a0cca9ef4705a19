//! The cases. Each file has a list of them.
mod control;
mod corners;
mod datagrams;
mod descriptors;
mod echoes;
mod epoll;
mod every;
mod files;
mod handed;
mod listeners;
mod masks;
mod messages;
mod mixed;
mod names;
mod options;
mod owners;
mod returns;
mod sends;
mod signals;
mod starts;
mod streams;

use crate::probe::Probe;

/// A case: its name, and what it does.
pub type Case = (&'static str, fn(&mut Probe));

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let lists = [
        streams::CASES,
        datagrams::CASES,
        mixed::CASES,
        signals::CASES,
        descriptors::CASES,
        messages::CASES,
        epoll::CASES,
        options::CASES,
        control::CASES,
        owners::CASES,
        starts::CASES,
        sends::CASES,
        masks::CASES,
        echoes::CASES,
        files::CASES,
        names::CASES,
        corners::CASES,
        listeners::CASES,
        returns::CASES,
        every::CASES,
        handed::CASES,
    ];
    lists.into_iter().flatten()
}
