//! What has to be looked at before a call of a trusted process may go straight to its own kernel.
//! This is the cautious half of [`verdict`](crate::calls::verdict): it sees numbers and descriptors,
//! never the program's memory. What it lets pass, `verdict` would let pass too.
use linux_abi::nr;

/// A set of conditions; the call goes straight on when none of them holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look(pub u8);

impl Look {
    /// The call never goes straight on.
    pub const ALWAYS: u8 = 0x80;
    /// Some descriptor of the process is, or may become, remote.
    pub const ANY: u8 = 0x40;
    /// The first argument, a number of descriptors, is above the lowest that is looked at.
    pub const HIGHEST: u8 = 0x20;
    /// The process's program has remote files: paths are looked at.
    pub const PATHS: u8 = 0x04;
    /// Bits of the arguments that can be compared with the bitmap, by position. The third is
    /// not among them: its register holds something else in the stub.
    pub const DESCRIPTOR: [u8; 5] = [0x01, 0x02, 0, 0x08, 0x10];

    /// Of a call.
    #[must_use]
    pub fn of(number: u64) -> Self {
        let by_number = match number {
            nr::socket
            | nr::epoll_create
            | nr::epoll_create1
            | nr::execve
            | nr::execveat
            | nr::fork
            | nr::vfork
            | nr::clone
            | nr::clone3
            | nr::close_range
            | nr::pidfd_getfd
            | nr::recvmsg
            | nr::recvmmsg
            | nr::io_uring_setup
            | nr::io_uring_enter
            | nr::io_uring_register => Self::ALWAYS,
            nr::prctl | nr::seccomp => Self::ALWAYS,
            // About interfaces, any descriptor is asked.
            nr::ioctl => Self::ALWAYS,
            _ if crate::calls::may_change_identity(number) => Self::ALWAYS,
            nr::select | nr::pselect6 => Self::HIGHEST,
            nr::poll | nr::ppoll | nr::dup2 | nr::dup3 | nr::sendmsg | nr::sendmmsg => Self::ANY,
            _ => 0,
        };
        let paths = if crate::calls::concerns_paths(number) { Self::PATHS } else { 0 };
        // The number that a duplicate gets may be one of the relay's own, which it would close.
        let target = matches!(number, nr::dup2 | nr::dup3).then_some(1);
        let places = linux_abi::call(number).into_iter().flat_map(linux_abi::Call::descriptors);
        let places = places.chain(target);
        let bit = |place: usize| match Self::DESCRIPTOR.get(place) {
            None | Some(0) => Self::ALWAYS,
            Some(bit) => *bit,
        };
        Self(places.map(bit).fold(by_number | paths, |a, b| a | b))
    }
}
