//! The boot archive: the files that the machine starts with, laid out so that the image manager
//! can map them page by page without copying.
//!
//! Layout, little endian: a header of 32 bytes (magic, number of entries, CRC-32 of the index),
//! then entries of 96 bytes (name, offset, length), then the files, each at a multiple of 4 KiB,
//! or of 2 MiB for those that are to be mapped with large pages. Offsets count from the start of
//! the archive.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

mod reader;
#[cfg(any(test, feature = "std"))]
mod writer;

pub use reader::{Archive, Entry, Error};
#[cfg(any(test, feature = "std"))]
pub use writer::{Input, write};

/// First eight bytes of an archive.
pub const MAGIC: [u8; 8] = *b"TRAPARC1";
/// Bytes of the header.
pub const HEADER: usize = 32;
/// Bytes of an index entry.
pub const ENTRY: usize = 96;
/// Longest name in bytes.
pub const NAME: usize = 72;
/// Most entries that an archive can have.
pub const MAX_ENTRIES: usize = 256;

/// Checksum of the index.
pub const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
