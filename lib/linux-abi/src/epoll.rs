//! `epoll(7)`: structure and flags (`include/uapi/linux/eventpoll.h`).

/// `struct epoll_event`, which is packed on x86-64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpollEvent {
    /// `EPOLL*`.
    pub events: u32,
    /// The program's own.
    pub data: u64,
}

impl EpollEvent {
    /// Size in memory.
    pub const SIZE: usize = 12;

    /// From memory.
    #[must_use]
    pub fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let [e0, e1, e2, e3, data @ ..] = bytes;
        Self { events: u32::from_le_bytes([e0, e1, e2, e3]), data: u64::from_le_bytes(data) }
    }

    /// As it lies in memory.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.events.to_le_bytes());
        bytes[4..].copy_from_slice(&self.data.to_le_bytes());
        bytes
    }
}

/// `EPOLLIN`.
pub const EPOLLIN: u32 = 1;
/// `EPOLLOUT`.
pub const EPOLLOUT: u32 = 4;
/// `EPOLLERR`, always told.
pub const EPOLLERR: u32 = 8;
/// `EPOLLHUP`, always told.
pub const EPOLLHUP: u32 = 0x10;
/// `EPOLLRDNORM`.
pub const EPOLLRDNORM: u32 = 0x40;
/// `EPOLLWRNORM`.
pub const EPOLLWRNORM: u32 = 0x100;
/// `EPOLLRDHUP`.
pub const EPOLLRDHUP: u32 = 0x2000;
/// `EPOLLEXCLUSIVE`.
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
/// `EPOLLWAKEUP`.
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// `EPOLLONESHOT`.
pub const EPOLLONESHOT: u32 = 1 << 30;
/// `EPOLLET`.
pub const EPOLLET: u32 = 1 << 31;
/// Most events of one wait (`EP_MAX_EVENTS`).
pub const EPOLL_EVENTS_MAX: usize = i32::MAX as usize / EpollEvent::SIZE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_lie_as_linux_has_them() {
        let event = EpollEvent { events: 0x8000_2005, data: 0x0102_0304_0506_0708 };
        let bytes = [5, 0x20, 0, 0x80, 8, 7, 6, 5, 4, 3, 2, 1];
        assert_eq!(event.encode(), bytes);
        assert_eq!(EpollEvent::decode(bytes), event);
    }
}
