//! The relay: remote servicing as a native program. Thread 0 runs beside the compute VM, gets the
//! exits that matter and holds all state; thread 1 runs beside the service VM, gets its
//! hypercalls and passes them on. The logic is `lib/servicing`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod compute;
mod desk;
mod outbox;
mod service;
mod surroundings;

rt::entry!(main);

fn main(thread: u64) -> ! {
    if thread == 0 { compute::serve() } else { service::serve() }
}
