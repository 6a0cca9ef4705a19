//! A fake guest and a fake service VM around the engine, for tests and fuzz targets.
#![allow(missing_docs)]
mod guarded;
pub mod guest;
pub mod instance;
pub mod processor;
pub mod service;
mod world;

/// A `struct sockaddr_in`.
#[must_use]
pub fn address(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut a = vec![2, 0];
    a.extend(port.to_be_bytes());
    a.extend(ip);
    a.resize(16, 0);
    a
}

/// Ancillary data that carry descriptors.
#[must_use]
pub fn rights(fds: &[i32]) -> Vec<u8> {
    let mut out = (16 + 4 * fds.len() as u64).to_le_bytes().to_vec();
    out.extend(1i32.to_le_bytes());
    out.extend(1i32.to_le_bytes());
    fds.iter().for_each(|fd| out.extend(fd.to_le_bytes()));
    out.resize(out.len().next_multiple_of(8), 0);
    out
}
