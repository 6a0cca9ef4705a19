//! What the tests of the kernel and its benchmark share.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod env;
