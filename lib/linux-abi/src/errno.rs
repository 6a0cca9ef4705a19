//! Error numbers.

/// An error number, positive as in `errno`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub u16);

impl Errno {
    /// What a system call answers in `rax`.
    #[must_use]
    pub const fn result(self) -> i64 {
        -(self.0 as i64)
    }

    /// The error in a result, if it is one (-4095..=-1).
    #[must_use]
    pub const fn of(result: i64) -> Option<Self> {
        if result < 0 && result >= -4095 { Some(Self((-result) as u16)) } else { None }
    }
}

/// Splits a call's result.
///
/// # Errors
/// The error that it stands for.
pub fn check(result: i64) -> Result<i64, Errno> {
    Errno::of(result).map_or(Ok(result), Err)
}

macro_rules! errors {
    ($($name:ident $value:literal;)*) => {
        impl Errno {
            $(
                #[allow(missing_docs)]
                pub const $name: Errno = Errno($value);
            )*

            /// The name, or "E?".
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "E?",
                }
            }
        }
    };
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

errors! {
    EPERM 1;
    ENOENT 2;
    EINTR 4;
    EIO 5;
    ENXIO 6;
    E2BIG 7;
    EBADF 9;
    ECHILD 10;
    EAGAIN 11;
    ENOMEM 12;
    EACCES 13;
    EFAULT 14;
    EBUSY 16;
    EEXIST 17;
    EXDEV 18;
    ENODEV 19;
    ENOTDIR 20;
    EISDIR 21;
    EINVAL 22;
    ENFILE 23;
    EMFILE 24;
    ENOTTY 25;
    ENOSPC 28;
    ESPIPE 29;
    EROFS 30;
    EPIPE 32;
    ERANGE 34;
    EDEADLK 35;
    ENAMETOOLONG 36;
    ENOLCK 37;
    ENOSYS 38;
    ENOTEMPTY 39;
    ELOOP 40;
    ENODATA 61;
    EOVERFLOW 75;
    ENOTSOCK 88;
    EDESTADDRREQ 89;
    EMSGSIZE 90;
    EPROTOTYPE 91;
    ENOPROTOOPT 92;
    EPROTONOSUPPORT 93;
    ESOCKTNOSUPPORT 94;
    EOPNOTSUPP 95;
    EAFNOSUPPORT 97;
    EADDRINUSE 98;
    EADDRNOTAVAIL 99;
    ENETDOWN 100;
    ENETUNREACH 101;
    ECONNABORTED 103;
    ECONNRESET 104;
    ENOBUFS 105;
    EISCONN 106;
    ENOTCONN 107;
    ETOOMANYREFS 109;
    ETIMEDOUT 110;
    ECONNREFUSED 111;
    EHOSTUNREACH 113;
    EALREADY 114;
    EINPROGRESS 115;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_split_at_the_kernels_limits() {
        assert_eq!(check(-1), Err(Errno::EPERM));
        assert_eq!(check(-4095), Err(Errno(4095)));
        assert_eq!(check(-4096), Ok(-4096));
        assert_eq!(check(7), Ok(7));
        assert_eq!(Errno::EFAULT.result(), -14);
        assert_eq!(std::format!("{:?}", Errno::ENOSYS), "ENOSYS(38)");
    }
}
