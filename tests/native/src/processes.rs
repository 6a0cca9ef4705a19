//! Processes from ELF files with arguments: what they are told, how they end, and that nothing of
//! them is left.
use crate::acts::note;
use crate::env::{
    ABOVE, BELOW, NONE, PAGE, RAM, SPACE, SYSTEM, THREAD, cpus, equal, holds, in_milliseconds, ok,
    portal, ram, window,
};
use crate::{Outcome, Test};
use abi::{EndCause, Error, Event, MemRights, ObjRights, RootSelector, Selector, SystemCounter};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use executable::Defect;
use memory::Memory;
use native_tests::child::{self, EACH};
use native_tests::nursery;
use rt::process::{
    ARGUMENT_BYTES, Ended, Error as Refusal, File, Files, MOST_ARGUMENTS, Processes, Start,
};
use rt::{Shared, sys};

pub const TESTS: &[Test] = &[
    ("processes: arguments arrive as they were given", arguments),
    ("processes: exit codes, in the order of the ends", codes),
    ("processes: yield and sleep", yields),
    ("processes: threads of their own, which end with them", threads),
    ("processes: endless loops are killed", loops),
    ("processes: what offenders did is told", offenders),
    ("processes: broken files", broken),
    ("processes: more than there is", too_much),
    ("processes: nothing is left for the next one", remains),
    ("processes: exhaustion and forged capabilities harm nobody", hostile),
    ("processes: children of children, and their end", nested),
    ("processes: a thousand come and go", thousand),
];

/// How many there can be.
const COUNT: u64 = 4;
const HEAP: u64 = 160 << 10;

/// The boot archive, and what to make processes of.
struct Nursery {
    files: Files,
    processes: Processes,
    regions: [nursery::Region; 2],
}

impl Nursery {
    fn new() -> Result<Self, String> {
        let (files, first) = nursery::files()?;
        let (means, second) = nursery::means(EACH, COUNT)?;
        Ok(Self { files, processes: Processes::new(means), regions: [first, second] })
    }

    fn child(&self) -> Result<File, String> {
        self.files.find("native-child").map_err(|e| format!("{e}"))
    }

    fn start(&mut self, arguments: &[&str]) -> Result<rt::process::Id, String> {
        self.start_as(&Start { arguments, ..like(BELOW) })
    }

    fn start_as(&mut self, start: &Start<'_>) -> Result<rt::process::Id, String> {
        let file = self.child()?;
        self.processes.start(&file, start).map_err(|e| format!("start: {e}"))
    }

    fn wait(&mut self) -> Result<Ended, String> {
        let ended = self.processes.wait(in_milliseconds(20_000)).map_err(|e| format!("{e}"))?;
        ended.ok_or_else(|| String::from("no process has ended"))
    }

    /// Runs one to its end.
    fn run(&mut self, arguments: &[&str]) -> Result<EndCause, String> {
        let id = self.start(arguments)?;
        let ended = self.wait()?;
        equal(ended.id, id, "which one")?;
        Ok(ended.end.cause)
    }

    fn end(self) -> Outcome {
        equal(self.processes.count(), 0, "processes left")?;
        let unbind = |(base, length)| ok(sys::region_unbind(SPACE, base, length), "unbind");
        self.regions.into_iter().try_for_each(unbind)
    }
}

const fn like(priority: u8) -> Start<'static> {
    Start { name: "child", heap: HEAP, priority, ..Start::SMALL }
}

fn exit(code: u64) -> EndCause {
    EndCause::Exit { code }
}

fn arguments() -> Outcome {
    let mut nursery = Nursery::new()?;
    let long: String = core::iter::repeat_n("0123456789", 700).collect();
    let lists: [&[&str]; 3] =
        [&["say"], &["say", "", "with spaces", "ünïcode", &long], &["say"; MOST_ARGUMENTS]];
    let door = portal(THREAD, 40)?;
    for list in lists {
        let capabilities: [(&str, Selector, u64); 1] = [("parent", door, ObjRights::USE.bits())];
        let start = Start { arguments: list, capabilities: &capabilities, ..like(BELOW) };
        nursery.start_as(&start)?;
        let mut heard: Vec<Vec<u8>> = Vec::from([Vec::new()]);
        let mut next = sys::wait(in_milliseconds(20_000));
        let ended = loop {
            next = match ok(next, "wait")? {
                (Event::Call(40), words) if words[0] == 0 => {
                    heard.push(Vec::new());
                    sys::reply_wait(0, words, in_milliseconds(20_000))
                }
                (Event::Call(40), words) => {
                    if let Some(last) = heard.last_mut() {
                        last.extend(child::piece(&words));
                    }
                    sys::reply_wait(0, words, in_milliseconds(20_000))
                }
                (Event::ThreadEnd(badge), words) => {
                    break nursery.processes.ended(badge, &words).ok_or("a stranger's end")?;
                }
                other => return Err(format!("{other:?}")),
            };
        };
        equal(ended.end.cause, exit(list.len() as u64), "exit code")?;
        heard.pop();
        let same = heard.iter().map(Vec::as_slice).eq(list.iter().map(|a| a.as_bytes()));
        holds(same, "what was said back")?;
    }
    equal(nursery.run(&[])?, exit(child::NOTHING), "no arguments")?;
    ok(sys::cap_drop(NONE, door), "drop")?;
    nursery.end()
}

fn codes() -> Outcome {
    let mut nursery = Nursery::new()?;
    equal(nursery.run(&["exit", "0"])?, exit(0), "0")?;
    equal(nursery.run(&["exit", "18446744073709551615"])?, exit(u64::MAX), "the largest")?;
    // The higher one is done first, though it was started last.
    let arguments = |code| ["exit", code];
    let low = nursery.start_as(&Start { arguments: &arguments("7"), ..like(BELOW) })?;
    let high = nursery.start_as(&Start { arguments: &arguments("8"), ..like(BELOW + 1) })?;
    let ends = [nursery.wait()?, nursery.wait()?].map(|e| (e.id, e.end.cause));
    equal(ends, [(high, exit(8)), (low, exit(7))], "ends")?;
    // One that is above its parent has ended before the call returns; its end is kept.
    let id = nursery.start_as(&Start { arguments: &arguments("9"), ..like(ABOVE) })?;
    equal(nursery.wait().map(|e| (e.id, e.end.cause))?, (id, exit(9)), "an early end")?;
    equal(nursery.run(&["panic"])?, exit(101), "a panic")?;
    nursery.end()
}

fn yields() -> Outcome {
    let mut nursery = Nursery::new()?;
    let many: [&[&str]; 3] = [&["yield", "100"], &["yield", "50"], &["sleep", "2000"]];
    for arguments in many {
        nursery.start(arguments)?;
    }
    equal(nursery.processes.count(), 3, "running")?;
    for _ in many {
        equal(nursery.wait()?.end.cause, exit(child::DONE), "end")?;
    }
    nursery.end()
}

/// A process makes threads by itself, some on other processors, that run for ever: when its first thread exits, all of
/// it comes back.
fn threads() -> Outcome {
    let mut nursery = Nursery::new()?;
    let cpus = format!("{}", cpus());
    let mut run = |number| nursery.run(&["threads", number, &cpus]);
    equal(run("4")?, exit(child::DONE), "end")?;
    // What is made at the first time is kept.
    let before = kernel()?;
    for number in ["1", "4", "7"] {
        equal(run(number)?, exit(child::DONE), "end")?;
        equal(kernel()?, before, "objects, bytes and quota")?;
    }
    nursery.end()
}

fn loops() -> Outcome {
    let mut nursery = Nursery::new()?;
    let arguments: &[&str] = &["spin"];
    for cpu in 0..cpus() as u32 {
        let id = nursery.start_as(&Start { arguments, cpu, ..like(BELOW) })?;
        let nothing = nursery.processes.wait(in_milliseconds(5)).map_err(|e| format!("{e}"))?;
        equal(nothing, None, "it goes on")?;
        nursery.processes.kill(id).map_err(|e| format!("{e}"))?;
        let ended = nursery.wait()?;
        equal((ended.id, ended.end.cause), (id, EndCause::Destroyed), "end")?;
        equal(nursery.processes.kill(id), Err(Refusal::NoProcess), "once more")?;
    }
    nursery.end()
}

fn offenders() -> Outcome {
    let mut nursery = Nursery::new()?;
    let file = nursery.child()?;
    let code = 0x40_0000..0x40_0000 + file.view.len();
    let at = |address: u64| EndCause::Fault { address };
    let exception = |vector| EndCause::Exception { vector, error: 0 };
    let stack = at(system::STACKS - 8);
    let kernel = 0xffff_ffff_8010_1000;
    let kernel_text = format!("{kernel}");
    let cases: [(&[&str], EndCause, &str); 6] = [
        (&["write", "64"], at(64), "write at 0x40: no region"),
        (&["write", "4194304"], at(0x40_0000), "write at 0x400000: region without that right"),
        (&["write", &kernel_text], at(kernel), "write at 0xffffffff80101000: no region"),
        (&["halt"], exception(13), "privileged instruction"),
        (&["divide"], exception(0), "division error"),
        (&["overflow"], stack, "write at 0x2ffffff8: no region"),
    ];
    for (arguments, cause, why) in cases {
        let name = arguments[0];
        let id = nursery.start_as(&Start { name, arguments, ..like(BELOW) })?;
        let ended = nursery.wait()?;
        equal((ended.id, ended.end.cause), (id, cause), name)?;
        holds(code.contains(&ended.end.ip), "the instruction is the program's")?;
        let text = format!("{ended}");
        // One report names the process, the instruction, the address and the reason.
        let parts = [&format!("'{name}'"), &format!("{:#x}", ended.end.ip), why];
        holds(parts.iter().all(|part| text.contains(part)), "the report")?;
        rt::log!("{text}");
    }
    nursery.end()
}

/// A copy of the child's file that something is changed in: 8 bytes at each offset.
fn changed(file: &File, changes: &[(u64, u64)]) -> Result<(File, u64), String> {
    let length = file.view.len().next_multiple_of(PAGE);
    let (base, offset) = window(length)?;
    let view = Shared::own(base, file.view.len());
    file.view.copy_to(0, &view, 0, file.view.len()).map_err(|_| "copy")?;
    for (at, value) in changes {
        view.write(*at, &value.to_le_bytes()).map_err(|_| "change")?;
    }
    Ok((File { memory: RAM, offset, view }, base))
}

/// Offsets in the file: the entry, and parts of the first two program headers.
const ENTRY: u64 = 24;
const FIRST: u64 = 64;
const SECOND: u64 = FIRST + 56;
const FLAGS: u64 = 0;
const OFFSET: u64 = 8;
const ADDRESS: u64 = 16;
const SIZE: u64 = 40;
/// Type and flags of a segment that is loaded, as one word.
const LOAD: u64 = 1;

fn broken() -> Outcome {
    let mut nursery = Nursery::new()?;
    let file = nursery.child()?;
    let code = 0x40_0000;
    let kernel = 0xffff_ffff_8000_0000;
    let cases: [(&[(u64, u64)], Defect); 9] = [
        (&[(0, 0)], Defect::NotElf),
        (&[(ENTRY, kernel)], Defect::Entry(kernel)),
        (&[(ENTRY, 0x5000_0000)], Defect::Entry(0x5000_0000)),
        (&[(FIRST + FLAGS, LOAD | 7 << 32)], Defect::WritableCode(code)),
        (&[(FIRST + ADDRESS, kernel)], Defect::Address(kernel)),
        (&[(FIRST + ADDRESS, system::STACKS)], Defect::Address(system::STACKS)),
        (&[(FIRST + SIZE, u64::MAX)], Defect::Size(code)),
        (&[(FIRST + OFFSET, 1 << 40)], Defect::Truncated(code)),
        (&[(SECOND + ADDRESS, code)], Defect::Overlap(code)),
    ];
    for (changes, defect) in cases {
        let (bad, base) = changed(&file, changes)?;
        let outcome = nursery.processes.start(&bad, &like(BELOW));
        equal(outcome, Err(Refusal::File(defect)), "start")?;
        let length = file.view.len().next_multiple_of(PAGE);
        ok(sys::region_unbind(SPACE, base, length), "unbind")?;
    }
    for length in [0, 1, 63, 64, 100, PAGE] {
        let view = file.view.part(0, length).map_err(|_| "part")?;
        let outcome = nursery.processes.start(&File { view, ..file }, &like(BELOW));
        holds(matches!(outcome, Err(Refusal::File(_))), "a file that was cut short")?;
    }
    // Whole files from elsewhere, and memory that is no archive.
    let (same, base) = changed(&file, &[])?;
    let arguments: &[&str] = &["exit", "3"];
    let start = Start { arguments, ..like(BELOW) };
    nursery.processes.start(&same, &start).map_err(|e| format!("a copy: {e}"))?;
    equal(nursery.wait()?.end.cause, exit(3), "a copy")?;
    let no_archive = Files::open(RAM, Shared::own(base, PAGE));
    holds(matches!(no_archive, Err(Refusal::Archive(_))), "no archive")?;
    equal(nursery.files.find("nobody").err(), Some(Refusal::NoFile), "no such file")?;
    // Memory that can't be executed.
    let data = crate::env::selector();
    ok(sys::mem_derive(data, RAM, same.offset, PAGE, MemRights::READ), "derive")?;
    let plain = File { memory: data, offset: 0, ..same };
    let outcome = nursery.processes.start(&plain, &start);
    holds(matches!(outcome, Err(Refusal::Kernel("memory", _))), "memory without EXEC")?;
    ok(sys::cap_drop(NONE, data), "drop")?;
    nursery.end()
}

fn too_much() -> Outcome {
    let mut nursery = Nursery::new()?;
    let file = nursery.child()?;
    let mut refused = |start: &Start<'_>, with: Refusal| {
        equal(nursery.processes.start(&file, start), Err(with), "start")
    };
    let many = [""; MOST_ARGUMENTS + 1];
    refused(&Start { arguments: &many, ..like(BELOW) }, Refusal::Arguments)?;
    let long: String = core::iter::repeat_n('x', ARGUMENT_BYTES + 1).collect();
    refused(&Start { arguments: &[&long], ..like(BELOW) }, Refusal::Arguments)?;
    let kernel = Refusal::Kernel;
    let start = like(BELOW);
    refused(&Start { quota: 0, ..start }, kernel("space", Error::Quota))?;
    refused(&Start { quota: u64::MAX, ..start }, kernel("space", Error::Quota))?;
    refused(&Start { quota: 16 << 10, ..start }, kernel("memory", Error::Quota))?;
    refused(&Start { cpu: 99, ..start }, kernel("thread", Error::BadArgument))?;
    refused(&Start { quantum: 0, ..start }, kernel("time", Error::BadArgument))?;
    let forged: [(&str, Selector, u64); 1] = [("x", Selector(4000), u64::MAX)];
    let forged = Start { capabilities: &forged, ..start };
    refused(&forged, kernel("capability", Error::BadCapability))?;
    for heap in [EACH, u64::MAX, u64::MAX - 4096] {
        let outcome = nursery.processes.start(&file, &Start { heap, ..start });
        holds(matches!(outcome, Err(Refusal::Memory(_))), "a heap that is too large")?;
    }
    let spin: &[&str] = &["spin"];
    let ids: Vec<_> = (0..COUNT).map(|_| nursery.start(spin)).collect::<Result<_, _>>()?;
    let outcome = nursery.processes.start(&file, &start);
    equal(outcome, Err(Refusal::TooMany), "one more")?;
    for id in ids {
        nursery.processes.kill(id).map_err(|e| format!("{e}"))?;
    }
    for _ in 0..COUNT {
        equal(nursery.wait()?.end.cause, EndCause::Destroyed, "end")?;
    }
    nursery.end()
}

fn remains() -> Outcome {
    let mut nursery = Nursery::new()?;
    equal(nursery.run(&["leave"])?, exit(child::DONE), "one leaves something")?;
    equal(nursery.run(&["look"])?, exit(child::DONE), "the next one sees nothing of it")?;
    nursery.end()
}

fn hostile() -> Outcome {
    let mut nursery = Nursery::new()?;
    let spin: &[&str] = &["spin"];
    let other = nursery.start(spin)?;
    nursery.run(&["exit", "1"])?;
    let before = kernel()?;
    for what in ["exhaust", "forge"] {
        equal(nursery.run(&[what])?, exit(child::DONE), what)?;
        equal(kernel()?, before, "objects, bytes and quota afterwards")?;
    }
    let kinds = "threads, spaces, notifications of a process, by itself";
    note("exhaustion", kinds, "refused at the quota; back when the space ends");
    note(
        "capability",
        "every selector of a process that it was not given",
        "refused: bad capability",
    );
    nursery.processes.kill(other).map_err(|e| format!("{e}"))?;
    equal(nursery.wait()?.id, other, "the other one went on")?;
    nursery.end()
}

fn nested() -> Outcome {
    let mut nursery = Nursery::new()?;
    let length = format!("{}", nursery.regions[0].1);
    let memory = crate::env::selector();
    let rights = MemRights::READ | MemRights::WRITE | MemRights::EXEC;
    ok(sys::mem_derive(memory, RAM, ram(2 * EACH), 2 * EACH, rights), "derive")?;
    let archive = Selector(RootSelector::Archive as u32);
    let capabilities = [("archive", archive, sys::ALL_RIGHTS), ("memory", memory, sys::ALL_RIGHTS)];
    nursery.run(&["exit", "1"])?;
    let before = kernel()?;
    for _ in 0..3 {
        let arguments: &[&str] = &["nest", &length];
        let start = Start { arguments, capabilities: &capabilities, quota: 1 << 20, ..like(BELOW) };
        nursery.start_as(&start)?;
        equal(nursery.wait()?.end.cause, exit(child::DONE), "the parent")?;
        equal(kernel()?, before, "its child, which spun, ended with it")?;
    }
    ok(sys::cap_drop(NONE, memory), "drop")?;
    nursery.end()
}

fn kernel() -> Result<[u64; 3], String> {
    let count = |counter| ok(sys::system_count(SYSTEM, counter), "count");
    Ok([
        count(SystemCounter::Objects)?,
        count(SystemCounter::KernelBytes)?,
        ok(sys::space_quota(NONE), "quota")?,
    ])
}

fn thousand() -> Outcome {
    let mut nursery = Nursery::new()?;
    let mut before = None;
    for round in 0..1000u64 {
        let code = format!("{round}");
        let cause = match round % 4 {
            0 => EndCause::Fault { address: 8 * round },
            _ => exit(round),
        };
        let what = if round % 4 == 0 { "write" } else { "exit" };
        let word = if round % 4 == 0 { format!("{}", 8 * round) } else { code };
        equal(nursery.run(&[what, &word])?, cause, "end")?;
        // What is made at the first time and kept.
        match before {
            None => before = Some(kernel()?),
            Some(before) => equal(kernel()?, before, "objects, bytes and quota")?,
        }
    }
    nursery.end()
}
