//! What the memory managers tell, as the host gets it.
use alloc::string::String;
use ledger::Row;
use serde::{Deserialize, Serialize};

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
