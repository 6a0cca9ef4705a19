//! The kinds of devices.

mod console;
mod entropy;
mod net;
mod pmem;
pub mod vsock;

pub use console::Console;
pub use entropy::Entropy;
pub use net::{MAX_FRAME, Net};
pub use pmem::Pmem;
pub use vsock::Vsock;
