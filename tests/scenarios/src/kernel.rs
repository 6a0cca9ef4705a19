//! The kernel's own tests: a user program that also does what is illegal, on the bare machine.
use crate::bare::log_of;
use anyhow::{Result, ensure};
use trapline::machine::kernel_test;

/// The scenario.
pub fn run() -> Result<()> {
    let repository = trapline::parts::Repository::find()?;
    let log = log_of(&repository, kernel_test::TESTS)?;
    crate::illegal_acts::check(&repository, &log)
}

/// The test of pages of all sizes, which needs a larger machine.
pub fn pages() -> Result<()> {
    let log = log_of(&trapline::parts::Repository::find()?, kernel_test::HUGE)?;
    ensure!(log.contains("s0: 1 passed, 0 failed"), "the test was not run");
    Ok(())
}
