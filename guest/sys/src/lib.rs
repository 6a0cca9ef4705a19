//! The only `unsafe` code of the Linux programs inside the VMs: the hypercall instruction, memory
//! that is shared with the hypervisor, `fork`, and socket calls on raw bytes (addresses, options,
//! control messages) that pass through from another machine and that no typed wrapper could carry
//! unchanged.
//!
//! Everything that this crate exports is safe to call with any arguments.

pub mod file;
pub mod fork;
pub mod hypercall;
pub mod identity;
pub mod mailbox;
mod option;
mod pinned;
pub mod raw;
pub mod signals;
pub mod socket;
pub mod start;

use std::io;

/// The result of a C library call: −1 means `errno`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of a C library call that returns a length: −1 means `errno`.
fn checked_length(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
