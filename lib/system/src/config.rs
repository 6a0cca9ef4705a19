//! The configuration of one native program.
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A mapped range, by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Region {
    /// Name; `doc/borders.md` lists them.
    pub name: String,
    /// Address in the program's space.
    pub address: u64,
    /// Length in bytes (the object's own length, not rounded to pages).
    pub length: u64,
    /// Physical address, for device registers and DMA memory.
    pub physical: Option<u64>,
}

/// A program's end of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelEnd {
    /// Name of the channel.
    pub name: String,
    /// Address of the shared memory.
    pub address: u64,
    /// Its length in bytes; the first half is the ring from the first end to the second.
    pub length: u64,
    /// True for the first of the two ends.
    pub first: bool,
    /// Selector of the other side's notification.
    pub peer: u32,
    /// Bit to signal there.
    pub peer_bits: u64,
    /// Bit that the other side signals here.
    pub own_bits: u64,
    /// Which of the program's threads gets that signal.
    pub thread: u32,
}

/// All that a native program is told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// Name of the program's instance, `vmm-compute` for example.
    pub name: String,
    /// Rate of the time-stamp counter in kHz.
    pub tsc_khz: u64,
    /// Processors of the machine.
    pub cpus: u32,
    /// Capabilities: name and selector.
    pub capabilities: Vec<(String, u32)>,
    /// Mapped ranges.
    pub regions: Vec<Region>,
    /// Channels.
    pub channels: Vec<ChannelEnd>,
    /// Parameters: name and value.
    pub parameters: Vec<(String, String)>,
    /// Arguments, of processes that another program started.
    pub arguments: Vec<String>,
}

impl Config {
    /// Selector of the capability of that name.
    #[must_use]
    pub fn capability(&self, name: &str) -> Option<u32> {
        self.capabilities.iter().find(|(n, _)| n == name).map(|(_, s)| *s)
    }

    /// The mapped range of that name.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|r| r.name == name)
    }

    /// The end of the channel of that name.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<&ChannelEnd> {
        self.channels.iter().find(|c| c.name == name)
    }

    /// The parameter of that name. What stands on the machine's command line wins over the
    /// description's value.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The parameter as a size or number (`64`, `256K`, `512M`, `2G`).
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        crate::parse_size(self.parameter(name)?)
    }
}
