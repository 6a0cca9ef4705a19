//! Requests to dispatcher and delegates, and their responses.
//!
//! Variable parts lie in the mailbox's data area at fixed places (see [`crate::layout`]): a
//! socket address at `ADDRESS`, ancillary data at `CONTROL`, everything else at `PAYLOAD`.
use crate::epoll::EpollRequest;
use crate::file::FileRequest;
use crate::parts::{Credentials, Identity};

/// `wait` value of a call that waits as long as it takes.
pub const WAIT_FOREVER: u64 = u64::MAX;

/// A header that cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// What a worker is asked to do.
///
/// `fd` is a descriptor number of the delegate, as an earlier response told it. `wait` is in
/// nanoseconds: 0 tries once (a call that would block answers `-EAGAIN`, `Connect` answers
/// `-EINPROGRESS`), [`WAIT_FOREVER`] has no limit. When the time is over the answer is `-EAGAIN`
/// (`Poll`: 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Nothing; answers 0.
    Nop,
    /// `socket`, always with `SOCK_NONBLOCK | SOCK_CLOEXEC`; answers the descriptor.
    Socket {
        /// `AF_*`.
        domain: u32,
        /// `SOCK_*` without flags.
        kind: u32,
        /// Protocol.
        protocol: u32,
    },
    /// `close`.
    Close {
        /// Descriptor.
        fd: i32,
    },
    /// `bind` to the address at `ADDRESS`.
    Bind {
        /// Descriptor.
        fd: i32,
        /// Bytes of address.
        address: u32,
    },
    /// `connect` to the address at `ADDRESS`. With `wait`, an attempt in progress
    /// (`-EINPROGRESS`, `-EALREADY`) is waited for and its outcome (`SO_ERROR`) answered;
    /// when the time is over, `-EINPROGRESS`.
    Connect {
        /// Descriptor.
        fd: i32,
        /// Bytes of address.
        address: u32,
        /// Longest wait.
        wait: u64,
    },
    /// `listen`.
    Listen {
        /// Descriptor.
        fd: i32,
        /// Length of the queue.
        backlog: i32,
    },
    /// `accept4(SOCK_NONBLOCK | SOCK_CLOEXEC)`; answers the descriptor, the address at `ADDRESS`.
    Accept {
        /// Descriptor.
        fd: i32,
        /// Longest wait.
        wait: u64,
    },
    /// `sendmsg` of `length` bytes at `PAYLOAD`. With `all` (stream sockets that block) it goes
    /// on until everything is sent; a part that was sent wins over any error or cancellation.
    Send {
        /// Descriptor.
        fd: i32,
        /// `MSG_*`.
        flags: u32,
        /// Bytes of destination address; 0 = none.
        address: u32,
        /// Bytes of ancillary data; 0 = none.
        control: u32,
        /// Bytes of data.
        length: u32,
        /// Send all.
        all: bool,
        /// Longest wait.
        wait: u64,
    },
    /// `recvmsg`; data at `PAYLOAD`, source address at `ADDRESS`, ancillary data at `CONTROL`.
    /// With `MSG_TRUNC` the answer can be larger than `length`; `Response::length` is what lies
    /// in the mailbox. `all` (`MSG_WAITALL` on a stream that blocks): goes on until `length`
    /// bytes, end or error.
    Receive {
        /// Descriptor.
        fd: i32,
        /// `MSG_*`.
        flags: u32,
        /// Most bytes of ancillary data.
        control: u32,
        /// Most bytes of data.
        length: u32,
        /// Receive all.
        all: bool,
        /// Longest wait.
        wait: u64,
    },
    /// `shutdown`.
    Shutdown {
        /// Descriptor.
        fd: i32,
        /// `SHUT_*`.
        how: u32,
    },
    /// `getsockopt`; the value at `PAYLOAD`, its length in `Response::length`.
    GetOption {
        /// Descriptor.
        fd: i32,
        /// `SOL_*`.
        level: i32,
        /// `SO_*` …
        name: i32,
        /// Most bytes; bytes at `PAYLOAD` are handed in too (some options read them).
        length: u32,
    },
    /// `setsockopt` with `length` bytes at `PAYLOAD`.
    SetOption {
        /// Descriptor.
        fd: i32,
        /// `SOL_*`.
        level: i32,
        /// `SO_*` …
        name: i32,
        /// Bytes.
        length: u32,
    },
    /// `getsockname`, the address at `ADDRESS`.
    LocalName {
        /// Descriptor.
        fd: i32,
    },
    /// `getpeername`, the address at `ADDRESS`.
    PeerName {
        /// Descriptor.
        fd: i32,
    },
    /// `ioctl` with a pointer to an `int` at `PAYLOAD` (4 bytes, in and out).
    Ioctl {
        /// Descriptor.
        fd: i32,
        /// `FIONREAD`, `TIOCOUTQ` …
        command: u32,
    },
    /// `ppoll` of `count` [`PollEntry`]s at `PAYLOAD`, `revents` filled in there;
    /// answers the number of entries that are ready.
    Poll {
        /// Entries.
        count: u32,
        /// Longest wait.
        wait: u64,
    },
    /// Has what happens to a socket told by `Events`, in the order of Linux' own `O_ASYNC`, or not
    /// any more.
    Watch {
        /// Descriptor.
        fd: i32,
        /// From now on.
        on: bool,
    },
    /// Waits until something has happened to a watched socket; answers the number of
    /// [`SocketEvent`](crate::SocketEvent)s at `PAYLOAD`.
    Events,
    /// Something about an epoll instance.
    Epoll(EpollRequest),
    /// Something about a file.
    File(FileRequest),
    /// Dispatcher, or slot 0 of a delegate: fork a delegate, which registers slots 0 and 1 with
    /// this number and token. It keeps all sockets of a delegate it is forked from, under their
    /// numbers. Answers the pid.
    Fork {
        /// The new delegate's number.
        delegate: u32,
        /// Proof for `REGISTER`.
        token: u64,
        /// Whom it acts as.
        credentials: Credentials,
    },
    /// Slot 0: start one more worker thread, which registers this slot with the delegate's
    /// number and token.
    Spawn {
        /// The new slot.
        slot: u32,
    },
    /// Slot 0: the process ended; answer, then end the delegate.
    Exit,
    /// The worker's thread acts as somebody else from here on.
    Identity(Identity),
    /// Takes over a descriptor of another process of the hierarchy (`pidfd_getfd`); answers its
    /// number here. The dispatcher does so for descriptors that are on their way.
    Fetch {
        /// Pid of the process.
        pid: i32,
        /// Its descriptor.
        fd: i32,
    },
}

/// Words of an encoded header.
pub(crate) const WORDS: usize = 8;

fn pack(words: [u64; WORDS]) -> [u8; Request::SIZE] {
    let mut out = [0; Request::SIZE];
    for (chunk, word) in out.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn unpack(bytes: &[u8; Request::SIZE]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut b = [0; 8];
        b.copy_from_slice(chunk);
        *word = u64::from_le_bytes(b);
    }
    words
}

pub(crate) fn u32_of(word: u64) -> Result<u32, Malformed> {
    u32::try_from(word).map_err(|_| Malformed)
}

/// Signed numbers travel sign-extended to 64 bits.
pub(crate) fn i32_of(word: u64) -> Result<i32, Malformed> {
    i32::try_from(word as i64).map_err(|_| Malformed)
}

fn bool_of(word: u64) -> Result<bool, Malformed> {
    match word {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

pub(crate) fn from_i32(value: i32) -> u64 {
    i64::from(value) as u64
}

impl Request {
    /// Encoded size of the header.
    pub const SIZE: usize = 8 * WORDS;

    /// Short name for log lines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Request::Nop => "nop",
            Request::Socket { .. } => "socket",
            Request::Close { .. } => "close",
            Request::Bind { .. } => "bind",
            Request::Connect { .. } => "connect",
            Request::Listen { .. } => "listen",
            Request::Accept { .. } => "accept",
            Request::Send { .. } => "send",
            Request::Receive { .. } => "receive",
            Request::Shutdown { .. } => "shutdown",
            Request::GetOption { .. } => "getsockopt",
            Request::SetOption { .. } => "setsockopt",
            Request::LocalName { .. } => "getsockname",
            Request::PeerName { .. } => "getpeername",
            Request::Ioctl { .. } => "ioctl",
            Request::Poll { .. } => "poll",
            Request::Watch { .. } => "watch",
            Request::Events => "events",
            Request::Epoll(request) => request.name(),
            Request::File(request) => request.name(),
            Request::Fork { .. } => "fork",
            Request::Spawn { .. } => "spawn",
            Request::Exit => "exit",
            Request::Identity(_) => "identity",
            Request::Fetch { .. } => "fetch",
        }
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let f = from_i32;
        let u = u64::from;
        pack(match *self {
            Request::Nop => [0; 8],
            Request::Socket { domain, kind, protocol } => {
                [1, 0, u(domain), u(kind), u(protocol), 0, 0, 0]
            }
            Request::Close { fd } => [2, f(fd), 0, 0, 0, 0, 0, 0],
            Request::Bind { fd, address } => [3, f(fd), u(address), 0, 0, 0, 0, 0],
            Request::Connect { fd, address, wait } => [4, f(fd), u(address), 0, 0, 0, 0, wait],
            Request::Listen { fd, backlog } => [5, f(fd), f(backlog), 0, 0, 0, 0, 0],
            Request::Accept { fd, wait } => [6, f(fd), 0, 0, 0, 0, 0, wait],
            Request::Send { fd, flags, address, control, length, all, wait } => {
                [7, f(fd), u(flags), u(address), u(control), u(length), u(u32::from(all)), wait]
            }
            Request::Receive { fd, flags, control, length, all, wait } => {
                [8, f(fd), u(flags), 0, u(control), u(length), u(u32::from(all)), wait]
            }
            Request::Shutdown { fd, how } => [9, f(fd), u(how), 0, 0, 0, 0, 0],
            Request::GetOption { fd, level, name, length } => {
                [10, f(fd), f(level), f(name), u(length), 0, 0, 0]
            }
            Request::SetOption { fd, level, name, length } => {
                [11, f(fd), f(level), f(name), u(length), 0, 0, 0]
            }
            Request::LocalName { fd } => [12, f(fd), 0, 0, 0, 0, 0, 0],
            Request::PeerName { fd } => [13, f(fd), 0, 0, 0, 0, 0, 0],
            Request::Ioctl { fd, command } => [14, f(fd), u(command), 0, 0, 0, 0, 0],
            Request::Poll { count, wait } => [15, 0, u(count), 0, 0, 0, 0, wait],
            Request::Watch { fd, on } => [19, f(fd), u(u32::from(on)), 0, 0, 0, 0, 0],
            Request::Events => [20, 0, 0, 0, 0, 0, 0, 0],
            Request::Epoll(request) => request.words(),
            Request::File(request) => request.words(),
            Request::Fork { delegate, token, credentials: c } => {
                [16, 0, u(delegate), token, u(c.uid), u(c.gid), c.capabilities, 0]
            }
            Request::Spawn { slot } => [17, 0, u(slot), 0, 0, 0, 0, 0],
            Request::Exit => [18, 0, 0, 0, 0, 0, 0, 0],
            Request::Identity(i) => {
                let ids = [i.uid, i.gid, i.fsuid, i.fsgid].map(u64::from);
                [30, ids[0], ids[1], ids[2], ids[3], i.capabilities, u(i.groups), 0]
            }
            Request::Fetch { pid, fd } => [31, f(fd), f(pid), 0, 0, 0, 0, 0],
        })
    }

    /// Decodes a header.
    ///
    /// # Errors
    /// `Malformed` for an unknown request or a value out of its type's range.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let w = unpack(bytes);
        let fd = i32_of(w[1]);
        let wait = w[7];
        Ok(match w[0] {
            0 => Request::Nop,
            1 => Request::Socket {
                domain: u32_of(w[2])?,
                kind: u32_of(w[3])?,
                protocol: u32_of(w[4])?,
            },
            2 => Request::Close { fd: fd? },
            3 => Request::Bind { fd: fd?, address: u32_of(w[2])? },
            4 => Request::Connect { fd: fd?, address: u32_of(w[2])?, wait },
            5 => Request::Listen { fd: fd?, backlog: i32_of(w[2])? },
            6 => Request::Accept { fd: fd?, wait },
            7 => Request::Send {
                fd: fd?,
                flags: u32_of(w[2])?,
                address: u32_of(w[3])?,
                control: u32_of(w[4])?,
                length: u32_of(w[5])?,
                all: bool_of(w[6])?,
                wait,
            },
            8 => Request::Receive {
                fd: fd?,
                flags: u32_of(w[2])?,
                control: u32_of(w[4])?,
                length: u32_of(w[5])?,
                all: bool_of(w[6])?,
                wait,
            },
            9 => Request::Shutdown { fd: fd?, how: u32_of(w[2])? },
            10 | 11 => {
                let (fd, level, name, length) = (fd?, i32_of(w[2])?, i32_of(w[3])?, u32_of(w[4])?);
                if w[0] == 10 {
                    Request::GetOption { fd, level, name, length }
                } else {
                    Request::SetOption { fd, level, name, length }
                }
            }
            12 => Request::LocalName { fd: fd? },
            13 => Request::PeerName { fd: fd? },
            14 => Request::Ioctl { fd: fd?, command: u32_of(w[2])? },
            15 => Request::Poll { count: u32_of(w[2])?, wait },
            19 => Request::Watch { fd: fd?, on: bool_of(w[2])? },
            20 => Request::Events,
            _ => return Self::decode_process(&w),
        })
    }

    /// Those that are about processes and threads.
    fn decode_process(w: &[u64; WORDS]) -> Result<Self, Malformed> {
        Ok(match w[0] {
            16 => Request::Fork {
                delegate: u32_of(w[2])?,
                token: w[3],
                credentials: Credentials {
                    uid: u32_of(w[4])?,
                    gid: u32_of(w[5])?,
                    capabilities: w[6],
                },
            },
            17 => Request::Spawn { slot: u32_of(w[2])? },
            18 => Request::Exit,
            30 => Request::Identity(Identity {
                uid: u32_of(w[1])?,
                gid: u32_of(w[2])?,
                fsuid: u32_of(w[3])?,
                fsgid: u32_of(w[4])?,
                capabilities: w[5],
                groups: u32_of(w[6])?,
            }),
            31 => Request::Fetch { pid: i32_of(w[2])?, fd: i32_of(w[1])? },
            40..50 => Request::Epoll(EpollRequest::of_words(w)?),
            _ => Request::File(FileRequest::of_words(w)?),
        })
    }
}

/// What came of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// The call's result, or a negative errno.
    pub value: i64,
    /// The request was cancelled before it had any effect; `value` is `-EINTR`.
    pub cancelled: bool,
    /// `msg_flags` of a `Receive`.
    pub flags: u32,
    /// Bytes at `ADDRESS`.
    pub address: u32,
    /// Bytes at `CONTROL`.
    pub control: u32,
    /// Bytes at `PAYLOAD`.
    pub length: u32,
}

impl Response {
    /// Encoded size of the header.
    pub const SIZE: usize = Request::SIZE;

    /// A plain result.
    #[must_use]
    pub const fn value(value: i64) -> Self {
        Self { value, cancelled: false, flags: 0, address: 0, control: 0, length: 0 }
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let u = u64::from;
        pack([
            self.value as u64,
            u(u32::from(self.cancelled)),
            u(self.flags),
            u(self.address),
            u(self.control),
            u(self.length),
            0,
            0,
        ])
    }

    /// Decodes a header. Lengths are not checked against what was asked for: the receiver does.
    ///
    /// # Errors
    /// `Malformed` for a value out of its type's range.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, Malformed> {
        let w = unpack(bytes);
        Ok(Self {
            value: w[0] as i64,
            cancelled: bool_of(w[1])?,
            flags: u32_of(w[2])?,
            address: u32_of(w[3])?,
            control: u32_of(w[4])?,
            length: u32_of(w[5])?,
        })
    }
}

#[cfg(test)]
mod tests;
