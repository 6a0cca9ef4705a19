//! Who gets how much of a processor, programs and a virtual machine: the kernel's tests of it, ten seconds each by the
//! clock of a machine on which every instruction takes 64 ns. So it is the same on every host, and ten seconds take one.
use crate::bare::log_of;
use anyhow::{Result, ensure};
use trapline::machine::kernel_test;
use trapline::parts::Repository;

/// The scenario.
pub fn run() -> Result<()> {
    let log = log_of(&Repository::find()?, kernel_test::SHARING)?;
    // Each test compared what it counted.
    ensure!(log.matches("shares ").count() >= 4, "nothing was counted");
    Ok(())
}
