//! What the kernel's scheduler is made of: objects by number, run queues, deadlines. Lists and heaps
//! link objects that are kept in an [`Arena`], so that none of their operations allocates.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

mod arena;
pub mod lend;
mod queue;
mod timers;

pub use arena::{Arena, Id};
pub use queue::{Links, Queued, RunQueue};
pub use timers::{Deadline, Timers};

#[cfg(test)]
mod lend_tests;
#[cfg(test)]
mod tests;
