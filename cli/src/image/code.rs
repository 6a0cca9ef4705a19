//! Which pages of a root image are code of which file: what the relay compares the executable pages of
//! trusted processes with.
use super::root;
use anyhow::{Context, Result, anyhow, bail};
use elf::abi::{EM_X86_64, PF_X, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};
use erofs::{Image, Inode, Kind, Source};
use policy::{Extent, extents};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Bytes of an ELF file header for 64 bits.
const HEADER: usize = 64;
/// Bytes of a program header for 64 bits.
const SEGMENT: usize = 56;
/// Interpreters of interpreters (`BINPRM_MAX_RECURSION` of Linux).
const INTERPRETERS: usize = 4;
/// The longest first line of a script (`BINPRM_BUF_SIZE` of Linux).
const FIRST_LINE: u64 = 256;
/// Folders with shared libraries.
const LIBRARIES: &[&str] =
    &["/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib"];

/// The image's file.
struct Bytes {
    file: File,
    length: u64,
}

impl Source for Bytes {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: u64, into: &mut [u8]) -> bool {
        self.file.read_exact_at(into, at).is_ok()
    }
}

/// What a program consists of, apart from shared libraries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parts {
    /// Its own file; of a script, its interpreter's.
    pub own: Vec<Extent>,
    /// The program that loads its shared libraries, where it has any.
    pub loader: Vec<Extent>,
}

/// The code of a root image.
pub struct Code {
    bytes: Bytes,
}

impl Code {
    /// Opens the image.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(image: &root::Image) -> Result<Self> {
        Self::of(&image.image)
    }

    fn of(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
        let length = file.metadata()?.len();
        let code = Self { bytes: Bytes { file, length } };
        code.image().with_context(|| format!("can't read {}", path.display()))?;
        Ok(code)
    }

    fn image(&self) -> Result<Image<'_, Bytes>> {
        Ok(Image::open(&self.bytes)?)
    }

    /// The parts of a program.
    ///
    /// # Errors
    /// It is not in the image, or can't be executed there.
    pub fn program(&self, path: &str) -> Result<Parts> {
        let image = self.image()?;
        let mut path = path.to_owned();
        for _ in 0..INTERPRETERS {
            let inode = find(&image, &path)?;
            if let Some(elf) = Elf::read(&image, &inode)? {
                let own = elf.pages(&image, &inode)?;
                if own.is_empty() {
                    bail!("{path} has no code");
                }
                let loader = match elf.interpreter(&image, &inode)? {
                    Some(loader) => self.file(&loader)?,
                    None => Vec::new(),
                };
                return Ok(Parts { own, loader });
            }
            path = script(&image, &inode)?
                .with_context(|| format!("{path} is neither a program for x86-64 nor a script"))?;
        }
        bail!("{path}: too many interpreters")
    }

    fn file(&self, path: &str) -> Result<Vec<Extent>> {
        let image = self.image()?;
        let inode = find(&image, path)?;
        match Elf::read(&image, &inode)? {
            Some(elf) => elf.pages(&image, &inode),
            None => bail!("{path} holds no code for x86-64"),
        }
    }

    /// The code of a shared library, or of all files in a folder and below.
    ///
    /// # Errors
    /// There is no such file or folder, or no code in it.
    pub fn library(&self, path: &str) -> Result<Vec<Extent>> {
        let image = self.image()?;
        let inode = find(&image, path)?;
        if inode.kind != Kind::Folder {
            return self.file(path);
        }
        let mut all = Vec::new();
        collect(&image, &inode, &mut all)?;
        Ok(extents::join(all))
    }

    /// The code of all files in the image's folders of libraries.
    ///
    /// # Errors
    /// The image is damaged.
    pub fn libraries(&self) -> Result<Vec<Extent>> {
        let image = self.image()?;
        let mut all = Vec::new();
        for folder in LIBRARIES {
            match image.find(folder.as_bytes()) {
                Ok(inode) if inode.kind == Kind::Folder => collect(&image, &inode, &mut all)?,
                Ok(_) | Err(erofs::Error::NotFound) => {}
                Err(error) => return Err(error).context(*folder),
            }
        }
        Ok(extents::join(all))
    }

    /// The SHA-256 sum of a file.
    ///
    /// # Errors
    /// There is no such file.
    pub fn sha256(&self, path: &str) -> Result<[u8; 32]> {
        let image = self.image()?;
        let inode = find(&image, path)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; 1 << 16];
        let mut at = 0;
        while at < inode.size {
            let length = (inode.size - at).min(piece.len() as u64);
            let piece = &mut piece[..length as usize];
            image.read(&inode, at, piece)?;
            hash.update(piece);
            at += length;
        }
        Ok(hash.finalize().into())
    }
}

fn find(image: &Image<'_, Bytes>, path: &str) -> Result<Inode> {
    image.find(path.as_bytes()).map_err(|error| anyhow!("{path} in the root image: {error}"))
}

/// Adds the code of all files below a folder. Links are not followed: what they lead to is found
/// under its own name, or is outside.
fn collect(image: &Image<'_, Bytes>, folder: &Inode, all: &mut Vec<Extent>) -> Result<()> {
    let mut folders = vec![*folder];
    let mut left = image_inodes(image);
    while let Some(folder) = folders.pop() {
        for entry in image.list(&folder)? {
            left = left.checked_sub(1).context("the image is damaged: folders without end")?;
            let inode = image.inode(entry.number)?;
            match inode.kind {
                Kind::Folder => folders.push(inode),
                Kind::File => {
                    if let Some(elf) = Elf::read(image, &inode)? {
                        all.extend(elf.pages(image, &inode)?);
                    }
                }
                Kind::Link | Kind::Other => {}
            }
        }
    }
    Ok(())
}

/// More names than this can't be in an image.
fn image_inodes(image: &Image<'_, Bytes>) -> u64 {
    image.length() / 8
}

/// The interpreter of a script.
fn script(image: &Image<'_, Bytes>, inode: &Inode) -> Result<Option<String>> {
    let mut line = vec![0; inode.size.min(FIRST_LINE) as usize];
    image.read(inode, 0, &mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let words = line.strip_prefix("#!").and_then(|rest| rest.lines().next());
    Ok(words.and_then(|words| words.split_whitespace().next()).map(str::to_owned))
}

/// The program headers of an ELF file for x86-64.
struct Elf {
    segments: Vec<ProgramHeader>,
}

impl Elf {
    /// `None` for every other file.
    fn read(image: &Image<'_, Bytes>, inode: &Inode) -> Result<Option<Self>> {
        if inode.kind != Kind::File || inode.size < HEADER as u64 {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        image.read(inode, 0, &mut bytes)?;
        let header = parse_ident::<LittleEndian>(&bytes)
            .and_then(|ident| FileHeader::parse_tail(ident, &bytes[elf::abi::EI_NIDENT..]));
        let Ok(header) = header else { return Ok(None) };
        let fits = header.class == Class::ELF64
            && header.e_machine == EM_X86_64
            && usize::from(header.e_phentsize) == SEGMENT;
        if !fits {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::from(header.e_phnum) * SEGMENT];
        if image.read(inode, header.e_phoff, &mut bytes).is_err() {
            return Ok(None);
        }
        let segments = SegmentTable::new(LittleEndian, Class::ELF64, &bytes).iter().collect();
        Ok(Some(Self { segments }))
    }

    /// The pages of the image with this file's code.
    fn pages(&self, image: &Image<'_, Bytes>, inode: &Inode) -> Result<Vec<Extent>> {
        let mut pages = Vec::new();
        for segment in &self.segments {
            if segment.p_type != PT_LOAD || segment.p_flags & PF_X == 0 || segment.p_filesz == 0 {
                continue;
            }
            let end = segment.p_offset.checked_add(segment.p_filesz);
            let Some(end) = end.filter(|end| *end <= inode.size) else { continue };
            let place = image.place(inode)?;
            if !place.is_multiple_of(PAGE) {
                bail!("the root image has blocks that are no pages");
            }
            let first = (place + segment.p_offset) / PAGE;
            let last = (place + end).div_ceil(PAGE);
            pages.push(Extent { first: u32::try_from(first)?, pages: (last - first).try_into()? });
        }
        Ok(extents::join(pages))
    }

    /// The program that loads shared libraries.
    fn interpreter(&self, image: &Image<'_, Bytes>, inode: &Inode) -> Result<Option<String>> {
        let Some(segment) = self.segments.iter().find(|s| s.p_type == PT_INTERP) else {
            return Ok(None);
        };
        let mut path = vec![0; segment.p_filesz.min(4096) as usize];
        image.read(inode, segment.p_offset, &mut path)?;
        let path = path.split(|b| *b == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(path).into_owned()))
    }
}

#[cfg(test)]
mod tests;
