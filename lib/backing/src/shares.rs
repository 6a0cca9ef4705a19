//! Objects that several clients see, each with rights of its own: who owns them, who may do what, whose
//! quota they count against, and where in the manager's memory they are. What the kernel is to do about
//! that, the manager is told by each answer.
//!
//! The owner decides alone. Nobody has more than the owner: when it lowers its own rights, it lowers everybody's. No
//! rights allow to write and to execute.
//!
//! An object that there is not, or not any more, is `Refused`: `Gone` and `BadCapability` are the kernel's, and mean that the
//! manager has failed and is to be asked once more, when another one is in its place.
//!
//! All of it is written down ([`notes`]), so that another manager can go on where one ends: what is taken away, before
//! the kernel takes it away; what is there, when it can be seen.
mod notes;
mod request;

use crate::accounts::{Account, Accounts};
use crate::{Object, PAGE};
use abi::{Error, MemRights};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use memory::Memory;
pub use notes::Notes;
pub use request::Request;

/// Most objects at a time.
pub const MOST_OBJECTS: u32 = 128;
/// One past the highest number of a client.
pub const CLIENT_LIMIT: u64 = 64;
/// Most bytes of an object.
pub const LONGEST: u64 = 1 << 30;
/// Most regions in which a client sees an object: the manager pays for what each takes in the kernel.
pub const MOST_REGIONS: u32 = 16;

/// What a client has of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct User {
    /// What it may do.
    pub rights: MemRights,
    /// Regions in which this manager has shown it the object.
    pub regions: u32,
    /// Some region may have been given a window by this manager or one before it, and is to keep it.
    pub shown: bool,
}

/// What a client may do with an object has changed to this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The client.
    pub user: u64,
    /// What it may do now.
    pub rights: MemRights,
}

/// An object that is no more. Its memory may be used for another one only after nobody sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its number.
    pub object: u32,
    /// Its bytes.
    pub length: u64,
    /// Who has, or had, anything of it.
    pub users: Vec<u64>,
}

/// Whether an object was made, or was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// Its memory is to be filled with zeros, and then it is to be announced ([`Shares::made`]).
    Fresh(u32),
    /// Its owner has asked for it before.
    There(u32),
}

#[derive(Clone, Debug)]
struct Entry {
    owner: u64,
    /// The owner's name for it, or 0.
    name: u64,
    place: Object,
    users: BTreeMap<u64, User>,
}

/// All objects.
#[derive(Debug)]
pub struct Shares<M> {
    entries: Vec<Option<Entry>>,
    notes: Notes<M>,
    accounts: Accounts,
    /// Bytes of the manager's memory.
    pool: u64,
}

/// Rights that an object can be shown with; none is "not at all".
fn checked(rights: MemRights) -> Result<MemRights, Error> {
    let both = MemRights::WRITE | MemRights::EXEC;
    if rights.contains(both) || rights.contains(MemRights::DEVICE) {
        return Err(Error::BadArgument);
    }
    Ok(if rights.is_empty() { rights } else { rights | MemRights::READ })
}

impl<M: Memory> Shares<M> {
    /// Objects in so many bytes of memory; what each client may have of it; where it is written down. Where somebody has written
    /// there before, what makes sense of it is there: see [`begun`](Self::begun).
    #[must_use]
    pub fn new(pool: u64, accounts: Accounts, notes: Notes<M>) -> Self {
        let mut shares = Self { entries: Vec::new(), notes, accounts, pool };
        if shares.begun() {
            shares.take_over();
        } else {
            (0..MOST_OBJECTS).for_each(|object| shares.notes.end(object));
        }
        shares
    }

    /// True when what is there from the start was made, by this manager or by one before it.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.notes.begun()
    }

    /// What is there from the start has been made.
    pub fn begin(&self) {
        self.notes.begin();
    }

    /// Goes on with what is written down. What makes no sense, is no more; where two objects are in each other's place,
    /// nobody knows whose it is.
    fn take_over(&mut self) {
        let mut found: Vec<(u32, Entry)> = Vec::new();
        for object in 0..MOST_OBJECTS {
            let noted = self.notes.object(object);
            found.extend(noted.filter(|entry| self.is_sound(entry)).map(|entry| (object, entry)));
        }
        let over = |one: &Object, other: &Object| {
            one.base < other.base + other.length && other.base < one.base + one.length
        };
        let alone = |(number, entry): &&(u32, Entry)| {
            let others = found.iter().filter(|(other, _)| other != number);
            others.map(|(_, other)| &other.place).all(|place| !over(place, &entry.place))
        };
        let alone: Vec<(u32, Entry)> = found.iter().filter(alone).cloned().collect();
        for (object, entry) in alone {
            if self.accounts.charge(entry.owner, entry.place.length).is_ok() {
                self.put(object, entry);
            }
        }
        for object in (0..MOST_OBJECTS).filter(|object| self.entry(*object).is_err()) {
            self.notes.end(object);
        }
    }

    /// True when an object can be as it is written down.
    fn is_sound(&self, entry: &Entry) -> bool {
        let Object { base, length } = entry.place;
        let end = base.checked_add(length).filter(|end| *end <= self.pool);
        let pages = (base | length).is_multiple_of(PAGE) && (1..=LONGEST).contains(&length);
        entry.owner < CLIENT_LIMIT && pages && end.is_some()
    }

    fn put(&mut self, object: u32, entry: Entry) {
        let index = object as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, None);
        }
        self.entries[index] = Some(entry);
    }

    fn entry(&self, object: u32) -> Result<&Entry, Error> {
        self.entries.get(object as usize).and_then(Option::as_ref).ok_or(Error::Refused)
    }

    fn entry_mut(&mut self, object: u32) -> Result<&mut Entry, Error> {
        self.entries.get_mut(object as usize).and_then(Option::as_mut).ok_or(Error::Refused)
    }

    /// An object that the caller owns.
    fn owned(&mut self, caller: u64, object: u32) -> Result<&mut Entry, Error> {
        let entry = self.entry_mut(object)?;
        if entry.owner == caller { Ok(entry) } else { Err(Error::NoRight) }
    }

    /// Where an object is.
    ///
    /// # Errors
    /// `Refused`.
    pub fn place(&self, object: u32) -> Result<Object, Error> {
        self.entry(object).map(|entry| entry.place)
    }

    /// What a client has of an object: nothing of one that there is not.
    #[must_use]
    pub fn user(&self, object: u32, user: u64) -> User {
        let entry = self.entry(object).ok();
        entry.and_then(|entry| entry.users.get(&user)).copied().unwrap_or_default()
    }

    /// Whose an object is.
    #[must_use]
    pub fn owner(&self, object: u32) -> Option<u64> {
        self.entry(object).ok().map(|entry| entry.owner)
    }

    /// What a client may own, and what of it it owns.
    #[must_use]
    pub fn account(&self, client: u64) -> Account {
        self.accounts.of(client)
    }

    /// Who has, or had, anything of an object; of none where there is none.
    pub fn users(&self, object: u32) -> impl Iterator<Item = (u64, User)> {
        let users = self.entry(object).ok().map(|entry| entry.users.iter());
        users.into_iter().flatten().map(|(client, user)| (*client, *user))
    }

    /// Objects that there are, and their bytes together.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        let there = self.entries.iter().flatten();
        there.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.place.length))
    }

    /// The first part of the memory that is free and long enough.
    fn room(&self, length: u64) -> Result<u64, Error> {
        let mut taken: Vec<Object> = self.entries.iter().flatten().map(|e| e.place).collect();
        taken.sort_unstable_by_key(|place| place.base);
        let mut at = 0;
        for place in taken {
            if place.base - at >= length {
                break;
            }
            at = place.base + place.length;
        }
        if self.pool.saturating_sub(at) >= length { Ok(at) } else { Err(Error::NoMemory) }
    }

    /// A client makes an object, with these rights for itself, or gets the one of that name (not 0) that it has made before.
    ///
    /// # Errors
    /// `BadArgument` for no bytes, too many, no rights, both to write and to execute, or another length than the one of that name
    /// has; `NoMemory` when the client's quota, the memory or the numbers are used up.
    pub fn create(
        &mut self,
        owner: u64,
        length: u64,
        rights: MemRights,
        name: u64,
    ) -> Result<Created, Error> {
        let rights = checked(rights)?;
        if owner >= CLIENT_LIMIT || rights.is_empty() || length == 0 || length > LONGEST {
            return Err(Error::BadArgument);
        }
        let length = length.next_multiple_of(PAGE);
        if let Some((object, place)) = self.named(owner, name) {
            let same = place.length == length;
            return if same { Ok(Created::There(object)) } else { Err(Error::BadArgument) };
        }
        let free = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        let number = u32::try_from(free).ok().filter(|n| *n < MOST_OBJECTS);
        let number = number.ok_or(Error::NoMemory)?;
        let base = self.room(length)?;
        self.accounts.charge(owner, length).map_err(|_| Error::NoMemory)?;
        let users = BTreeMap::from([(owner, User { rights, ..User::default() })]);
        self.put(number, Entry { owner, name, place: Object { base, length }, users });
        Ok(Created::Fresh(number))
    }

    fn named(&self, owner: u64, name: u64) -> Option<(u32, Object)> {
        let mut there = (0..).zip(&self.entries).filter_map(|(n, e)| Some((n, e.as_ref()?)));
        let found = there.find(|(_, e)| name != 0 && (e.owner, e.name) == (owner, name));
        found.map(|(object, entry)| (object, entry.place))
    }

    /// An object is as it should be at its beginning: it outlives the manager from now on.
    pub fn made(&self, object: u32) {
        if let Ok(entry) = self.entry(object) {
            self.notes.make(object, entry);
        }
    }

    /// The owner says what a user may do from now on. The answer tells whose rights are others than before; those that were
    /// lowered are to be taken away before the owner is answered.
    ///
    /// # Errors
    /// `Refused`, `NoRight` for somebody else's object or more than the owner has, `BadArgument`.
    pub fn give(
        &mut self,
        caller: u64,
        object: u32,
        user: u64,
        rights: MemRights,
    ) -> Result<Vec<Change>, Error> {
        self.owned(caller, object)?;
        let rights = checked(rights)?;
        let Self { entries, notes, .. } = self;
        let entry = entries.get_mut(object as usize).and_then(Option::as_mut);
        let entry = entry.ok_or(Error::Refused)?;
        if user >= CLIENT_LIMIT {
            return Err(Error::BadArgument);
        }
        let most = entry.users.get(&caller).map(|own| own.rights).unwrap_or_default();
        if !most.contains(rights) {
            return Err(Error::NoRight);
        }
        let own = user == caller;
        let wanted = entry.users.entry(user).or_default();
        // The owner's before all others: by that, whoever reads it knows that nobody has more.
        notes.user(object, user, User { rights, ..*wanted });
        let mut changes = Vec::new();
        for (number, has) in &mut entry.users {
            let now = match (own, *number == user) {
                (_, true) => rights,
                (true, false) => has.rights & rights,
                (false, false) => continue,
            };
            if now != has.rights {
                has.rights = now;
                notes.user(object, *number, *has);
                changes.push(Change { user: *number, rights: now });
            }
        }
        Ok(changes)
    }

    /// The owner ends an object.
    ///
    /// # Errors
    /// `Refused`, `NoRight`.
    pub fn end(&mut self, caller: u64, object: u32) -> Result<Ended, Error> {
        self.owned(caller, object)?;
        self.remove(object).ok_or(Error::Refused)
    }

    fn remove(&mut self, object: u32) -> Option<Ended> {
        let entry = self.entries.get_mut(object as usize)?.take()?;
        self.notes.end(object);
        self.accounts.credit(entry.owner, entry.place.length);
        let length = entry.place.length;
        Some(Ended { object, length, users: entry.users.into_keys().collect() })
    }

    /// A client has ended: so have its objects, and what it had of others', whose numbers are told too.
    pub fn client_ended(&mut self, client: u64) -> (Vec<Ended>, Vec<u32>) {
        let (mut ended, mut left) = (Vec::new(), Vec::new());
        for object in 0..self.entries.len() as u32 {
            let Ok(entry) = self.entry_mut(object) else { continue };
            if entry.owner == client {
                ended.extend(self.remove(object));
            } else if entry.users.remove(&client).is_some() {
                self.notes.user(object, client, User::default());
                left.push(object);
            }
        }
        (ended, left)
    }

    /// A region of a client is about to show an object, from `offset` on. → where in the object it ends
    ///
    /// # Errors
    /// `Refused`, `NoRight` when the client may not see it, `BadArgument` for what is not inside it, `Quota` for one region too
    /// many.
    pub fn attach(
        &mut self,
        client: u64,
        object: u32,
        offset: u64,
        length: u64,
    ) -> Result<u64, Error> {
        let Self { entries, notes, .. } = self;
        let entry = entries.get_mut(object as usize).and_then(Option::as_mut);
        let entry = entry.ok_or(Error::Refused)?;
        let user = entry.users.get_mut(&client).filter(|user| !user.rights.is_empty());
        let user = user.ok_or(Error::NoRight)?;
        let end = offset.checked_add(length).filter(|end| *end <= entry.place.length);
        let end = end.filter(|_| length > 0 && (offset | length).is_multiple_of(PAGE));
        let end = end.ok_or(Error::BadArgument)?;
        if user.regions >= MOST_REGIONS {
            return Err(Error::Quota);
        }
        user.regions += 1;
        if !core::mem::replace(&mut user.shown, true) {
            notes.user(object, client, *user);
        }
        Ok(end)
    }

    /// Whether a region of a client gets a window again that it lost with an earlier manager: one that begins at `offset` of an
    /// object and has so many bytes, for an access that needs these rights.
    ///
    /// # Errors
    /// `Refused`, `NoRight` where the client may not do that, `NoRegion` where it has had its regions detached since, or
    /// that object was a shorter one.
    pub fn shows_again(
        &self,
        client: u64,
        object: u32,
        (offset, length): (u64, u64),
        needed: MemRights,
    ) -> Result<(), Error> {
        let whole = self.place(object)?.length;
        let user = self.user(object, client);
        if !user.rights.contains(needed) || needed.is_empty() {
            return Err(Error::NoRight);
        }
        let inside = offset.checked_add(length).is_some_and(|end| end <= whole);
        if user.shown && inside { Ok(()) } else { Err(Error::NoRegion) }
    }

    /// What [`attach`](Self::attach) announced was refused.
    pub fn not_attached(&mut self, client: u64, object: u32) {
        let entry = self.entry_mut(object).ok();
        if let Some(user) = entry.and_then(|entry| entry.users.get_mut(&client)) {
            user.regions = user.regions.saturating_sub(1);
        }
    }

    /// None of a client's regions shows an object any more.
    ///
    /// # Errors
    /// `Refused`, `NoRight` when none ever did.
    pub fn detach(&mut self, client: u64, object: u32) -> Result<(), Error> {
        let Self { entries, notes, .. } = self;
        let entry = entries.get_mut(object as usize).and_then(Option::as_mut);
        let user = entry.ok_or(Error::Refused)?.users.get_mut(&client).ok_or(Error::NoRight)?;
        (user.regions, user.shown) = (0, false);
        notes.user(object, client, *user);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
