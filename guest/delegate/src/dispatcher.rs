//! The dispatcher: root of the hierarchy of delegates.

use crate::door::Door;
use crate::hypervisor::Hypervisor;
use crate::pool::Pool;
use crate::process::Process;
use crate::worker::serve;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, set_child_subreaper, setrlimit};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::Kind;

/// How long the dispatcher looks for a hypervisor that is not ready yet, and how often.
const PATIENCE: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(50);

fn prepare() -> io::Result<()> {
    guest_sys::fork::ignore_ends_of_children()?;
    guest_sys::signals::hold_events()?;
    // Delegates whose parent has ended stay in this hierarchy.
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    Ok(())
}

fn open<H: Hypervisor>(process: &Process<H>) -> io::Result<Door<H>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match process.door(Kind::Dispatcher, 0) {
            Err(_) if Instant::now() < end => std::thread::sleep(PERIOD),
            outcome => return outcome,
        }
    }
}

/// Runs until the hypervisor goes away; workers look for a request for up to `spin` before they
/// sleep. All delegates end with the caller's process.
///
/// # Errors
/// There is no hypervisor, or the process lacks what it needs.
pub fn run<H: Hypervisor>(hypervisor: H, spin: Duration) -> io::Result<()> {
    run_with(hypervisor, Pool::new()?, spin)
}

/// The same, on a given pool.
///
/// # Errors
/// As [`run`].
pub fn run_with<H: Hypervisor>(hypervisor: H, pool: Arc<Pool>, spin: Duration) -> io::Result<()> {
    prepare()?;
    crate::identity::set_dispatcher();
    // Nobody ever writes: the delegates see the end of the pipe when this process ends.
    let (lifeline, _held) = pipe_with(PipeFlags::CLOEXEC)?;
    let process = Process::dispatcher(hypervisor, pool, Arc::new(lifeline), spin);
    let mut door = open(&process)?;
    serve(&mut door, process.sockets(), &process).map_err(io::Error::other)
}
