//! Devices of virtual machines whose models another program than the monitor holds.
use crate::description::{Description, VirtualMachine};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Slots of the devices of which there are such models, and what they are called: those that need nothing but their machine's memory.
pub const MODELLED: [(u8, &str); 2] = [(3, "pmem"), (4, "rng")];

/// Who models which devices of a machine. That program sees the machine's RAM as its region `ram-MACHINE`, and is the first end of
/// a channel `interrupts-MACHINE`, whose second one is the monitor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// The program; it has a thread on the machine's processor.
    pub program: String,
    /// Slots of the devices, of [`MODELLED`] ones. What is not listed, the machine does not have.
    pub slots: Vec<u8>,
}

impl Description {
    /// Checks who models a machine's devices.
    pub(crate) fn check_models(&self, machine: &VirtualMachine) -> Result<(), String> {
        let Some(Models { program, slots }) = &machine.models else { return Ok(()) };
        let name = &machine.name;
        let model = self.programs.iter().find(|p| p.name == *program);
        let Some(model) = model else {
            return Err(format!("machine '{name}': no program '{program}' to model its devices"));
        };
        if slots.is_empty() {
            return Err(format!(
                "machine '{name}': program '{program}' models none of its devices"
            ));
        }
        for (n, slot) in slots.iter().enumerate() {
            if MODELLED.iter().all(|(known, _)| known != slot) {
                return Err(format!("machine '{name}': no model of a device in slot {slot}"));
            }
            if slots[..n].contains(slot) {
                return Err(format!("machine '{name}': slot {slot} is modelled twice"));
            }
        }
        let thread = model.cpus.iter().position(|cpu| *cpu == machine.cpu);
        let Some(thread) = thread else {
            let cpu = machine.cpu;
            return Err(format!("machine '{name}': no thread of '{program}' on processor {cpu}"));
        };
        let region = format!("ram-{name}");
        let ram = self.memory.iter().filter(|memory| memory.name == machine.ram);
        let mut shown = ram.flat_map(|memory| &memory.used_by);
        if !shown.any(|used| used.program == *program && used.region == region) {
            return Err(format!(
                "machine '{name}': '{program}' has no region '{region}' of its RAM"
            ));
        }
        let channel = format!("interrupts-{name}");
        let found = self.channels.iter().find(|found| found.name == channel);
        let joined = found.is_some_and(|found| {
            (&found.first.program, found.first.thread as usize) == (program, thread)
                && (&found.second.program, found.second.thread) == (&machine.monitor, 0)
        });
        if !joined {
            return Err(format!(
                "machine '{name}': no channel '{channel}' from thread {thread} of '{program}' to '{}'",
                machine.monitor
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::from_text;

    const SYSTEM: &str = r#"
[[programs]]
name = "anon"
file = "anon"
cpus = [0, 1]
heap = 65536
quota = 1048576
priority = 110

[[programs]]
name = "device"
file = "device"
cpus = [0, 1]
heap = 65536
quota = 1048576
priority = 105

[[programs]]
name = "vmm"
file = "vmm"
cpus = [1]
heap = 65536
quota = 1048576
priority = 100

[[memory]]
name = "ram"
size = 2097152
used_by = [{ program = "vmm", region = "ram" }, { program = "device", region = "ram-guest" }]

[[channels]]
name = "interrupts-guest"
size = 8192
first = { program = "device", thread = 1 }
second = { program = "vmm" }

[[machines]]
name = "guest"
cpu = 1
priority = 10
monitor = "vmm"
ram = "ram"
root_image = ""
models = { program = "device", slots = [3, 4] }
"#;

    fn check(from: &str, to: &str) -> Result<(), String> {
        let text = SYSTEM.replace("cpus = [0, 1]", "pinned = true\ncpus = [0, 1]");
        assert!(text.contains(from), "'{from}'");
        from_text(&text.replace(from, to)).map(drop).map_err(|error| error.message)
    }

    #[test]
    fn what_is_missing_for_models_is_named() {
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check("slots = [3, 4]", "slots = [4]"), Ok(()));
        for (from, to, said) in [
            ("slots = [3, 4]", "slots = [3, 5]", "no model of a device in slot 5"),
            ("slots = [3, 4]", "slots = [4, 4]", "slot 4 is modelled twice"),
            ("slots = [3, 4]", "slots = []", "models none of its devices"),
            ("{ program = \"device\", slots", "{ program = \"devil\", slots", "no program 'devil'"),
            ("cpu = 1\n", "cpu = 2\n", "no thread of 'device' on processor 2"),
            ("ram-guest", "ram-ghost", "no region 'ram-guest' of its RAM"),
            ("interrupts-guest", "interrupts", "no channel 'interrupts-guest'"),
            ("thread = 1", "thread = 0", "from thread 1 of 'device' to 'vmm'"),
        ] {
            let error = check(from, to).unwrap_err();
            assert!(error.contains("machine 'guest'") && error.contains(said), "{error}");
        }
    }
}
