//! Who gets how much of a processor: the kernel's tests of it, where each instruction is a tick of the clock.
use anyhow::{Result, ensure};
use trapline::cache::Cache;
use trapline::machine::kernel_test;
use trapline::parts::Repository;
use trapline::progress::Progress;

/// The scenario.
pub fn run() -> Result<()> {
    let repository = Repository::find()?;
    repository.build(false, &Progress::new(false))?;
    let report = kernel_test::run(&Cache::open()?, &repository, kernel_test::SHARING)?;
    println!("{}", report.log.trim_end());
    ensure!(report.passed, "{}", report.why);
    // Each test compared what it counted.
    ensure!(report.log.matches("shares ").count() >= 2, "nothing was counted");
    Ok(())
}
