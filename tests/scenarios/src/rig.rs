//! What scenarios have in common.
use anyhow::{Context, Result, bail, ensure};
use hostlink::relay::Stats;
use std::io::Cursor;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trapline::cache::Cache;
use trapline::launch::{self, Images, Options};
use trapline::machine::session::{Kept, Outcome, command};
use trapline::machine::{Machine, Note, Vm};
use trapline::parts::Repository;
use trapline::progress::Progress;

/// How long an ordinary command gets.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A booted machine.
pub struct Rig {
    /// The machine.
    pub machine: Machine,
}

/// Images with the default packages.
pub fn images(cache: &Cache) -> Result<Images> {
    launch::prepare(cache, &[], &Progress::new(false))
}

impl Rig {
    /// Boots with these programs trusted.
    pub fn boot(trust: &[&str]) -> Result<Self> {
        Self::boot_with(Options {
            trust: trust.iter().map(|name| (*name).to_owned()).collect(),
            ..Options::default()
        })
    }

    /// Boots with any options.
    pub fn boot_with(options: Options) -> Result<Self> {
        let cache = Cache::open()?;
        let images = launch::prepare(&cache, &options.packages, &Progress::new(false))?;
        let observer = Arc::new(|note| {
            if let Note::Line(text) | Note::Call(text) = note {
                eprintln!("    {text}");
            }
        });
        let progress = Progress::new(false);
        let machine = launch::boot(&cache, &images, &options, &progress, observer)?;
        launch::wait_for_both(&machine, &options, &progress)?;
        Ok(Self { machine })
    }

    /// Runs a shell script in the compute VM.
    pub fn compute(&self, script: &str) -> Result<Outcome> {
        self.machine.run(Vm::Compute, &["sh", "-c", script], LIMIT)
    }

    /// Runs a shell script in the service VM.
    pub fn service(&self, script: &str) -> Result<Outcome> {
        self.machine.run(Vm::Service, &["sh", "-c", script], LIMIT)
    }

    /// Runs a script in the compute VM that must succeed; its standard output.
    pub fn succeed(&self, script: &str) -> Result<String> {
        succeeded(script, &self.compute(script)?)
    }

    /// Makes an executable file in the compute VM.
    pub fn put(&self, bytes: &[u8], place: &str) -> Result<()> {
        let write = format!("cat > {place} && chmod 755 {place}");
        let mut session = self.machine.exec(Vm::Compute, command(["sh", "-c", &write]))?;
        session.feed(Cursor::new(bytes.to_vec()))?;
        let status = session.wait(&self.machine, &mut Kept::default(), Some(LIMIT))?;
        ensure!(status == Some(0), "{place} could not be written: {status:?}");
        Ok(())
    }

    /// Waits until the relay's counters satisfy a condition.
    pub fn wait_for_stats(&self, what: &str, good: impl Fn(&Stats) -> bool) -> Result<Stats> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let stats = self.machine.stats()?;
            if good(&stats) {
                return Ok(stats);
            }
            if Instant::now() > end {
                bail!("{what}: {stats:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a script succeeds in the compute VM.
    pub fn wait_until(&self, script: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let outcome = self.compute(script)?;
            if outcome.status == 0 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("'{script}' still fails after {} s: {}", limit.as_secs(), text(&outcome));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// Standard output and error of a command as text.
pub fn text(outcome: &Outcome) -> String {
    format!(
        "status {}, output '{}', error '{}'",
        outcome.status,
        String::from_utf8_lossy(&outcome.stdout).trim(),
        String::from_utf8_lossy(&outcome.stderr).trim()
    )
}

/// Standard output of a command that must have succeeded.
pub fn succeeded(what: &str, outcome: &Outcome) -> Result<String> {
    ensure!(outcome.status == 0, "'{what}': {}", text(outcome));
    Ok(String::from_utf8_lossy(&outcome.stdout).into_owned())
}

/// The command `./trapline`, with its standard streams captured.
pub fn trapline() -> Result<Command> {
    let path: PathBuf = Repository::find()?.path("trapline");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Runs a command; fails when it takes longer than `limit`.
pub fn within(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = command.spawn().context("can't start trapline")?;
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(child.wait_with_output()?)
}

/// Checks that `./trapline` with these arguments fails soon, and says these words.
pub fn fails_saying(arguments: &[&str], words: &[&str]) -> Result<()> {
    let mut command = trapline()?;
    command.args(arguments);
    command_fails_saying(&mut command, words)
}

/// Checks that a command fails soon, and says these words on standard error.
pub fn command_fails_saying(command: &mut Command, words: &[&str]) -> Result<()> {
    let output = within(command, LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it succeeded: {said}");
    for word in words {
        ensure!(said.contains(word), "it does not say '{word}': {said}");
    }
    Ok(())
}

/// Process numbers of the emulators that run now.
pub fn emulators() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"qemu-system") || line.windows(12).any(|w| w == b"/qemu-system")
        })
        .collect()
}
