//! Every fuzz target under libFuzzer; the environment says which.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<&fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("TRAPLINE_FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("no fuzz target is called '{name}'"))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
