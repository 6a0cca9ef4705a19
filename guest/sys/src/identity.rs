//! Ids that no safe wrapper sets for one thread.

use std::io;

/// Sets the ids with which the calling thread opens files and makes sockets.
///
/// # Errors
/// `EPERM`: they are not what was asked for (`setfsuid(2)` itself never says so).
pub fn set_file_ids(user: libc::uid_t, group: libc::gid_t) -> io::Result<()> {
    // SAFETY: no pointers; glibc makes these calls for the calling thread alone.
    let now = unsafe {
        libc::setfsgid(group);
        libc::setfsuid(user);
        // An id that is not one changes nothing and answers the present one.
        (libc::setfsuid(libc::uid_t::MAX), libc::setfsgid(libc::gid_t::MAX))
    };
    if now == (user.cast_signed(), group.cast_signed()) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}
