//! Reading an archive that nobody vouches for.
use crate::{CRC, ENTRY, HEADER, MAGIC, MAX_ENTRIES, NAME};

/// Why bytes are not an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than its header or index says.
    Truncated,
    /// Does not start with [`MAGIC`].
    Magic,
    /// More than [`MAX_ENTRIES`] entries.
    TooMany,
    /// The index does not match its checksum.
    Checksum,
    /// Entry number so-and-so has a bad name, or lies outside the archive.
    Entry(usize),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::Truncated => f.write_str("boot archive is cut short"),
            Error::Magic => f.write_str("not a boot archive (wrong magic)"),
            Error::TooMany => f.write_str("boot archive has too many entries"),
            Error::Checksum => f.write_str("boot archive is damaged (index checksum)"),
            Error::Entry(n) => write!(f, "boot archive is damaged (entry {n})"),
        }
    }
}

/// One file of an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Name, unique within the archive.
    pub name: &'a str,
    /// Offset from the start of the archive, in bytes; a multiple of 4096.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A checked index.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    index: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl<'a> Archive<'a> {
    /// Checks the index at the start of `bytes`; `total` is the length of the whole archive, of
    /// which `bytes` need only hold the header and the index.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &'a [u8], total: u64) -> Result<Self, Error> {
        let header = bytes.get(..HEADER).ok_or(Error::Truncated)?;
        if header[..8] != MAGIC {
            return Err(Error::Magic);
        }
        let count = word(header, 8).ok_or(Error::Truncated)?;
        let count = usize::try_from(count).map_err(|_| Error::TooMany)?;
        if count > MAX_ENTRIES {
            return Err(Error::TooMany);
        }
        let index = bytes.get(HEADER..HEADER + count * ENTRY).ok_or(Error::Truncated)?;
        if word(header, 16) != Some(u64::from(CRC.checksum(index))) {
            return Err(Error::Checksum);
        }
        for (number, raw) in index.chunks_exact(ENTRY).enumerate() {
            let entry = decode(raw).ok_or(Error::Entry(number))?;
            let end = entry.offset.checked_add(entry.length).ok_or(Error::Entry(number))?;
            if end > total || !entry.offset.is_multiple_of(4096) || entry.name.is_empty() {
                return Err(Error::Entry(number));
            }
        }
        Ok(Self { index })
    }

    /// Bytes that header and index of any archive fit in.
    pub const INDEX_LIMIT: usize = HEADER + MAX_ENTRIES * ENTRY;

    /// The files, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.index.chunks_exact(ENTRY).filter_map(decode)
    }

    /// The file of that name, with its number.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(usize, Entry<'a>)> {
        self.entries().enumerate().find(|(_, e)| e.name == name)
    }
}

fn decode(raw: &[u8]) -> Option<Entry<'_>> {
    let name = raw.get(..NAME)?;
    let end = name.iter().position(|b| *b == 0).unwrap_or(NAME);
    let name = core::str::from_utf8(name.get(..end)?).ok()?;
    Some(Entry { name, offset: word(raw, NAME)?, length: word(raw, NAME + 8)? })
}
