//! Placeholder module documentation for `system`; see doc/borders.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
