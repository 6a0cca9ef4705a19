//! Fuzz targets: one function for each border that hostile bytes cross. A target turns any bytes into
//! input for the code behind the border, and panics where that code breaks a promise.
//!
//! `trapline fuzz` runs one of them under libFuzzer (`libfuzzer/`, a workspace of its own); the tests of
//! this crate run all of them, in every `trapline test`, on the inputs in `seeds/` and some thousands
//! made from those.
#![forbid(unsafe_code)]

mod delegate;
mod files;
mod identity;
mod lost;
mod models;
mod parsers;
mod policies;
mod relay;
mod wire_format;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and that of its folder in `seeds/`.
    pub name: &'static str,
    /// Does what these bytes say.
    pub run: fn(&[u8]),
    /// How many inputs the tests make: what takes about a second without optimisation.
    pub rounds: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", run: wire_format::target, rounds: 20_000 },
    Target { name: "relay", run: relay::target, rounds: 100 },
    Target { name: "relay-files", run: relay::files::target, rounds: 60 },
    Target { name: "delegate", run: delegate::target, rounds: 500 },
    Target { name: "files", run: files::target, rounds: 500 },
    Target { name: "identity", run: identity::target, rounds: 200 },
    Target { name: "policy", run: policies::text, rounds: 2_000 },
    Target { name: "compiled-policy", run: policies::compiled, rounds: 10_000 },
    Target { name: "virtio", run: models::virtio, rounds: 1_000 },
    Target { name: "apic", run: models::apic, rounds: 2_000 },
    Target { name: "decode", run: parsers::decode, rounds: 20_000 },
    Target { name: "lost", run: lost::target, rounds: 2_000 },
    Target { name: "archive", run: parsers::archive, rounds: 10_000 },
    Target { name: "hostlink", run: parsers::hostlink, rounds: 5_000 },
    Target { name: "linuxboot", run: parsers::linuxboot, rounds: 200 },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
