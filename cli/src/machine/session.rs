//! A command that runs in a VM.
use super::board::{Board, Failure, TICK};
use super::transport::Outbox;
use super::{Machine, Vm};
use anyhow::{Result, anyhow, bail};
use hostlink::agent::{self, Exit, Output, ToGuest, ToHost, Window};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Environment of commands, unless the caller changes it. Init puts the trusted programs in
/// front of `PATH`.
pub const ENVIRONMENT: &[&str] = &[
    "HOME=/root",
    "USER=root",
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// A command line as the agent takes it.
pub fn command<S: AsRef<[u8]>>(argv: impl IntoIterator<Item = S>) -> agent::Command {
    agent::Command {
        argv: argv.into_iter().map(|word| word.as_ref().to_vec()).collect(),
        env: ENVIRONMENT.iter().map(|text| text.as_bytes().to_vec()).collect(),
        cwd: b"/root".to_vec(),
        tty: None,
    }
}

/// What a finished command left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Its status; 128 + n for signal n, as shells have it.
    pub status: u8,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Where a command's output goes.
pub trait Sink {
    /// Takes bytes of an output.
    ///
    /// # Errors
    /// When they can't be written.
    fn take(&mut self, output: Output, bytes: &[u8]) -> std::io::Result<()>;
}

/// Output to this process's own standard output and error.
pub struct Own;

impl Sink for Own {
    fn take(&mut self, output: Output, bytes: &[u8]) -> std::io::Result<()> {
        match output {
            Output::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Output::Stderr => std::io::stderr().lock().write_all(bytes),
        }
    }
}

/// Output kept in memory.
#[derive(Default)]
pub struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Sink for Kept {
    fn take(&mut self, output: Output, bytes: &[u8]) -> std::io::Result<()> {
        match output {
            Output::Stdout => self.stdout.extend_from_slice(bytes),
            Output::Stderr => self.stderr.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// Credit for standard input, shared with the thread that reads it.
#[derive(Default)]
struct Credit {
    window: Mutex<Window>,
    changed: Condvar,
}

/// A session that was started with [`Machine::exec`].
pub struct Session {
    vm: Vm,
    number: agent::Session,
    events: Receiver<ToHost>,
    outbox: Outbox,
    board: Arc<Board>,
    credit: Arc<Credit>,
    /// Received bytes that no credit was given back for yet, per output.
    owed: [u32; 2],
    windows: [Window; 2],
}

impl Session {
    pub(super) fn new(
        vm: Vm,
        number: agent::Session,
        events: Receiver<ToHost>,
        outbox: Outbox,
        board: Arc<Board>,
    ) -> Self {
        let credit = Arc::default();
        let (owed, windows) = Default::default();
        Self { vm, number, events, outbox, board, credit, owed, windows }
    }

    /// Sends what `input` gives as standard input, from a thread of its own. The thread may stay
    /// blocked in a read when the command ends; it ends with this process.
    ///
    /// # Errors
    /// No thread.
    pub fn feed(&self, mut input: impl Read + Send + 'static) -> Result<()> {
        let (vm, session) = (self.vm, self.number);
        let (outbox, credit) = (self.outbox.clone(), self.credit.clone());
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut buffer = vec![0; agent::MAX_DATA];
            loop {
                let allowed = credit.wait();
                let data = match input.read(&mut buffer[..allowed]) {
                    Ok(0) => break,
                    Ok(length) => buffer[..length].to_vec(),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                credit.take(data.len());
                // A piece of at most MAX_DATA fits into a message.
                let _ = outbox.agent(vm, &ToGuest::Stdin { session, data });
            }
            let _ = outbox.agent(vm, &ToGuest::CloseStdin { session });
        })?;
        Ok(())
    }

    /// Ends standard input at once.
    pub fn close_stdin(&self) {
        let message = ToGuest::CloseStdin { session: self.number };
        let _ = self.outbox.agent(self.vm, &message);
    }

    /// Sends a signal to the command.
    pub fn signal(&self, signal: u8) {
        let message = ToGuest::Signal { session: self.number, signal };
        let _ = self.outbox.agent(self.vm, &message);
    }

    /// Waits for the command's end; `None` when `limit` passes first.
    ///
    /// # Errors
    /// The machine or the VM fails, or the command can't be executed.
    pub fn wait(
        &mut self,
        machine: &Machine,
        sink: &mut dyn Sink,
        limit: Option<Duration>,
    ) -> Result<Option<u8>> {
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            let event = match self.events.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    let failed = |f: Failure| machine.explain(f, "", Duration::ZERO);
                    self.board.check(self.vm).map_err(failed)?;
                    if end.is_some_and(|end| Instant::now() >= end) {
                        return Ok(None);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the session is closed"),
            };
            if let Some(exit) = self.event(event, sink)? {
                return Ok(Some(match exit {
                    Exit::Status(status) => status,
                    Exit::Signal(signal) => 128u8.saturating_add(signal),
                }));
            }
        }
    }

    fn event(&mut self, event: ToHost, sink: &mut dyn Sink) -> Result<Option<Exit>> {
        match event {
            ToHost::Output { output, data, .. } => self.output(output, &data, sink)?,
            ToHost::Credit { bytes, .. } => self.credit.grant(bytes),
            ToHost::Exited { exit, .. } => return Ok(Some(exit)),
            ToHost::Error { errno, text, .. } => return Err(NotRun { errno, text }.into()),
            _ => {}
        }
        Ok(None)
    }

    fn output(&mut self, output: Output, data: &[u8], sink: &mut dyn Sink) -> Result<()> {
        let [stdout, stderr] = &mut self.windows;
        let [owed_stdout, owed_stderr] = &mut self.owed;
        let (window, owed) = match output {
            Output::Stdout => (stdout, owed_stdout),
            Output::Stderr => (stderr, owed_stderr),
        };
        window.take(data.len()).map_err(|_| {
            anyhow!("the {} VM's init sent more than it was allowed to", self.vm.name())
        })?;
        sink.take(output, data)?;
        *owed += u32::try_from(data.len())?;
        if *owed >= agent::WINDOW / 4 {
            let bytes = std::mem::take(owed);
            window.grant(bytes);
            self.outbox.agent(self.vm, &ToGuest::Credit { session: self.number, output, bytes })?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.board.forget(self.vm, self.number);
    }
}

/// The command could not be executed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotRun {
    /// Linux error number.
    pub errno: u16,
    /// What failed.
    pub text: String,
}

impl NotRun {
    /// The status that shells use for it: 127 not found, 126 anything else.
    #[must_use]
    pub fn status(&self) -> u8 {
        if i32::from(self.errno) == nix::errno::Errno::ENOENT as i32 { 127 } else { 126 }
    }
}

impl std::fmt::Display for NotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for NotRun {}

impl Credit {
    fn wait(&self) -> usize {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        while window.available() == 0 {
            window = self.changed.wait(window).unwrap_or_else(PoisonError::into_inner);
        }
        window.available()
    }

    fn take(&self, bytes: usize) {
        // Never more than what `wait` allowed.
        let _ = self.window.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
    }

    fn grant(&self, bytes: u32) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).grant(bytes);
        self.changed.notify_all();
    }
}

impl Machine {
    /// Runs a command in a VM without input and keeps its output.
    ///
    /// # Errors
    /// As for [`Session::wait`], and when `limit` passes.
    pub fn run(&self, vm: Vm, argv: &[&str], limit: Duration) -> Result<Outcome> {
        let mut session = self.exec(vm, command(argv))?;
        session.close_stdin();
        let mut kept = Kept::default();
        match session.wait(self, &mut kept, Some(limit))? {
            Some(status) => Ok(Outcome { status, stdout: kept.stdout, stderr: kept.stderr }),
            None => {
                session.signal(9);
                bail!(
                    "'{}' did not end within {} s; it wrote: {}{}",
                    argv.join(" "),
                    limit.as_secs(),
                    String::from_utf8_lossy(&kept.stdout),
                    String::from_utf8_lossy(&kept.stderr)
                )
            }
        }
    }
}
