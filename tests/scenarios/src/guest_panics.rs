//! A guest kernel that panics ends `trapline run` with its last words.
use crate::rig::{command_fails_saying, trapline};
use anyhow::Result;

/// The scenario.
pub fn run() -> Result<()> {
    let mut command = trapline()?;
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 100";
    command.args(["run", "--", "sh", "-c", script]);
    command_fails_saying(&mut command, &["the compute VM failed", "Kernel panic"])
}
