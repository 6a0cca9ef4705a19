//! One command that runs for the host.

use super::streams::{Credit, feed, pump};
use super::{Line, Reaper};
use crate::settings::{LAUNCHER, TRUSTED};
use hostlink::agent::{Command as Wanted, Exit, Output, Session as Number, ToHost, TtySize};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use wire::LINKS;

/// End-of-file character of a terminal (`termios(3)`, VEOF).
const END_OF_FILE: u8 = 4;

/// Where programs are looked up when the host names no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running command.
pub struct Session {
    group: Pid,
    /// Where standard input goes; absent once it is closed.
    input: Mutex<Option<Sender<Vec<u8>>>>,
    window: Arc<Credit>,
    stdout: Arc<Credit>,
    stderr: Arc<Credit>,
    /// The master side, when the command has a terminal.
    terminal: Option<Arc<OwnedFd>>,
}

/// An error number and what it is about.
pub type Failure = (i32, String);

fn failure(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| (error.raw_os_error().unwrap_or(0), format!("{what}: {error}"))
}

impl Session {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Sender<Vec<u8>>>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes for standard input. More than the window holds ends the command's input: the host
    /// broke the rules.
    pub fn input(&self, data: Vec<u8>) {
        let mut sender = self.lock();
        if self.window.take(data.len()).is_err() {
            *sender = None;
        }
        if let Some(sender) = &*sender {
            // The other end is gone only when the session is about to end.
            let _ = sender.send(data);
        }
    }

    /// No more standard input.
    pub fn close_input(&self) {
        let mut sender = self.lock();
        if self.terminal.is_some()
            && let Some(sender) = &*sender
        {
            // A terminal cannot be closed halfway.
            let _ = sender.send(vec![END_OF_FILE]);
        }
        *sender = None;
    }

    /// Credit for an output.
    pub fn grant(&self, output: Output, bytes: u32) {
        match output {
            Output::Stdout => self.stdout.grant(bytes),
            Output::Stderr => self.stderr.grant(bytes),
        }
    }

    /// Signals the command and what it started.
    pub fn signal(&self, signal: u8) {
        if let Some(signal) = Signal::from_named_raw(i32::from(signal)) {
            // The group may be gone: then there is nobody to tell.
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// New size of the terminal.
    pub fn resize(&self, size: TtySize) {
        if let Some(terminal) = &self.terminal {
            // A failure leaves the old size.
            let _ = tcsetwinsize(terminal, window_size(size));
        }
    }
}

fn window_size(size: TtySize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The environment, with the trusted programs' launcher first in `PATH`.
fn environment(wanted: &Wanted) -> impl Iterator<Item = (OsString, OsString)> {
    let split = |pair: &Vec<u8>| {
        let at = pair.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        let (name, value) = pair.split_at_checked(at)?;
        Some((name.to_vec(), value.get(1..)?.to_vec()))
    };
    let mut pairs: Vec<_> = wanted.env.iter().filter_map(split).collect();
    let given = pairs.iter().rposition(|(name, _)| name == b"PATH");
    let path = given.map_or(DEFAULT_PATH.to_vec(), |at| pairs.swap_remove(at).1);
    pairs.retain(|(name, _)| name != b"PATH");
    pairs.push((b"PATH".to_vec(), [LINKS.as_bytes(), b":", &path].concat()));
    pairs.into_iter().map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value)))
}

/// True when `program` is a path on the list of trusted programs: it would not be found through the
/// links.
fn is_trusted_path(program: &OsStr) -> bool {
    let list = std::fs::read(TRUSTED).unwrap_or_default();
    list.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && line == program.as_bytes())
}

fn command_for(wanted: &Wanted) -> Result<Command, Failure> {
    let arguments: Vec<_> = wanted.argv.iter().map(|word| OsStr::from_bytes(word)).collect();
    let Some((program, rest)) = arguments.split_first() else {
        return Err((0, "no command".to_owned()));
    };
    let directory = Path::new(OsStr::from_bytes(&wanted.cwd));
    std::fs::read_dir(directory).map_err(failure(directory.display()))?;
    let mut command = if is_trusted_path(program) {
        let mut command = Command::new(LAUNCHER);
        command.arg0("trusted").args(&arguments);
        command
    } else {
        let mut command = Command::new(program);
        command.args(rest);
        command
    };
    command.env_clear().envs(environment(wanted)).current_dir(directory);
    Ok(command)
}

/// A new pseudo-terminal: the master, and the slave three times as the command's streams.
fn terminal(command: &mut Command, size: TtySize) -> Result<OwnedFd, Failure> {
    let mut make = || {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, window_size(size))?;
        let name = ptsname(&master, Vec::new())?;
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty())?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        Ok(master)
    };
    let master = make().map_err(failure("terminal"))?;
    guest_sys::fork::with_terminal(command);
    Ok(master)
}

/// What the threads of a session work on.
struct Streams {
    input: Option<OwnedFd>,
    outputs: Vec<(Output, OwnedFd)>,
}

fn streams(child: &mut Child, master: Option<&Arc<OwnedFd>>) -> Result<Streams, Failure> {
    let Some(master) = master else {
        let stdout = child.stdout.take().map(|pipe| (Output::Stdout, OwnedFd::from(pipe)));
        let stderr = child.stderr.take().map(|pipe| (Output::Stderr, OwnedFd::from(pipe)));
        let outputs = stdout.into_iter().chain(stderr).collect();
        return Ok(Streams { input: child.stdin.take().map(OwnedFd::from), outputs });
    };
    let copy = || master.try_clone().map_err(failure("terminal"));
    Ok(Streams { input: Some(copy()?), outputs: vec![(Output::Stdout, copy()?)] })
}

/// Starts a command. `ended` is called when all has been sent that there is to say about it.
///
/// # Errors
/// What could not be done; nothing runs then.
pub fn start(
    number: Number,
    wanted: &Wanted,
    line: &Arc<Line>,
    reaper: &Reaper,
    ended: impl FnOnce() + Send + 'static,
) -> Result<Arc<Session>, Failure> {
    let mut command = command_for(wanted)?;
    let master = match wanted.tty {
        Some(size) => Some(Arc::new(terminal(&mut command, size)?)),
        None => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.process_group(0);
            None
        }
    };
    let program = wanted.argv.first().map(|word| String::from_utf8_lossy(word).into_owned());
    let (mut child, exit) =
        reaper.spawn(&mut command).map_err(failure(program.unwrap_or_default()))?;
    // The slave side must not stay open here: the end of output would never come.
    drop(command);
    let streams = streams(&mut child, master.as_ref())?;
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or((0, "no pid".to_owned()))?;
    let (sender, receiver) = channel();
    let session = Arc::new(Session {
        group: pid,
        input: Mutex::new(Some(sender)),
        window: Arc::default(),
        stdout: Arc::default(),
        stderr: Arc::default(),
        terminal: master,
    });
    line.send(&ToHost::Started { session: number, pid: child.id() });
    if let Some(to) = streams.input {
        let (line, window) = (line.clone(), session.window.clone());
        std::thread::spawn(move || feed(number, &to, &receiver, &window, &line));
    }
    follow(number, &session, streams.outputs, line, exit, ended).map_err(failure("pipe"))?;
    Ok(session)
}

/// Starts the threads that pass the outputs on, and the one that reports the end after them.
fn follow(
    number: Number,
    session: &Session,
    outputs: Vec<(Output, OwnedFd)>,
    line: &Arc<Line>,
    exit: Receiver<Exit>,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    // Hung up by the last thread below when the command has ended.
    let (notice, running) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let notice = Arc::new(notice);
    let start = |(output, from)| {
        let credit = match output {
            Output::Stdout => session.stdout.clone(),
            Output::Stderr => session.stderr.clone(),
        };
        let (line, notice) = (line.clone(), notice.clone());
        std::thread::spawn(move || pump(number, output, &from, &notice, &credit, &line))
    };
    let pumps: Vec<_> = outputs.into_iter().map(start).collect();
    let line = line.clone();
    std::thread::spawn(move || {
        let exit = exit.recv().unwrap_or(Exit::Status(255));
        drop(running);
        for pump in pumps {
            // A panic aborts, so there is nothing to hear from a joined thread.
            let _ = pump.join();
        }
        line.send(&ToHost::Exited { session: number, exit });
        ended();
    });
    Ok(())
}
