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

use abi::{Error, FaultMessage, FaultReply, MemRights, Selector};
use alloc::vec::Vec;
use backing::{CHUNK, Object, Tag, piece};
use rt::Shared;
use spin::{Mutex, Once};

rt::entry!(main);

/// What the threads share. They run on different processors, so a spin lock is enough.
struct State {
    pool: Shared,
    objects: Vec<(Object, Vec<bool>)>,
}

static STATE: Once<Mutex<State>> = Once::new();

impl State {
    fn from_config() -> Self {
        let config = rt::config();
        let Some(pool) = Shared::region("pool") else {
            panic!("no region 'pool' in the configuration");
        };
        let text = config.parameter("objects").unwrap_or("");
        let objects = Object::list(text).map(|object| match object {
            Ok(object) => (object, alloc::vec![false; object.length.div_ceil(CHUNK) as usize]),
            Err(part) => panic!("parameter 'objects' is malformed at '{part}'"),
        });
        Self { pool, objects: objects.collect() }
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
    rt::serve_faults(|fault| state.lock().serve(fault, Selector(pool)))
}
