//! The host side of Trapline: builds images, starts the machine, talks to it.
//!
//! The command `trapline` is a thin layer over this library; scenarios and benchmarks use it too.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cache;
pub mod command;
pub mod demo;
pub mod doctor;
pub mod fuzz;
pub mod image;
pub mod launch;
pub mod machine;
pub mod parts;
pub mod policy;
pub mod progress;
pub mod run;
pub mod supervise;
pub mod test;
pub mod timeline;
pub mod top;
pub mod web;

/// The exit status for an error, and what to say about it.
#[must_use]
pub fn report(error: &anyhow::Error) -> (u8, Option<String>) {
    if let Some(supervise::Interrupted(signal)) = error.downcast_ref() {
        return (u8::try_from(128 + signal).unwrap_or(1), None);
    }
    if let Some(signal) = supervise::interrupted() {
        return (u8::try_from(128 + signal).unwrap_or(1), None);
    }
    (1, Some(format!("{error:#}")))
}
