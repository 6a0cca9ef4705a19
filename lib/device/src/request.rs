//! What a monitor asks of whoever models devices for it: words of a portal call, and of its answer the first one.
use abi::Message;

const READ: u64 = 1;
const WRITE: u64 = 2;
const POWER_ON: u64 = 3;
const POWER_OFF: u64 = 4;

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Read configuration space.
    Read {
        /// Slot on the bus.
        slot: u8,
        /// Offset, whole access inside.
        offset: u8,
        /// Bytes: 1, 2, 4.
        length: u8,
    },
    /// Write configuration space.
    Write {
        /// Slot on the bus.
        slot: u8,
        /// Offset, whole access inside.
        offset: u8,
        /// Bytes: 1, 2, 4.
        length: u8,
        /// What is written.
        value: u32,
    },
    /// The machine is about to start: all devices are as after power-on.
    PowerOn,
    /// The machine is over: nothing of its memory is touched any more.
    PowerOff,
}

impl Request {
    /// The words of a call.
    #[must_use]
    pub fn encode(self) -> Message {
        let (kind, words) = match self {
            Self::Read { slot, offset, length } => {
                (READ, [slot.into(), offset.into(), length.into(), 0])
            }
            Self::Write { slot, offset, length, value } => {
                (WRITE, [slot.into(), offset.into(), length.into(), value.into()])
            }
            Self::PowerOn => (POWER_ON, [0; 4]),
            Self::PowerOff => (POWER_OFF, [0; 4]),
        };
        let [slot, offset, length, value] = words;
        [kind, slot, offset, length, value, 0, 0, 0]
    }

    /// Reads the words of a call, which may be anything; `None` for nonsense.
    #[must_use]
    pub fn decode(words: &Message) -> Option<Self> {
        let [kind, slot, offset, length, value, ..] = *words;
        match kind {
            POWER_ON => return Some(Self::PowerOn),
            POWER_OFF => return Some(Self::PowerOff),
            READ | WRITE => {}
            _ => return None,
        }
        let (slot, offset) = (u8::try_from(slot).ok()?, u8::try_from(offset).ok()?);
        let length = u8::try_from(length).ok().filter(|length| matches!(length, 1 | 2 | 4))?;
        // The space has 256 bytes.
        offset.checked_add(length - 1)?;
        match kind {
            READ => Some(Self::Read { slot, offset, length }),
            _ => {
                let value = u32::try_from(value).ok()?;
                Some(Self::Write { slot, offset, length, value })
            }
        }
    }
}
