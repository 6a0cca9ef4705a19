//! Asking a running machine: from this process, or from another one through a socket that bears the
//! number of the process that runs it.
use super::board::{Board, Failure};
use super::transport::Outbox;
use crate::cache::Cache;
use anyhow::{Context, Result, bail};
use hostlink::Stream;
use hostlink::control::ToMachine;
use hostlink::memory::Sample;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the machine, one question at a time.
pub struct Asker {
    board: Arc<Board>,
    outbox: Outbox,
    turn: Mutex<()>,
}

impl Asker {
    /// For the machine that this is joined to.
    #[must_use]
    pub fn new(board: Arc<Board>, outbox: Outbox) -> Self {
        Self { board, outbox, turn: Mutex::new(()) }
    }

    /// What the memory managers and the kernel tell.
    ///
    /// # Errors
    /// No answer.
    pub fn memory(&self) -> Result<Sample, Failure> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.board.change(|state| state.memory = None);
        self.outbox.send(Stream::Control, ToMachine::GetMemory.encode());
        self.board.wait(PATIENCE, None, |state| state.memory.take())
    }
}

/// The name of a running machine; it goes with the value.
pub struct Door(PathBuf);

impl Drop for Door {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn folder(cache: &Cache) -> Result<PathBuf> {
    cache.folder("running")
}

/// Answers those who connect to the socket of this process.
///
/// # Errors
/// The socket can't be made.
pub fn open(cache: &Cache, asker: Arc<Asker>) -> Result<Door> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = folder(cache)?.join(format!("{}.{number}", std::process::id()));
    // One that is there is of a process that had this number before.
    let _ = std::fs::remove_file(&path);
    let socket = UnixListener::bind(&path).context("can't make a socket for `trapline top`")?;
    let serve = move || {
        for caller in socket.incoming().flatten() {
            let Ok(sample) = asker.memory() else { return };
            // A caller that does not wait for its answer has none.
            let _ = answer(caller, &sample);
        }
    };
    std::thread::Builder::new().name("top".into()).spawn(serve)?;
    Ok(Door(path))
}

fn answer(mut caller: UnixStream, sample: &Sample) -> Result<()> {
    caller.set_write_timeout(Some(PATIENCE))?;
    Ok(caller.write_all(&serde_json::to_vec(sample)?)?)
}

/// The machine that was started last, of those that run, or of those that the process `of` runs.
///
/// # Errors
/// None runs.
pub fn find(cache: &Cache, of: Option<u32>) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(cache)?)?.flatten() {
        let path = entry.path();
        if of.is_some_and(|pid| path.file_stem() != Some(pid.to_string().as_ref())) {
            continue;
        }
        if UnixStream::connect(&path).is_ok() {
            found.push((entry.metadata()?.modified()?, path));
        } else {
            // Its process did not end in order.
            let _ = std::fs::remove_file(&path);
        }
    }
    match (found.into_iter().max(), of) {
        (Some((_, path)), _) => Ok(path),
        (None, Some(pid)) => {
            bail!("process {pid} runs no machine; without --pid, any one is shown")
        }
        (None, None) => bail!("no machine is running; start one with `trapline run`"),
    }
}

/// Asks a machine of another process: what its managers and its kernel tell, and when.
///
/// # Errors
/// It has ended, or does not answer.
pub fn ask(path: &Path) -> Result<(Instant, Sample)> {
    let mut socket = UnixStream::connect(path).context("the machine has ended")?;
    socket.set_read_timeout(Some(PATIENCE * 2))?;
    let mut text = Vec::new();
    socket.read_to_end(&mut text).context("the machine does not answer")?;
    if text.is_empty() {
        bail!("the machine has ended");
    }
    Ok((Instant::now(), serde_json::from_slice(&text)?))
}
