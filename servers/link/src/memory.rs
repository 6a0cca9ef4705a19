//! What the managers of memory write into their ledgers, for the host.
use alloc::string::ToString;
use alloc::vec::Vec;
use hostlink::memory::Entry;
use ledger::Row;
use rt::Shared;

/// All that this program may look at.
pub fn entries() -> Vec<Entry> {
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
