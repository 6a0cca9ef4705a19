//! Placeholder module documentation for `apic`; see doc/borders.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
