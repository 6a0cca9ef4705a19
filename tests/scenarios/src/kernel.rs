//! The kernel's own tests: a user program that also does what is illegal, on the bare machine.
use crate::bare::log_of;
use anyhow::Result;
use trapline::machine::kernel_test;

/// The scenario.
pub fn run() -> Result<()> {
    let repository = trapline::parts::Repository::find()?;
    let log = log_of(&repository, kernel_test::TESTS)?;
    crate::illegal_acts::check(&repository, &log)
}
