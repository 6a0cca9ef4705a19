//! The image manager: files of the boot archive, mapped read-only straight from where the boot
//! loader put them, so that all who use a file use the same memory.
//!
//! Configuration: capability `archive`; parameter `files`, a list `offset:length,…` of the files'
//! places in the archive, numbered from zero.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::{
    Access, Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, MemRights, NO_DEADLINE, Selector,
};
use alloc::vec::Vec;
use backing::{Object, Tag, piece};
use rt::{log, sys};

rt::entry!(main);

fn parse_files(text: &str) -> Option<Vec<Object>> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (base, length) = part.split_once(':')?;
            Some(Object { base: base.parse().ok()?, length: length.parse().ok()? })
        })
        .collect()
}

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
    let text = config.parameter("files").unwrap_or("");
    let (Some(memory), Some(files)) = (config.capability("archive"), parse_files(text)) else {
        panic!("no capability 'archive', or parameter 'files' is malformed: {text}");
    };
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok((Event::Fault(_), words)) => {
                let fault = FaultMessage::decode(&words);
                match serve(&files, &fault, Selector(memory)) {
                    Ok(reply) => sys::reply_wait(0, reply.encode(), NO_DEADLINE),
                    Err(error) => {
                        log!("image: fault refused: {fault:?}: {}", error.text());
                        sys::reply_wait(error as u64, [0; MESSAGE_WORDS], NO_DEADLINE)
                    }
                }
            }
            Ok((Event::Call(_), _)) => {
                sys::reply_wait(Error::Refused as u64, [0; MESSAGE_WORDS], NO_DEADLINE)
            }
            _ => sys::wait(NO_DEADLINE),
        };
    }
}
