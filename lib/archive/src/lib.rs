//! Placeholder module documentation for `archive`; see doc/borders.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
