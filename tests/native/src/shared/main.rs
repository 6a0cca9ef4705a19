//! Tests of the manager of shared memory by its clients, with the real root server: this program plays all of them, each in a
//! role of its own (`shared.toml`). The owner leads: it says on the board what the others are to do, looks at
//! what they have done to its memory, and ends the machine.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod board;
mod hostile;
mod lasting;
mod monitor;
mod owner;
mod users;

use abi::{Error, MemRights, Message, Selector};
use alloc::format;
use alloc::string::String;
use backing::shares::Request;
use rt::{Shared, sys};

rt::entry!(main);

/// What a role says: nothing, or what went wrong.
type Outcome = Result<(), String>;

/// May read.
const READ: MemRights = MemRights::READ;
/// May write, too.
const WRITE: MemRights = MemRights::READ.union(MemRights::WRITE);
/// May do nothing.
const NOTHING: MemRights = MemRights::empty();
const PAGE: u64 = 4096;

fn main(_thread: u64) -> ! {
    let role = rt::config().parameter("role").unwrap_or("");
    let outcome = match role {
        "owner" => owner::run(),
        "writer" => users::writer(),
        "reader" => users::reader(),
        "intruder" => users::intruder(),
        "leaver" => users::leaver(),
        "hostile" => hostile::run(),
        "monitor" => monitor::run(),
        _ => Err(format!("no role '{role}'")),
    };
    if let Err(why) = outcome {
        rt::log!("FAILED {role}: {why}");
        board::set(board::Word::Failed, 1);
    }
    loop {
        let _ = sys::wait(abi::NO_DEADLINE);
    }
}

/// A region of the configuration.
fn region(name: &str) -> Result<Shared, String> {
    Shared::region(name).ok_or_else(|| format!("no region '{name}'"))
}

/// A capability of the configuration.
fn capability(name: &str) -> Result<Selector, String> {
    rt::config().capability(name).map(Selector).ok_or_else(|| format!("no capability '{name}'"))
}

/// Asks the manager; while it is about to be started again, once more: that is what it may be, for all that one can ask.
fn ask(words: Message) -> Result<Message, Error> {
    let door = rt::config().capability("shared").map(Selector).ok_or(Error::BadCapability)?;
    persistently(|| sys::call(door, words))
}

/// Repeats what needs the manager as long as there is none.
fn persistently<T>(mut try_it: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let end = board::patience();
    loop {
        match try_it() {
            Err(Error::Gone | Error::BadCapability) if rt::time::now().get() < end => {
                board::add(board::Word::Repeated);
                board::sleep(1000);
            }
            other => return other,
        }
    }
}

/// Asks the manager for something that it understands.
fn request(request: Request) -> Result<u64, Error> {
    ask(request.encode()).map(|answer| answer[0])
}

/// Ends an object. Asked once more, it may have ended already.
fn end(object: u32) -> Outcome {
    match request(Request::End { object }) {
        Err(Error::Refused) if board::get(board::Word::Repeated) > 0 => Ok(()),
        other => ok(other, "end").map(drop),
    }
}

/// Number of a client.
fn client(name: &str) -> Result<u64, String> {
    let list = rt::config().parameter("shares").unwrap_or("");
    let number = list.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix(':'));
    number.and_then(|n| n.parse().ok()).ok_or_else(|| format!("no client '{name}'"))
}

/// The result, or a text that names the step.
fn ok<T>(result: Result<T, Error>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {}", error.text()))
}
