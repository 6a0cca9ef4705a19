//! Rights of capabilities and of memory.
use bitflags::bitflags;

bitflags! {
    /// Rights to memory, in capabilities, regions and mappings alike.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    #[repr(transparent)]
    pub struct MemRights: u64 {
        /// May be read. Every mapping is readable.
        const READ = 1;
        /// May be written.
        const WRITE = 2;
        /// May be executed. `WRITE | EXEC` is refused in native spaces.
        const EXEC = 4;
        /// Device memory: mapped uncached.
        const DEVICE = 8;
    }

    /// Rights that a capability carries; the meaning depends on the object's kind.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    #[repr(transparent)]
    pub struct ObjRights: u64 {
        /// Portal: call. Notification: signal. vCPU: recall. Space: none.
        const USE = 1;
        /// Space: bind regions, install capabilities, create threads. Thread, vCPU: control.
        /// Notification: wait and bind. Portal: name it as a manager in a region.
        const CONTROL = 2;
        /// The capability may be copied into other spaces.
        const GRANT = 4;
    }
}
