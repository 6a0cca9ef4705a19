//! What `RegionList` tells of a region.
use crate::{MemRights, SpaceAddr};

/// Bit of the attributes' word where the page-size hint begins.
const HINT: u32 = 8;
/// Attribute: it has a manager.
const MANAGED: u64 = 1 << 16;
/// Attribute: it has a window.
const WINDOW: u64 = 1 << 17;

/// The page-size hint of regions of a guest's space in which no page suits: registers of a device. Their manager
/// gets each access with the vCPU's state beside it, in its state page, carries it out there, and answers
/// [`FaultReply::Resume`](crate::FaultReply::Resume). An access that its manager did not live to answer, is made again.
pub const REGISTERS: u8 = 0;

/// A region, as whoever controls its space may see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionInfo {
    /// First address.
    pub base: SpaceAddr,
    /// Bytes.
    pub length: u64,
    /// Most rights that a mapping in it can have.
    pub rights: MemRights,
    /// log2 of the page size that suits it, or [`REGISTERS`].
    pub hint: u8,
    /// False for a pinned region.
    pub managed: bool,
    /// True when its manager has given it a window.
    pub window: bool,
    /// Its manager's number for it.
    pub tag: u64,
}

impl RegionInfo {
    /// One past the last address.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.base.0 + self.length
    }

    /// The result words: base, length, attributes (rights from bit 0 on, hint from bit 8 on, bit 16 managed,
    /// bit 17 window), tag.
    #[must_use]
    pub const fn encode(&self) -> [u64; 4] {
        let mut attributes = self.rights.bits() | (self.hint as u64) << HINT;
        if self.managed {
            attributes |= MANAGED;
        }
        if self.window {
            attributes |= WINDOW;
        }
        [self.base.0, self.length, attributes, self.tag]
    }

    /// Reads result words.
    #[must_use]
    pub const fn decode([base, length, attributes, tag]: [u64; 4]) -> Self {
        Self {
            base: SpaceAddr(base),
            length,
            rights: MemRights::from_bits_truncate(attributes),
            hint: (attributes >> HINT) as u8,
            managed: attributes & MANAGED != 0,
            window: attributes & WINDOW != 0,
            tag,
        }
    }
}
