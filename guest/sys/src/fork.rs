//! A copy of the calling process, made by `fork`.

use std::io;

/// The process identifier of a child.
pub type Pid = i32;

/// Forks; the child runs `child` and then ends with the status that it returns, without running anybody's exit handlers.
/// A panic in the child ends it (programs here abort on panic).
///
/// The caller may have other threads: they do not exist in the child. glibc makes its heap usable in the child; what
/// else is locked by another thread at this moment stays locked there, so the child must not touch locks of the parent
/// except those that the calling thread holds.
///
/// # Errors
/// As `fork(2)`, in the parent.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the child continues on a copy of this thread's stack; memory shared with the hypervisor is left out of it
    // (`Mailbox`), and locks are the subject of the paragraph above: breaking it can deadlock the child, no more.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = child();
            // SAFETY: `_exit` ends the process at once.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Makes the command the leader of a session of its own, with its standard input (a terminal) as controlling terminal.
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
