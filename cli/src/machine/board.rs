//! What is known about the running machine, and waiting for it to change.
use super::{Note, Observer, Vm};
use crate::supervise;
use hostlink::memory::Sample;
use hostlink::relay::Stats;
use hostlink::{agent, control, relay};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often those who wait look for signals.
pub const TICK: Duration = Duration::from_millis(100);

/// Why waiting came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// A signal asks this command to end.
    Signal(i32),
    /// The machine ended.
    Machine(String),
    /// A VM failed.
    Vm(Vm, String),
    /// Too much time passed; the VM that was waited for.
    Time(Option<Vm>),
}

/// State of one VM.
#[derive(Default, Debug)]
pub struct VmState {
    /// Its agent takes commands.
    pub ready: bool,
    /// Why it can't go on.
    pub failed: Option<String>,
    /// Unfinished last line of its console.
    line: Vec<u8>,
    sessions: HashMap<agent::Session, Sender<agent::ToHost>>,
}

/// What is known.
#[derive(Default)]
pub struct State {
    vms: [VmState; 2],
    /// The link server runs.
    pub up: bool,
    /// Remote calls can be serviced.
    pub service: bool,
    /// Latest statistics, until someone takes them.
    pub stats: Option<Stats>,
    /// Latest answer about memory, until someone takes it.
    pub memory: Option<Sample>,
    /// Latest answer of the relay, until someone takes it.
    pub done: Option<String>,
    /// Why the machine ended.
    pub ended: Option<String>,
    closing: bool,
}

impl State {
    /// State of a VM.
    #[must_use]
    pub fn vm(&mut self, vm: Vm) -> &mut VmState {
        let [compute, service] = &mut self.vms;
        if vm == Vm::Compute { compute } else { service }
    }
}

/// Shared by the threads that read from the machine and those that wait for it.
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
    observer: Observer,
}

impl Board {
    /// Nothing known yet.
    #[must_use]
    pub fn new(observer: Observer) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), observer }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes (or reads) the state.
    pub fn change<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let result = action(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `found` finds something. With `vm`, that VM's failure ends the wait.
    ///
    /// # Errors
    /// Why it won't happen.
    pub fn wait<T>(
        &self,
        limit: Duration,
        vm: Option<Vm>,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Failure> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(value) = found(&mut state) {
                return Ok(value);
            }
            Self::failure(&mut state, vm)?;
            if Instant::now() >= end {
                return Err(Failure::Time(vm));
            }
            let waited = self.changed.wait_timeout(state, TICK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn failure(state: &mut State, vm: Option<Vm>) -> Result<(), Failure> {
        if let Some(signal) = supervise::interrupted() {
            return Err(Failure::Signal(signal));
        }
        if let Some(why) = &state.ended {
            return Err(Failure::Machine(why.clone()));
        }
        if let Some(vm) = vm
            && let Some(why) = state.vm(vm).failed.clone()
        {
            return Err(Failure::Vm(vm, why));
        }
        Ok(())
    }

    /// Fails as [`Board::wait`] would.
    ///
    /// # Errors
    /// Why there is nothing to wait for.
    pub fn check(&self, vm: Vm) -> Result<(), Failure> {
        Self::failure(&mut self.lock(), Some(vm))
    }

    /// Opens a session: its messages arrive in the receiver.
    #[must_use]
    pub fn open(&self, vm: Vm, number: agent::Session) -> Receiver<agent::ToHost> {
        let (sender, receiver) = channel();
        self.change(|state| state.vm(vm).sessions.insert(number, sender));
        receiver
    }

    /// Forgets a session.
    pub fn forget(&self, vm: Vm, number: agent::Session) {
        self.change(|state| state.vm(vm).sessions.remove(&number));
    }

    /// From now on the machine's end is expected.
    pub fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// The machine is gone.
    pub fn machine_ended(&self, why: String) {
        self.change(|state| {
            if !state.closing && state.ended.is_none() {
                state.ended = Some(why);
            }
        });
    }

    fn note(&self, note: Note) {
        (self.observer)(note);
    }

    /// Bytes of a kernel console: shown, and searched for the kernel's last words.
    pub fn console(&self, vm: Vm, bytes: &[u8]) {
        self.note(Note::Console(vm, bytes.to_vec()));
        let words: Vec<String> = self.change(|state| {
            let line = &mut state.vm(vm).line;
            let mut words = Vec::new();
            for byte in bytes {
                if *byte == b'\n' {
                    words.extend(last_words(&std::mem::take(line)));
                } else if line.len() < 1000 {
                    line.push(*byte);
                }
            }
            words
        });
        words.into_iter().for_each(|why| self.vm_failed(vm, why));
    }

    /// A VM is over. Whoever waits for the compute VM says so; nobody waits for the service VM
    /// for long, so that is said here.
    fn vm_failed(&self, vm: Vm, why: String) {
        let first = self.change(|state| {
            let (first, closing) = (state.vm(vm).failed.is_none(), state.closing);
            state.vm(vm).failed.get_or_insert_with(|| why.clone());
            first && !closing
        });
        if first && vm == Vm::Service {
            self.note(Note::Line(format!("the service VM failed: {why}")));
        }
    }

    /// A message of a VM's agent.
    pub fn agent(&self, vm: Vm, message: agent::ToHost) {
        use agent::ToHost as M;
        let session = match &message {
            M::Ready { version, .. } => {
                let wrong = *version != agent::VERSION;
                let again = self.change(|state| {
                    let state = state.vm(vm);
                    state.ready = !wrong;
                    let failed = state.failed.take();
                    if wrong {
                        state.failed = Some("its init speaks another version".into());
                    }
                    failed.is_some() && !wrong
                });
                if again {
                    self.note(Note::Line(format!("the {} VM runs again", vm.name())));
                }
                return;
            }
            M::Log { text } => {
                return self.note(Note::Line(format!("{} VM: {text}", vm.name())));
            }
            M::Pong { .. } => return,
            M::Started { session, .. }
            | M::Output { session, .. }
            | M::Credit { session, .. }
            | M::Exited { session, .. }
            | M::Error { session, .. } => *session,
            M::FileDone { file, .. } | M::FileData { file, .. } => *file,
        };
        self.change(|state| {
            if let Some(sender) = state.vm(vm).sessions.get(&session) {
                // A receiver that is gone does not care.
                let _ = sender.send(message);
            }
        });
    }

    /// A message of the relay.
    pub fn relay(&self, payload: &[u8]) {
        match relay::ToHost::decode(payload) {
            Ok(relay::ToHost::Log { text }) => self.note(Note::Line(text)),
            Ok(relay::ToHost::Call { text }) => self.note(Note::Call(text)),
            Ok(relay::ToHost::Stats(stats)) => self.change(|s| s.stats = Some(*stats)),
            Ok(relay::ToHost::Done { error }) => self.change(|s| s.done = Some(error)),
            Ok(relay::ToHost::Service { ready }) => self.change(|s| s.service = ready),
            Err(_) => self.note(Note::Line("the relay sent a malformed message".into())),
        }
    }

    /// A message of the link server.
    pub fn control(&self, payload: &[u8]) {
        match control::ToHost::decode(payload) {
            Ok(control::ToHost::Up { version }) if version == control::VERSION => {
                self.change(|state| state.up = true);
            }
            Ok(control::ToHost::Up { .. }) => {
                self.machine_ended("it was built from another version".into());
            }
            Ok(control::ToHost::Dropped { stream, bytes }) => {
                self.note(Note::Line(format!("{bytes} bytes for stream {stream} were lost")));
            }
            Ok(control::ToHost::Memory(sample)) => self.change(|s| s.memory = Some(sample)),
            Ok(control::ToHost::Failed { text }) => self.failed_part(text),
            Err(_) => self.machine_ended("the link server sent a malformed message".into()),
        }
    }

    /// A failed part whose text begins with a VM's name (`compute: …`) is that VM's failure.
    fn failed_part(&self, text: String) {
        for vm in [Vm::Compute, Vm::Service] {
            let rest = text.strip_prefix(vm.name()).and_then(|rest| rest.strip_prefix(": "));
            if let Some(why) = rest {
                return self.vm_failed(vm, why.to_owned());
            }
        }
        self.note(Note::Line(text));
    }
}

/// The reason in a line that a Linux kernel writes when it can't go on, or its monitor when it is
/// over.
fn last_words(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    if let Some((_, why)) = text.split_once(hostlink::VM_ENDED) {
        return Some(why.chars().filter(|c| !c.is_control()).collect());
    }
    let at = text.find("Kernel panic - not syncing")?;
    let clean: String = text.get(at..)?.chars().filter(|c| !c.is_control()).collect();
    (!clean.starts_with("Kernel panic - not syncing: end")).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn board() -> Board {
        Board::new(Arc::new(|_| {}))
    }

    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn a_panic_cut_in_two_is_that_vms_failure() {
        let board = board();
        board.console(Vm::Service, b"[ 1.0] Kernel panic - not syn");
        assert_eq!(board.check(Vm::Service), Ok(()));
        board.console(Vm::Service, b"cing: VFS\r\nmore");
        let failure = board.check(Vm::Service).unwrap_err();
        assert_eq!(failure, Failure::Vm(Vm::Service, "Kernel panic - not syncing: VFS".into()));
        assert_eq!(board.check(Vm::Compute), Ok(()));
    }

    #[test]
    fn the_monitors_last_line_is_that_vms_failure() {
        let board = board();
        let line = format!("\r\n{}it powered itself off\r\n", hostlink::VM_ENDED);
        board.console(Vm::Compute, line.as_bytes());
        let failure = board.check(Vm::Compute).unwrap_err();
        assert_eq!(failure, Failure::Vm(Vm::Compute, "it powered itself off".into()));
    }

    #[test]
    fn waiting_ends_with_the_machine_or_the_time() {
        let board = board();
        let wait = |vm| board.wait(SHORT, vm, |s| s.service.then_some(()));
        assert_eq!(wait(Some(Vm::Compute)), Err(Failure::Time(Some(Vm::Compute))));
        board.machine_ended("gone".into());
        assert_eq!(wait(None), Err(Failure::Machine("gone".into())));
    }

    #[test]
    fn malformed_messages_end_nothing_else_than_the_link() {
        let board = board();
        board.relay(&[0xff; 9]);
        assert_eq!(board.check(Vm::Compute), Ok(()));
        board.control(&[0xff; 9]);
        assert!(board.check(Vm::Compute).is_err());
    }
}
