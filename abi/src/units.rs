//! Newtypes for addresses, numbers and time that cross the kernel border.

/// Size of the smallest page, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Size of a large page, in bytes.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;
/// First address above the user half of a native space.
pub const USER_END: u64 = 0x0000_8000_0000_0000;

macro_rules! word {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The raw value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// `self + bytes`, or `None` when that wraps around.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(v) => Some(Self(v)),
                    None => None,
                }
            }

            /// True when the value is a multiple of `unit` (a power of two).
            #[must_use]
            pub const fn is_aligned(self, unit: u64) -> bool {
                self.0 & (unit - 1) == 0
            }

            /// The value rounded down to a multiple of `unit` (a power of two).
            #[must_use]
            pub const fn align_down(self, unit: u64) -> Self {
                Self(self.0 & !(unit - 1))
            }
        }

        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

word! {
    /// An address in the machine's physical memory.
    HostPhys
}
word! {
    /// An address in a native space.
    HostVirt
}
word! {
    /// An address in a guest-physical space, as the VM sees its memory.
    GuestPhys
}
word! {
    /// An address in one of the guest's own address spaces.
    GuestVirt
}
word! {
    /// A value of the time-stamp counter, in ticks; `BootInfo::tsc_khz` gives the rate.
    Ticks
}
word! {
    /// An address inside a space of either kind, where the kind is known from context.
    SpaceAddr
}

/// Number of a processor, counted from zero in the order in which they were started.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct CpuNumber(pub u32);

/// Index into a space's capability table.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Selector(pub u32);

/// Priority of a scheduling context; higher runs first, 0..=255.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Priority(pub u8);
