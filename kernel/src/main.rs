//! The Trapline kernel: spaces with regions, threads, vCPUs, portals, notifications, scheduling
//! contexts. Mechanism only; `doc/borders.md` tells who uses it how.
//!
//! Reading order: `kernel` (state and main loop), `object` (what exists), `calls` (what programs
//! can ask), `ipc`, `fast`, `fault` and `window` (how traps reach their handlers), `sched`, `end`; `machine` is the
//! layer below, and the only place with `unsafe`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod calls;
mod end;
mod fast;
mod fault;
mod ipc;
mod kernel;
mod layout;
#[allow(unsafe_code)]
mod machine;
mod memory;
mod notify;
mod object;
mod patience;
mod root;
mod sched;
mod start;
mod vcpu;
mod window;
