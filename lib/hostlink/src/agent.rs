//! The protocol between the host command and `guest/init`, over the byte stream of hvc1.
//!
//! A packet is `[MAGIC, 4 bytes][length u16][check u32 of length and body][body]`, all little
//! endian, the body one postcard message. A terminal driver or a kernel may have put bytes of its
//! own into the stream, so the decoder skips whatever is no packet and counts it.
//!
//! Rules:
//! * The guest makes hvc1 raw, then sends [`ToHost::Ready`] (again every second until the first
//!   packet arrives). The host sends nothing before it has seen that.
//! * Session and file numbers are chosen by the host and used once.
//! * Data flows against windows: each direction of each stream starts with [`WINDOW`] bytes of
//!   credit, and the receiver gives back what it has passed on ([`ToGuest::Credit`],
//!   [`ToHost::Credit`]). More data than credit is a protocol error.
//! * A session ends with exactly one [`ToHost::Exited`] or [`ToHost::Error`], after all its output.
use crate::BadMessage;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Start of a packet.
pub const MAGIC: [u8; 4] = [0xfe, b'T', b'L', 0xa5];
/// Credit of a stream at its start, in bytes.
pub const WINDOW: u32 = 128 * 1024;
/// Most data bytes in one message.
pub const MAX_DATA: usize = 16 * 1024;
/// Most bytes in a packet's body.
pub const MAX_BODY: usize = 60 * 1024;
/// Bytes before the body.
pub const HEADER: usize = 10;
/// Version of the protocol.
pub const VERSION: u32 = 1;

/// A command that runs in a guest.
pub type Session = u32;

/// An output of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Output {
    /// Standard output (everything, on a terminal).
    Stdout,
    /// Standard error.
    Stderr,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// What to run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments; the program is looked up in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// A terminal instead of three pipes.
    pub tty: Option<TtySize>,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Exit {
    /// With this status.
    Status(u8),
    /// By this signal.
    Signal(u8),
}

/// From the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToGuest {
    /// Starts a session.
    Exec {
        /// New number.
        session: Session,
        /// What to run.
        command: Command,
    },
    /// Bytes for standard input.
    Stdin {
        /// The session.
        session: Session,
        /// At most [`MAX_DATA`] bytes.
        data: Vec<u8>,
    },
    /// No more input.
    CloseStdin {
        /// The session.
        session: Session,
    },
    /// Gives credit for an output.
    Credit {
        /// The session.
        session: Session,
        /// Which output.
        output: Output,
        /// Bytes.
        bytes: u32,
    },
    /// Sends a signal to the session's process group.
    Signal {
        /// The session.
        session: Session,
        /// Linux signal number.
        signal: u8,
    },
    /// New size of the session's terminal.
    Resize {
        /// The session.
        session: Session,
        /// The size.
        size: TtySize,
    },
    /// Writes a part of a file (created with offset 0); answered by [`ToHost::FileDone`].
    WriteFile {
        /// New number, the same for all parts of one file.
        file: u32,
        /// Absolute path.
        path: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Where this part goes.
        offset: u64,
        /// At most [`MAX_DATA`] bytes.
        data: Vec<u8>,
    },
    /// Reads a part of a file; answered by [`ToHost::FileData`] or [`ToHost::FileDone`].
    ReadFile {
        /// New number.
        file: u32,
        /// Absolute path.
        path: Vec<u8>,
        /// Where to begin.
        offset: u64,
        /// At most [`MAX_DATA`] bytes.
        length: u32,
    },
    /// Answered by [`ToHost::Pong`].
    Ping {
        /// Comes back.
        token: u64,
    },
    /// Syncs and powers the VM off.
    PowerOff,
}

/// From the guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToHost {
    /// The guest takes commands.
    Ready {
        /// [`VERSION`].
        version: u32,
        /// `compute` or `service`.
        role: String,
        /// Milliseconds since the guest's kernel started.
        uptime_ms: u64,
    },
    /// The command was executed (its `execve` succeeded).
    Started {
        /// The session.
        session: Session,
        /// Its process id.
        pid: u32,
    },
    /// Bytes that the command wrote.
    Output {
        /// The session.
        session: Session,
        /// Where.
        output: Output,
        /// At most [`MAX_DATA`] bytes.
        data: Vec<u8>,
    },
    /// Gives credit for standard input.
    Credit {
        /// The session.
        session: Session,
        /// Bytes.
        bytes: u32,
    },
    /// The command ended; nothing of this session follows.
    Exited {
        /// The session.
        session: Session,
        /// How.
        exit: Exit,
    },
    /// The command could not be run; nothing of this session follows.
    Error {
        /// The session.
        session: Session,
        /// Linux error number of the failed step, or 0.
        errno: u16,
        /// What failed.
        text: String,
    },
    /// End of a [`ToGuest::WriteFile`], or of a [`ToGuest::ReadFile`] that failed.
    FileDone {
        /// The file's number.
        file: u32,
        /// Empty when it worked.
        error: String,
    },
    /// Part of a file.
    FileData {
        /// The file's number.
        file: u32,
        /// Empty at the end of the file.
        data: Vec<u8>,
    },
    /// Answer to [`ToGuest::Ping`].
    Pong {
        /// The token.
        token: u64,
    },
    /// Something that a person should read.
    Log {
        /// One line.
        text: String,
    },
}

/// Messages that travel in packets.
pub trait Message: Serialize + serde::de::DeserializeOwned {}
impl Message for ToGuest {}
impl Message for ToHost {}

/// FNV-1a over length and body: tells a packet from bytes that look like its start.
fn checksum(length: [u8; 2], body: &[u8]) -> u32 {
    length
        .iter()
        .chain(body)
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Appends a message as one packet.
///
/// # Errors
/// [`BadMessage`] when it is longer than [`MAX_BODY`].
pub fn encode<M: Message>(message: &M, into: &mut Vec<u8>) -> Result<(), BadMessage> {
    let body = crate::to_bytes(message);
    if body.len() > MAX_BODY {
        return Err(BadMessage);
    }
    let length = u16::try_from(body.len()).map_err(|_| BadMessage)?.to_le_bytes();
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&length);
    into.extend_from_slice(&checksum(length, &body).to_le_bytes());
    into.extend_from_slice(&body);
    Ok(())
}

/// Incremental decoder of packets; holds at most one packet and what was pushed last.
#[derive(Default, Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    skipped: u64,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, skipped: 0 }
    }

    /// Takes bytes as they arrive. Call [`Decoder::next_message`] until `None` after each push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes so far that belonged to no packet.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next message, or `None` until more bytes arrive. Never fails: what is no packet is
    /// skipped.
    pub fn next_message<M: Message>(&mut self) -> Option<M> {
        loop {
            let rest = self.buffer.get(self.start..)?;
            let garbage = distance_to_magic(rest);
            if garbage > 0 {
                self.skip(garbage);
                continue;
            }
            let (head, body) = rest.split_first_chunk::<HEADER>()?;
            let [_, _, _, _, low, high, check @ ..] = *head;
            let length = usize::from(u16::from_le_bytes([low, high]));
            if length > MAX_BODY {
                self.skip(1);
                continue;
            }
            let body = body.get(..length)?;
            let message = if checksum([low, high], body) == u32::from_le_bytes(check) {
                crate::from_bytes(body).ok()
            } else {
                None
            };
            match message {
                Some(message) => {
                    self.start += HEADER + length;
                    return Some(message);
                }
                None => self.skip(1),
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.skipped += bytes as u64;
    }
}

/// Bytes before the first place where [`MAGIC`] stands, or may stand once more bytes arrive.
fn distance_to_magic(bytes: &[u8]) -> usize {
    (0..bytes.len())
        .find(|at| {
            let rest = bytes.get(*at..).unwrap_or_default();
            rest.iter().zip(MAGIC).all(|(a, b)| *a == b)
        })
        .unwrap_or(bytes.len())
}

/// Credit of the sending side of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    credit: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { credit: WINDOW }
    }
}

impl Window {
    /// How much may be sent now in one message.
    #[must_use]
    pub fn available(&self) -> usize {
        (self.credit as usize).min(MAX_DATA)
    }

    /// Takes note of bytes that were sent (or, on the receiving side, that arrived).
    ///
    /// # Errors
    /// [`BadMessage`] when there was less credit.
    pub fn take(&mut self, bytes: usize) -> Result<(), BadMessage> {
        let bytes = u32::try_from(bytes).map_err(|_| BadMessage)?;
        self.credit = self.credit.checked_sub(bytes).ok_or(BadMessage)?;
        Ok(())
    }

    /// Takes note of credit that was given; never more than [`WINDOW`] in total.
    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes).min(WINDOW);
    }
}

#[cfg(test)]
mod tests;
