//! What thread 1 hands thread 0: registrations of mailboxes. The answer goes straight into the
//! mailbox, so that nobody waits for the other thread.
use alloc::collections::VecDeque;
use spin::Mutex;

/// A mailbox to be registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    /// Page-table root of the process.
    pub cr3: u64,
    /// Address of the mailbox there.
    pub address: u64,
}

/// Most registrations that wait; whoever comes later asks again.
const LIMIT: usize = 256;

static DESK: Mutex<VecDeque<Registration>> = Mutex::new(VecDeque::new());

/// Hands one over; false when there are too many.
pub fn put(registration: Registration) -> bool {
    let mut desk = DESK.lock();
    let room = desk.len() < LIMIT;
    if room {
        desk.push_back(registration);
    }
    room
}

/// Takes the oldest one.
pub fn take() -> Option<Registration> {
    DESK.lock().pop_front()
}
