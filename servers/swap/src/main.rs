//! The swapping memory manager: memory that is larger than the part of it that is in RAM. The rest is
//! compressed, or sealed on a virtio disk. All decisions are `lib/swap`'s; see
//! `doc/decisions/swap.md`.
//!
//! One thread, one loop: faults, interrupts of the disk, deadlines. It calls nobody, and all of its
//! own memory is pinned, so it waits for nothing that waits for it.
//!
//! Configuration: region and capability `pool`, the RAM; parameter `pages`, the size that is believed
//! in; parameter `clients`, a list `space:base:kind,…` of the regions that show it, whose portals'
//! badges are its indices; region `notes`, what it writes down for the program that is started in its place should it fail;
//! regions `ledger`, where it tells what there is, and `losses`, where it tells which pages are lost. Device, optional: a virtio block device. Without `pages` there is nothing to do.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod clients;
mod disk;
mod manager;

use abi::Error;
use manager::Manager;

rt::entry!(main);

fn main(_thread: u64) -> ! {
    match Manager::from_config() {
        Some(manager) => manager.serve(),
        None => rt::serve_faults(|_, _| Err(Error::NoRegion)),
    }
}
