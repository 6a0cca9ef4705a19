//! Tests of the kernel, from a root program.
#![no_std]
#![no_main]

extern crate alloc;
use abi::Selector;

rt::entry!(main);

fn main(_thread: u64) -> ! {
    rt::log!("hello from root");
    let _ = rt::sys::shutdown(Selector(7), 0);
    rt::sys::exit(0)
}
