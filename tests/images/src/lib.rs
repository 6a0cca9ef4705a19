//! Rules about the linked kernel and native programs, checked by this crate's tests. Run
//! `cargo xtask build` first.
#![forbid(unsafe_code)]
