//! The manager of shared memory, tested by its clients with the real root server: rights that differ, that are lowered and
//! taken away while they are used by programs on another processor and by a guest, and clients that try to get around that.
use crate::bare::{has_lines, log_of};
use anyhow::Result;
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
    // The guest, three times: twice it may do nothing, once it may not write.
    ("refused by its manager, status 3", 3),
    ("owner: all is as it should be", 1),
    ("FAILED", 0),
    ("panic", 0),
];

/// The scenario.
pub fn run() -> Result<()> {
    has_lines(&log_of(&Repository::find()?, SYSTEM)?, EXPECTED)
}
