//! Standard input and outputs of a session, with credit in both directions.

use super::Line;
use hostlink::BadMessage;
use hostlink::agent::{Output, Session as Number, ToHost, Window};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, PoisonError};

/// How long an output may still be silent after the command has ended, before what is left of it is
/// given up: some descendant keeps it open.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

/// Credit of one direction of one stream: given by the host for an output, to the host for an
/// input.
#[derive(Debug, Default)]
pub struct Credit {
    window: Mutex<Window>,
    granted: Condvar,
}

impl Credit {
    /// The receiver gives some.
    pub fn grant(&self, bytes: u32) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).grant(bytes);
        self.granted.notify_all();
    }

    /// Waits until there is credit; how much may be sent in one message.
    fn available(&self) -> usize {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let window = self.granted.wait_while(window, |w| w.available() == 0);
        window.unwrap_or_else(PoisonError::into_inner).available()
    }

    /// Takes note of bytes that were sent or that arrived.
    ///
    /// # Errors
    /// There was less credit.
    pub fn take(&self, bytes: usize) -> Result<(), BadMessage> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).take(bytes)
    }
}

/// Waits until the output can be read. False when the command has ended (`ended` is hung up) and
/// nothing more came.
fn readable(from: &OwnedFd, ended: &OwnedFd) -> bool {
    let mut both = [PollFd::new(from, PollFlags::IN), PollFd::new(ended, PollFlags::empty())];
    while poll(&mut both, None) == Err(Errno::INTR) {}
    if !both[0].revents().is_empty() {
        return true;
    }
    let mut last = [PollFd::new(from, PollFlags::IN)];
    poll(&mut last, Some(&GRACE)).is_ok_and(|ready| ready > 0)
}

/// Passes an output on until its end.
pub fn pump(
    number: Number,
    output: Output,
    from: &OwnedFd,
    ended: &OwnedFd,
    credit: &Credit,
    line: &Line,
) {
    let mut buffer = Vec::new();
    loop {
        let most = credit.available();
        if !readable(from, ended) {
            return;
        }
        buffer.resize(most, 0);
        let length = match rustix::io::read(from, &mut *buffer) {
            Err(Errno::INTR) => continue,
            // A terminal whose last user is gone answers EIO.
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        // Never more than was available, and this is the only taker.
        let _ = credit.take(length);
        let data = buffer.get(..length).unwrap_or_default().to_vec();
        line.send(&ToHost::Output { session: number, output, data });
    }
}

/// Passes standard input on; returns, and so closes it, when the sender is gone.
pub fn feed(number: Number, to: &OwnedFd, input: &Receiver<Vec<u8>>, window: &Credit, line: &Line) {
    let mut broken = false;
    while let Ok(data) = input.recv() {
        let mut rest = data.as_slice();
        while !broken && !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                // Nobody reads any more: swallow the rest, so that the host does not wait for
                // credit.
                Err(_) => broken = true,
            }
        }
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        window.grant(bytes);
        line.send(&ToHost::Credit { session: number, bytes });
    }
}
