//! What the managers of memory write into their ledgers, for the host, and servers about their heaps.
use abi::{Selector, SystemCounter};
use alloc::string::ToString;
use alloc::vec::Vec;
use hostlink::memory::{Entry, Heap, Kernel, Sample};
use ledger::Row;
use rt::Shared;

/// All that this program may look at.
pub fn sample() -> Sample {
    Sample { entries: entries(), heaps: heaps(), kernel: kernel() }
}

fn heaps() -> Vec<Heap> {
    let named = |region: &system::Region| {
        let program = region.name.strip_prefix(system::HEAP_REGION)?.strip_prefix('-')?;
        let page = Shared::region(&region.name)?;
        let word = |at| page.read_register(at, 8).unwrap_or(0);
        Some(Heap { program: program.to_string(), used: word(0), size: word(8) })
    };
    rt::config().regions.iter().filter_map(named).collect()
}

fn kernel() -> Kernel {
    let control = rt::config().capability("system").map(Selector);
    let count = |counter| {
        control.and_then(|control| rt::sys::system_count(control, counter).ok()).unwrap_or_default()
    };
    Kernel {
        objects: count(SystemCounter::Objects),
        bytes: count(SystemCounter::KernelBytes),
        faults: count(SystemCounter::Faults),
        faults_refused: count(SystemCounter::FaultsRefused),
        faults_late: count(SystemCounter::FaultsLate),
    }
}

fn entries() -> Vec<Entry> {
    let config = rt::config();
    let mut entries = Vec::new();
    for region in &config.regions {
        let Some(manager) = region.name.strip_prefix("ledger-") else { continue };
        let names = config.parameter(&alloc::format!("rows-{manager}")).unwrap_or("");
        let Some(page) = Shared::region(&region.name) else { continue };
        for (number, name) in (0..).zip(names.split(',')) {
            let row = Row::read(&page, number).unwrap_or_default();
            if row != Row::default() {
                entries.push(Entry { manager: manager.to_string(), object: name.to_string(), row });
            }
        }
    }
    entries
}
