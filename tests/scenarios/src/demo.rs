//! The demonstration, as a newcomer runs it. Its times are printed, not judged: a loaded machine is
//! no error.
use anyhow::{Result, ensure};
use trapline::cache::Cache;
use trapline::demo::perform;
use trapline::progress::Progress;

/// The scenario.
pub fn run() -> Result<()> {
    let account = perform(&Cache::open()?, false, &Progress::new(false))?;
    println!("demo: first command {:.1} s after power-on", account.boot.as_secs_f64());
    ensure!(account.stats.calls_remote > 0, "no remote call: {:?}", account.stats);
    ensure!(account.stats.bytes_in >= 8 << 20, "too few bytes: {:?}", account.stats);
    Ok(())
}
