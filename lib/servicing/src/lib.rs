//! Placeholder module documentation for `servicing`; see doc/borders.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
