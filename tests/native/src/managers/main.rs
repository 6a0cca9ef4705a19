//! Tests of the memory managers by their clients: the root server and the managers are the real ones,
//! and this program plays all others, each in a role of its own (`managers.toml`). What they find
//! they write on a board that all of them share; the judge reads it, and ends the machine.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod board;
mod copies;
mod judge;
mod stacks;

use alloc::string::String;

rt::entry!(main);

/// What a role says: nothing, or what went wrong.
type Outcome = Result<(), String>;

fn main(_thread: u64) -> ! {
    let role = rt::config().parameter("role").unwrap_or("");
    let outcome = match role {
        "judge" => judge::run(),
        "crier" => board::cry(),
        "deep" => stacks::deep(),
        "overflow" => stacks::overflow(),
        "greedy" => stacks::greedy(),
        "first" => copies::first(),
        "second" => copies::second(),
        "spender" => copies::spender(),
        "reader" => copies::reader(),
        _ => Err(alloc::format!("no role '{role}'")),
    };
    match outcome {
        Ok(()) => rt::log!("{role}: done"),
        Err(why) => {
            rt::log!("FAILED {role}: {why}");
            board::fail();
        }
    }
    loop {
        let _ = rt::sys::wait(abi::NO_DEADLINE);
    }
}
