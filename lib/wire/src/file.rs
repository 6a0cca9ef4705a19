//! Requests about files of the service VM.
//!
//! A path is two strings: where the policy's entry lies (its *root*, which is followed wherever it
//! leads), and the rest, which must not lead out of it. Strings lie at `PAYLOAD` one behind the
//! other, without NUL: root and rest of the first path, root and rest of the second, then the
//! request's own data. Results replace them.
use crate::message::{Malformed, WORDS, from_i32, i32_of, u32_of};

const OPEN: u64 = 50;
const READ: u64 = 51;
const WRITE: u64 = 52;
const ACT: u64 = 53;
const PATH: u64 = 54;

/// In [`FileRequest::Read`] and [`FileRequest::Write`]: at the file's own position, which moves.
pub const OWN_POSITION: u64 = u64::MAX;
/// Bytes of the kernel's `struct stat`.
pub const STATUS_SIZE: usize = 144;
/// Bytes of `struct statx`.
pub const STATUSX_SIZE: usize = 256;
/// Bytes of `struct statfs`.
pub const FILE_SYSTEM_SIZE: usize = 120;
/// Bytes of `struct flock`.
pub const RECORD_LOCK_SIZE: usize = 32;
/// Bytes of the two times of `utimensat`.
pub const TIMES_SIZE: usize = 32;

/// Lengths of the two strings of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The policy's entry.
    pub root: u16,
    /// What follows: empty for the entry itself.
    pub rest: u16,
}

impl Place {
    /// Bytes of both strings.
    #[must_use]
    pub const fn length(self) -> u32 {
        self.root as u32 + self.rest as u32
    }
}

macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$line:meta])* $variant:ident = $number:literal $call:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum $name { $($(#[$line])* $variant = $number,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// From its number.
            #[must_use]
            pub const fn of(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The call that it stands for, for log lines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $call,)*
                }
            }
        }
    };
}

numbered! {
    /// What is done with an open file. `a`, `b` and `c` are numbers of the request; data lie at
    /// `PAYLOAD` where it says so.
    FileAction {
        /// To position `a`, counted by `b` (`SEEK_*`); answers the position.
        Seek = 0 "lseek",
        /// Answers with [`STATUS_SIZE`] bytes of data.
        Status = 1 "fstat",
        /// With flags `a` and mask `b`; answers with [`STATUSX_SIZE`] bytes of data.
        StatusX = 2 "statx",
        /// Answers with [`FILE_SYSTEM_SIZE`] bytes of data.
        FileSystem = 3 "fstatfs",
        /// Entries of a directory, at most `c` bytes; `a` is zero for the older layout.
        Entries = 4 "getdents64",
        /// To length `a`.
        Truncate = 5 "ftruncate",
        /// From `a` on `b` bytes, in mode `c`.
        Allocate = 6 "fallocate",
        /// Data alone where `a` is not zero.
        Sync = 7 "fsync",
        /// Mode `a`.
        Mode = 8 "fchmod",
        /// User `a` and group `b`.
        Owner = 9 "fchown",
        /// [`TIMES_SIZE`] bytes of data; now where `c` is zero.
        Times = 10 "futimens",
        /// Operation `a`, without waiting.
        Lock = 11 "flock",
        /// Command `a` with [`RECORD_LOCK_SIZE`] bytes of data, which are answered as well.
        RecordLock = 12 "fcntl",
        /// Answers the flags.
        Flags = 13 "fcntl",
        /// Flags `a`.
        SetFlags = 14 "fcntl",
        /// To descriptor `a`, `b` bytes; 16 bytes of data are the two positions (all ones: the own
        /// one), answered as well.
        Copy = 15 "copy_file_range",
    }
}

numbered! {
    /// What is done with a path.
    PathAction {
        /// Flags `a` (`AT_SYMLINK_NOFOLLOW`); answers with [`STATUS_SIZE`] bytes of data.
        Status = 0 "newfstatat",
        /// Flags `a`, mask `b`; answers with [`STATUSX_SIZE`] bytes of data.
        StatusX = 1 "statx",
        /// Mode `a`, flags `b`; by effective ids.
        Access = 2 "faccessat2",
        /// Answers with at most `b` bytes of data.
        ReadLink = 3 "readlinkat",
        /// Mode `a`.
        MakeDirectory = 4 "mkdirat",
        /// A regular file of mode `a`.
        MakeFile = 5 "mknodat",
        /// Flags `a` (`AT_REMOVEDIR`).
        Remove = 6 "unlinkat",
        /// To the second path, with flags `a`.
        Rename = 7 "renameat2",
        /// The second path becomes another name; flags `a` (`AT_SYMLINK_FOLLOW`).
        Link = 8 "linkat",
        /// Leading to the text that is the data.
        Symlink = 9 "symlinkat",
        /// Mode `a`.
        Mode = 10 "fchmodat",
        /// Eight bytes of data are user and group; flags `a`.
        Owner = 11 "fchownat",
        /// [`TIMES_SIZE`] bytes of data, or none for now; flags `a`.
        Times = 12 "utimensat",
        /// Eight bytes of data are the length.
        Truncate = 13 "truncate",
        /// Answers with [`FILE_SYSTEM_SIZE`] bytes of data.
        FileSystem = 14 "statfs",
        /// True for a directory that may be entered.
        Enter = 15 "chdir",
    }
}

/// What a worker is asked to do about a file. None of these waits for anything but a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileRequest {
    /// Opens a regular file or a directory; answers the descriptor. The mode is what is left by
    /// the program's mask.
    Open {
        /// Its path.
        place: Place,
        /// `O_*`.
        flags: u32,
        /// Of a file that is made.
        mode: u32,
        /// `RESOLVE_*` besides those that keep a path in its place.
        resolve: u32,
    },
    /// Reads into `PAYLOAD`.
    Read {
        /// Descriptor.
        fd: i32,
        /// Position, or [`OWN_POSITION`].
        at: u64,
        /// Most bytes.
        length: u32,
        /// `RWF_*`.
        flags: u32,
    },
    /// Writes from `PAYLOAD`.
    Write {
        /// Descriptor.
        fd: i32,
        /// Position, or [`OWN_POSITION`].
        at: u64,
        /// Bytes.
        length: u32,
        /// `RWF_*`.
        flags: u32,
    },
    /// Something about an open file.
    Act {
        /// Descriptor.
        fd: i32,
        /// What.
        action: FileAction,
        /// First number.
        a: u64,
        /// Second number.
        b: u64,
        /// Third number.
        c: u32,
    },
    /// Something about a path, or two.
    Path {
        /// What.
        action: PathAction,
        /// First path.
        first: Place,
        /// Second path, or none.
        second: Place,
        /// First number.
        a: u32,
        /// Second number.
        b: u32,
        /// Bytes of data behind the paths.
        data: u32,
    },
}

fn lengths(first: Place, second: Place) -> u64 {
    let all = [first.root, first.rest, second.root, second.rest];
    all.iter().rev().fold(0, |word, length| word << 16 | u64::from(*length))
}

fn places(word: u64) -> (Place, Place) {
    let at = |n: u32| (word >> (16 * n)) as u16;
    (Place { root: at(0), rest: at(1) }, Place { root: at(2), rest: at(3) })
}

impl FileRequest {
    /// Short name for log lines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Read { .. } => "pread",
            Self::Write { .. } => "pwrite",
            Self::Act { action, .. } => action.name(),
            Self::Path { action, .. } => action.name(),
        }
    }

    pub(crate) fn words(&self) -> [u64; WORDS] {
        let (f, u) = (from_i32, u64::from);
        match *self {
            Self::Open { place, flags, mode, resolve } => {
                [OPEN, lengths(place, Place::default()), u(flags), u(mode), u(resolve), 0, 0, 0]
            }
            Self::Read { fd, at, length, flags } => [READ, f(fd), at, u(length), u(flags), 0, 0, 0],
            Self::Write { fd, at, length, flags } => {
                [WRITE, f(fd), at, u(length), u(flags), 0, 0, 0]
            }
            Self::Act { fd, action, a, b, c } => [ACT, f(fd), u(action as u32), a, b, u(c), 0, 0],
            Self::Path { action, first, second, a, b, data } => {
                [PATH, u(action as u32), lengths(first, second), u(a), u(b), u(data), 0, 0]
            }
        }
    }

    pub(crate) fn of_words(w: &[u64; WORDS]) -> Result<Self, Malformed> {
        Ok(match w[0] {
            OPEN => Self::Open {
                place: places(w[1]).0,
                flags: u32_of(w[2])?,
                mode: u32_of(w[3])?,
                resolve: u32_of(w[4])?,
            },
            READ | WRITE => {
                let (fd, at, length, flags) = (i32_of(w[1])?, w[2], u32_of(w[3])?, u32_of(w[4])?);
                if w[0] == READ {
                    Self::Read { fd, at, length, flags }
                } else {
                    Self::Write { fd, at, length, flags }
                }
            }
            ACT => Self::Act {
                fd: i32_of(w[1])?,
                action: FileAction::of(u32_of(w[2])?).ok_or(Malformed)?,
                a: w[3],
                b: w[4],
                c: u32_of(w[5])?,
            },
            PATH => {
                let (first, second) = places(w[2]);
                Self::Path {
                    action: PathAction::of(u32_of(w[1])?).ok_or(Malformed)?,
                    first,
                    second,
                    a: u32_of(w[3])?,
                    b: u32_of(w[4])?,
                    data: u32_of(w[5])?,
                }
            }
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = Place> {
        any::<(u16, u16)>().prop_map(|(root, rest)| Place { root, rest })
    }

    fn request() -> impl Strategy<Value = FileRequest> {
        let action = proptest::sample::select(FileAction::ALL);
        let path = proptest::sample::select(PathAction::ALL);
        prop_oneof![
            (place(), any::<[u32; 3]>()).prop_map(|(place, [flags, mode, resolve])| {
                FileRequest::Open { place, flags, mode, resolve }
            }),
            any::<(i32, u64, u32, u32)>().prop_map(|(fd, at, length, flags)| FileRequest::Read {
                fd,
                at,
                length,
                flags
            }),
            any::<(i32, u64, u32, u32)>().prop_map(|(fd, at, length, flags)| FileRequest::Write {
                fd,
                at,
                length,
                flags
            }),
            (action, any::<(i32, u64, u64, u32)>())
                .prop_map(|(action, (fd, a, b, c))| FileRequest::Act { fd, action, a, b, c }),
            (path, place(), place(), any::<[u32; 3]>()).prop_map(
                |(action, first, second, [a, b, data])| FileRequest::Path {
                    action,
                    first,
                    second,
                    a,
                    b,
                    data
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive(request in request()) {
            let request = Request::File(request);
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
    }

    #[test]
    fn numbers_are_what_they_say() {
        for action in FileAction::ALL {
            assert_eq!(FileAction::of(*action as u32), Some(*action));
        }
        for action in PathAction::ALL {
            assert_eq!(PathAction::of(*action as u32), Some(*action));
        }
        assert_eq!(PathAction::of(PathAction::ALL.len() as u32), None);
    }
}
