//! Who gets how much of a processor, programs and a virtual machine: the kernel's tests of it, ten seconds each by the
//! clock of a machine on which every instruction takes 64 ns. So it is the same on every host, and ten seconds take one.
use crate::bare::log_of;
use anyhow::{Result, ensure};
use trapline::machine::kernel_test;
use trapline::parts::Repository;

/// Tests that compare shares.
const COMPARED: usize = 7;

/// The scenario.
pub fn run() -> Result<()> {
    let log = log_of(&Repository::find()?, kernel_test::SHARING)?;
    // Each test that compares counts said what they were; without guests, those with guests would say nothing.
    ensure!(log.matches("s0: shares ").count() == COMPARED, "not all was counted");
    Ok(())
}
