//! Frames: `[stream u8][reserved u8 = 0][length u16, little endian][payload]`.
use alloc::vec::Vec;

/// Most bytes in one frame.
pub const MAX_PAYLOAD: usize = 32 * 1024;
/// Bytes before the payload.
pub const HEADER: usize = 4;

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        /// Who a frame belongs to.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Stream {
            $($(#[$doc])* $name = $value,)*
        }

        impl Stream {
            /// All streams.
            pub const ALL: &'static [Stream] = &[$(Stream::$name),*];

            /// Decodes an untrusted number.
            #[must_use]
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

streams! {
    /// Host command and `servers/link`; a frame is one [`crate::control`] message.
    Control = 0;
    /// Bytes of the compute VM's kernel console.
    ConsoleCompute = 1;
    /// Bytes of the service VM's kernel console.
    ConsoleService = 2;
    /// Bytes of the compute VM's hvc1, see [`crate::agent`].
    AgentCompute = 3;
    /// Bytes of the service VM's hvc1, see [`crate::agent`].
    AgentService = 4;
    /// Host command and `servers/relay`; a frame is one [`crate::relay`] message.
    Relay = 5;
    /// Text that native programs log.
    Log = 6;
}

/// Input that is no frame. The stream of frames can't be picked up again behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFrame {
    /// A stream number that does not exist.
    Stream(u8),
    /// The reserved byte is not zero.
    Reserved(u8),
    /// The length is above [`MAX_PAYLOAD`].
    Length(u16),
}

impl core::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BadFrame::Stream(n) => write!(f, "frame of unknown stream {n}"),
            BadFrame::Reserved(n) => write!(f, "frame with reserved byte {n:#x}"),
            BadFrame::Length(n) => write!(f, "frame of {n} bytes"),
        }
    }
}

impl core::error::Error for BadFrame {}

/// The header of a frame; `None` when the payload is too long.
#[must_use]
pub fn header(stream: Stream, length: usize) -> Option<[u8; HEADER]> {
    if length > MAX_PAYLOAD {
        return None;
    }
    let [low, high] = u16::try_from(length).ok()?.to_le_bytes();
    Some([stream as u8, 0, low, high])
}

/// Checks a header: stream and length of the payload.
///
/// # Errors
/// [`BadFrame`].
pub const fn parse(header: [u8; HEADER]) -> Result<(Stream, usize), BadFrame> {
    let [stream, reserved, low, high] = header;
    let Some(stream) = Stream::from_raw(stream) else {
        return Err(BadFrame::Stream(stream));
    };
    if reserved != 0 {
        return Err(BadFrame::Reserved(reserved));
    }
    let length = u16::from_le_bytes([low, high]);
    if length as usize > MAX_PAYLOAD {
        return Err(BadFrame::Length(length));
    }
    Ok((stream, length as usize))
}

/// Appends `payload` as frames of at most [`MAX_PAYLOAD`] bytes (byte streams; nothing for an
/// empty payload).
pub fn encode(stream: Stream, payload: &[u8], into: &mut Vec<u8>) {
    for part in payload.chunks(MAX_PAYLOAD) {
        if let Some(header) = header(stream, part.len()) {
            into.extend_from_slice(&header);
            into.extend_from_slice(part);
        }
    }
}

/// One decoded frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Who it belongs to.
    pub stream: Stream,
    /// Its bytes, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
}

/// Incremental decoder: bytes in, in pieces of any size; frames out.
///
/// After an error it stays in that error: there is no way to find the next frame.
#[derive(Default, Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are used up.
    start: usize,
    error: Option<BadFrame>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, error: None }
    }

    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        // Drop what is used up only when that is most of it: linear in total.
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`BadFrame`], from then on always.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((head, body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        match parse(*head) {
            Err(error) => {
                self.error = Some(error);
                self.buffer = Vec::new();
                Err(error)
            }
            Ok((stream, length)) => Ok(body.get(..length).map(|payload| {
                let payload = payload.to_vec();
                self.start += HEADER + length;
                Frame { stream, payload }
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        (0u8..7, proptest::collection::vec(any::<u8>(), 1..300)).prop_map(|(stream, payload)| {
            Frame { stream: Stream::from_raw(stream).expect("in range"), payload }
        })
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in proptest::collection::vec(any_frame(), 0..20),
            cut in 1usize..50,
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                encode(frame.stream, &frame.payload, &mut bytes);
            }
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().expect("well formed") {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            for _ in 0..=bytes.len() {
                match decoder.next_frame() {
                    Ok(Some(frame)) => prop_assert!(frame.payload.len() <= MAX_PAYLOAD),
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }

    #[test]
    fn long_payloads_are_cut_and_bad_headers_are_refused_for_good() {
        let mut bytes = Vec::new();
        encode(Stream::Log, &[7; MAX_PAYLOAD + 1], &mut bytes);
        assert_eq!(bytes.len(), MAX_PAYLOAD + 1 + 2 * HEADER);
        let mut decoder = Decoder::new();
        decoder.push(&[9, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(BadFrame::Stream(9)));
        decoder.push(&[0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(BadFrame::Stream(9)));
        assert_eq!(parse([0, 1, 0, 0]), Err(BadFrame::Reserved(1)));
        assert_eq!(parse([0, 0, 1, 0x80]), Err(BadFrame::Length(0x8001)));
        assert_eq!(parse([0, 0, 0, 0x80]), Ok((Stream::Control, MAX_PAYLOAD)));
    }
}
