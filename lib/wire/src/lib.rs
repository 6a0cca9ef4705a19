//! The contract between the relay and the guest programs (launcher, dispatcher, delegates), and
//! between the relay and the virtual-socket model of the monitors: hypercall numbers, mailbox
//! layout, requests and responses, socket records. One definition, used on both sides; everything
//! that is decoded here is taken for hostile.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod epoll;
pub mod file;
pub mod hypercall;
mod mailbox;
mod message;
mod parts;
pub mod vsock;

pub use epoll::{EpollFound, EpollOperation, EpollRequest};
pub use file::{FileAction, FileRequest, PathAction, Place};
pub use mailbox::{Kind, Mailbox, Posted, Registration, layout};
pub use message::{Malformed, Request, Response, WAIT_FOREVER};
pub use parts::{Credentials, Identity, PollEntry, SocketEvent};

/// Folder of the links to the launcher, one for each program of the policy, under its last name; first
/// in the compute VM's `PATH`. Who is trusted already needs no launcher: `execve` of a link there is
/// carried out as one of the program.
pub const LINKS: &str = "/run/trapline/bin";
