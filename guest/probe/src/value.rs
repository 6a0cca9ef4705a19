//! How results are written down: names instead of numbers, nothing that differs from run to run.
use nix::errno::Errno;

/// A result of the kernel: a number, or the name of an error.
pub fn result(value: i64) -> String {
    if value >= 0 {
        return value.to_string();
    }
    let number = i32::try_from(-value).unwrap_or(0);
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("error {number}"),
        known => format!("{known:?}"),
    }
}

/// Names of events, as `poll(2)` has them.
pub fn events(bits: i16) -> String {
    const NAMES: &[(i16, &str)] = &[
        (libc::POLLIN, "IN"),
        (libc::POLLPRI, "PRI"),
        (libc::POLLOUT, "OUT"),
        (libc::POLLERR, "ERR"),
        (libc::POLLHUP, "HUP"),
        (libc::POLLNVAL, "NVAL"),
        (libc::POLLRDNORM, "RDNORM"),
        (libc::POLLRDBAND, "RDBAND"),
        (libc::POLLWRNORM, "WRNORM"),
        (libc::POLLWRBAND, "WRBAND"),
        (libc::POLLRDHUP, "RDHUP"),
    ];
    let named: Vec<&str> =
        NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if named.is_empty() { "-".into() } else { named.join("+") }
}

/// Text as it is, other bytes escaped; long data by length and a sum.
pub fn data(bytes: &[u8]) -> String {
    if bytes.len() <= 60 {
        return format!("'{}'", bytes.escape_ascii());
    }
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes, sum {sum:016x}", bytes.len())
}

/// The bytes that the peer sends where a case asks for many.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number * 7 + number / 251) as u8).collect()
}
