//! Packets of virtual sockets (virtio 1.2, 5.10.6).
use wire::vsock::Bytes;

/// Bytes of a header.
pub const HEADER: usize = 44;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;
/// Flags of `SHUTDOWN`: the sender will neither receive nor send.
pub const SHUTDOWN_BOTH: u32 = 3;

/// Operations.
#[allow(missing_docs)]
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// A header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header {
    /// Sender's context.
    pub source_cid: u64,
    /// Receiver's context.
    pub destination_cid: u64,
    /// Sender's port.
    pub source_port: u32,
    /// Receiver's port.
    pub destination_port: u32,
    /// Bytes of payload.
    pub length: u32,
    /// Type of the socket.
    pub kind: u16,
    /// What is asked; see [`op`].
    pub operation: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// Size of the sender's receive buffer.
    pub buffer: u32,
    /// Bytes that the sender's receiver has taken out of that buffer so far, modulo 2³².
    pub forwarded: u32,
}

impl Header {
    /// The header as the guest reads it.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut raw = [0; HEADER];
        raw[0..8].copy_from_slice(&self.source_cid.to_le_bytes());
        raw[8..16].copy_from_slice(&self.destination_cid.to_le_bytes());
        raw[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        raw[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        raw[24..28].copy_from_slice(&self.length.to_le_bytes());
        raw[28..30].copy_from_slice(&self.kind.to_le_bytes());
        raw[30..32].copy_from_slice(&self.operation.to_le_bytes());
        raw[32..36].copy_from_slice(&self.flags.to_le_bytes());
        raw[36..40].copy_from_slice(&self.buffer.to_le_bytes());
        raw[40..44].copy_from_slice(&self.forwarded.to_le_bytes());
        raw
    }

    /// Reads a header.
    #[must_use]
    pub fn decode(raw: &[u8; HEADER]) -> Self {
        let four = |at: usize| [raw[at], raw[at + 1], raw[at + 2], raw[at + 3]];
        let word = |at: usize| u32::from_le_bytes(four(at));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            source_cid: long(0),
            destination_cid: long(8),
            source_port: word(16),
            destination_port: word(20),
            length: word(24),
            kind: word(28) as u16,
            operation: (word(28) >> 16) as u16,
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
        }
    }
}

/// A packet on its way to the guest.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Its header.
    pub header: Header,
    /// Its payload, for `RW`.
    pub bytes: Option<Bytes>,
}
