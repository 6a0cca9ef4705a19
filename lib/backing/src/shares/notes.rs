//! What the manager of shared objects writes down, for the one that may be started in its place. An object is there while
//! the word for its owner is not zero: that word is written after all others, and taken back before anything else is done about
//! the object's end. A client's byte is what it may do; nobody may do more than the owner's says, so that one write
//! lowers all. So at every moment this is a state that the manager was in, or one that it was asked to get into.
//!
//! Layout, little-endian: [`HEADER`] bytes, of which the first eight tell that there are notes; for each object [`ENTRY`] bytes:
//! its owner's number and one, place, length, name (8 each), and from [`USERS`] on a byte for each client.
use super::{CLIENT_LIMIT, Entry, MOST_OBJECTS, User, checked};
use crate::Object;
use abi::MemRights;
use alloc::collections::BTreeMap;
use memory::Memory;

const HEADER: u64 = 64;
const ENTRY: u64 = 128;
const USERS: u64 = 32;
/// Fields of an entry.
const OWNER: u64 = 0;
const BASE: u64 = 8;
const LENGTH: u64 = 16;
const NAME: u64 = 24;
const MARK: u64 = u64::from_le_bytes(*b"shared\0\0");
/// In a client's byte, beside its rights: some region shows it the object.
const SHOWN: u8 = 1 << 7;

const _: () = assert!(USERS + CLIENT_LIMIT <= ENTRY);

/// The notes; none where nobody keeps them.
#[derive(Clone, Debug)]
pub struct Notes<M>(Option<M>);

impl<M: Memory> Notes<M> {
    /// Bytes that notes take.
    pub const BYTES: u64 = HEADER + MOST_OBJECTS as u64 * ENTRY;

    /// Notes in a memory: zeros at first. One that is too short holds none.
    pub fn new(memory: Option<M>) -> Self {
        Self(memory.filter(|memory| memory.len() >= Self::BYTES))
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        if let Some(memory) = &self.0 {
            // It is long enough.
            let _ = memory.write(at, bytes);
        }
    }

    fn word(&self, at: u64) -> u64 {
        self.0.as_ref().and_then(|memory| memory.read64(at).ok()).unwrap_or(0)
    }

    /// True when a manager has [begun](Self::begin) them.
    pub(super) fn begun(&self) -> bool {
        self.word(0) == MARK
    }

    /// What is there from the start is written down.
    pub(super) fn begin(&self) {
        self.write(0, &MARK.to_le_bytes());
    }

    /// An object is no more.
    pub(super) fn end(&self, object: u32) {
        self.write(at(object) + OWNER, &[0; 8]);
    }

    /// An object is there.
    pub(super) fn make(&self, object: u32, entry: &Entry) {
        let at = at(object);
        // What one before it of that number has left.
        self.write(at + USERS, &[0; CLIENT_LIMIT as usize]);
        for (client, user) in &entry.users {
            self.user(object, *client, *user);
        }
        let Object { base, length } = entry.place;
        for (field, value) in [(BASE, base), (LENGTH, length), (NAME, entry.name)] {
            self.write(at + field, &value.to_le_bytes());
        }
        self.write(at + OWNER, &(entry.owner + 1).to_le_bytes());
    }

    /// What a client has of an object.
    pub(super) fn user(&self, object: u32, client: u64, user: User) {
        if client < CLIENT_LIMIT {
            let shown = if user.shown { SHOWN } else { 0 };
            self.write(at(object) + USERS + client, &[user.rights.bits() as u8 | shown]);
        }
    }

    /// An object as it is written down, unchecked but for what clients may do: nobody more than the owner, and nothing
    /// where that makes no sense. `None` where there is none.
    pub(super) fn object(&self, object: u32) -> Option<Entry> {
        let at = at(object);
        let field = |field| self.word(at + field);
        let owner = field(OWNER).checked_sub(1)?;
        let mut bytes = [0; CLIENT_LIMIT as usize];
        self.0.as_ref()?.read(at + USERS, &mut bytes).ok()?;
        let most = usize::try_from(owner).ok().and_then(|n| bytes.get(n)).copied().map(rights)?;
        let users = (0..).zip(bytes).filter(|(client, byte)| *byte != 0 || *client == owner);
        let users: BTreeMap<u64, User> = users
            .map(|(client, byte)| {
                let rights = rights(byte) & most;
                (client, User { rights, regions: 0, shown: byte & SHOWN != 0 })
            })
            .collect();
        let place = Object { base: field(BASE), length: field(LENGTH) };
        Some(Entry { owner, name: field(NAME), place, users })
    }
}

const fn at(object: u32) -> u64 {
    HEADER + object as u64 * ENTRY
}

/// The rights in a client's byte.
fn rights(byte: u8) -> MemRights {
    let rights = MemRights::from_bits(u64::from(byte & !SHOWN));
    rights.and_then(|rights| checked(rights).ok()).unwrap_or_default()
}
