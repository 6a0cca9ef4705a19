//! Structures that calls point to, as they lie in user memory.

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    if let Some(from) = bytes.get(at..at + 8) {
        b.copy_from_slice(from);
    }
    u64::from_le_bytes(b)
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(to) = bytes.get_mut(at..at + 8) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// `struct iovec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoVec {
    /// User address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
}

impl IoVec {
    /// Size in memory.
    pub const SIZE: usize = 16;

    /// From memory.
    #[must_use]
    pub fn decode(bytes: &[u8; 16]) -> Self {
        Self { base: word(bytes, 0), length: word(bytes, 8) }
    }
}

/// `struct msghdr` (user's layout, 56 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MsgHdr {
    /// Address of the socket address.
    pub name: u64,
    /// Its length (room).
    pub name_length: u32,
    /// Address of the iovec array.
    pub vectors: u64,
    /// Its entries.
    pub vector_count: u64,
    /// Address of the ancillary data.
    pub control: u64,
    /// Its length (room).
    pub control_length: u64,
    /// Flags.
    pub flags: u32,
}

impl MsgHdr {
    /// Size in memory.
    pub const SIZE: usize = 56;
    /// Where `msg_namelen` lies.
    pub const NAME_LENGTH_AT: u64 = 8;
    /// Where `msg_controllen` lies.
    pub const CONTROL_LENGTH_AT: u64 = 40;
    /// Where `msg_flags` lies.
    pub const FLAGS_AT: u64 = 48;

    /// From memory.
    #[must_use]
    pub fn decode(bytes: &[u8; 56]) -> Self {
        Self {
            name: word(bytes, 0),
            name_length: word(bytes, 8) as u32,
            vectors: word(bytes, 16),
            vector_count: word(bytes, 24),
            control: word(bytes, 32),
            control_length: word(bytes, 40),
            flags: word(bytes, 48) as u32,
        }
    }
}

/// `struct mmsghdr`: a [`MsgHdr`], then the number of bytes, padded to 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MMsgHdr;

impl MMsgHdr {
    /// Size in memory.
    pub const SIZE: u64 = 64;
    /// Where `msg_len` lies.
    pub const LENGTH_AT: u64 = 56;
}

/// `struct pollfd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PollFd {
    /// Descriptor; negative ones are ignored.
    pub fd: i32,
    /// Asked for.
    pub events: u16,
    /// Found.
    pub revents: u16,
}

impl PollFd {
    /// Size in memory.
    pub const SIZE: usize = 8;

    /// From memory.
    #[must_use]
    pub fn decode(b: [u8; 8]) -> Self {
        Self {
            fd: i32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            events: u16::from_le_bytes([b[4], b[5]]),
            revents: u16::from_le_bytes([b[6], b[7]]),
        }
    }

    /// To memory.
    #[must_use]
    pub fn encode(self) -> [u8; 8] {
        let mut b = [0; 8];
        b[..4].copy_from_slice(&self.fd.to_le_bytes());
        b[4..6].copy_from_slice(&self.events.to_le_bytes());
        b[6..].copy_from_slice(&self.revents.to_le_bytes());
        b
    }
}

/// `struct timespec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeSpec {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanoseconds: i64,
}

impl TimeSpec {
    /// From memory.
    #[must_use]
    pub fn decode(b: &[u8; 16]) -> Self {
        Self { seconds: word(b, 0) as i64, nanoseconds: word(b, 8) as i64 }
    }

    /// To memory.
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        let mut b = [0; 16];
        put(&mut b, 0, self.seconds as u64);
        put(&mut b, 8, self.nanoseconds as u64);
        b
    }

    /// As nanoseconds; `None` where Linux answers `EINVAL`. Saturates below `u64::MAX`.
    #[must_use]
    pub fn to_nanoseconds(self) -> Option<u64> {
        if self.seconds < 0 || !(0..1_000_000_000).contains(&self.nanoseconds) {
            return None;
        }
        let seconds = (self.seconds as u64).saturating_mul(1_000_000_000);
        Some(seconds.saturating_add(self.nanoseconds as u64).min(u64::MAX - 1))
    }

    /// From nanoseconds.
    #[must_use]
    pub const fn from_nanoseconds(ns: u64) -> Self {
        Self { seconds: (ns / 1_000_000_000) as i64, nanoseconds: (ns % 1_000_000_000) as i64 }
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeVal {
    /// Seconds.
    pub seconds: i64,
    /// Microseconds.
    pub microseconds: i64,
}

impl TimeVal {
    /// From memory.
    #[must_use]
    pub fn decode(b: &[u8; 16]) -> Self {
        Self { seconds: word(b, 0) as i64, microseconds: word(b, 8) as i64 }
    }

    /// To memory.
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        TimeSpec { seconds: self.seconds, nanoseconds: self.microseconds }.encode()
    }

    /// As nanoseconds, by the rule of `select`: microseconds above a second are carried over.
    #[must_use]
    pub fn to_nanoseconds(self) -> Option<u64> {
        let carried = self.seconds.checked_add(self.microseconds / 1_000_000)?;
        let rest = self.microseconds % 1_000_000;
        TimeSpec { seconds: carried, nanoseconds: rest.checked_mul(1000)? }.to_nanoseconds()
    }
}

/// The last argument of `pselect6`: address and size of the signal set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SigsetArgument {
    /// Address or null.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

impl SigsetArgument {
    /// From memory.
    #[must_use]
    pub fn decode(b: &[u8; 16]) -> Self {
        Self { address: word(b, 0), size: word(b, 8) }
    }
}

/// `struct clone_args`, the parts that the relay looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Lowest byte of the stack, or zero.
    pub stack: u64,
    /// Bytes of the stack.
    pub stack_size: u64,
    /// Thread-local storage.
    pub tls: u64,
}

impl CloneArgs {
    /// Bytes of the first published version: all that is read here.
    pub const SIZE: usize = 64;

    /// From memory.
    #[must_use]
    pub fn decode(b: &[u8; 64]) -> Self {
        Self { flags: word(b, 0), stack: word(b, 40), stack_size: word(b, 48), tls: word(b, 56) }
    }
}

/// A bit set of descriptors (`fd_set`), of any length.
#[derive(Clone, Copy, Debug)]
pub struct FdSet;

impl FdSet {
    /// Bytes that the kernel reads and writes for `count` descriptors: whole 64-bit words.
    #[must_use]
    pub const fn bytes(count: usize) -> usize {
        count.div_ceil(64) * 8
    }

    /// True when the bit is set.
    #[must_use]
    pub fn contains(set: &[u8], fd: usize) -> bool {
        set.get(fd / 8).is_some_and(|byte| byte & 1 << (fd % 8) != 0)
    }

    /// Sets the bit, where there is room for it.
    pub fn insert(set: &mut [u8], fd: usize) {
        if let Some(byte) = set.get_mut(fd / 8) {
            *byte |= 1 << (fd % 8);
        }
    }

    /// Clears the bit.
    pub fn remove(set: &mut [u8], fd: usize) {
        if let Some(byte) = set.get_mut(fd / 8) {
            *byte &= !(1 << (fd % 8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_never_overflow(bytes: [u8; 16]) {
            let _ = TimeVal::decode(&bytes).to_nanoseconds();
            let spec = TimeSpec::decode(&bytes);
            prop_assert_eq!(spec.encode(), bytes);
            if let Some(ns) = spec.to_nanoseconds() {
                prop_assert!(ns < u64::MAX);
            }
        }

        #[test]
        fn nanoseconds_survive(ns in 0u64..u64::MAX) {
            prop_assert_eq!(TimeSpec::from_nanoseconds(ns).to_nanoseconds(), Some(ns));
        }

        #[test]
        fn sets_hold_what_was_put_in(fds in proptest::collection::btree_set(0usize..200, 0..20)) {
            let mut set = vec![0; FdSet::bytes(200)];
            for &fd in &fds {
                FdSet::insert(&mut set, fd);
            }
            for fd in 0..300 {
                prop_assert_eq!(FdSet::contains(&set, fd), fds.contains(&fd));
            }
        }
    }

    #[test]
    fn negative_and_overlong_times_are_refused() {
        assert_eq!(TimeSpec { seconds: -1, nanoseconds: 0 }.to_nanoseconds(), None);
        assert_eq!(TimeSpec { seconds: 0, nanoseconds: 1_000_000_000 }.to_nanoseconds(), None);
        let carried = TimeVal { seconds: 1, microseconds: 2_500_000 };
        assert_eq!(carried.to_nanoseconds(), Some(3_500_000_000));
    }
}
