//! The running machine: QEMU, the link into it, commands inside its virtual machines.
pub mod attach;
pub mod backlog;
pub mod board;
pub mod kernel_test;
pub mod qemu;
pub mod session;
pub mod transport;

use crate::cache::Cache;
use crate::supervise;
use anyhow::{Context, Result, anyhow, bail};
use attach::Asker;
use board::Board;
use hostlink::memory::Sample;
use hostlink::relay::{Form, Stats, ToRelay};
use hostlink::{Stream, agent};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use transport::Outbox;

/// A virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Vm {
    /// Where one works.
    Compute,
    /// Where the network is.
    Service,
}

impl Vm {
    /// Its name, as in "the … VM".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Vm::Compute => "compute",
            Vm::Service => "service",
        }
    }

    const fn agent(self) -> Stream {
        match self {
            Vm::Compute => Stream::AgentCompute,
            Vm::Service => Stream::AgentService,
        }
    }
}

/// Something to show while the machine runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// A line that is always shown.
    Line(String),
    /// A remotely serviced call.
    Call(String),
    /// Bytes of a kernel console.
    Console(Vm, Vec<u8>),
}

/// Takes what there is to show.
pub type Observer = Arc<dyn Fn(Note) + Send + Sync>;

/// How long the parts of the machine get to come up: `$TRAPLINE_BOOT_LIMIT` seconds, or 120.
#[must_use]
pub fn boot_limit() -> Duration {
    let seconds = std::env::var("TRAPLINE_BOOT_LIMIT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

/// A machine that runs; it ends with the value.
pub struct Machine {
    child: Child,
    board: Arc<Board>,
    outbox: Outbox,
    asker: Arc<Asker>,
    _door: Option<attach::Door>,
    logs: PathBuf,
    next: AtomicU32,
    started: Instant,
    /// Sockets, and the disk, as long as QEMU may still have to open them.
    folder: Mutex<Option<TempDir>>,
    disk: Option<File>,
}

impl Machine {
    /// Starts QEMU and connects to it.
    ///
    /// # Errors
    /// QEMU is missing or refuses.
    pub fn start(cache: &Cache, setup: &qemu::Setup, observer: Observer) -> Result<Self> {
        let logs = log_folder(cache)?;
        let sockets = tempfile::Builder::new()
            .prefix("trapline-")
            .tempdir()
            .context("can't make a temporary folder for sockets")?;
        let started = Instant::now();
        let board = Arc::new(Board::new(observer));
        let listeners = transport::listen(sockets.path(), setup.streams())?;
        let mut command = setup.command(sockets.path(), &logs)?;
        let disk = setup
            .disk
            .map(|_| File::options().read(true).write(true).open(sockets.path().join(qemu::DISK)));
        let disk = disk.transpose().context("can't open the disk")?;
        let mut child = command.spawn().context("can't run qemu-system-x86_64")?;
        let outbox = match transport::connect(listeners, &mut child, &board, &logs) {
            Ok(outbox) => outbox,
            Err(error) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                let said = tail(&logs.join("qemu.log"), 5);
                return Err(if said.is_empty() { error } else { anyhow!("QEMU failed: {said}") });
            }
        };
        let asker = Arc::new(Asker::new(board.clone(), outbox.clone()));
        let door = matches!(setup.kind, qemu::Kind::Trapline)
            .then(|| attach::open(cache, asker.clone()))
            .transpose()?;
        let (next, folder) = (AtomicU32::new(1), Mutex::new(Some(sockets)));
        Ok(Self { child, board, outbox, asker, _door: door, logs, next, started, folder, disk })
    }

    /// QEMU's process number.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the machine's own servers run.
    ///
    /// # Errors
    /// The machine fails, or too much time passes.
    pub fn wait_up(&self) -> Result<()> {
        let what = "the machine's servers did not start";
        self.wait(boot_limit(), what, None, |state| state.up.then_some(()))?;
        // QEMU has opened everything: sockets and disk need no names any more.
        drop(self.folder.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }

    /// The disk with swapped pages, if the machine has one.
    #[must_use]
    pub const fn disk(&self) -> Option<&File> {
        self.disk.as_ref()
    }

    /// Waits until the agent of a VM takes commands.
    ///
    /// # Errors
    /// The machine or the VM fails, or too much time passes.
    pub fn wait_ready(&self, vm: Vm) -> Result<()> {
        let what = format!("the {} VM did not boot", vm.name());
        self.wait(boot_limit(), &what, Some(vm), |state| state.vm(vm).ready.then_some(()))
    }

    /// Waits until remote calls can be serviced.
    ///
    /// # Errors
    /// As for [`Machine::wait_ready`].
    pub fn wait_service(&self) -> Result<()> {
        let what = "the service VM has no dispatcher";
        self.wait(boot_limit(), what, Some(Vm::Service), |state| state.service.then_some(()))
    }

    fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        vm: Option<Vm>,
        found: impl FnMut(&mut board::State) -> Option<T>,
    ) -> Result<T> {
        let result = self.board.wait(limit, vm, found);
        result.map_err(|failure| self.explain(failure, what, limit))
    }

    /// Turns a failure into a sentence with what the logs say.
    pub(crate) fn explain(
        &self,
        failure: board::Failure,
        what: &str,
        limit: Duration,
    ) -> anyhow::Error {
        let log = |name: &str| {
            let path = self.logs.join(name);
            let text = tail(&path, 8);
            if text.is_empty() {
                format!(" (log: {})", path.display())
            } else {
                format!("; the last lines of {}:\n{text}", path.display())
            }
        };
        match failure {
            board::Failure::Signal(signal) => supervise::Interrupted(signal).into(),
            board::Failure::Machine(why) => {
                let qemu = tail(&self.logs.join("qemu.log"), 3);
                let qemu = if qemu.is_empty() { qemu } else { format!(" ({qemu})") };
                anyhow!("the machine ended: {why}{qemu}{}", log("kernel.log"))
            }
            board::Failure::Vm(vm, why) => {
                anyhow!("the {} VM failed: {why}{}", vm.name(), log(&console_log(vm)))
            }
            board::Failure::Time(vm) => {
                let name = vm.map_or("kernel.log".into(), console_log);
                anyhow!("{what} within {} s{}", limit.as_secs(), log(&name))
            }
        }
    }

    /// Starts a command in a VM.
    ///
    /// # Errors
    /// A command that does not fit into a message.
    pub fn exec(&self, vm: Vm, command: agent::Command) -> Result<session::Session> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let events = self.board.open(vm, number);
        self.send(vm, &agent::ToGuest::Exec { session: number, command })
            .context("the command line is too long")?;
        Ok(session::Session::new(vm, number, events, self.outbox.clone(), self.board.clone()))
    }

    /// Sends a message to the agent of a VM.
    ///
    /// # Errors
    /// It is too long.
    pub fn send(&self, vm: Vm, message: &agent::ToGuest) -> Result<()> {
        self.outbox.agent(vm, message)
    }

    /// What the relay has counted.
    ///
    /// # Errors
    /// No answer.
    pub fn stats(&self) -> Result<Stats> {
        self.board.change(|state| state.stats = None);
        self.outbox.send(Stream::Relay, ToRelay::GetStats.encode());
        let limit = Duration::from_secs(20);
        let what = "the relay did not answer";
        self.wait(limit, what, None, |state| state.stats.take())
    }

    /// What the memory managers and the kernel tell.
    ///
    /// # Errors
    /// No answer.
    pub fn memory(&self) -> Result<Sample> {
        let answer = self.asker.memory();
        answer.map_err(|failure| {
            self.explain(failure, "the link server did not answer", Duration::from_secs(20))
        })
    }

    /// Chooses the form of interception.
    ///
    /// # Errors
    /// The relay refuses, or does not answer.
    pub fn set_form(&self, form: Form) -> Result<()> {
        self.ask_relay(ToRelay::SetForm(form))
    }

    /// Lets programs of the compute VM choose the form.
    ///
    /// # Errors
    /// As for [`Machine::set_form`].
    pub fn allow_bench(&self) -> Result<()> {
        self.ask_relay(ToRelay::AllowBench(true))
    }

    fn ask_relay(&self, request: ToRelay) -> Result<()> {
        self.board.change(|state| state.done = None);
        self.outbox.send(Stream::Relay, request.encode());
        let limit = Duration::from_secs(20);
        let error =
            self.wait(limit, "the relay did not answer", None, |state| state.done.take())?;
        if error.is_empty() { Ok(()) } else { bail!("the relay refused: {error}") }
    }

    /// Time since power-on.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Process number of QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Folder with the logs of this run.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// True once the machine has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.board.change(|state| state.ended.is_some())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.board.close();
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Name of the log with a VM's kernel console.
#[must_use]
pub fn console_log(vm: Vm) -> String {
    format!("{}.log", vm.name())
}

fn log_folder(cache: &Cache) -> Result<PathBuf> {
    let base = cache.folder("log")?;
    let folder = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&base)
        .context("can't make a folder for logs")?
        .keep();
    // Machines that run at the same time have one each, which must stay as long as they do.
    cache.forget_old("log", &folder, 64);
    Ok(folder)
}

/// The last lines of a text file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
