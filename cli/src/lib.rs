//! The host side of Trapline: builds images, starts the machine, talks to it.
//!
//! The command `trapline` is a thin layer over this library; scenarios and benchmarks use it too.
#![forbid(unsafe_code)]

pub mod cache;
pub mod command;
pub mod image;
pub mod progress;
