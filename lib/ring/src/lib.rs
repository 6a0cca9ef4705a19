//! Placeholder module documentation for `ring`; see doc/borders.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
