//! The agent: runs commands for the host command, over the terminal that both share
//! (`hostlink::agent`).

mod files;
mod line;
mod session;
mod spawn;
mod streams;

pub use line::Line;
pub use spawn::Reaper;

use crate::log;
use crate::parameters::Parameters;
use hostlink::agent::{Decoder, Session as Number, ToGuest, ToHost, VERSION};
use session::Session;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the agent says that it is there, until somebody answers.
const READY_PERIOD: Duration = Duration::from_secs(1);

/// The sessions under way.
type Sessions = Arc<Mutex<HashMap<Number, Arc<Session>>>>;

struct Agent {
    line: Arc<Line>,
    reaper: Arc<Reaper>,
    sessions: Sessions,
}

/// Serves the host until the terminal is gone.
pub fn serve(parameters: &Parameters, line: Arc<Line>, reaper: Arc<Reaper>) -> rustix::io::Errno {
    let heard = Arc::new(AtomicBool::new(false));
    announce(parameters, &line, &heard);
    let agent = Agent { line, reaper, sessions: Sessions::default() };
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match agent.line.read(&mut buffer) {
            Ok(length) => length,
            Err(error) => return error,
        };
        decoder.push(buffer.get(..length).unwrap_or_default());
        while let Some(message) = decoder.next_message::<ToGuest>() {
            heard.store(true, Ordering::Relaxed);
            agent.handle(message);
        }
    }
}

/// Says `Ready` until the host has been heard.
fn announce(parameters: &Parameters, line: &Arc<Line>, heard: &Arc<AtomicBool>) {
    let (line, heard, role) = (line.clone(), heard.clone(), parameters.role.to_string());
    std::thread::spawn(move || {
        while !heard.load(Ordering::Relaxed) {
            line.send(&ToHost::Ready {
                version: VERSION,
                role: role.clone(),
                uptime_ms: uptime_ms(),
            });
            std::thread::sleep(READY_PERIOD);
        }
    });
}

fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

impl Agent {
    fn handle(&self, message: ToGuest) {
        match message {
            ToGuest::Exec { session, command } => self.exec(session, command),
            ToGuest::Stdin { session, data } => self.with(session, |s| s.input(data)),
            ToGuest::CloseStdin { session } => self.with(session, Session::close_input),
            ToGuest::Credit { session, output, bytes } => {
                self.with(session, |s| s.grant(output, bytes))
            }
            ToGuest::Signal { session, signal } => self.with(session, |s| s.signal(signal)),
            ToGuest::Resize { session, size } => self.with(session, |s| s.resize(size)),
            ToGuest::WriteFile { file, path, mode, offset, data } => {
                let error = files::write(&path, mode, offset, &data).err().unwrap_or_default();
                self.line.send(&ToHost::FileDone { file, error });
            }
            ToGuest::ReadFile { file, path, offset, length } => {
                self.line.send(&match files::read(&path, offset, length) {
                    Ok(data) => ToHost::FileData { file, data },
                    Err(error) => ToHost::FileDone { file, error },
                });
            }
            ToGuest::Ping { token } => self.line.send(&ToHost::Pong { token }),
            ToGuest::PowerOff => log::power_off(),
        }
    }

    /// Does something to a session; messages for one that has just ended are late, not wrong.
    fn with(&self, number: Number, act: impl FnOnce(&Session)) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&number).cloned();
        drop(sessions);
        if let Some(session) = session {
            act(&session);
        }
    }

    fn exec(&self, number: Number, command: hostlink::agent::Command) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.contains_key(&number) {
            let text = format!("session {number} exists already");
            return self.line.send(&ToHost::Log { text });
        }
        let ended = {
            let sessions = self.sessions.clone();
            move || drop(sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&number))
        };
        match session::start(number, &command, &self.line, &self.reaper, ended) {
            Ok(session) => drop(sessions.insert(number, session)),
            Err((errno, text)) => {
                let errno = u16::try_from(errno).unwrap_or_default();
                self.line.send(&ToHost::Error { session: number, errno, text });
            }
        }
    }
}

#[cfg(test)]
mod tests;
