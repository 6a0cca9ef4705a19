//! The contract between the Trapline kernel and native programs: call numbers, object kinds,
//! rights, error codes, message layouts. Data only; the kernel and every native program link
//! this one copy. `doc/borders.md` tells the whole picture.
#![no_std]
#![forbid(unsafe_code)]

mod arguments;
mod boot;
mod call;
mod end;
mod error;
mod fault;
mod region;
mod rights;
pub mod trace;
mod units;
pub mod vcpu;

pub use arguments::Argument;
pub use boot::{BootInfo, ROOT_SELECTORS, RootSelector};
pub use call::{
    CallNumber, Event, FIRST_FREE_SELECTOR, MESSAGE_WORDS, Message, NO_DEADLINE, SELECTOR_LIMIT,
    SpaceKind, SystemCounter, ThreadArgs,
};
pub use end::{Detail, EndCause, Obstacle, ThreadEnd, Why};
pub use error::Error;
pub use fault::{Access, FaultMessage, FaultReply};
pub use region::{REGISTERS, RegionInfo};
pub use rights::{MemRights, ObjRights};
pub use units::*;
