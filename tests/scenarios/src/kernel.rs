//! The kernel's own tests: a user program that also does what is illegal, on the bare machine.
use anyhow::{Context, Result, ensure};
use std::process::Command;
use trapline::cache::Cache;
use trapline::machine::kernel_test;

/// The scenario.
pub fn run() -> Result<()> {
    let repository = trapline::parts::Repository::find()?;
    repository.build(false, &trapline::progress::Progress::new(false))?;
    let report = kernel_test::run(&Cache::open()?, &repository, kernel_test::TESTS)?;
    println!("{}", report.log.trim_end());
    ensure!(report.passed, "{}", report.why);
    crate::illegal_acts::check(&repository, &report.log)?;
    let _ = Command::new("true").status().context("processes can be started")?;
    Ok(())
}
