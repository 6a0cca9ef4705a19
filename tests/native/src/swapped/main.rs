//! Tests of the swapping manager by native programs, with the real root server (`swapped.toml` beside the scenarios). The owner
//! fills memory of which most goes to the disk, which is then cut off. It looks which pages are lost, and finds all others as
//! they were. The reader does not look: it needs one that is lost, and ends.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::Selector;
use alloc::format;
use alloc::string::String;
use memory::Memory;
use rt::{Shared, sys, time};

rt::entry!(main);

const PAGE: u64 = 4096;
/// Words of the board: the number of a lost page and one; the reader is about to read it; it has read it.
const ASKED: u64 = 0;
const READING: u64 = 8;
const READ: u64 = 16;
/// Rounds in which nothing is lost, before the owner gives up.
const PATIENCE: u32 = 200;

fn main(_thread: u64) -> ! {
    let outcome = match rt::config().parameter("role") {
        Some("owner") => owner(),
        Some("reader") => reader(),
        role => Err(format!("no role '{role:?}'")),
    };
    match &outcome {
        Ok(()) => rt::log!("owner: all is as it should be"),
        Err(why) => rt::log!("FAILED: {why}"),
    }
    if let Some(system) = rt::config().capability("system") {
        let _ = sys::shutdown(Selector(system), u64::from(outcome.is_err()));
    }
    loop {
        let _ = sys::wait(abi::NO_DEADLINE);
    }
}

fn region(name: &str) -> Result<Shared, String> {
    Shared::region(name).ok_or_else(|| format!("no region '{name}'"))
}

/// Contents of a page that can't be compressed, and differ from those of all others.
fn contents(page: u64) -> [u8; PAGE as usize] {
    let mut state = page << 20 | 0x9e37_79b9;
    let mut bytes = [0; PAGE as usize];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn set(board: &Shared, word: u64, value: u64) -> Result<(), String> {
    board.write(word, &value.to_le_bytes()).map_err(|_| "the board is too small".into())
}

fn owner() -> Result<(), String> {
    let (Some(ram), board) = (Shared::guest_ram("memory"), region("board")?) else {
        return Err("no region 'memory'".into());
    };
    let pages = ram.len() / PAGE;
    for page in 0..pages {
        ram.write(page * PAGE, &contents(page)).map_err(|_| format!("page {page} is lost"))?;
    }
    rt::log!("owner: cut the disk off now");
    let mut rounds = 0;
    let lost = loop {
        if let (_, Some(page)) = look(&ram)? {
            break page;
        }
        rounds += 1;
        if rounds > PATIENCE {
            return Err("nothing is lost".into());
        }
    };
    set(&board, ASKED, lost + 1)?;
    while board.read64(READING) != Ok(1) {
        core::hint::spin_loop();
    }
    let (good, _) = look(&ram)?;
    if good == 0 || board.read64(READ) != Ok(0) {
        return Err(format!("{good} pages are as they were, and the reader goes on"));
    }
    // One that is written is not there either: what is shown in its place means nothing.
    match ram.write(lost * PAGE, &[1]) {
        Err(_) => Ok(()),
        Ok(()) => Err("a lost page could be written".into()),
    }
}

/// How many pages are as they were, and one that is lost. There may be no others.
fn look(ram: &impl Memory) -> Result<(u64, Option<u64>), String> {
    let (mut good, mut lost) = (0, None);
    let mut bytes = [0; PAGE as usize];
    for page in 0..ram.len() / PAGE {
        match ram.read(page * PAGE, &mut bytes) {
            Ok(()) if bytes == contents(page) => good += 1,
            Ok(()) => return Err(format!("page {page} is another one")),
            Err(_) => lost = Some(page),
        }
    }
    Ok((good, lost))
}

/// Goes before the owner: from the moment it knows a page until it ends, the owner does not run.
fn reader() -> Result<(), String> {
    let (memory, board) = (region("memory")?, region("board")?);
    loop {
        let _ = sys::wait(time::now().get() + time::microseconds(10_000));
        if let Some(page) = board.read64(ASKED).ok().and_then(|asked| asked.checked_sub(1)) {
            set(&board, READING, 1)?;
            // What is read has to be used, for there to be an access.
            set(&board, READ, memory.read64(page * PAGE).unwrap_or(0) | 1)?;
        }
    }
}
