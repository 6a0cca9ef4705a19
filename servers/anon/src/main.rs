//! The anonymous-memory manager: objects of zeroed memory, each a contiguous part of its pool,
//! zeroed chunk by chunk when first touched. One thread a processor; a fault comes to the thread
//! of the processor on which it happened.
//!
//! Configuration: region and capability `pool`; parameter `objects`, a list `base:length,…` of
//! byte offsets in the pool, numbered from zero; region `ledger`, where it tells what there is. The
//! badge of a region's portal is the number of its space, below 64.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

use abi::{Error, FaultMessage, FaultReply, MemRights, Selector};
use alloc::vec::Vec;
use backing::{CHUNK, Object, Tag, piece};
use ledger::Row;
use rt::Shared;
use spin::{Mutex, Once};

rt::entry!(main);

/// What the threads share. They run on different processors, so a spin lock is enough.
struct State {
    pool: Shared,
    objects: Vec<Kept>,
    ledger: Option<Shared>,
}

/// An object, and what was done with it.
struct Kept {
    object: Object,
    /// Which chunks are zeroed.
    zeroed: Vec<bool>,
    /// The spaces that have mapped any of it, as bits.
    spaces: u64,
    row: Row,
}

impl Kept {
    fn new(object: Object) -> Self {
        let zeroed = alloc::vec![false; object.length.div_ceil(CHUNK) as usize];
        let row = Row { size: object.length, quota: object.length, ..Row::default() };
        Self { object, zeroed, spaces: 0, row }
    }

    /// Notes that a space has been shown so many bytes.
    fn shown(&mut self, badge: u64, length: u64) {
        self.spaces |= 1 << (badge % 64);
        self.row.spaces = self.spaces.count_ones().into();
        self.row.shown += length;
        self.row.faults += 1;
    }
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
            Ok(object) => Kept::new(object),
            Err(part) => panic!("parameter 'objects' is malformed at '{part}'"),
        });
        Self { pool, objects: objects.collect(), ledger: Shared::region("ledger") }
    }

    /// Finds the memory behind a fault and zeroes it when it is fresh.
    fn serve(
        &mut self,
        badge: u64,
        fault: &FaultMessage,
        pool: Selector,
    ) -> Result<FaultReply, Error> {
        let tag = Tag::decode(fault.tag);
        let kept = self.objects.get_mut(tag.object as usize).ok_or(Error::NoRegion)?;
        let found = piece(kept.object, tag, fault.offset, fault.region_length);
        let found = found.ok_or(Error::BadAddress)?;
        let chunk = usize::try_from(found.chunk).ok().and_then(|c| kept.zeroed.get_mut(c));
        let zeroed = chunk.ok_or(Error::BadAddress)?;
        if !*zeroed {
            // The whole chunk, also what this region does not show: another region may.
            let start = found.chunk * CHUNK;
            let length = CHUNK.min(kept.object.length - start);
            let zero = self.pool.zero(kept.object.base + start, length);
            zero.map_err(|_| Error::BadAddress)?;
            *zeroed = true;
            kept.row.resident += length;
            kept.row.resident_most = kept.row.resident;
        }
        kept.shown(badge, found.length);
        if let Some(ledger) = &self.ledger {
            // What finds no room there is told to nobody.
            let _ = kept.row.write(ledger, tag.object.into());
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
    rt::serve_faults(|badge, fault| state.lock().serve(badge, fault, Selector(pool)))
}
