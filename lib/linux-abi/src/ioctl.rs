//! `ioctl` commands of sockets, by what their argument is
//! (`include/uapi/linux/sockios.h`, `include/uapi/asm-generic/{ioctls,sockios}.h`, netdevice(7)).
use crate::SIOCGIFCONF;

/// Bytes of `struct ifreq`.
pub const IFREQ_SIZE: usize = 40;

/// What a command is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketRequest {
    /// Asks about the socket's queues: an `int`.
    Integer,
    /// When the last packet came: two words.
    Time,
    /// Who gets signals: an `int`.
    Owner,
    /// Asks about one interface: a `struct ifreq` without pointers.
    Interface,
    /// All interfaces: a `struct ifconf`.
    List,
    /// Changes interfaces, routes or neighbours.
    Change,
}

impl SocketRequest {
    /// Bytes of the argument, where it is one of a fixed size without pointers.
    #[must_use]
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Integer | Self::Owner => Some(4),
            Self::Time => Some(16),
            Self::Interface => Some(IFREQ_SIZE),
            Self::List | Self::Change => None,
        }
    }
}

/// What that command is; `None`: nothing known of sockets.
#[must_use]
pub const fn socket_request(command: u32) -> Option<SocketRequest> {
    Some(match command {
        // FIONREAD (SIOCINQ), TIOCOUTQ (SIOCOUTQ), SIOCATMARK, SIOCOUTQNSD.
        0x541b | 0x5411 | 0x8905 | 0x894b => SocketRequest::Integer,
        // SIOCGSTAMP and SIOCGSTAMPNS, old and new.
        0x8906 | 0x8907 | 0x8010_8906 | 0x8010_8907 => SocketRequest::Time,
        // FIOSETOWN, SIOCSPGRP, FIOGETOWN, SIOCGPGRP.
        0x8901..=0x8904 => SocketRequest::Owner,
        SIOCGIFCONF => SocketRequest::List,
        // SIOCGIF: NAME, FLAGS, ADDR, DSTADDR, BRDADDR, NETMASK, METRIC, MTU, HWADDR, INDEX,
        // TXQLEN.
        0x8910 | 0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x891d | 0x8921 | 0x8927 | 0x8933
        | 0x8942 => SocketRequest::Interface,
        // SIOCADDRT, SIOCDELRT; SIOCSIF: LINK, FLAGS, ADDR, DSTADDR, BRDADDR, NETMASK, METRIC, MTU,
        // NAME, HWADDR; SIOCDIFADDR, SIOCSIFHWBROADCAST; SIOCSIFTXQLEN; SIOCDARP, SIOCSARP.
        0x890b | 0x890c | 0x8911 | 0x8914 | 0x8916 | 0x8918 | 0x891a | 0x891c | 0x891e | 0x8922
        | 0x8923 | 0x8924 | 0x8936 | 0x8937 | 0x8943 | 0x8953 | 0x8955 => SocketRequest::Change,
        _ => return None,
    })
}

/// True for commands of terminals, which programs try on any descriptor.
#[must_use]
pub const fn is_terminal_request(command: u32) -> bool {
    command & 0xff00 == 0x5400
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// No command that writes more than it says can get through.
        #[test]
        fn sizes_are_those_of_the_argument(command: u32) {
            if let Some(size) = socket_request(command).and_then(SocketRequest::size) {
                prop_assert!(matches!(size, 4 | 16 | IFREQ_SIZE));
            }
        }
    }

    #[test]
    fn known_commands() {
        assert_eq!(socket_request(0x541b), Some(SocketRequest::Integer));
        assert_eq!(socket_request(0x8933), Some(SocketRequest::Interface));
        assert_eq!(socket_request(0x8914), Some(SocketRequest::Change));
        // SIOCETHTOOL has a pointer.
        assert_eq!(socket_request(0x8946), None);
        assert!(is_terminal_request(0x5413));
        assert!(!is_terminal_request(0x8913));
    }
}
