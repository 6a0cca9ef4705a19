//! Objects that several clients see, each with rights of its own: who owns them, who may do what, whose
//! quota they count against, and where in the manager's memory they are. What the kernel is to do about
//! that, the manager is told by each answer.
//!
//! The owner decides alone. Nobody has more than the owner: when it lowers its own rights, it lowers everybody's. No
//! rights allow to write and to execute.
use crate::accounts::Accounts;
use crate::{Object, PAGE};
use abi::{Error, MESSAGE_WORDS, MemRights, Message, SpaceAddr};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Most objects at a time.
pub const MOST_OBJECTS: u32 = 128;
/// One past the highest number of a client.
pub const CLIENT_LIMIT: u64 = 64;
/// Most bytes of an object.
pub const LONGEST: u64 = 1 << 30;
/// Most regions in which a client sees an object: the manager pays for what each takes in the kernel.
pub const MOST_REGIONS: u32 = 16;

/// What a client asks of the manager. Users and owners are named by the numbers of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Makes an object of zeros, of which these are the owner's rights. → its number
    Create {
        /// Bytes.
        length: u64,
        /// The owner's rights.
        rights: MemRights,
    },
    /// Gives a user these rights, whatever it had before; none takes the object away. For the owner.
    Give {
        /// The object.
        object: u32,
        /// The user.
        user: u64,
        /// All that it may do from now on.
        rights: MemRights,
    },
    /// The object ends, for everybody. For the owner.
    End {
        /// The object.
        object: u32,
    },
    /// A region of the caller's space, which names this manager, shows the object.
    Attach {
        /// The object.
        object: u32,
        /// Where the region begins.
        base: SpaceAddr,
        /// Its length.
        length: u64,
        /// Where in the object it begins.
        offset: u64,
    },
    /// None of the caller's regions shows the object any more.
    Detach {
        /// The object.
        object: u32,
    },
    /// → length, the caller's rights, 1 if it is the owner's
    Info {
        /// The object.
        object: u32,
    },
}

impl Request {
    /// The words of the call.
    #[must_use]
    pub const fn encode(self) -> Message {
        let mut words = [0; MESSAGE_WORDS];
        let used: [u64; 5] = match self {
            Self::Create { length, rights } => [1, length, rights.bits(), 0, 0],
            Self::Give { object, user, rights } => [2, object as u64, user, rights.bits(), 0],
            Self::End { object } => [3, object as u64, 0, 0, 0],
            Self::Attach { object, base, length, offset } => {
                [4, object as u64, base.0, length, offset]
            }
            Self::Detach { object } => [5, object as u64, 0, 0, 0],
            Self::Info { object } => [6, object as u64, 0, 0, 0],
        };
        let mut at = 0;
        while at < used.len() {
            words[at] = used[at];
            at += 1;
        }
        words
    }

    /// Reads the words of a call; `None` for nonsense.
    #[must_use]
    pub fn decode(words: &Message) -> Option<Self> {
        let [kind, first, second, third, fourth, ..] = *words;
        let object = u32::try_from(first);
        Some(match kind {
            1 => Self::Create { length: first, rights: MemRights::from_bits(second)? },
            2 => {
                let rights = MemRights::from_bits(third)?;
                Self::Give { object: object.ok()?, user: second, rights }
            }
            3 => Self::End { object: object.ok()? },
            4 => {
                let (base, length, offset) = (SpaceAddr(second), third, fourth);
                Self::Attach { object: object.ok()?, base, length, offset }
            }
            5 => Self::Detach { object: object.ok()? },
            6 => Self::Info { object: object.ok()? },
            _ => return None,
        })
    }
}

/// What a client has of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct User {
    /// What it may do.
    pub rights: MemRights,
    /// Regions in which it was shown the object.
    pub regions: u32,
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

#[derive(Clone, Debug)]
struct Entry {
    owner: u64,
    place: Object,
    users: BTreeMap<u64, User>,
}

/// All objects.
#[derive(Clone, Debug)]
pub struct Shares {
    entries: Vec<Option<Entry>>,
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

impl Shares {
    /// No objects, in so many bytes of memory; what each client may have of it.
    #[must_use]
    pub fn new(pool: u64, accounts: Accounts) -> Self {
        Self { entries: Vec::new(), accounts, pool }
    }

    fn entry(&self, object: u32) -> Result<&Entry, Error> {
        self.entries.get(object as usize).and_then(Option::as_ref).ok_or(Error::Gone)
    }

    fn entry_mut(&mut self, object: u32) -> Result<&mut Entry, Error> {
        self.entries.get_mut(object as usize).and_then(Option::as_mut).ok_or(Error::Gone)
    }

    /// An object that the caller owns.
    fn owned(&mut self, caller: u64, object: u32) -> Result<&mut Entry, Error> {
        let entry = self.entry_mut(object)?;
        if entry.owner == caller { Ok(entry) } else { Err(Error::NoRight) }
    }

    /// Where an object is.
    ///
    /// # Errors
    /// `Gone`.
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

    /// A client makes an object, with these rights for itself. Its memory is to be filled with zeros before anybody sees it.
    ///
    /// # Errors
    /// `BadArgument` for no bytes, too many, no rights, or both to write and to execute; `NoMemory` when the client's quota, the
    /// memory or the numbers are used up.
    pub fn create(&mut self, owner: u64, length: u64, rights: MemRights) -> Result<u32, Error> {
        let rights = checked(rights)?;
        if owner >= CLIENT_LIMIT || rights.is_empty() || length == 0 || length > LONGEST {
            return Err(Error::BadArgument);
        }
        let length = length.next_multiple_of(PAGE);
        let free = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        let number = u32::try_from(free).ok().filter(|n| *n < MOST_OBJECTS);
        let number = number.ok_or(Error::NoMemory)?;
        let base = self.room(length)?;
        self.accounts.charge(owner, length).map_err(|_| Error::NoMemory)?;
        let users = BTreeMap::from([(owner, User { rights, regions: 0 })]);
        let entry = Some(Entry { owner, place: Object { base, length }, users });
        match self.entries.get_mut(free) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        Ok(number)
    }

    /// The owner says what a user may do from now on. The answer tells whose rights are others than before; those that were
    /// lowered are to be taken away before the owner is answered.
    ///
    /// # Errors
    /// `Gone`, `NoRight` for somebody else's object or more than the owner has, `BadArgument`.
    pub fn give(
        &mut self,
        caller: u64,
        object: u32,
        user: u64,
        rights: MemRights,
    ) -> Result<Vec<Change>, Error> {
        let entry = self.owned(caller, object)?;
        let rights = checked(rights)?;
        if user >= CLIENT_LIMIT {
            return Err(Error::BadArgument);
        }
        let most = entry.users.get(&caller).map(|own| own.rights).unwrap_or_default();
        if !most.contains(rights) {
            return Err(Error::NoRight);
        }
        let own = user == caller;
        entry.users.entry(user).or_default();
        let mut changes = Vec::new();
        for (number, has) in &mut entry.users {
            let now = match (own, *number == user) {
                (_, true) => rights,
                (true, false) => has.rights & rights,
                (false, false) => continue,
            };
            if now != has.rights {
                has.rights = now;
                changes.push(Change { user: *number, rights: now });
            }
        }
        Ok(changes)
    }

    /// The owner ends an object.
    ///
    /// # Errors
    /// `Gone`, `NoRight`.
    pub fn end(&mut self, caller: u64, object: u32) -> Result<Ended, Error> {
        self.owned(caller, object)?;
        self.remove(object).ok_or(Error::Gone)
    }

    fn remove(&mut self, object: u32) -> Option<Ended> {
        let entry = self.entries.get_mut(object as usize)?.take()?;
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
                left.push(object);
            }
        }
        (ended, left)
    }

    /// A region of a client is about to show an object, from `offset` on. → where in the object it ends
    ///
    /// # Errors
    /// `Gone`, `NoRight` when the client may not see it, `BadArgument` for what is not inside it, `Quota` for one region too
    /// many.
    pub fn attach(
        &mut self,
        client: u64,
        object: u32,
        offset: u64,
        length: u64,
    ) -> Result<u64, Error> {
        let entry = self.entry_mut(object)?;
        let user = entry.users.get_mut(&client).filter(|user| !user.rights.is_empty());
        let user = user.ok_or(Error::NoRight)?;
        let end = offset.checked_add(length).filter(|end| *end <= entry.place.length);
        let end = end.filter(|_| length > 0 && (offset | length).is_multiple_of(PAGE));
        let end = end.ok_or(Error::BadArgument)?;
        if user.regions >= MOST_REGIONS {
            return Err(Error::Quota);
        }
        user.regions += 1;
        Ok(end)
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
    /// `Gone`, `NoRight` when none ever did.
    pub fn detach(&mut self, client: u64, object: u32) -> Result<(), Error> {
        let entry = self.entry_mut(object)?;
        let user = entry.users.get_mut(&client).ok_or(Error::NoRight)?;
        user.regions = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
