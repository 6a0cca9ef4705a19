//! The image manager: files of the boot archive, mapped read-only straight from where the boot
//! loader put them, so that all who use a file use the same memory.
//!
//! Configuration: capability `archive`; parameter `files`, a list `offset:length,…` of the files'
//! places in the archive, numbered from zero.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::{Access, Error, FaultMessage, FaultReply, MemRights, Selector};
use alloc::vec::Vec;
use backing::{Object, Tag, piece};

rt::entry!(main);

fn serve(files: &[Object], fault: &FaultMessage, memory: Selector) -> Result<FaultReply, Error> {
    if fault.access == Access::Write {
        return Err(Error::NoRight);
    }
    let tag = Tag::decode(fault.tag);
    let file = files.get(tag.object as usize).ok_or(Error::NoRegion)?;
    let found = piece(*file, tag, fault.offset, fault.region_length).ok_or(Error::BadAddress)?;
    Ok(FaultReply::Map {
        memory,
        memory_offset: found.memory_offset,
        region_offset: found.region_offset,
        length: found.length,
        rights: MemRights::READ | MemRights::EXEC,
    })
}

fn main(_thread: u64) -> ! {
    let config = rt::config();
    let Some(memory) = config.capability("archive") else {
        panic!("no capability 'archive' in the configuration");
    };
    let files = Object::list(config.parameter("files").unwrap_or("")).map(|file| match file {
        Ok(file) => file,
        Err(part) => panic!("parameter 'files' is malformed at '{part}'"),
    });
    let files: Vec<_> = files.collect();
    rt::serve_faults(|fault| serve(&files, fault, Selector(memory)))
}
