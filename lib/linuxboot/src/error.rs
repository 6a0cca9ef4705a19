//! Why a kernel cannot be started.

/// Each names the thing that is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Too short, or without the signatures of a bzImage.
    NotBzImage,
    /// A boot protocol older than 2.12.
    OldProtocol(u16),
    /// No 64-bit entry point.
    No64Bit,
    /// The header promises more than the file holds.
    Truncated {
        /// Bytes that the header names.
        needed: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// A field of the header cannot be true.
    BadHeader(&'static str),
    /// Longer than the kernel takes, or holding a zero byte.
    CommandLine {
        /// Longest that the kernel takes.
        limit: u64,
    },
    /// The guest's RAM cannot hold it all.
    TooLittleMemory {
        /// Bytes that would do.
        needed: u64,
        /// Bytes that there are.
        memory: u64,
    },
    /// RAM is not a multiple of a page, or reaches beyond 3 GiB.
    BadMemory(u64),
    /// An access outside of RAM or file, although checked before.
    OutOfBounds,
}

impl From<memory::OutOfBounds> for Error {
    fn from(_: memory::OutOfBounds) -> Self {
        Self::OutOfBounds
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotBzImage => write!(f, "the kernel image is not a Linux bzImage"),
            Self::OldProtocol(version) => {
                let (major, minor) = (version >> 8, version & 0xff);
                write!(f, "the kernel image speaks boot protocol {major}.{minor}, not 2.12")
            }
            Self::No64Bit => write!(f, "the kernel image has no 64-bit entry point"),
            Self::Truncated { needed, length } => write!(
                f,
                "the kernel image is truncated or damaged: {length} bytes, its header says {needed}"
            ),
            Self::BadHeader(what) => write!(f, "the kernel image's header is damaged: {what}"),
            Self::CommandLine { limit } => {
                write!(f, "the guest's command line is longer than {limit} bytes, or holds a zero")
            }
            Self::TooLittleMemory { needed, memory } => write!(
                f,
                "the guest's memory of {} MiB is too small to boot: it takes at least {} MiB",
                memory >> 20,
                needed.div_ceil(1 << 20)
            ),
            Self::BadMemory(length) => {
                write!(f, "a guest's memory of {length} bytes is not supported")
            }
            Self::OutOfBounds => write!(f, "an access beyond the guest's memory"),
        }
    }
}
