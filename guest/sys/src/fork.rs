//! A copy of the calling process, made by `fork`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// The process identifier of a child.
pub type Pid = i32;

/// What only a child may do with what it has inherited: its parent's other threads do not exist in
/// it, and what they owned has no owner.
#[derive(Debug)]
pub struct Inherited(());

impl Inherited {
    /// Takes a descriptor over, whoever else had a share in it in the parent.
    ///
    /// The caller has no other share left that it would still use.
    #[must_use]
    pub fn take(&self, shared: Arc<OwnedFd>) -> OwnedFd {
        let descriptor = shared.as_raw_fd();
        // Whatever the count says: no other owner will ever run in this process.
        std::mem::forget(shared);
        // SAFETY: the descriptor is open, as the forgotten owner was valid, and its owner is
        // forgotten.
        unsafe { OwnedFd::from_raw_fd(descriptor) }
    }

    /// Closes every descriptor that is not on the list.
    ///
    /// The caller uses no value that owns one of them any more, nor drops it.
    ///
    /// # Errors
    /// As `close_range(2)`.
    pub fn close_all_except(&self, keep: &[RawFd]) -> io::Result<()> {
        let mut keep: Vec<_> =
            keep.iter().filter_map(|fd| libc::c_uint::try_from(*fd).ok()).collect();
        keep.sort_unstable();
        let mut first = 0;
        for last in keep.into_iter().chain([libc::c_uint::MAX]) {
            if last > first {
                // SAFETY: no pointers; that nobody owns the descriptors is said above.
                crate::checked(unsafe { libc::close_range(first, last - 1, 0) })?;
            }
            first = last.saturating_add(1);
        }
        Ok(())
    }
}

/// Children that end leave no zombies, in this process and its descendants.
///
/// # Errors
/// As `sigaction(2)`.
pub fn ignore_ends_of_children() -> io::Result<()> {
    // SAFETY: no handler is installed, the signal is ignored.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Forks; the child runs `child` and then ends with the status that it returns, without running
/// anybody's exit handlers. A panic in the child ends it (programs here abort on panic).
///
/// The caller may have other threads: they do not exist in the child. glibc makes its heap usable
/// in the child; what else is locked by another thread at this moment stays locked there, so the
/// child must not touch locks of the parent except those that the calling thread holds.
///
/// # Errors
/// As `fork(2)`, in the parent.
pub fn fork(child: impl FnOnce(Inherited) -> i32) -> io::Result<Pid> {
    // SAFETY: the child continues on a copy of this thread's stack; memory shared with the
    // hypervisor is left out of it (`Mailbox`), and locks are the subject of the paragraph above:
    // breaking it can deadlock the child, no more.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = child(Inherited(()));
            // SAFETY: `_exit` ends the process at once.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Makes the command the leader of a session of its own, with its standard input (a terminal) as
/// controlling terminal.
pub fn with_terminal(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let become_leader = || {
        // SAFETY: no pointers; both calls are allowed between `fork` and `exec` (signal-safety(7)).
        let outcome = unsafe {
            match libc::setsid() {
                -1 => -1,
                _ => libc::ioctl(0, libc::TIOCSCTTY, 0),
            }
        };
        crate::checked(outcome).map(drop)
    };
    // SAFETY: the closure makes two system calls and nothing else.
    unsafe { command.pre_exec(become_leader) };
}
