//! Records on the `vsock-*` channels between a monitor's virtual-socket model and the relay.

/// Port in the compute VM: wake sockets of trusted threads.
pub const WAKE_PORT: u32 = 1;
/// Port in the service VM: doorbells of dispatcher and delegate workers.
pub const DOORBELL_PORT: u32 = 2;
/// Most bytes that one record carries.
pub const MAX_BYTES: usize = 64;
/// Longest encoded record.
pub const MAX_RECORD: usize = 8 + MAX_BYTES;

/// Bytes of a record, copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes {
    length: u8,
    bytes: [u8; MAX_BYTES],
}

impl Bytes {
    /// Takes at most [`MAX_BYTES`]; `None` for more.
    #[must_use]
    pub fn new(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_BYTES];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { length: from.len() as u8, bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&[])
    }
}

/// Number of a connection, chosen by the monitor; not used again before the relay has had
/// `Closed` for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection(pub u32);

/// A record in either direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// Monitor → relay: a guest process connected to `port`; its own port is `guest_port`.
    Connected {
        /// The new connection.
        connection: Connection,
        /// Destination port.
        port: u32,
        /// Source port, as `getsockname` shows it in the guest.
        guest_port: u32,
    },
    /// Monitor → relay: bytes from the guest.
    Data {
        /// Which connection.
        connection: Connection,
        /// What it sent.
        bytes: Bytes,
    },
    /// Monitor → relay: the connection is gone, however it ended. Also the answer to `Close`.
    Closed {
        /// Which connection.
        connection: Connection,
    },
    /// Monitor → relay: the VM ended; all its connections are gone.
    Ended,
    /// Relay → monitor: bytes for the guest.
    Send {
        /// Which connection.
        connection: Connection,
        /// What to send.
        bytes: Bytes,
    },
    /// Relay → monitor: end the connection.
    Close {
        /// Which connection.
        connection: Connection,
    },
}

impl Record {
    /// Writes the record; answers its length.
    pub fn encode(&self, into: &mut [u8; MAX_RECORD]) -> usize {
        let (kind, connection) = match self {
            Record::Connected { connection, .. } => (1u32, connection.0),
            Record::Data { connection, .. } => (2, connection.0),
            Record::Closed { connection } => (3, connection.0),
            Record::Ended => (4, 0),
            Record::Send { connection, .. } => (5, connection.0),
            Record::Close { connection } => (6, connection.0),
        };
        into[..4].copy_from_slice(&kind.to_le_bytes());
        into[4..8].copy_from_slice(&connection.to_le_bytes());
        match self {
            Record::Connected { port, guest_port, .. } => {
                into[8..12].copy_from_slice(&port.to_le_bytes());
                into[12..16].copy_from_slice(&guest_port.to_le_bytes());
                16
            }
            Record::Data { bytes, .. } | Record::Send { bytes, .. } => {
                let slice = bytes.as_slice();
                into[8..8 + slice.len()].copy_from_slice(slice);
                8 + slice.len()
            }
            Record::Closed { .. } | Record::Ended | Record::Close { .. } => 8,
        }
    }

    /// Reads a record; `None` for anything malformed.
    #[must_use]
    pub fn decode(from: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(from.get(at..at + 4)?.try_into().ok()?))
        };
        let connection = Connection(word(4)?);
        Some(match (word(0)?, from.len()) {
            (1, 16) => Record::Connected { connection, port: word(8)?, guest_port: word(12)? },
            (2, _) => Record::Data { connection, bytes: Bytes::new(from.get(8..)?)? },
            (3, 8) => Record::Closed { connection },
            (4, 8) => Record::Ended,
            (5, _) => Record::Send { connection, bytes: Bytes::new(from.get(8..)?)? },
            (6, 8) => Record::Close { connection },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_never_panics_and_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(record) = Record::decode(&bytes) {
                let mut out = [0; MAX_RECORD];
                let n = record.encode(&mut out);
                prop_assert_eq!(Record::decode(&out[..n]), Some(record));
            }
        }

        #[test]
        fn sends_round_trip(conn: u32, bytes in proptest::collection::vec(any::<u8>(), 0..=64)) {
            let record = Record::Send { connection: Connection(conn), bytes: Bytes::new(&bytes).unwrap() };
            let mut out = [0; MAX_RECORD];
            let n = record.encode(&mut out);
            prop_assert_eq!(Record::decode(&out[..n]), Some(record));
        }
    }
}
