//! Where the files of an uncompressed EROFS image lie in it: enough of the format
//! (`fs/erofs/erofs_fs.h` of Linux) to look up paths, list folders, and say which bytes of the image
//! a file consists of.
//!
//! Images are made by the host command, but may be damaged: every number is checked, every loop
//! is bounded by the image's length.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod fields;
mod folder;

pub use folder::Entry;

use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};
use fields::Fields;

/// An image, read piece by piece.
pub trait Source {
    /// Length in bytes.
    fn length(&self) -> u64;

    /// Copies bytes out; false when that fails, or they are not all inside.
    fn read(&self, at: u64, into: &mut [u8]) -> bool;
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, into: &mut [u8]) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        let bytes = at.checked_add(into.len()).and_then(|end| self.get(at..end));
        bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

/// Why an image can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It has no EROFS superblock.
    NoImage,
    /// Something points out of the image, or makes no sense.
    Damaged,
    /// A path names nothing.
    NotFound,
    /// A path leads through too many links.
    TooManyLinks,
    /// A file is compressed, or stored in chunks.
    NotPlain,
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoImage => "it is no EROFS image",
            Self::Damaged => "the image is damaged",
            Self::NotFound => "there is no such file",
            Self::TooManyLinks => "too many symbolic links",
            Self::NotPlain => "the file is not stored as a whole",
        })
    }
}

impl core::error::Error for Error {}

/// Where the superblock lies.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Inodes are named by their distance from the beginning of the metadata, in these units.
const SLOT: u64 = 32;
/// Symbolic links on one way.
const LINKS: usize = 40;
/// Longest target of a link (`PATH_MAX`).
const TARGET: u64 = 4096;

/// An opened image.
pub struct Image<'s, S: ?Sized> {
    source: &'s S,
    /// Bytes of a block, as a power of two.
    block_bits: u32,
    /// Where inode 0 would be.
    metadata: u64,
    root: u64,
}

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Regular file.
    File,
    /// Folder.
    Folder,
    /// Symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// How the bytes of a file are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// In consecutive blocks.
    Plain,
    /// In consecutive blocks, with the last part behind the inode.
    Inline { tail_at: u64 },
    /// In a way that is not read here.
    Unknown,
}

/// A file, folder or link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Its number, the same for all names of one file.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// May be executed by somebody.
    pub executable: bool,
    /// Bytes.
    pub size: u64,
    layout: Layout,
    /// Where its blocks begin.
    blocks: u64,
}

impl<'s, S: Source + ?Sized> Image<'s, S> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// `NoImage`, `Damaged`.
    pub fn open(source: &'s S) -> Result<Self, Error> {
        let mut bytes = [0; 128];
        if !source.read(SUPERBLOCK, &mut bytes) {
            return Err(Error::NoImage);
        }
        let fields = Fields(&bytes);
        if fields.u32(0)? != MAGIC {
            return Err(Error::NoImage);
        }
        let block_bits = u32::from(fields.u8(12)?);
        if !(9..=16).contains(&block_bits) {
            return Err(Error::Damaged);
        }
        let metadata = u64::from(fields.u32(40)?) << block_bits;
        Ok(Self { source, block_bits, metadata, root: u64::from(fields.u16(14)?) })
    }

    /// Bytes of the image.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.source.length()
    }

    /// The top folder.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn root(&self) -> Result<Inode, Error> {
        self.inode(self.root)
    }

    /// The inode of that number.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn inode(&self, number: u64) -> Result<Inode, Error> {
        let offset = number.checked_mul(SLOT).ok_or(Error::Damaged)?;
        let at = self.metadata.checked_add(offset).ok_or(Error::Damaged)?;
        let mut bytes = [0; 32];
        self.bytes(at, &mut bytes)?;
        let fields = Fields(&bytes);
        let format = fields.u16(0)?;
        let (own, size) = match format & 1 {
            0 => (32, u64::from(fields.u32(8)?)),
            _ => (64, fields.u64(8)?),
        };
        let attributes = match fields.u16(2)? {
            0 => 0,
            count => 12 + (u64::from(count) - 1) * 4,
        };
        let layout = match format >> 1 & 7 {
            0 => Layout::Plain,
            2 => Layout::Inline { tail_at: at + own + attributes },
            _ => Layout::Unknown,
        };
        let mode = fields.u16(4)?;
        let kind = match mode & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Folder,
            0o120_000 => Kind::Link,
            _ => Kind::Other,
        };
        let blocks = u64::from(fields.u32(16)?) << self.block_bits;
        let executable = mode & 0o111 != 0;
        Ok(Inode { number, kind, executable, size, layout, blocks })
    }

    /// Where the bytes of a file begin in the image; they are consecutive.
    ///
    /// # Errors
    /// `NotPlain`, `Damaged`.
    pub fn place(&self, inode: &Inode) -> Result<u64, Error> {
        if inode.layout != Layout::Plain {
            return Err(Error::NotPlain);
        }
        let end = inode.blocks.checked_add(inode.size);
        end.filter(|end| *end <= self.source.length()).ok_or(Error::Damaged)?;
        Ok(inode.blocks)
    }

    /// Copies bytes of a file out.
    ///
    /// # Errors
    /// `Damaged`, also for bytes behind its end; `NotPlain`.
    pub fn read(&self, inode: &Inode, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= inode.size);
        end.ok_or(Error::Damaged)?;
        let Layout::Inline { tail_at } = inode.layout else {
            return self.bytes(self.place(inode)? + offset, into);
        };
        // All blocks but the last.
        let whole = inode.size.saturating_sub(1) >> self.block_bits << self.block_bits;
        let first = usize::try_from(whole.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (first, rest) = into.split_at_mut(first.min(into.len()));
        if !first.is_empty() {
            self.bytes(inode.blocks.checked_add(offset).ok_or(Error::Damaged)?, first)?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let inside = offset.max(whole) - whole;
        self.bytes(tail_at.checked_add(inside).ok_or(Error::Damaged)?, rest)
    }

    fn bytes(&self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        if self.source.read(at, into) { Ok(()) } else { Err(Error::Damaged) }
    }

    /// What a link leads to.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn target(&self, link: &Inode) -> Result<Vec<u8>, Error> {
        if link.kind != Kind::Link || link.size > TARGET {
            return Err(Error::Damaged);
        }
        let mut target = alloc::vec![0; link.size as usize];
        self.read(link, 0, &mut target)?;
        Ok(target)
    }

    /// What an absolute path leads to, with all links followed.
    ///
    /// # Errors
    /// `NotFound`, `TooManyLinks`, `Damaged`.
    pub fn find(&self, path: &[u8]) -> Result<Inode, Error> {
        // Folders from the top to where we are, the last one included.
        let mut way = alloc::vec![self.root()?];
        let mut left: Vec<Vec<u8>> = parts(path);
        let mut links = 0;
        let mut found = self.root()?;
        while let Some(name) = left.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                found = *way.last().ok_or(Error::Damaged)?;
                continue;
            }
            let folder = *way.last().ok_or(Error::Damaged)?;
            let number = self.look_up(&folder, &name)?.ok_or(Error::NotFound)?;
            found = self.inode(number)?;
            match found.kind {
                Kind::Folder => way.push(found),
                Kind::Link => {
                    links += 1;
                    if links > LINKS {
                        return Err(Error::TooManyLinks);
                    }
                    let target = self.target(&found)?;
                    if target.first() == Some(&b'/') {
                        way.truncate(1);
                    }
                    found = folder;
                    left.extend(parts(&target));
                }
                _ if !left.is_empty() => return Err(Error::NotFound),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The parts of a path, last one first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let part = |p: &&[u8]| !p.is_empty() && *p != b".";
    path.split(|b| *b == b'/').rev().filter(part).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests;
