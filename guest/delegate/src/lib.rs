//! The program of the service VM that carries out system calls for trusted processes of the compute
//! VM: one *dispatcher*, and one *delegate* process for each trusted process, forked in the same
//! hierarchy. Requests come through mailboxes (`wire`), straight from the hypervisor.
//!
//! * [`hypervisor`]: what is asked of the hypervisor, so that tests can put something else there.
//! * [`pool`]: the memory that mailboxes are made of.
//! * [`door`]: waiting for requests, cancellations, and sockets, without losing a wake-up.
//! * [`sockets`]: the real sockets of a delegate.
//! * [`calls`]: one function for each request on a socket.
//! * `identity`: whom a thread acts as.
//! * [`worker`]: the loop of a thread that owns a mailbox.
//! * [`process`]: the delegate as a process: forks, more threads, its end.
//! * [`dispatcher`]: the root of the hierarchy.
#![forbid(unsafe_code)]

pub mod calls;
pub mod dispatcher;
pub mod door;
pub mod hypervisor;
mod identity;
mod log;
pub mod pool;
pub mod process;
pub mod sockets;
pub mod worker;

/// Error numbers of Linux, as responses carry them.
pub mod errno {
    /// Interrupted.
    pub const EINTR: i64 = 4;
    /// Input/output error.
    pub const EIO: i64 = 5;
    /// Bad file descriptor.
    pub const EBADF: i64 = 9;
    /// Try again.
    pub const EAGAIN: i64 = 11;
    /// Permission denied.
    pub const EACCES: i64 = 13;
    /// Invalid argument.
    pub const EINVAL: i64 = 22;
    /// Operation not supported.
    pub const EOPNOTSUPP: i64 = 95;
    /// Address family not supported.
    pub const EAFNOSUPPORT: i64 = 97;
    /// Operation already in progress.
    pub const EALREADY: i64 = 114;
    /// Operation now in progress.
    pub const EINPROGRESS: i64 = 115;

    /// The number of an error of the standard library.
    #[must_use]
    pub fn of(error: &std::io::Error) -> i64 {
        error.raw_os_error().map_or(EIO, i64::from)
    }
}
