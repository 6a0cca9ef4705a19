//! What the two threads hand each other: registrations of mailboxes, one at a time, and the news
//! that a delegate rang.
use spin::Mutex;

/// How far a registration has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registration {
    /// None is under way.
    None,
    /// Thread 1 asks: page-table root of the process and address of the mailbox.
    Asked(u64, u64),
    /// Thread 0 answers: what the hypercall returns.
    Answered(i64),
}

/// The threads run on different processors, or give up their time while they wait.
pub static DESK: Mutex<Registration> = Mutex::new(Registration::None);
