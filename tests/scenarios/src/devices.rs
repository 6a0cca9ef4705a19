//! Devices whose registers are regions of a manager of their own, *device*, in both VMs: they work, they are where the guests
//! believe them to be, and they go on when that manager ends, loops, or answers nobody.
use crate::rig::{LIMIT, Rig, succeeded};
use anyhow::{Context, Result, ensure};
use hostlink::memory::Entry;
use std::time::Instant;
use trapline::launch::Options;
use trapline::machine::Vm;

const VMS: [Vm; 2] = [Vm::Compute, Vm::Service];

/// When the manager fails, in milliseconds after the system is up: while the VMs look for their devices, and later. A fifth time within a
/// minute would be the last.
const FAILURES: [&str; 3] = ["fail.device=300,6000", "loop.device=13000", "mute.device=24000"];
/// How often it is then started again, and of these, because it was silent.
const RESTARTS: usize = 4;
const SILENT: usize = 2;

/// Random numbers, as hexadecimal digits; a flush of the persistent memory; files read from it, and not from memory.
const USE: &str = "dd if=/dev/hwrng bs=64 count=4 iflag=fullblock 2> /dev/null | od -An -v -tx1 | tr -d ' \\n' && echo \
    && sync /dev/pmem0 && cat /usr/bin/* /usr/lib/x86_64-linux-gnu/*.so* 2> /dev/null | sha256sum";

/// The memory BARs of slots 3 and 4, what the kernel is bound to there, and how many interrupts came from both.
const FACTS: &str = "for s in 3 4; do d=/sys/bus/pci/devices/0000:00:0$s.0; head -n 1 $d/resource; \
    basename $(readlink $d/virtio*/driver); ls $d/msi_irqs | wc -l; done; cat /sys/class/misc/hw_random/rng_current";

/// What they say.
const EXPECTED: &str = "0x00000000e8006000 0x00000000e8007fff 0x0000000000040200\nvirtio_pmem\n2\n\
    0x00000000e8008000 0x00000000e8009fff 0x0000000000040200\nvirtio_rng\n2\nvirtio_rng.0\n";

fn in_vm(rig: &Rig, vm: Vm, script: &str) -> Result<String> {
    let outcome = rig.machine.run(vm, &["sh", "-c", script], LIMIT)?;
    succeeded(script, &outcome).with_context(|| format!("in the {vm:?} VM"))
}

/// Faults of each device, as the manager tells them.
fn faults(rig: &Rig, object: &str) -> Result<u64> {
    let entries = rig.machine.memory()?.entries;
    let of = |e: &&Entry| (&*e.manager, &*e.object) == ("device", object);
    Ok(entries.iter().find(of).map_or(0, |entry| entry.row.faults))
}

/// Uses both devices of a VM: the sum of its files.
fn used(rig: &Rig, vm: Vm, seen: &mut Vec<String>) -> Result<String> {
    let said = in_vm(rig, vm, USE)?;
    let (numbers, sum) = said.split_once('\n').context("one line")?;
    ensure!(numbers.len() == 512, "so many random numbers: '{numbers}'");
    let fresh = !seen.iter().any(|other| other == numbers);
    ensure!(fresh && numbers.bytes().any(|digit| digit != b'0'), "not random: {numbers}");
    seen.push(numbers.to_owned());
    Ok(sum.to_owned())
}

/// The scenario.
pub fn run() -> Result<()> {
    let words = FAILURES.map(str::to_owned).into();
    let rig = Rig::boot_with(Options { words, ..Options::default() })?;
    for vm in VMS {
        let said = in_vm(&rig, vm, FACTS)?;
        ensure!(said == EXPECTED, "the devices of the {vm:?} VM are\n{said}instead of\n{EXPECTED}");
    }
    let log = || std::fs::read_to_string(rig.machine.logs().join("kernel.log"));
    let count = |log: &str, line: &str| log.matches(line).count();
    let mut numbers = Vec::new();
    let sums = [used(&rig, VMS[0], &mut numbers)?, used(&rig, VMS[1], &mut numbers)?];
    let end = Instant::now() + 2 * LIMIT;
    loop {
        let restarts = count(&log()?, "manager 'device' was started again");
        for (vm, sum) in VMS.into_iter().zip(&sums) {
            ensure!(used(&rig, vm, &mut numbers)? == *sum, "other files in the {vm:?} VM");
        }
        // Once more after the last failure.
        if restarts == RESTARTS {
            break;
        }
        ensure!(Instant::now() < end, "the manager was started again {restarts} times");
    }
    for object in ["pmem-compute", "rng-compute", "pmem-service", "rng-service"] {
        let before = faults(&rig, object)?;
        for vm in VMS {
            used(&rig, vm, &mut numbers)?;
        }
        let after = faults(&rig, object)?;
        ensure!(before > 0 && after > before, "accesses to {object}: {before}, then {after}");
    }
    let log = log()?;
    let silent = count(&log, "manager 'device' does not answer");
    ensure!(silent == SILENT, "it was found silent {silent} times");
    for bad in ["fatal", "panic", "make no sense", "does not answer: ", "is over"] {
        ensure!(!log.contains(bad), "'{bad}' is in the log");
    }
    Ok(())
}
