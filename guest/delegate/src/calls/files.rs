//! Files and directories: real ones of this machine, under descriptor numbers like sockets.
//!
//! A path below an entry of the policy is resolved so that no symbolic link leads out of it
//! (`openat2(2)`, `RESOLVE_BENEATH`). Only regular files and directories are opened: nothing here
//! waits for anything but a disk.
mod places;

use super::{Call, Failure, Outcome, limited};
use crate::errno;
use crate::hypervisor::Hypervisor;
use guest_sys::file;
use memory::Memory;
use places::{Named, Spot};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use wire::{FileAction, FileRequest, PathAction, Place, Response, layout};

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Errno(i64::from(error.raw_os_error()))
    }
}

/// What a request about paths brings along.
struct Paths {
    first: Spot,
    second: Spot,
    data: Vec<u8>,
    a: u32,
    b: u32,
}

impl<H: Hypervisor> Call<'_, H> {
    /// Carries out a request about a file.
    pub(super) fn file(&self, request: FileRequest) -> Outcome<Response> {
        match request {
            FileRequest::Open { place, flags, mode, resolve } => {
                let (spot, _, _) = self.spots(place, Place::default(), 0)?;
                self.open(&spot, flags, mode, resolve)
            }
            FileRequest::Read { fd, at, length, flags } => {
                let file = self.get(fd)?;
                let length = limited(length, layout::PAYLOAD_MAX)?;
                let mut piece = self.door.memory().piece(layout::PAYLOAD, length)?;
                let n = file::read(file.as_fd(), &mut piece, at.cast_signed(), flags_of(flags))?;
                Ok(Response { length: n as u32, ..Response::value(n as i64) })
            }
            FileRequest::Write { fd, at, length, flags } => {
                let file = self.get(fd)?;
                let length = limited(length, layout::PAYLOAD_MAX)?;
                let piece = self.door.memory().piece(layout::PAYLOAD, length)?;
                let n = file::write(file.as_fd(), &piece, at.cast_signed(), flags_of(flags))?;
                Ok(Response::value(n as i64))
            }
            FileRequest::Act { fd, action, a, b, c } => self.act(&*self.get(fd)?, action, a, b, c),
            FileRequest::Path { action, first, second, a, b, data } => {
                let (first, second, data) = self.spots(first, second, data)?;
                self.path(action, &Paths { first, second, data, a, b })
            }
        }
    }

    /// The paths and data of a request.
    fn spots(&self, first: Place, second: Place, data: u32) -> Outcome<(Spot, Spot, Vec<u8>)> {
        let length = first.length() + second.length() + limited(data, layout::PAYLOAD_MAX)?;
        let bytes = self.payload(length, layout::PAYLOAD_MAX)?;
        let mut rest = bytes.as_slice();
        let first = Spot::take(&mut rest, first)?;
        let second = Spot::take(&mut rest, second)?;
        Ok((first, second, rest.to_vec()))
    }

    fn open(&self, spot: &Spot, flags: u32, mode: u32, resolve: u32) -> Outcome<Response> {
        // A pipe, a device or a socket must not keep the worker, and is not given out.
        let flags = OFlags::from_bits_retain(flags);
        let own = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let path_only = flags.contains(OFlags::PATH);
        let flags = if path_only { flags | OFlags::CLOEXEC } else { flags | own };
        let file = spot.open(flags, Mode::from_raw_mode(mode), u64::from(resolve))?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink if path_only => {}
            _ => return Err(Failure::Errno(errno::EACCES)),
        }
        Ok(Response::value(i64::from(self.sockets.add(file))))
    }

    fn act(&self, file: &OwnedFd, action: FileAction, a: u64, b: u64, c: u32) -> Outcome<Response> {
        let fd = file.as_fd();
        let (x, y) = (a.cast_signed(), b.cast_signed());
        let value = match action {
            FileAction::Seek => file::seek(fd, x, b as i32)?,
            FileAction::Status => return self.with_payload(0, &file::status(fd)?),
            FileAction::StatusX => {
                return self.with_payload(0, &file::statusx(fd, a as i32, b as u32)?);
            }
            FileAction::FileSystem => return self.with_payload(0, &file::file_system(fd)?),
            FileAction::Entries => return self.entries(file, a == 0, c),
            FileAction::Truncate => file::truncate(fd, x).map(|()| 0)?,
            FileAction::Allocate => file::allocate(fd, c.cast_signed(), x, y).map(|()| 0)?,
            FileAction::Sync if a != 0 => rustix::fs::fdatasync(fd).map(|()| 0)?,
            FileAction::Sync => rustix::fs::fsync(fd).map(|()| 0)?,
            FileAction::Mode => {
                rustix::fs::fchmod(fd, Mode::from_raw_mode(a as u32)).map(|()| 0)?
            }
            FileAction::Owner => file::set_owner(fd, a as u32, b as u32).map(|()| 0)?,
            FileAction::Times => {
                let times = self.times(c != 0)?;
                file::set_times(fd, times.as_ref()).map(|()| 0)?
            }
            FileAction::Lock => file::lock(fd, a as i32).map(|()| 0)?,
            FileAction::RecordLock => {
                let mut lock = [0; file::RECORD_LOCK_SIZE];
                self.door.memory().read(layout::PAYLOAD, &mut lock)?;
                file::record_lock(fd, a as i32, &mut lock)?;
                return self.with_payload(0, &lock);
            }
            FileAction::Flags => i64::from(rustix::fs::fcntl_getfl(fd)?.bits()),
            FileAction::SetFlags => {
                let flags = OFlags::from_bits_retain(a as u32) | OFlags::NONBLOCK;
                rustix::fs::fcntl_setfl(fd, flags).map(|()| 0)?
            }
            FileAction::Copy => return self.copy(file, a as i32, b),
        };
        Ok(Response::value(value))
    }

    fn entries(&self, directory: &OwnedFd, older: bool, length: u32) -> Outcome<Response> {
        let mut list = vec![0; limited(length, layout::PAYLOAD_MAX)? as usize];
        let filled = file::entries(directory.as_fd(), &mut list, older)?;
        list.truncate(filled);
        self.with_payload(filled as i64, &list)
    }

    fn copy(&self, from: &OwnedFd, to: i32, length: u64) -> Outcome<Response> {
        let to = self.get(to)?;
        let mut positions = [0; 2];
        for (n, position) in positions.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            self.door.memory().read(layout::PAYLOAD + 8 * n as u64, &mut bytes)?;
            *position = i64::from_le_bytes(bytes);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let n = file::copy(from.as_fd(), to.as_fd(), &mut positions, length)?;
        let bytes: Vec<u8> = positions.iter().flat_map(|p| p.to_le_bytes()).collect();
        self.with_payload(n as i64, &bytes)
    }

    /// The times at `PAYLOAD`, if there are any.
    fn times(&self, any: bool) -> Outcome<Option<[u8; file::TIMES_SIZE]>> {
        if !any {
            return Ok(None);
        }
        let mut times = [0; file::TIMES_SIZE];
        self.door.memory().read(layout::PAYLOAD, &mut times)?;
        Ok(Some(times))
    }

    fn path(&self, action: PathAction, paths: &Paths) -> Outcome<Response> {
        let Paths { first, data, a, b, .. } = paths;
        let (flags, mode) = (AtFlags::from_bits_retain(*a), Mode::from_raw_mode(*a));
        let followed =
            |flags: u32| !AtFlags::from_bits_retain(flags).contains(AtFlags::SYMLINK_NOFOLLOW);
        match action {
            PathAction::Status => {
                let target = first.target(followed(*a))?;
                return self.with_payload(0, &file::status(target.as_fd())?);
            }
            PathAction::StatusX => {
                let target = first.target(followed(*a))?;
                let sync = (flags - AtFlags::SYMLINK_NOFOLLOW - AtFlags::NO_AUTOMOUNT).bits();
                let status = file::statusx(target.as_fd(), sync.cast_signed(), *b)?;
                return self.with_payload(0, &status);
            }
            PathAction::FileSystem => {
                return self.with_payload(0, &file::file_system(first.target(true)?.as_fd())?);
            }
            PathAction::ReadLink => return self.read_link(first, *b),
            PathAction::Access => {
                file::access(first.target(followed(*b))?.as_fd(), a.cast_signed())?;
            }
            PathAction::Enter => {
                const MAY_SEARCH: i32 = 1;
                let place = first.open(OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), 0)?;
                file::access(place.as_fd(), MAY_SEARCH)?;
            }
            PathAction::Mode => {
                let target = first.target(true)?;
                rustix::fs::chmod(proc_path(&target), mode)?;
            }
            PathAction::Owner => {
                let ids: &[u8; 8] = data.first_chunk().ok_or(Failure::Errno(errno::EINVAL))?;
                let id = |at: usize| {
                    u32::from_le_bytes([ids[at], ids[at + 1], ids[at + 2], ids[at + 3]])
                };
                file::set_owner(first.target(followed(*a))?.as_fd(), id(0), id(4))?;
            }
            PathAction::Times => {
                file::set_times(first.target(followed(*a))?.as_fd(), data.first_chunk())?;
            }
            PathAction::Truncate => {
                let length = data.first_chunk().ok_or(Failure::Errno(errno::EINVAL))?;
                let target = first.target(true)?;
                file::truncate_path(&proc_path(&target), i64::from_le_bytes(*length))?;
            }
            PathAction::MakeDirectory
            | PathAction::MakeFile
            | PathAction::Remove
            | PathAction::Rename
            | PathAction::Link
            | PathAction::Symlink => name(action, paths)?,
        }
        Ok(Response::value(0))
    }

    fn read_link(&self, spot: &Spot, room: u32) -> Outcome<Response> {
        let target = spot.target(false)?;
        let text = match rustix::fs::readlinkat(&target, c"", Vec::new()) {
            // What is open, and no link (`do_readlinkat`).
            Err(rustix::io::Errno::NOENT) => return Err(Failure::Errno(errno::EINVAL)),
            other => other?,
        };
        let text = text.to_bytes();
        let text = text.get(..room as usize).unwrap_or(text);
        self.with_payload(text.len() as i64, text)
    }
}

/// Requests that change the names in a directory.
fn name(action: PathAction, paths: &Paths) -> Outcome<()> {
    let Paths { first, second, data, a, .. } = paths;
    let (flags, mode) = (AtFlags::from_bits_retain(*a), Mode::from_raw_mode(*a));
    let Named { directory, name } = &first.named()?;
    match action {
        PathAction::MakeDirectory => rustix::fs::mkdirat(directory, name, mode)?,
        PathAction::MakeFile => {
            rustix::fs::mknodat(directory, name, FileType::RegularFile, mode, 0)?;
        }
        PathAction::Remove => rustix::fs::unlinkat(directory, name, flags)?,
        PathAction::Symlink => rustix::fs::symlinkat(data.as_slice(), directory, name)?,
        PathAction::Rename => {
            let to = second.named()?;
            let flags = RenameFlags::from_bits_retain(*a);
            rustix::fs::renameat_with(directory, name, &to.directory, &to.name, flags)?;
        }
        _ => {
            let to = second.named()?;
            if flags.contains(AtFlags::SYMLINK_FOLLOW) {
                let target = first.target(true)?;
                let follow = AtFlags::SYMLINK_FOLLOW;
                let from = proc_path(&target);
                rustix::fs::linkat(rustix::fs::CWD, from, &to.directory, &to.name, follow)?;
            } else {
                rustix::fs::linkat(directory, name, &to.directory, &to.name, AtFlags::empty())?;
            }
        }
    }
    Ok(())
}

fn flags_of(flags: u32) -> i32 {
    flags.cast_signed()
}

/// A path of what is open, for calls that know no descriptors.
fn proc_path(file: &OwnedFd) -> std::ffi::CString {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::ffi::CString::new(path).unwrap_or_default()
}
