//! The program of the processes that the kernel's tests start: does what its first argument says.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::{EndCause, Error, MESSAGE_WORDS, MemRights, Message, Selector, SpaceKind, ThreadArgs};
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use memory::Memory;
use native_tests::{child, illegal};
use rt::process::{Files, Means, Processes, Start};
use rt::sys::Bind;
use rt::{Shared, sys};

rt::entry!(main);

fn main(_: u64) -> ! {
    let arguments = rt::arguments();
    let Some(what) = arguments.first() else { sys::exit(child::NOTHING) };
    let number = arguments.get(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let code = match what.as_str() {
        "say" => say(arguments),
        "tell" => {
            rt::log!("arguments: {arguments:?}");
            arguments.len() as u64
        }
        "exit" => number,
        "spin" => loop {
            core::hint::spin_loop();
        },
        "yield" => {
            (0..number).for_each(|_| sys::yield_now());
            child::DONE
        }
        "sleep" => {
            let start = rt::time::now().0;
            rt::time::sleep(number);
            let slept = rt::time::to_microseconds(rt::time::now().0 - start);
            if slept >= number { child::DONE } else { child::WRONG }
        }
        "write" => illegal::write(number),
        "halt" => illegal::halt(0),
        "divide" => illegal::divide(0),
        "overflow" => illegal::overflow(0),
        "panic" => panic!("as asked for"),
        "threads" => threads(number, arguments.get(2).and_then(|cpus| cpus.parse().ok())),
        "leave" => leave(),
        "look" => look(),
        "exhaust" => exhaust(),
        "forge" => forge(),
        "nest" => nest(number).unwrap_or(child::WRONG),
        _ => child::NOTHING,
    };
    sys::exit(code)
}

/// Tells the parent each argument, piece by piece.
fn say(arguments: &[String]) -> u64 {
    let Some(parent) = rt::config().capability("parent") else { return child::WRONG };
    for argument in arguments {
        for piece in argument.as_bytes().chunks(child::PIECE) {
            if sys::call(Selector(parent), child::message(piece)).is_err() {
                return child::WRONG;
            }
        }
        let end: Message = [0; MESSAGE_WORDS];
        if sys::call(Selector(parent), end).is_err() {
            return child::WRONG;
        }
    }
    arguments.len() as u64
}

static COUNTED: AtomicU64 = AtomicU64::new(0);

/// Counts itself, then works for ever.
extern "C" fn helper(_: u64) -> ! {
    COUNTED.fetch_add(1, Ordering::SeqCst);
    loop {
        core::hint::spin_loop();
    }
}

/// Threads of its own, on so many processors: all of them run. They still do when the first one ends.
fn threads(number: u64, cpus: Option<u32>) -> u64 {
    const STACK: usize = 512;
    // As the first one: all have their share.
    const PRIORITY: u8 = 50;
    let Some(cpus) = cpus else { return child::WRONG };
    for n in 0..number as u32 {
        let stack = alloc::vec![0u64; STACK].leak();
        let top = (stack.as_ptr().addr() as u64 + 8 * STACK as u64) & !15;
        let entry = helper as extern "C" fn(u64) -> ! as *const () as u64;
        let args = ThreadArgs { entry, stack: top - 8, argument: 0 };
        let (thread, time) = (Selector(200 + 2 * n), Selector(201 + 2 * n));
        let made = sys::create_thread(thread, Selector(0), n % cpus, args)
            .and_then(|()| sys::create_sc(time, thread, PRIORITY, 1000));
        if made.is_err() {
            return child::WRONG;
        }
    }
    while COUNTED.load(Ordering::SeqCst) < number {
        rt::time::sleep(1000);
    }
    child::DONE
}

/// The middle of the heap, which nothing else is in.
fn middle() -> Shared {
    Shared::own(system_heap() + child::MIDDLE, child::MIDDLE_LENGTH)
}

fn system_heap() -> u64 {
    rt::regions::of(abi::Selector(0)).map(|region| region.base.0).max().unwrap_or(0)
}

fn leave() -> u64 {
    let _ = middle().write(0, &[0xa5; child::MIDDLE_LENGTH as usize]);
    child::DONE
}

fn look() -> u64 {
    let mut seen = [1; child::MIDDLE_LENGTH as usize];
    match middle().read(0, &mut seen) {
        Ok(()) if seen.iter().all(|byte| *byte == 0) => child::DONE,
        _ => child::WRONG,
    }
}

/// Makes objects until the quota is used up, of each kind.
fn exhaust() -> u64 {
    let mut next = 100;
    let mut until = |create: &dyn Fn(Selector) -> Result<(), Error>| loop {
        next += 1;
        match create(Selector(next)) {
            Ok(()) => {}
            Err(Error::Quota) => return true,
            Err(_) => return false,
        }
    };
    let args = ThreadArgs { entry: 0x40_0000, stack: 0, argument: 0 };
    let kinds: [&dyn Fn(Selector) -> Result<(), Error>; 3] = [
        &|to| sys::create_space(to, SpaceKind::Native, 16 << 10),
        &|to| sys::create_thread(to, Selector(0), 0, args),
        &|to| sys::create_notification(to),
    ];
    if kinds.into_iter().all(&mut until) { child::DONE } else { child::WRONG }
}

/// Tries every selector that was not given to it.
fn forge() -> u64 {
    let given = rt::config().capabilities.iter().map(|(_, slot)| *slot).max().unwrap_or(63);
    let forged = (1..64).chain(given + 1..4200).map(Selector);
    for selector in forged {
        let refused = [
            sys::destroy(selector).err(),
            sys::signal(selector, 1).err(),
            sys::mem_info(selector).err(),
            sys::call(selector, [0; MESSAGE_WORDS]).err(),
            sys::shutdown(selector, 0).err(),
        ];
        if refused.iter().any(|error| *error != Some(Error::BadCapability)) {
            return child::WRONG;
        }
    }
    child::DONE
}

/// Is a parent itself: with the archive, which has that length, and memory of its own. One of its
/// children exits, the other one still runs when it ends.
fn nest(archive: u64) -> Option<u64> {
    let own = Selector(0);
    let capability = |name| rt::config().capability(name).map(Selector);
    let map = |base, name, length, rights| {
        let bind = Bind { space: own, base, length, portal: own, tag: 0, rights, hint: 12 };
        sys::region_bind(bind).ok()?;
        sys::map(own, base, capability(name)?, 0, length, rights).ok()?;
        Some(Shared::own(base, length))
    };
    let read = MemRights::READ;
    let files = map(0x6000_0000, "archive", archive, read)?;
    let files = Files::open(capability("archive")?, files).ok()?;
    let view = map(0x7000_0000, "memory", 2 * child::EACH, read | MemRights::WRITE)?;
    let (memory, thread) = (capability("memory")?, capability("thread")?);
    let means = Means { memory, view, offset: 0, each: child::EACH, thread };
    let mut processes = Processes::new(means);
    let file = files.find("native-child").ok()?;
    let start = |arguments| Start { arguments, ..Start::SMALL };
    let id = processes.start(&file, &start(&["exit", "5"])).ok()?;
    let ended = processes.wait(abi::NO_DEADLINE).ok()??;
    if (ended.id, ended.end.cause) != (id, EndCause::Exit { code: 5 }) {
        return None;
    }
    processes.start(&file, &start(&["spin"])).ok()?;
    sys::exit(child::DONE)
}
