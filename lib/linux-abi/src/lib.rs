//! The system-call interface of x86-64 Linux, as far as remote servicing needs it: call table,
//! error numbers, flags, structure layouts. Data only; nothing here does anything to a system.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod address;
mod calls;
mod control;
mod epoll;
mod errno;
mod flags;
mod ioctl;
mod layouts;

pub use address::Address;
pub use calls::{Argument, Call, call, name, nr};
pub use control::{ControlMessage, control_messages};
pub use epoll::*;
pub use errno::{Errno, check};
pub use flags::*;
pub use ioctl::*;
pub use layouts::{
    CloneArgs, FdSet, IoVec, MMsgHdr, MsgHdr, PollFd, SigsetArgument, TimeSpec, TimeVal,
};
