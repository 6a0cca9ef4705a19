//! Puts everything into guest RAM.
use crate::header::Header;
use crate::{Error, acpi, entry, layout, params};
use alloc::vec;
use memory::Memory;

/// RAM ends below the window of the PCI devices.
const MEMORY_LIMIT: u64 = 3 << 30;
/// Copies go through a buffer of this size.
const CHUNK: usize = 64 << 10;
/// What a guest needs beside kernel and initial RAM disk to get anywhere.
const SLACK: u64 = 16 << 20;

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a, K, I> {
    /// The kernel image.
    pub kernel: &'a K,
    /// Its initial RAM disk.
    pub initrd: Option<&'a I>,
    /// Its command line.
    pub command_line: &'a [u8],
}

/// A guest that is ready to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// 64-bit entry point of the kernel.
    pub entry: u64,
    /// Address of the boot parameters.
    pub params: u64,
}

/// Lays a kernel out in guest RAM.
///
/// # Errors
/// The image is damaged, or the RAM too small.
pub fn load<R: Memory, K: Memory, I: Memory>(
    ram: &R,
    boot: &Boot<'_, K, I>,
) -> Result<Loaded, Error> {
    let memory = ram.len();
    if memory > MEMORY_LIMIT || !memory.is_multiple_of(4096) {
        return Err(Error::BadMemory(memory));
    }
    let header = Header::read(boot.kernel)?;
    let start = header.preferred_address;
    let kernel_end = start + header.init_size;
    let initrd = place_initrd(memory, kernel_end, &header, boot.initrd.map_or(0, Memory::len))?;
    put_command_line(ram, &header, boot.command_line)?;
    copy(boot.kernel, header.kernel_offset, ram, start, header.kernel_length)?;
    if let Some(image) = boot.initrd {
        copy(image, 0, ram, initrd, image.len())?;
    }
    let rsdp = acpi::install(ram, layout::ACPI, layout::HIGH)?;
    let initrd = (initrd, boot.initrd.map_or(0, Memory::len));
    let page = params::build(&header, &params::Told { memory, initrd, rsdp });
    ram.write(layout::PARAMS, page.as_slice())?;
    entry::install(ram)?;
    Ok(Loaded { entry: start + 0x200, params: layout::PARAMS })
}

/// As high as kernel and RAM allow, page-aligned; 0 for none.
fn place_initrd(memory: u64, kernel_end: u64, header: &Header, length: u64) -> Result<u64, Error> {
    let too_little = |needed| Err(Error::TooLittleMemory { needed, memory });
    let Some(needed) = kernel_end.checked_add(SLACK).and_then(|n| n.checked_add(length)) else {
        return too_little(u64::MAX);
    };
    if needed > memory {
        return too_little(needed);
    }
    if length == 0 {
        return Ok(0);
    }
    let top = memory.min(header.initrd_last.saturating_add(1));
    match top.checked_sub(length) {
        Some(start) if start & !0xfff >= kernel_end => Ok(start & !0xfff),
        _ => too_little(needed),
    }
}

fn put_command_line(ram: &impl Memory, header: &Header, line: &[u8]) -> Result<(), Error> {
    let limit = header.command_line_limit;
    if line.len() as u64 > limit || line.contains(&0) {
        return Err(Error::CommandLine { limit });
    }
    ram.write(layout::COMMAND_LINE, line)?;
    ram.write(layout::COMMAND_LINE + line.len() as u64, &[0])?;
    Ok(())
}

fn copy<F: Memory, T: Memory>(
    from: &F,
    from_offset: u64,
    to: &T,
    to_offset: u64,
    length: u64,
) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < length {
        let part = (length - done).min(CHUNK as u64);
        let Some(bytes) = buffer.get_mut(..part as usize) else { break };
        from.read(from_offset + done, bytes)?;
        to.write(to_offset + done, bytes)?;
        done += part;
    }
    Ok(())
}
