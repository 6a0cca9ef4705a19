//! Nothing is left running, whatever happens: children are started through this program itself,
//! which asks the kernel to kill it with its parent and then becomes the child. So they end even
//! when the host command is killed by a signal that it can't handle.
use crate::command::tool;
use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

/// Hidden subcommand: `trapline __child PARENT PROGRAM ARGS…`.
pub const SUBCOMMAND: &str = "__child";

static ENABLED: AtomicBool = AtomicBool::new(false);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Says that the running program knows [`SUBCOMMAND`] (a test program does not).
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// A command that ends with the thread that starts it.
#[must_use]
pub fn child(program: &str) -> Command {
    let Ok(own) = std::env::current_exe() else { return tool(program) };
    if !ENABLED.load(Ordering::Relaxed) {
        return tool(program);
    }
    let mut command = Command::new(own);
    command.arg(SUBCOMMAND).arg(std::process::id().to_string());
    command.arg(tool(program).get_program());
    command
}

/// Carries [`SUBCOMMAND`] out; returns only when it fails.
///
/// # Errors
/// The parent is gone, or the program can't be executed.
pub fn become_child(parent: u32, arguments: &[OsString]) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("can't tie a program to its parent")?;
    // The parent may have ended before the line above.
    if nix::unistd::getppid().as_raw() != i32::try_from(parent)? {
        bail!("the parent is gone");
    }
    let (program, rest) = arguments.split_first().context("no program")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("can't run {}", program.to_string_lossy()))
}

/// Notes the signals that ask for an end. Whoever waits looks at [`interrupted`]; what does not
/// wait in time is ended the hard way.
///
/// # Errors
/// When the handlers can't be set.
pub fn watch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if SIGNAL.swap(signal, Ordering::Relaxed) == 0 {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_secs(3));
                    std::process::exit(128 + signal);
                });
            } else {
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

/// The signal that asked for an end, if there was one.
#[must_use]
pub fn interrupted() -> Option<i32> {
    Some(SIGNAL.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// The end that a signal asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted(pub i32);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Fails once a signal has asked for an end.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> Result<()> {
    match interrupted() {
        Some(signal) => Err(Interrupted(signal).into()),
        None => Ok(()),
    }
}
