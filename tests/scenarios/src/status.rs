//! Standard streams and the exit status of `trapline run` are those of the command.
use crate::rig::{trapline, within};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// The scenario.
pub fn run() -> Result<()> {
    streams()?;
    for (script, status) in [("kill -TERM $$", 143), ("exec /usr/bin/nothing-there", 127)] {
        let mut command = trapline()?;
        let output = within(command.args(["run", "--", "sh", "-c", script]), LIMIT)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(status), "{script}: {}: {said}", output.status);
    }
    let output = within(trapline()?.args(["run", "--", "no-such-command"]), LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(127), "{}", output.status);
    ensure!(said.contains("no-such-command"), "it does not name the command: {said}");
    Ok(())
}

/// Binary data survives, both outputs are kept apart, the status comes out.
fn streams() -> Result<()> {
    let input: Vec<u8> = (0..600_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut command = trapline()?;
    command.args(["run", "--", "sh", "-c", "cat; echo problem >&2; exit 42"]);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output()?;
    ensure!(writer.join().is_ok_and(|result| result.is_ok()), "input was not taken");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(42), "{}: {said}", output.status);
    ensure!(output.stdout == input, "{} of {} bytes", output.stdout.len(), input.len());
    ensure!(said.contains("problem"), "standard error is missing: {said}");
    Ok(())
}
