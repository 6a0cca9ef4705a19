//! What clients of shared objects ask for. Each may be asked once more: what has been done then stays done, once. (An object
//! that has ended is `Refused` then.)
use abi::{MESSAGE_WORDS, MemRights, Message, SpaceAddr};

/// What a client asks of the manager. Users and owners are named by the numbers of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Makes an object of zeros, of which these are the owner's rights. → its number
    Create {
        /// Bytes.
        length: u64,
        /// The owner's rights.
        rights: MemRights,
        /// The owner's own name for it, or 0: while it has one of that name, it gets that one. So whoever hears nothing, or that
        /// the manager has ended, can ask once more.
        name: u64,
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
            Self::Create { length, rights, name } => [1, length, rights.bits(), name, 0],
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

    /// The object that it is about, if there is one yet.
    #[must_use]
    pub const fn object(self) -> Option<u32> {
        match self {
            Self::Create { .. } => None,
            Self::Give { object, .. }
            | Self::End { object }
            | Self::Attach { object, .. }
            | Self::Detach { object }
            | Self::Info { object } => Some(object),
        }
    }

    /// Reads the words of a call; `None` for nonsense.
    #[must_use]
    pub fn decode(words: &Message) -> Option<Self> {
        let [kind, first, second, third, fourth, ..] = *words;
        let object = u32::try_from(first);
        Some(match kind {
            1 => {
                let rights = MemRights::from_bits(second)?;
                Self::Create { length: first, rights, name: third }
            }
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
