//! A native program that the root server gives the means to starts processes with arguments from the boot
//! archive, waits for them, kills them, and is told how each ended.
use crate::bare::log_of;
use anyhow::{Result, ensure};
use trapline::machine::kernel_test::{self, Program};
use trapline::parts::Repository;

const SYSTEM: Program = Program {
    name: "root",
    files: &["anon", "image", "native-parent", "native-child"],
    system: Some(include_str!("processes.toml")),
    ..kernel_test::TESTS
};

/// What the log must say, in this order.
const LINES: &[&str] = &[
    "arguments: [\"tell\", \"two words\", \"\"]",
    "process 'teller' ended: exit with 3, ",
    "process 'sleeper' ended: exit with 91, ",
    "process 'forger' ended: exit with 91, ",
    // The kernel's own report, then the parent's.
    "page fault, write at 0x1000: no region",
    "process 'writer' ended: page fault, write at 0x1000: no region, at instruction 0x4",
    "process 'spinner' ended: destroyed, ",
    "nobody: no such file in the archive",
    "all processes did as they should",
];

/// The scenario.
pub fn run() -> Result<()> {
    let log = log_of(&Repository::find()?, SYSTEM)?;
    let mut lines = log.lines();
    for wanted in LINES {
        ensure!(lines.any(|line| line.contains(wanted)), "no line '{wanted}' where it should be");
    }
    Ok(())
}
