//! Calls, portals, switches, programs.
use crate::Outcome;
use crate::child::{Child, Image, echo, yielder};
use crate::meter::measure;
use abi::{EndCause, NO_DEADLINE};
use alloc::format;
use native_tests::child::EACH;
use native_tests::env::{NONE, QUANTUM, SPACE, ok, portal, selector, thread};
use native_tests::nursery;
use rt::process::{Processes, Start};
use rt::sys;

/// Priority of this thread.
const EQUAL: u8 = 128;

/// All rows.
pub fn run() -> Outcome {
    measure("null call", "direct", 1000, |_| {
        let _ = sys::null();
    });
    measure("call that reads the own quota", "direct", 1000, |_| {
        let _ = sys::space_quota(NONE);
    });
    let handler = thread(0, echo, 0)?;
    let door = portal(handler, 1)?;
    measure("portal call and reply", "one space", 1000, |n| {
        let _ = sys::call(door, [n; 8]);
    });
    ok(sys::destroy(handler), "destroy")?;
    let image = Image::copy()?;
    let child = Child::new(&image, echo, 0)?;
    let door = child.door()?;
    measure("portal call and reply", "two spaces", 1000, |n| {
        let _ = sys::call(door, [n; 8]);
    });
    child.end();
    switches(&image)?;
    creation()
}

/// Two threads that yield to each other: half of a round is a switch.
fn switches(image: &Image) -> Outcome {
    let other = thread(0, yielder, 0)?;
    let time = selector();
    ok(sys::create_sc(time, other, EQUAL, QUANTUM), "time")?;
    pair("one space");
    ok(sys::destroy(other), "destroy")?;
    let child = Child::new(image, yielder, 0)?;
    ok(child.start(selector(), EQUAL), "time")?;
    pair("two spaces");
    child.end();
    Ok(())
}

fn pair(form: &str) {
    let rounds = 500;
    sys::yield_now();
    let start = crate::meter::Start::now();
    (0..rounds).for_each(|_| sys::yield_now());
    crate::meter::report("context switch (yield)", form, &start.end(), 2 * rounds);
}

/// A process is made from its file with arguments, exits, and is taken apart.
fn creation() -> Outcome {
    let (files, archive) = nursery::files()?;
    let (means, memory) = nursery::means(EACH, 1)?;
    let file = files.find("native-child").map_err(|e| format!("{e}"))?;
    let mut processes = Processes::new(means);
    let start = Start { name: "child", arguments: &["exit", "7"], ..Start::SMALL };
    let mut failed = None;
    measure("process creation, exit, end", "ELF file", 20, |_| {
        let started = processes.start(&file, &start);
        let ended = started.and_then(|_| processes.wait(NO_DEADLINE));
        match ended {
            Ok(Some(ended)) if ended.end.cause == (EndCause::Exit { code: 7 }) => {}
            other => failed = Some(format!("{other:?}")),
        }
    });
    for (base, length) in [archive, memory] {
        ok(sys::region_unbind(SPACE, base, length), "unbind")?;
    }
    failed.map_or(Ok(()), Err)
}
