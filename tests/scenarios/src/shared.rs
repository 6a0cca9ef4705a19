//! The manager of shared memory, tested by its clients with the real root server: rights that differ, that are lowered and
//! taken away while they are used by programs on another processor and by a guest, and clients that try to get around that. All of
//! it again with a manager that ends, loops and falls silent meanwhile.
use crate::bare::{has_lines, log_of};
use anyhow::{Result, ensure};
use trapline::machine::kernel_test::{self, Program};
use trapline::parts::Repository;

const SYSTEM: Program = Program {
    name: "root",
    files: &["anon", "image", "shared", "native-shared"],
    system: Some(include_str!("shared.toml")),
    ..kernel_test::TESTS
};

/// Lines of the log: what each says, and how often.
const EXPECTED: &[(&str, usize)] = &[
    ("program 'intruder' ended: page fault", 1),
    ("program 'writer' ended: page fault", 1),
    ("program 'leaver' ended: exit with 0", 1),
    ("client 7 ended with 1 objects", 1),
    ("owner: all is as it should be", 1),
    ("FAILED", 0),
    ("panic", 0),
    ("fatal: manager", 0),
];

/// When the manager ends, in milliseconds after the system is up: four times, as often as it is started again within a minute.
const ENDING: &str = "fail.shared=150,600,1500,2300 until=3000";
/// When it loops, and when it does not answer any more: each is noticed after five seconds, or later on a busy host.
const SILENT: &str = "loop.shared=500 mute.shared=9000 until=18000";

/// The scenario.
pub fn run() -> Result<()> {
    let log = log_of(&Repository::find()?, SYSTEM)?;
    has_lines(&log, EXPECTED)?;
    // The guest: twice it may do nothing, once it may not write; and once in each of three rounds.
    has_lines(&log, &[("refused by its manager, status 3", 6), ("was started again", 0)])
}

fn started_again(command_line: &'static str, times: usize) -> Result<String> {
    let log = log_of(&Repository::find()?, Program { command_line, ..SYSTEM })?;
    has_lines(&log, EXPECTED)?;
    has_lines(&log, &[("manager 'shared' was started again", times)])?;
    Ok(log)
}

/// It ends, several times.
pub fn ending() -> Result<()> {
    started_again(ENDING, 4).map(drop)
}

/// It loops, and later does not answer: nobody is late because of that.
pub fn silent() -> Result<()> {
    let log = started_again(SILENT, 2)?;
    has_lines(&log, &[("manager 'shared' does not answer", 2), ("in time", 0)])?;
    let repeated = log.lines().filter_map(|line| line.split_once(" rounds, ")?.1.split(' ').next());
    let repeated: u64 = repeated.filter_map(|count| count.parse::<u64>().ok()).sum();
    ensure!(repeated > 0, "no call was in its hands");
    Ok(())
}
