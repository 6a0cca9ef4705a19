//! Native programs alone on the machine, without any VM.
use anyhow::{Result, ensure};
use trapline::cache::Cache;
use trapline::machine::kernel_test::{self, Program};
use trapline::parts::Repository;
use trapline::progress::Progress;

/// Runs a system until it ends the machine by itself, with code 0; what the kernel's log says then.
pub fn log_of(repository: &Repository, system: Program) -> Result<String> {
    repository.build(false, &Progress::new(false))?;
    let report = kernel_test::run(&Cache::open()?, repository, system)?;
    println!("{}", report.log.trim_end());
    ensure!(report.passed, "{}", report.why);
    Ok(report.log)
}

/// Each of these lines must be in the log so many times.
pub fn has_lines(log: &str, expected: &[(&str, usize)]) -> Result<()> {
    for (line, count) in expected {
        let found = log.lines().filter(|l| l.contains(line)).count();
        ensure!(found == *count, "'{line}' is in the log {found} times instead of {count}");
    }
    Ok(())
}
