//! Parts of requests.

/// Whom the new delegate acts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Effective capabilities as a bit set (`CAP_*` numbers).
    pub capabilities: u64,
}

/// Whom a worker acts as. `groups` supplementary group ids lie at `PAYLOAD`, 32 bits each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// User id for files (`setfsuid(2)`).
    pub fsuid: u32,
    /// Group id for files.
    pub fsgid: u32,
    /// Effective capabilities as a bit set (`CAP_*` numbers).
    pub capabilities: u64,
    /// Number of supplementary groups.
    pub groups: u32,
}

/// One entry of a `Poll`: 8 bytes at `PAYLOAD + 8 * index`, laid out as `struct pollfd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PollEntry {
    /// Descriptor.
    pub fd: i32,
    /// `POLL*` asked for.
    pub events: u16,
    /// `POLL*` found.
    pub revents: u16,
}

impl PollEntry {
    /// Encoded size.
    pub const SIZE: usize = 8;

    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 8] {
        let mut b = [0; 8];
        b[..4].copy_from_slice(&self.fd.to_le_bytes());
        b[4..6].copy_from_slice(&self.events.to_le_bytes());
        b[6..].copy_from_slice(&self.revents.to_le_bytes());
        b
    }

    /// From the bytes.
    #[must_use]
    pub fn decode(b: [u8; 8]) -> Self {
        Self {
            fd: i32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            events: u16::from_le_bytes([b[4], b[5]]),
            revents: u16::from_le_bytes([b[6], b[7]]),
        }
    }
}

/// What has happened to a watched socket: 8 bytes at `PAYLOAD + 8 * index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketEvent {
    /// Descriptor; -1: some events were lost, any socket may have had one.
    pub fd: i32,
    /// `POLL_IN`, `POLL_OUT`, … (`si_code`, `sigaction(2)`).
    pub code: i32,
}

impl SocketEvent {
    /// Encoded size.
    pub const SIZE: usize = 8;
    /// Most of them in one answer.
    pub const MOST: usize = 64;
    /// `fd` of events that were lost.
    pub const LOST: i32 = -1;

    /// The bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 8] {
        let mut b = [0; 8];
        b[..4].copy_from_slice(&self.fd.to_le_bytes());
        b[4..].copy_from_slice(&self.code.to_le_bytes());
        b
    }

    /// From the bytes.
    #[must_use]
    pub fn decode(b: [u8; 8]) -> Self {
        let [f0, f1, f2, f3, c @ ..] = b;
        Self { fd: i32::from_le_bytes([f0, f1, f2, f3]), code: i32::from_le_bytes(c) }
    }
}
