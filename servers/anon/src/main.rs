//! The anonymous-memory manager: objects of zeroed memory, each a contiguous part of its pool,
//! zeroed chunk by chunk when first touched. One thread a processor; a fault comes to the thread
//! of the processor on which it happened.
//!
//! Configuration: region and capability `pool`; parameter `objects`, a list `base:length,…` of
//! byte offsets in the pool, numbered from zero.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::{
    Error, Event, FaultMessage, FaultReply, MESSAGE_WORDS, MemRights, NO_DEADLINE, Selector,
};
use alloc::vec::Vec;
use backing::{CHUNK, Object, Tag, piece};
use rt::{Shared, log, sys};
use spin::{Mutex, Once};

rt::entry!(main);

/// What the threads share. They run on different processors, so a spin lock is enough.
struct State {
    pool: Shared,
    objects: Vec<(Object, Vec<bool>)>,
}

static STATE: Once<Mutex<State>> = Once::new();

fn parse_objects(text: &str) -> Option<Vec<(Object, Vec<bool>)>> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (base, length) = part.split_once(':')?;
            let object = Object { base: base.parse().ok()?, length: length.parse().ok()? };
            let chunks = usize::try_from(object.length.div_ceil(CHUNK)).ok()?;
            Some((object, alloc::vec![false; chunks]))
        })
        .collect()
}

impl State {
    fn from_config() -> Self {
        let config = rt::config();
        let Some(pool) = Shared::region("pool") else {
            panic!("no region 'pool' in the configuration");
        };
        let text = config.parameter("objects").unwrap_or("");
        let Some(objects) = parse_objects(text) else {
            panic!("parameter 'objects' is malformed: {text}");
        };
        Self { pool, objects }
    }

    /// Finds the memory behind a fault and zeroes it when it is fresh.
    fn serve(&mut self, fault: &FaultMessage, pool: Selector) -> Result<FaultReply, Error> {
        let tag = Tag::decode(fault.tag);
        let slot = self.objects.get_mut(tag.object as usize).ok_or(Error::NoRegion)?;
        let found = piece(slot.0, tag, fault.offset, fault.region_length);
        let found = found.ok_or(Error::BadAddress)?;
        let chunk = usize::try_from(found.chunk).ok().and_then(|c| slot.1.get_mut(c));
        let zeroed = chunk.ok_or(Error::BadAddress)?;
        if !*zeroed {
            // The whole chunk, also what this region does not show: another region may.
            let start = found.chunk * CHUNK;
            let length = CHUNK.min(slot.0.length - start);
            let zero = self.pool.zero(slot.0.base + start, length);
            zero.map_err(|_| Error::BadAddress)?;
            *zeroed = true;
        }
        Ok(FaultReply::Map {
            memory: pool,
            memory_offset: found.memory_offset,
            region_offset: found.region_offset,
            length: found.length,
            rights: MemRights::READ | MemRights::WRITE | MemRights::EXEC,
        })
    }
}

fn main(_thread: u64) -> ! {
    let state = STATE.call_once(|| Mutex::new(State::from_config()));
    let Some(pool) = rt::config().capability("pool") else {
        panic!("no capability 'pool' in the configuration");
    };
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        next = match next {
            Ok((Event::Fault(_), words)) => {
                let fault = FaultMessage::decode(&words);
                // In a statement of its own, so that the lock is free again before the reply:
                // replying waits for the next fault.
                let answer = state.lock().serve(&fault, Selector(pool));
                match answer {
                    Ok(reply) => sys::reply_wait(0, reply.encode(), NO_DEADLINE),
                    Err(error) => {
                        log!("anon: fault refused: {fault:?}: {}", error.text());
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
