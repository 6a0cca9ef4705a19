//! What the memory managers tell, as the host gets it.
use alloc::{string::String, vec::Vec};
use ledger::Row;
use serde::{Deserialize, Serialize};

/// What there is at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The objects of all managers.
    pub entries: Vec<Entry>,
    /// The heaps of the servers.
    pub heaps: Vec<Heap>,
    /// The kernel's own.
    pub kernel: Kernel,
}

/// What the kernel counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Kernel {
    /// Kernel objects of all kinds that exist.
    pub objects: u64,
    /// Bytes of kernel memory in use.
    pub bytes: u64,
    /// Page faults sent to managers since boot.
    pub faults: u64,
    /// Faults since boot that their manager refused, or answered by something that can't be carried out.
    pub faults_refused: u64,
    /// Faults since boot that were not resolved in time.
    pub faults_late: u64,
}

/// A server's heap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heap {
    /// The server.
    pub program: String,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that there are.
    pub size: u64,
}

/// An object of a manager.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The manager.
    pub manager: String,
    /// The object: a memory, a program's private memory, a file.
    pub object: String,
    /// What there is of it.
    pub row: Row,
}
