//! What the test program for processes (`native-child`) and its parents agree on.
use abi::{MESSAGE_WORDS, Message};

/// Exit code: it was not told what to do.
pub const NOTHING: u64 = 90;
/// Exit code: it did what it was told.
pub const DONE: u64 = 91;
/// Exit code: something was not as it should be.
pub const WRONG: u64 = 92;

/// Memory of a process.
pub const EACH: u64 = 512 << 10;

/// Bytes of an argument that fit into one message, behind their number.
pub const PIECE: usize = (MESSAGE_WORDS - 1) * 8;

/// Part of the heap that a process leaves something in, or looks for what others left.
pub const MIDDLE: u64 = 64 << 10;
/// Its length in bytes.
pub const MIDDLE_LENGTH: u64 = 2048;

/// A piece of an argument as a message. The one with nothing in it ends the argument.
#[must_use]
pub fn message(piece: &[u8]) -> Message {
    let mut words = [0; MESSAGE_WORDS];
    words[0] = piece.len() as u64;
    for (word, bytes) in words[1..].iter_mut().zip(piece.chunks(8)) {
        let mut raw = [0; 8];
        raw[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(raw);
    }
    words
}

/// The piece in a message.
#[must_use]
pub fn piece(words: &Message) -> alloc::vec::Vec<u8> {
    let bytes = words[1..].iter().flat_map(|word| word.to_le_bytes());
    bytes.take(words[0] as usize).collect()
}
