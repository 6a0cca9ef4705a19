//! Declared objects of memory that several programs and machines see, each with rights of its own.
use crate::description::{Description, MemoryUse};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Most clients of the manager: programs, and one for each of them that monitors a machine.
const MOST_CLIENTS: usize = 64;
/// Most bytes of an object.
const LONGEST: u64 = 1 << 30;

/// Everything that is shared with different rights.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sharing {
    /// The program that manages it.
    pub manager: String,
    /// Objects that are there from the start.
    #[serde(default)]
    pub objects: Vec<SharedObject>,
}

/// An object. Its owner reads and writes, and may change at any time what others may do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedObject {
    /// Name; programs find its number in their parameter `shared-NAME`.
    pub name: String,
    /// Bytes; a multiple of 4096.
    pub size: u64,
    /// The owner.
    pub owner: MemoryUse,
    /// Other programs that see it.
    #[serde(default)]
    pub used_by: Vec<SharedUse>,
    /// Virtual machines that see it.
    #[serde(default)]
    pub guests: Vec<SharedGuest>,
}

/// A program's view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedUse {
    /// The program.
    pub program: String,
    /// Name of the region there.
    pub region: String,
    /// It may write, too.
    #[serde(default)]
    pub write: bool,
}

/// A virtual machine's view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedGuest {
    /// The virtual machine.
    pub machine: String,
    /// Guest-physical address.
    pub at: u64,
    /// It may write, too.
    #[serde(default)]
    pub write: bool,
}

impl Description {
    /// Checks what is shared.
    pub(crate) fn check_sharing(&self) -> Result<(), String> {
        let asks = self.programs.iter().find(|p| p.shares.is_some());
        let Some(sharing) = &self.sharing else {
            return asks.map_or(Ok(()), |p| {
                Err(format!("program '{}' has shares, but nobody manages them", p.name))
            });
        };
        let manager = self.programs.iter().find(|p| p.name == sharing.manager);
        let Some(manager) = manager else {
            return Err(format!("program '{}' is to manage what is shared", sharing.manager));
        };
        if !manager.pinned {
            return Err(format!("program '{}' manages what is shared: pin it", manager.name));
        }
        if self.programs.len() * 2 > MOST_CLIENTS {
            return Err(format!("more than {} programs with shared memory", MOST_CLIENTS / 2));
        }
        sharing.objects.iter().try_for_each(|object| self.check_object(object))
    }

    fn check_object(&self, object: &SharedObject) -> Result<(), String> {
        let SharedObject { name, size, owner, .. } = object;
        if *size == 0 || !size.is_multiple_of(4096) || *size > LONGEST {
            return Err(format!("shared object '{name}': {size} bytes"));
        }
        self.need(&owner.program, 0, name)?;
        for (n, used) in object.used_by.iter().enumerate() {
            self.need(&used.program, 0, name)?;
            let twice = object.used_by[..n].iter().any(|other| other.program == used.program);
            if twice || used.program == owner.program {
                return Err(format!("'{}' has '{name}' twice", used.program));
            }
        }
        for (n, guest) in object.guests.iter().enumerate() {
            if !self.machines.iter().any(|m| m.name == guest.machine) {
                return Err(format!("'{name}' names machine '{}', which is not", guest.machine));
            }
            if object.guests[..n].iter().any(|other| other.machine == guest.machine) {
                return Err(format!("machine '{}' has '{name}' twice", guest.machine));
            }
            if !guest.at.is_multiple_of(4096) {
                return Err(format!("'{name}' is not at a page of '{}'", guest.machine));
            }
        }
        Ok(())
    }
}
