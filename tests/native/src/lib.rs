//! What the tests of the kernel and its benchmark share.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

#[path = "child_words.rs"]
pub mod child;
pub mod env;
#[allow(unsafe_code)]
pub mod illegal;
pub mod nursery;
