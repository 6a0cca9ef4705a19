//! Writing an archive on the host.
use crate::{CRC, ENTRY, HEADER, MAGIC, MAX_ENTRIES, NAME};
use std::io::{self, Read, Seek, SeekFrom, Write};

/// A file that goes into an archive.
pub struct Input<'a> {
    /// Name within the archive, at most [`NAME`] bytes.
    pub name: String,
    /// Length in bytes; exactly that much is read from `from`.
    pub length: u64,
    /// Aligned to 2 MiB instead of 4 KiB.
    pub large: bool,
    /// Where the bytes come from.
    pub from: Box<dyn Read + 'a>,
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Writes an archive and returns its length in bytes.
///
/// # Errors
/// A name that is too long or used twice, too many files, an input that ends early, or what the
/// output says.
pub fn write(mut inputs: Vec<Input<'_>>, out: &mut (impl Write + Seek)) -> io::Result<u64> {
    if inputs.len() > MAX_ENTRIES {
        return Err(bad(format!("{} files; an archive holds {MAX_ENTRIES}", inputs.len())));
    }
    let mut index = Vec::with_capacity(inputs.len() * ENTRY);
    let mut offset = (HEADER + inputs.len() * ENTRY) as u64;
    let mut offsets = Vec::with_capacity(inputs.len());
    for (number, input) in inputs.iter().enumerate() {
        if input.name.is_empty() || input.name.len() > NAME {
            return Err(bad(format!("name '{}' is empty or over {NAME} bytes", input.name)));
        }
        if inputs[..number].iter().any(|other| other.name == input.name) {
            return Err(bad(format!("'{}' is there twice", input.name)));
        }
        offset = offset.next_multiple_of(if input.large { 2 << 20 } else { 4096 });
        offsets.push(offset);
        let mut entry = [0; ENTRY];
        entry[..input.name.len()].copy_from_slice(input.name.as_bytes());
        entry[NAME..NAME + 8].copy_from_slice(&offset.to_le_bytes());
        entry[NAME + 8..NAME + 16].copy_from_slice(&input.length.to_le_bytes());
        index.extend_from_slice(&entry);
        offset += input.length;
    }
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&(inputs.len() as u64).to_le_bytes());
    header[16..24].copy_from_slice(&u64::from(CRC.checksum(&index)).to_le_bytes());
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&header)?;
    out.write_all(&index)?;
    for (input, offset) in inputs.iter_mut().zip(offsets) {
        out.seek(SeekFrom::Start(offset))?;
        let copied = io::copy(&mut (&mut input.from).take(input.length), out)?;
        if copied != input.length {
            return Err(bad(format!("'{}' ended after {copied} bytes", input.name)));
        }
    }
    // The end is padded to a page, so that the last file can be mapped whole.
    let end = offset.next_multiple_of(4096);
    if end > offset {
        out.seek(SeekFrom::Start(end - 1))?;
        out.write_all(&[0])?;
    }
    Ok(end)
}
