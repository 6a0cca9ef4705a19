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
        // Others may start emulators of their own meanwhile.
        let ours: Vec<_> = emulators().into_iter().filter(|pid| !before.contains(pid)).collect();
        ensure!(!ours.is_empty(), "no emulator runs");
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let ended = child.wait()?;
        let end = Instant::now() + Duration::from_secs(30);
        ensure!(ended.code() == status, "{signal}: {ended}");
        while emulators().iter().any(|pid| ours.contains(pid)) {
            ensure!(Instant::now() < end, "{signal} left an emulator running");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
