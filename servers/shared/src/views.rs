//! What each client sees of each object: a range of this program's space with exactly that client's rights.
//! It lies in a pinned region of its own, so that the kernel lets the client's regions look at it.
use abi::{Error, MemRights, Selector, SpaceAddr};
use alloc::collections::{BTreeMap, BTreeSet};
use backing::Object;
use backing::shares::{CLIENT_LIMIT, Ended, LONGEST, MOST_OBJECTS};
use rt::Shared;
use rt::sys::{self, Bind};

/// Where views begin, each with room for the longest object.
const VIEWS: u64 = 0x1000_0000_0000;
/// The own space.
const OWN: Selector = Selector(0);

/// All views.
pub struct Views {
    pool: Shared,
    memory: Selector,
    /// Spaces of the clients.
    spaces: BTreeMap<u64, Selector>,
    /// Those that there are, with their lengths.
    there: BTreeSet<(u32, u64)>,
}

fn place_of(object: u32, client: u64) -> u64 {
    VIEWS + (u64::from(object) * CLIENT_LIMIT + client) * LONGEST
}

/// What lies at an address of a view: the object, the client whose view it is, and the offset in the object.
pub fn seen(at: u64) -> Option<(u32, u64, u64)> {
    let inside = at.checked_sub(VIEWS)?;
    let (object, client) = (inside / LONGEST / CLIENT_LIMIT, inside / LONGEST % CLIENT_LIMIT);
    let object = u32::try_from(object).ok().filter(|object| *object < MOST_OBJECTS)?;
    Some((object, client, inside % LONGEST))
}

impl Views {
    /// No views of this memory; `spaces` are numbers and selectors.
    pub fn new(pool: Shared, memory: Selector, spaces: &[[u64; 2]]) -> Self {
        let spaces = spaces.iter().map(|[client, space]| (*client, Selector(*space as u32)));
        Self { pool, memory, spaces: spaces.collect(), there: BTreeSet::new() }
    }

    /// Fills an object's memory with zeros.
    pub fn zero(&self, place: Object) -> Result<(), Error> {
        self.pool.zero(place.base, place.length).map_err(|_| Error::BadAddress)
    }

    /// A client sees an object with these rights from now on, and with no others.
    ///
    /// # Errors
    /// `Quota`: then it sees nothing.
    pub fn show(
        &mut self,
        object: u32,
        client: u64,
        place: Object,
        rights: MemRights,
    ) -> Result<(), Error> {
        let Object { base: from, length } = place;
        let (base, there) = (place_of(object, client), self.there.contains(&(object, client)));
        let shown = if rights.is_empty() {
            // Its regions stay where they are, and show it again when it gets rights again.
            if there { sys::unmap(OWN, base, length) } else { Ok(()) }
        } else {
            let bound = if there {
                // Where rights are taken away, this takes all of it away from everywhere first.
                sys::region_rights(OWN, base, length, rights)
            } else {
                let (space, portal) = (OWN, Selector(0));
                sys::region_bind(Bind { space, base, length, portal, tag: 0, rights, hint: 21 })
            };
            if bound.is_ok() {
                self.there.insert((object, client));
            }
            bound.and_then(|()| sys::map(OWN, base, self.memory, from, length, rights))
        };
        if shown.is_err() {
            self.forget(object, client, length);
        }
        shown
    }

    /// A client sees nothing of an object any more, and its regions look at nothing.
    pub fn forget(&mut self, object: u32, client: u64, length: u64) {
        if self.there.remove(&(object, client)) {
            // This takes no memory, so there is nothing that it could fail for.
            let _ = sys::region_unbind(OWN, place_of(object, client), length);
        }
    }

    /// An object is no more.
    pub fn end(&mut self, ended: &Ended) {
        for client in &ended.users {
            self.forget(ended.object, *client, ended.length);
        }
    }

    /// A region of a client's space shows an object from `offset` on.
    ///
    /// # Errors
    /// `NoRegion` when there is no such region of this manager's; `Quota`.
    pub fn attach(
        &mut self,
        object: u32,
        client: u64,
        (base, length): (SpaceAddr, u64),
        offset: u64,
    ) -> Result<(), Error> {
        let space = *self.spaces.get(&client).ok_or(Error::NoRight)?;
        sys::region_window(space, base.0, length, place_of(object, client) + offset)
    }
}
