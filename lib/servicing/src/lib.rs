//! Remote servicing of system calls: everything but the server around it. Exits of the compute
//! VM's processor go in, a changed processor state comes out; requests go to mailboxes, results
//! come from there. `doc/borders.md` has the rules that this shares with the guest programs.
//!
//! Reading order: [`Engine`], `space` (processes and calls in service), `cx` (what the steps of
//! a call work with), `calls` (the steps), `delegate` (the other side), `form`, `stub` and `cpu`
//! (the processor).
#![cfg_attr(not(any(test, feature = "fake")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod bell;
mod calls;
mod code;
mod core;
mod cpu;
mod cx;
mod delegate;
mod engine;
mod epoll;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod filter;
mod form;
mod gate;
mod left;
mod report;
mod space;
mod spelling;
mod stub;
mod table;
mod wake;
mod world;

pub use self::core::Core;
pub use engine::Engine;
pub use world::{Census, Counters, Settings, Window, World};

#[cfg(test)]
mod tests;
