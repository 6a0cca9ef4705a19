//! Tests of the kernel by its first program: they run in the place of the root server, make every
//! kernel call, rightly and wrongly, and do what programs must not do. One line per test, then a
//! summary; the machine's exit status tells whether all passed.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod acts;
mod calls;
mod changing;
mod ends;
mod failing;
mod faults;
mod guest;
mod guests;
mod huge;
mod ipc;
mod memory;
mod models;
mod passing;
mod processes;
mod programs;
mod put_off;
mod regions;
mod registers;
mod several;
mod sharing;
mod spaces;
mod stress;
mod system;
mod windows;

use alloc::string::String;
use env::{SYSTEM, prepare};
use native_tests::{env, illegal};

rt::entry!(main);

/// What a test says: nothing, or what went wrong.
type Outcome = Result<(), String>;
/// A test and its name.
type Test = (&'static str, fn() -> Outcome);

fn main(_thread: u64) -> ! {
    prepare();
    let (mut passed, mut failed) = (0u64, 0u64);
    let groups: [&[Test]; 23] = [
        calls::TESTS,
        memory::TESTS,
        ipc::TESTS,
        faults::TESTS,
        put_off::TESTS,
        failing::TESTS,
        windows::TESTS,
        passing::TESTS,
        regions::TESTS,
        spaces::TESTS,
        programs::TESTS,
        ends::TESTS,
        processes::TESTS,
        several::TESTS,
        system::TESTS,
        sharing::TESTS,
        acts::TESTS,
        guest::TESTS,
        guests::TESTS,
        registers::TESTS,
        models::TESTS,
        changing::TESTS,
        stress::TESTS,
    ];
    // Needs more memory than the others.
    let huge = env::word("huge").is_some();
    let only = env::word("only");
    let chosen = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let groups = groups.into_iter().chain(huge.then_some(huge::TESTS));
    for (name, test) in groups.flatten().filter(|(name, _)| chosen(name)) {
        match test() {
            Ok(()) => {
                passed += 1;
                rt::log!("ok {name}");
            }
            Err(why) => {
                failed += 1;
                rt::log!("FAILED {name}: {why}");
            }
        }
    }
    rt::log!("{passed} passed, {failed} failed");
    let _ = rt::sys::shutdown(SYSTEM, failed.min(100));
    rt::sys::exit(failed)
}
