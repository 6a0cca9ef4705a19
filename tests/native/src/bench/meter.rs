//! Counting.
use abi::SystemCounter;
use native_tests::env::SYSTEM;
use rt::sys;

/// What was counted between two points.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Ticks of the time-stamp counter.
    ticks: u64,
    entries: u64,
    switches: u64,
    spaces: u64,
    exits: u64,
    faults: u64,
}

fn count(counter: SystemCounter) -> u64 {
    sys::system_count(SYSTEM, counter).unwrap_or(0)
}

/// Counters as they were at one moment. Reading them enters the kernel, so the entries are read
/// next to what is measured, and the clock nearest to it.
pub struct Start(Counts);

impl Start {
    /// Now.
    pub fn now() -> Self {
        let mut counts = Counts {
            switches: count(SystemCounter::ThreadSwitches),
            spaces: count(SystemCounter::SpaceSwitches),
            exits: count(SystemCounter::VmExits),
            faults: count(SystemCounter::Faults),
            entries: count(SystemCounter::Entries),
            ticks: 0,
        };
        counts.ticks = rt::time::now().0;
        Self(counts)
    }

    /// What was counted since.
    pub fn end(self) -> Counts {
        let ticks = rt::time::now().0;
        // The call that reads the entries is one itself.
        let entries = count(SystemCounter::Entries) - 1;
        Counts {
            ticks: ticks - self.0.ticks,
            entries: entries - self.0.entries,
            switches: count(SystemCounter::ThreadSwitches) - self.0.switches,
            spaces: count(SystemCounter::SpaceSwitches) - self.0.spaces,
            exits: count(SystemCounter::VmExits) - self.0.exits,
            faults: count(SystemCounter::Faults) - self.0.faults,
        }
    }
}

impl Counts {
    /// True when at least this many times as many kernel entries and thread switches were counted.
    pub fn is_times(&self, factor: u64, other: &Self) -> bool {
        self.entries >= factor * other.entries && self.switches >= factor * other.switches
    }

    /// Without the instructions of something else.
    pub fn without(self, other: Self) -> Self {
        Self { ticks: self.ticks.saturating_sub(other.ticks), ..self }
    }
}

/// Thousandths of a count per operation.
fn each(count: u64, rounds: u64) -> u64 {
    count * 1000 / rounds.max(1)
}

/// Prints a row: name, form, then thousandths per operation of instructions, kernel entries,
/// thread switches, address-space switches, VM exits, faults sent to managers; and the rounds.
pub fn report(name: &str, form: &str, counts: &Counts, rounds: u64) {
    let [ticks, entries, switches, spaces, exits, faults] =
        [counts.ticks, counts.entries, counts.switches, counts.spaces, counts.exits, counts.faults]
            .map(|count| each(count, rounds));
    rt::log!("row|{name}|{form}|{ticks}|{entries}|{switches}|{spaces}|{exits}|{faults}|{rounds}");
}

/// Measures an operation, after one round for warming up with the number `rounds`.
pub fn measure(name: &str, form: &str, rounds: u64, mut operation: impl FnMut(u64)) {
    operation(rounds);
    let start = Start::now();
    for round in 0..rounds {
        operation(round);
    }
    report(name, form, &start.end(), rounds);
}
