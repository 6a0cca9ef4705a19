//! Who gets how much of a processor, programs and a virtual machine: the kernel's tests of it, ten seconds each by the
//! clock of a machine on which every instruction takes 64 ns. So it is the same on every host, and ten seconds take one.
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
    ensure!(report.log.matches("shares ").count() >= 4, "nothing was counted");
    Ok(())
}
