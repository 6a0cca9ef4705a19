//! Children of init: its own and the orphans of others.

use hostlink::agent::Exit;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};
use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Who waits for which child.
#[derive(Debug, Default)]
pub struct Reaper {
    /// A child is reaped, and one is started, under this lock only: so an end is never missed, and
    /// the standard library itself can wait for a child whose `exec` failed.
    waiting: Mutex<HashMap<Pid, Sender<Exit>>>,
    started: Condvar,
}

fn exit_of(status: WaitStatus) -> Exit {
    let low = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => Exit::Signal(low(signal)),
        (status, None) => Exit::Status(low(status.unwrap_or(255))),
    }
}

impl Reaper {
    /// Starts the thread that waits for all children for ever.
    #[must_use]
    pub fn start() -> Arc<Self> {
        let reaper = Arc::<Self>::default();
        let own = reaper.clone();
        std::thread::spawn(move || {
            loop {
                own.reap_next();
            }
        });
        reaper
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Sender<Exit>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of any child; without a child, until one is started.
    fn reap_next(&self) {
        let ended = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let mut waiting = self.lock();
        if ended.is_err() {
            // No child, or none any more: the next one is announced. The timeout covers one started
            // just before.
            let patience = std::time::Duration::from_millis(200);
            let _ = self.started.wait_timeout(waiting, patience);
            return;
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(listener) = waiting.remove(&pid) {
                // Nobody has to listen.
                let _ = listener.send(exit_of(status));
            }
        }
    }

    /// Starts a child; its end will come out of the receiver.
    ///
    /// # Errors
    /// As `Command::spawn`.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Receiver<Exit>)> {
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let (sender, receiver) = channel();
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            waiting.insert(pid, sender);
        }
        drop(waiting);
        self.started.notify_all();
        Ok((child, receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_out_whatever_their_kind_and_failures_are_reported() {
        let reaper = super::super::tests::REAPER.get_or_init(Reaper::start);
        let run = |script: &str| {
            let (_, end) = reaper.spawn(Command::new("sh").args(["-c", script])).expect("sh");
            end.recv().expect("an end")
        };
        assert_eq!(run("exit 7"), Exit::Status(7));
        assert_eq!(run("kill -9 $$"), Exit::Signal(9));
        for _ in 0..20 {
            assert!(reaper.spawn(&mut Command::new("/nowhere/at/all")).is_err());
        }
        assert_eq!(run("(sleep 0.1; exit 1)& exit 0"), Exit::Status(0));
    }
}
