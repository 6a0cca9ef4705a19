//! What the kernel's operations cost, in instructions, kernel entries and switches: a program that
//! runs in the place of the root server, under an emulator that counts one tick of the time-stamp
//! counter per instruction. One line per row; `trapline bench kernel` reads them.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod calls;
mod child;
mod faults;
mod guest;
mod mapper;
mod meter;

use alloc::string::String;
use native_tests::env::{SYSTEM, prepare};

rt::entry!(main);

/// What a group of rows says: nothing, or what went wrong.
type Outcome = Result<(), String>;
/// A group of rows and its name.
type Group = (&'static str, fn() -> Outcome);

fn main(_thread: u64) -> ! {
    prepare();
    let groups: [Group; 3] =
        [("calls", calls::run), ("faults", faults::run), ("guest", guest::run)];
    let mut failed = 0;
    for (name, group) in groups {
        if let Err(why) = group() {
            rt::log!("FAILED {name}: {why}");
            failed += 1;
        }
    }
    let _ = rt::sys::shutdown(SYSTEM, failed);
    rt::sys::exit(failed)
}
