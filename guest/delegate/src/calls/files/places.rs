//! Paths below entries of the policy.
use super::super::{Failure, Outcome};
use crate::errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wire::Place;

/// How often a lookup is tried that other changes to the file system have disturbed (`EAGAIN`).
const ATTEMPTS: usize = 16;

/// One path: the entry, and what follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spot {
    root: CString,
    rest: CString,
}

/// A directory, and a name in it.
#[derive(Debug)]
pub struct Named {
    /// The directory.
    pub directory: Directory,
    /// The name; it may end with `/`.
    pub name: CString,
}

/// A directory that is open, or the current one.
#[derive(Debug)]
pub struct Directory(Option<OwnedFd>);

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or(CWD, AsFd::as_fd)
    }
}

impl Spot {
    /// Takes the two strings of a path off the front of `bytes`.
    pub fn take(bytes: &mut &[u8], place: Place) -> Outcome<Self> {
        let mut string = |length: u16| {
            let (string, rest) =
                bytes.split_at_checked(usize::from(length)).ok_or(Failure::Errno(errno::EINVAL))?;
            *bytes = rest;
            CString::new(string).map_err(|_| Failure::Errno(errno::EINVAL))
        };
        Ok(Self { root: string(place.root)?, rest: string(place.rest)? })
    }

    /// Opens it. The entry itself is followed wherever it leads: it is what the policy names.
    pub fn open(&self, flags: OFlags, mode: Mode, resolve: u64) -> Outcome<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.rest.is_empty() {
            let flags = flags - OFlags::NOFOLLOW;
            return Ok(openat2(CWD, &self.root, flags, mode, ResolveFlags::empty())?);
        }
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve = ResolveFlags::from_bits_retain(resolve) | beneath;
        let base = self.base()?;
        lookup(&base, &self.rest, flags, mode, resolve)
    }

    /// The entry.
    fn base(&self) -> Outcome<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(openat2(CWD, &self.root, flags, Mode::empty(), ResolveFlags::empty())?)
    }

    /// What the path leads to, without opening it.
    pub fn target(&self, follow: bool) -> Outcome<OwnedFd> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        self.open(flags, Mode::empty(), 0)
    }

    /// The directory that has, or shall have, the last name of the path.
    pub fn named(&self) -> Outcome<Named> {
        let rest = self.rest.to_bytes();
        if rest.is_empty() {
            return Ok(Named { directory: Directory(None), name: self.root.clone() });
        }
        let end = rest.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let start = rest.get(..end).and_then(|r| r.iter().rposition(|byte| *byte == b'/'));
        let (folder, name) = match start {
            Some(slash) => (rest.get(..slash).unwrap_or_default(), rest.get(slash + 1..)),
            None => (&b"."[..], Some(rest)),
        };
        let string = |bytes: &[u8]| CString::new(bytes).map_err(|_| Failure::Errno(errno::EINVAL));
        let folder = string(folder)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let directory = lookup(&self.base()?, &folder, flags, Mode::empty(), beneath)?;
        Ok(Named { directory: Directory(Some(directory)), name: string(name.unwrap_or_default())? })
    }
}

/// A lookup below a directory.
fn lookup(
    base: &OwnedFd,
    path: &CString,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Outcome<OwnedFd> {
    for _ in 0..ATTEMPTS {
        match openat2(base, path, flags, mode, resolve) {
            Err(Errno::AGAIN) => {}
            // A symbolic link leads out of the entry.
            Err(Errno::XDEV) => return Err(Failure::Errno(errno::EACCES)),
            outcome => return Ok(outcome?),
        }
    }
    Err(Failure::Errno(errno::EAGAIN))
}
