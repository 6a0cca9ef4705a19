//! The kinds of devices.

mod console;
mod entropy;
mod net;
mod pmem;
pub mod vsock;

/// Most requests that are answered in one go while their guest waits: many times what a queue holds. A guest that has
/// its rings written to by what it gets could make them endless.
const MOST_REQUESTS: u32 = 4 * crate::MAX_SIZE as u32;

pub use console::Console;
pub use entropy::Entropy;
pub use net::{MAX_FRAME, Net};
pub use pmem::Pmem;
pub use vsock::Vsock;
