//! The demonstration, as a newcomer runs it; its times are within the limits.
use anyhow::{Result, ensure};
use std::time::Duration;
use trapline::cache::Cache;
use trapline::demo::perform;
use trapline::progress::Progress;

/// Most time from power-on to the first command.
const BOOT: Duration = Duration::from_secs(25);

/// The scenario.
pub fn run() -> Result<()> {
    let account = perform(&Cache::open()?, false, &Progress::new(false))?;
    ensure!(account.boot <= BOOT, "booting took {:.1} s", account.boot.as_secs_f64());
    ensure!(account.stats.calls_remote > 0, "no remote call: {:?}", account.stats);
    ensure!(account.stats.bytes_in >= 8 << 20, "too few bytes: {:?}", account.stats);
    Ok(())
}
