//! However `trapline run` ends, its emulator ends with it.
use crate::rig::{emulators, trapline};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// The scenario.
pub fn run() -> Result<()> {
    for (signal, status) in [(Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)] {
        let before = emulators();
        let mut command = trapline()?;
        let mut child =
            command.args(["run", "--", "sh", "-c", "echo begun; sleep 1000"]).spawn()?;
        let output = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "begun\n", "the command did not run: {line}");
        ensure!(emulators().len() > before.len(), "no emulator runs");
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let end = Instant::now() + Duration::from_secs(5);
        let ended = child.wait()?;
        ensure!(ended.code() == status, "{signal}: {ended}");
        while emulators().iter().any(|pid| !before.contains(pid)) {
            ensure!(Instant::now() < end, "{signal} left an emulator running");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
