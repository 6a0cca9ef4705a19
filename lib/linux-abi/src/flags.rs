//! Flags and option numbers (x86-64 values).
#![allow(missing_docs)]

macro_rules! consts {
    ($ty:ty: $($name:ident = $value:expr;)*) => {
        $(pub const $name: $ty = $value;)*
    };
}

// Address families and socket types.
consts! { u32:
    AF_UNIX = 1; AF_INET = 2; AF_INET6 = 10; AF_NETLINK = 16; AF_PACKET = 17; AF_VSOCK = 40;
    SOCK_STREAM = 1; SOCK_DGRAM = 2; SOCK_RAW = 3; SOCK_PACKET = 10; SOCK_TYPE_MASK = 0xf;
    SOCK_NONBLOCK = 0o4000; SOCK_CLOEXEC = 0o2000000;
}
// Message flags.
consts! { u32:
    MSG_OOB = 1; MSG_PEEK = 2; MSG_DONTROUTE = 4; MSG_CTRUNC = 8; MSG_TRUNC = 0x20;
    MSG_DONTWAIT = 0x40; MSG_WAITALL = 0x100; MSG_NOSIGNAL = 0x4000; MSG_ERRQUEUE = 0x2000;
    MSG_MORE = 0x8000; MSG_WAITFORONE = 0x10000; MSG_FASTOPEN = 0x2000_0000;
    MSG_CMSG_CLOEXEC = 0x4000_0000;
}
// Socket options.
consts! { i32:
    SOL_IP = 0; SOL_SOCKET = 1; SOL_TCP = 6; SOL_IPV6 = 41; SOL_NETLINK = 270;
    SCM_RIGHTS = 1; SO_TYPE = 3; SO_ERROR = 4; SO_RCVLOWAT = 18; SO_RCVTIMEO = 20; SO_SNDTIMEO = 21;
    SO_BINDTODEVICE = 25; SO_ATTACH_FILTER = 26; SO_PROTOCOL = 38; SO_DOMAIN = 39;
    SO_ATTACH_BPF = 50; SO_ATTACH_REUSEPORT_CBPF = 51; SO_ATTACH_REUSEPORT_EBPF = 52;
    SO_BINDTOIFINDEX = 62; SO_RCVTIMEO_NEW = 66; SO_SNDTIMEO_NEW = 67;
    TCP_ZEROCOPY_RECEIVE = 35; IP_OPTIONS = 4; IP_RETOPTS = 7; IPV6_2292RTHDR = 5;
    IPV6_2292PKTOPTIONS = 6; IPV6_RTHDR = 57;
}
// fcntl and descriptor flags.
consts! { u32:
    F_DUPFD = 0; F_GETFD = 1; F_SETFD = 2; F_GETFL = 3; F_SETFL = 4; F_DUPFD_CLOEXEC = 1030;
    FD_CLOEXEC = 1; O_NONBLOCK = 0o4000; O_ASYNC = 0o20000; O_CLOEXEC = 0o2000000; O_RDWR = 2;
    F_SETOWN = 8; F_GETOWN = 9; F_SETSIG = 10; F_GETSIG = 11; F_SETOWN_EX = 15; F_GETOWN_EX = 16;
    CLOSE_RANGE_UNSHARE = 2; CLOSE_RANGE_CLOEXEC = 4;
    F_GETLK = 5; F_SETLK = 6; F_SETLKW = 7; F_OFD_GETLK = 36; F_OFD_SETLK = 37; F_OFD_SETLKW = 38;
    F_RDLCK = 0; F_WRLCK = 1; F_UNLCK = 2; LOCK_NB = 4;
}
// Files.
consts! { u32:
    O_ACCMODE = 3; O_CREAT = 0o100; O_EXCL = 0o200; O_TRUNC = 0o1000; O_APPEND = 0o2000;
    O_DIRECT = 0o40000; O_DIRECTORY = 0o200000; O_NOFOLLOW = 0o400000; O_NOATIME = 0o1000000;
    O_PATH = 0o10000000; O_TMPFILE = 0o20000000;
    AT_SYMLINK_NOFOLLOW = 0x100; AT_EACCESS = 0x200; AT_REMOVEDIR = 0x200; AT_SYMLINK_FOLLOW = 0x400;
    AT_EMPTY_PATH = 0x1000; S_IFMT = 0o170000; S_IFREG = 0o100000;
    RENAME_NOREPLACE = 1; RENAME_EXCHANGE = 2; RENAME_WHITEOUT = 4;
}
/// Directory descriptor that stands for the current directory.
pub const AT_FDCWD: i32 = -100;
// ioctl commands.
consts! { u32:
    FIONREAD = 0x541b; FIONBIO = 0x5421; FIOASYNC = 0x5452; FIONCLEX = 0x5450; FIOCLEX = 0x5451;
    FIOSETOWN = 0x8901; SIOCSPGRP = 0x8902;
    TIOCOUTQ = 0x5411; TCGETS = 0x5401; SIOCATMARK = 0x8905; SIOCGIFCONF = 0x8912;
}
// Poll events.
consts! { u16:
    POLLIN = 1; POLLPRI = 2; POLLOUT = 4; POLLERR = 8; POLLHUP = 0x10; POLLNVAL = 0x20;
    POLLRDNORM = 0x40; POLLRDBAND = 0x80; POLLWRNORM = 0x100; POLLWRBAND = 0x200;
    POLLRDHUP = 0x2000;
}
// Memory.
consts! { u64:
    PROT_READ = 1; PROT_WRITE = 2; PROT_EXEC = 4;
    MAP_SHARED = 1; MAP_PRIVATE = 2; MAP_SHARED_VALIDATE = 3; MAP_TYPE = 0xf; MAP_FIXED = 0x10;
    MAP_ANONYMOUS = 0x20; MAP_FIXED_NOREPLACE = 0x10_0000; MAP_POPULATE = 0x8000;
    MADV_POPULATE_READ = 22; MADV_POPULATE_WRITE = 23;
}
// clone.
consts! { u64:
    CLONE_VM = 0x100; CLONE_FILES = 0x400; CLONE_VFORK = 0x4000; CLONE_THREAD = 0x10000;
    CLONE_SETTLS = 0x80000; CLONE_UNTRACED = 0x0080_0000; CLONE_NEWUSER = 0x1000_0000;
}
/// Signal that a broken pipe raises.
pub const SIGPIPE: u64 = 13;
/// Signal of urgent data.
pub const SIGURG: u64 = 23;
/// `si_code` of such a signal (`sigaction(2)`): there are data.
pub const POLL_IN: i32 = 1;
/// See [`POLL_IN`]: urgent data.
pub const POLL_PRI: i32 = 5;
/// See [`POLL_IN`]: the other side has hung up.
pub const POLL_HUP: i32 = 6;
/// Longest `struct iovec` array (`UIO_MAXIOV`).
pub const IOV_MAX: u64 = 1024;
/// Most bytes of one read or write (`INT_MAX` rounded down to pages).
pub const MAX_RW_COUNT: u64 = 0x7fff_f000;
/// Longest path, with its NUL.
pub const PATH_MAX: usize = 4096;
/// First address that is not the user's (4-level paging, `TASK_SIZE_MAX`).
pub const TASK_SIZE_MAX: u64 = 0x7fff_ffff_f000;
/// Auxiliary-vector key of the path given to `execve`.
pub const AT_EXECFN: u64 = 31;
/// Bytes of the kernel's signal set.
pub const SIGSET_SIZE: u64 = 8;
