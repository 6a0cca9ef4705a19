//! Where things lie in native spaces, and how large they are.

pub use system::HEAP;
/// First stack's place; each thread's next one is `STACK_DISTANCE` further. A stack begins at the upper
/// end of its place and grows downwards; below it is a guard, and then nothing.
pub use system::STACKS;

/// From the start of one place to the next.
pub const STACK_DISTANCE: u64 = 1 << 20;
/// Named regions are put from here on, each at a multiple of `REGION_ALIGN`.
pub const REGIONS: u64 = 0x10_0000_0000;
/// Suits large pages.
pub const REGION_ALIGN: u64 = 2 << 20;

/// The root server's own heap.
pub const OWN_HEAP: u64 = 24 << 20;
/// All of RAM, in the root server.
pub const OWN_RAM: u64 = 0x20_0000_0000;
/// The boot archive, in the root server.
pub const OWN_ARCHIVE: u64 = 0x40_0000_0000;
/// Where the root server looks at device memory and firmware tables.
pub const OWN_WINDOW: u64 = 0x60_0000_0000;

/// Guest-physical address of the persistent-memory device.
pub const GUEST_ROOT_IMAGE: u64 = 0x1_0000_0000;
/// Most RAM that a virtual machine can have.
pub const GUEST_RAM_LIMIT: u64 = 0xc000_0000;

/// Badge of the monitor's portal for exits.
pub const BADGE_EXIT: u64 = 1;
/// Badge of the monitor's portal for device regions.
pub const BADGE_DEVICE: u64 = 2;
/// Badge of portals that get exits routed to another program than the monitor.
pub const BADGE_ROUTE: u64 = 1;

/// Quantum of every scheduling context, in microseconds.
pub const QUANTUM_US: u64 = 10_000;
/// Kernel memory for a virtual machine's space (nested page tables).
pub const GUEST_QUOTA: u64 = 8 << 20;
