//! The root server: the first native program. It owns the whole machine at first, reads the
//! system description from the boot archive, creates what it declares, hands out exactly the
//! capabilities that it names, and from then on reports threads that end, and starts memory managers again that fail.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod acpi;
mod boot;
mod connect;
mod devices;
mod given;
mod guard;
mod layout;
mod ledgers;
mod loader;
mod machine;
mod models;
mod planned;
mod program;
mod ram;
mod report;
mod restart;
mod sharing;
mod swapped;
mod views;
mod window;

use abi::{Error, RootSelector, Selector};
use alloc::string::String;
use rt::log;

rt::entry!(main);

/// What went wrong while the system was set up: a sentence that names the thing.
pub struct Failure(pub String);

impl Failure {
    /// A kernel call that was refused while doing `what`.
    pub fn kernel(what: impl core::fmt::Display) -> impl FnOnce(Error) -> Self {
        let text = alloc::format!("{what}");
        move |error| Failure(alloc::format!("{text}: {}", error.text()))
    }
}

/// Microseconds within which managers have to resolve a fault. Disks answer sooner, on busy hosts too;
/// a manager that takes longer has failed.
pub const FAULT_LIMIT: u64 = 60_000_000;

/// The selector as the kernel laid it out.
pub const fn own(selector: RootSelector) -> Selector {
    Selector(selector as u32)
}

fn main(_thread: u64) -> ! {
    let outcome = boot::start().and_then(|mut builder| {
        builder.build()?;
        Ok(builder)
    });
    match outcome {
        Ok(builder) => report::serve(builder),
        Err(Failure(text)) => {
            log!("fatal: the system could not be set up: {text}");
            let _ = rt::sys::shutdown(own(RootSelector::System), 3);
            rt::sys::exit(3)
        }
    }
}
