//! Whom a thread acts as. Each worker is told before the first call of a process that it carries
//! out, and whenever that process has changed its ids or capabilities. All calls here are the
//! kernel's own, which concern the calling thread alone.

use crate::errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use wire::{Credentials, Identity};

/// The identity of a delegate that has not been told more.
#[must_use]
pub fn of(credentials: Credentials) -> Identity {
    let Credentials { uid, gid, capabilities } = credentials;
    Identity { uid, gid, fsuid: uid, fsgid: gid, capabilities, groups: 0 }
}

/// Makes all permitted capabilities effective; answers what may be effective.
fn raise() -> io::Result<CapabilitySets> {
    let mut sets = thread::capabilities(None)?;
    sets.effective = sets.permitted;
    thread::set_capabilities(None, sets)?;
    Ok(sets)
}

/// Acts as somebody else from here on, as far as the kernel's checks are concerned; but stays able
/// to become somebody else again: real and saved ids and permitted capabilities remain.
///
/// # Errors
/// An id that nobody has (`EINVAL`; nothing has changed then), or something was refused: the thread must
/// not serve then, since it has some of both identities.
pub fn act_as(whom: &Identity, groups: &[u32]) -> io::Result<()> {
    // To the kernel it means "leave it as it is": as the one before.
    const NOBODY: u32 = u32::MAX;
    if [whom.uid, whom.gid, whom.fsuid, whom.fsgid].iter().chain(groups).any(|id| *id == NOBODY) {
        return Err(io::Error::from_raw_os_error(errno::EINVAL as i32));
    }
    raise()?;
    let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    thread::set_thread_groups(&groups)?;
    let group = Gid::from_raw(whom.gid);
    thread::set_thread_res_gid(group, group, group)?;
    let own = rustix::process::getuid();
    thread::set_thread_res_uid(own, Uid::from_raw(whom.uid), own)?;
    // Another effective user id has taken the effective capabilities away (`capabilities(7)`).
    let mut sets = raise()?;
    guest_sys::identity::set_file_ids(whom.fsuid, whom.fsgid)?;
    sets.effective = sets.permitted & CapabilitySet::from_bits_retain(whom.capabilities);
    sets.inheritable = CapabilitySet::empty();
    Ok(thread::set_capabilities(None, sets)?)
}

/// Pid of the dispatcher: its descendants inherit the word.
static DISPATCHER: AtomicI32 = AtomicI32::new(0);

/// The calling process is the dispatcher.
pub fn set_dispatcher() {
    DISPATCHER.store(rustix::process::getpid().as_raw_nonzero().get(), Ordering::Relaxed);
}

/// Takes over a descriptor of another process of the hierarchy (0: the dispatcher), with the
/// dispatcher's rights.
///
/// # Errors
/// As `pidfd_open(2)` and `pidfd_getfd(2)`.
pub fn fetch(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = if pid == 0 { DISPATCHER.load(Ordering::Relaxed) } else { pid };
    let pid = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or(io::ErrorKind::InvalidInput)?;
    if fd < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    let before = thread::capabilities(None)?;
    raise()?;
    let fetched = pidfd_open(pid, PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, fd, PidfdGetfdFlags::empty()));
    thread::set_capabilities(None, before)?;
    Ok(fetched?)
}
