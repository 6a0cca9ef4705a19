//! What the servicing logic needs from its surroundings, and what it counts.
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use core::fmt::Arguments;
use core::ops::Range;
use memory::Memory;
use wire::vsock::Record;

/// Memory that the guest sees outside of its RAM, for the stub in front of its entry of system calls.
#[derive(Clone, Copy)]
pub struct Window<'w> {
    /// Guest-physical address, a multiple of 2 MiB.
    pub at: u64,
    /// What the guest executes; [`stub::layout`](crate::stub::layout) says where in the window.
    pub code: &'w dyn Memory,
    /// What it only reads.
    pub data: &'w dyn Memory,
}

/// The surroundings: the relay server, or a test.
pub trait World {
    /// Guest-physical memory of the compute VM.
    fn compute(&self) -> &dyn Memory;
    /// Guest-physical memory of the service VM.
    fn service(&self) -> &dyn Memory;
    /// Time since some start, in nanoseconds.
    fn now(&self) -> u64;
    /// A number that a guest cannot guess.
    fn random(&self) -> u64;
    /// Called in every turn of a bounded spin loop.
    fn relax(&self);
    /// Sends a record to the compute VM's virtual-socket model.
    fn to_compute(&self, record: &Record);
    /// Sends a record to the service VM's virtual-socket model.
    fn to_service(&self, record: &Record);
    /// A line that is always shown.
    fn log(&self, line: Arguments<'_>);
    /// A line about one remotely serviced call.
    fn call(&self, line: Arguments<'_>);
    /// Guest-physical addresses of the root image in the compute VM: whoever manages that region vouches
    /// that nobody can write to it.
    fn image(&self) -> Range<u64> {
        0..0
    }
    /// There is memory for one more call in service. How many there are is up to the guest's kernel.
    fn room(&self) -> bool {
        true
    }
    /// The stub's memory, where there is any.
    fn window(&self) -> Option<Window<'_>> {
        None
    }
    /// Remote calls can be serviced from now on, or not any more.
    fn service_ready(&self, _ready: bool) {}
}

/// What the machine's command line decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time that the vCPU is held while a delegate answers, in nanoseconds. Up to here it
    /// is as long as it takes to wake a thread that was put to sleep instead, which is measured.
    pub hold: u64,
    /// How long a delegate may take to appear, and a new program to make its first call.
    pub patience: u64,
    /// Most workers of a delegate.
    pub workers: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { hold: 1_000_000, patience: 60_000_000_000, workers: 64 }
    }
}

/// How a call was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// By the process's own kernel.
    #[default]
    Local,
    /// By a delegate.
    Remote,
    /// By both.
    Both,
    /// Not at all.
    Refused,
}

/// Totals since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls by [`Kind`].
    pub local: Cell<u64>,
    /// See `local`.
    pub remote: Cell<u64>,
    /// See `local`.
    pub both: Cell<u64>,
    /// See `local`.
    pub refused: Cell<u64>,
    /// Calls that were only the last one made once more.
    pub repeated: Cell<u64>,
    /// Calls made on a program's behalf in its own kernel.
    pub helpers: Cell<u64>,
    /// Bytes received from remote descriptors.
    pub bytes_in: Cell<u64>,
    /// Bytes sent to them.
    pub bytes_out: Cell<u64>,
    /// Trusted programs ever.
    pub processes: Cell<u64>,
    /// Delegates ever.
    pub delegates: Cell<u64>,
    /// Remote descriptors ever.
    pub descriptors: Cell<u64>,
    /// Cancellations.
    pub cancellations: Cell<u64>,
    /// Exits that came here, by class.
    pub exits: RefCell<[u64; abi::vcpu::EXIT_CLASSES]>,
    /// Calls that a delegate took part in, by number.
    pub by_call: RefCell<BTreeMap<u16, u64>>,
}

/// Adds to a counter.
pub(crate) fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get().wrapping_add(n));
}

impl Counters {
    /// Counts a call.
    pub(crate) fn call(&self, number: u64, kind: Kind) {
        let counter = match kind {
            Kind::Local => &self.local,
            Kind::Remote => &self.remote,
            Kind::Both => &self.both,
            Kind::Refused => &self.refused,
        };
        add(counter, 1);
        if let (Kind::Remote | Kind::Both, Ok(number)) = (kind, u16::try_from(number)) {
            *self.by_call.borrow_mut().entry(number).or_default() += 1;
        }
    }
}

/// What exists now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Trusted processes.
    pub processes: u64,
    /// Delegates.
    pub delegates: u64,
    /// Their workers.
    pub workers: u64,
    /// Remote descriptors.
    pub descriptors: u64,
    /// Calls that a trusted thread is in.
    pub in_service: u64,
}

/// The name of a program for reports: the last part of its path, printable.
#[must_use]
pub fn short_name(path: &[u8]) -> String {
    let last = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let printable = |b: &u8| if b.is_ascii_graphic() { char::from(*b) } else { '?' };
    last.iter().take(32).map(printable).collect()
}
