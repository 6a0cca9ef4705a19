//! Runtime of native programs: start-up, heap, log, panic report, kernel calls, configuration,
//! shared memory and channels. All `unsafe` that native programs need is here.
#![no_std]

extern crate alloc;

mod channel;
mod config;
mod heap;
mod interrupt;
mod log;
mod manager;
mod mem;
mod panic;
pub mod process;
mod random;
pub mod regions;
mod shared;
mod start;
pub mod sys;
pub mod time;
mod vcpu_page;

pub use channel::Channel;
pub use config::{arguments, config, install as install_config};
pub use heap::{add_heap, size as heap_size, used as heap_used};
pub use interrupt::bind_interrupt;
pub use log::print;
pub use manager::serve_faults;
pub use random::random;
pub use shared::{GuestRam, Shared};
pub use vcpu_page::VcpuPage;

/// Names the program's main function, `fn(thread: u64) -> !`. Each thread of the program starts
/// in it with its number, from zero. Programs deny `unsafe_code`; the one exported symbol is
/// allowed here.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            // SAFETY: the symbol is declared once per program, and the runtime's `_start` is the
            // only caller, with exactly this signature.
            #[allow(unsafe_code)]
            #[unsafe(export_name = "trapline_main")]
            extern "C" fn start(thread: u64) -> ! {
                $main(thread)
            }
        };
    };
}

/// Writes a line to the kernel's log.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::print(format_args!($($arg)*)) };
}
