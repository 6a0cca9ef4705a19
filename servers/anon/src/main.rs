//! The anonymous-memory manager: objects of zeroed memory, each a contiguous part of its pool,
//! zeroed part by part when first touched. One thread a processor; a fault comes to the thread
//! of the processor on which it happened.
//!
//! Configuration: region and capability `pool`; parameter `objects`, a list `base:length,…` of
//! byte offsets in the pool, numbered from zero; parameter `clients`, a list `object:client,…` of
//! those that count against a client's quota, and `quotas`, a list `client:bytes,…`; parameter `stacks`,
//! a list `object,…` of those that are stacks; region `state`, where it writes down what is zeroed, for the program that
//! is started in its place should it fail; region `ledger`, where it tells what there is. The
//! badge of a region's portal is the number of its space, below 64.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod kept;

use abi::{Error, FaultMessage, FaultReply, MemRights, Selector};
use alloc::vec::Vec;
use backing::accounts::Accounts;
use backing::{Object, Tag, tuples};
use kept::{Kept, Kind};
use rt::{Shared, log};
use spin::{Mutex, Once};

rt::entry!(main);

/// What the threads share. They run on different processors, so a spin lock is enough.
struct State {
    pool: Shared,
    objects: Vec<Kept>,
    state: Option<Shared>,
    ledger: Option<Shared>,
}

static STATE: Once<Mutex<State>> = Once::new();

/// A parameter that is a list, read whole.
fn list<const N: usize>(name: &str) -> Vec<[u64; N]> {
    let text = rt::config().parameter(name).unwrap_or("");
    let tuples = tuples(text).map(|tuple| match tuple {
        Ok(tuple) => tuple,
        Err(part) => panic!("parameter '{name}' is malformed at '{part}'"),
    });
    tuples.collect()
}

impl State {
    fn from_config() -> Self {
        let Some(pool) = Shared::region("pool") else {
            panic!("no region 'pool' in the configuration");
        };
        let mut accounts = match Accounts::list(rt::config().parameter("quotas").unwrap_or("")) {
            Ok(accounts) => accounts,
            Err(part) => panic!("parameter 'quotas' is malformed at '{part}'"),
        };
        let (clients, stacks) = (list::<2>("clients"), list::<1>("stacks"));
        let state = Shared::region("state");
        let mut objects = Vec::new();
        let mut noted = 0;
        for (number, [base, length]) in (0..).zip(list("objects")) {
            let object = Object { base, length };
            let client = clients.iter().find(|c| c[0] == number).map(|c| c[1]);
            let charged = client.map_or(Ok(()), |client| accounts.charge(client, length));
            let kind = match charged {
                Err(full) => {
                    log!(
                        "object {number} of {length} bytes refused: its client has {} left",
                        full.left
                    );
                    Kind::Refused
                }
                Ok(()) if stacks.contains(&[number]) => Kind::Stack,
                Ok(()) => Kind::Plain,
            };
            objects.push(Kept::new(object, kind, state.as_ref(), noted));
            noted += Kept::notes(object);
        }
        Self { pool, objects, state, ledger: Shared::region("ledger") }
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
        let found = kept.resolve(tag, fault, &self.pool, self.state.as_ref())?;
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
