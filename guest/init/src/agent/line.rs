//! The terminal that leads to the host command.

use hostlink::agent::{ToHost, encode};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// An open terminal in raw mode. Many threads send, one reads.
#[derive(Debug)]
pub struct Line {
    terminal: OwnedFd,
    /// Held while a packet is written, so that packets do not mix; holds the buffer for it.
    writing: Mutex<Vec<u8>>,
}

impl Line {
    /// Opens the terminal and switches off all that a terminal driver would do to the bytes.
    ///
    /// # Errors
    /// As `open(2)` and `tcsetattr(3)`.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let terminal = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut settings = tcgetattr(&terminal)?;
        settings.make_raw();
        tcsetattr(&terminal, OptionalActions::Flush, &settings)?;
        Ok(Self { terminal, writing: Mutex::default() })
    }

    /// Waits for bytes from the host.
    ///
    /// # Errors
    /// As `read(2)`; `EIO` when the terminal has been hung up.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match rustix::io::read(&self.terminal, &mut *buffer) {
                Ok(0) => return Err(Errno::IO),
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Sends a message, whole. A terminal that is gone is noticed by the reader.
    pub fn send(&self, message: &ToHost) {
        let mut buffer = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.clear();
        if encode(message, &mut buffer).is_err() {
            return crate::log::error("a message to the host is too long");
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.terminal, rest) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// A line for the person at the host command.
    pub fn log(&self, text: impl Into<String>) {
        self.send(&ToHost::Log { text: text.into() });
    }
}
