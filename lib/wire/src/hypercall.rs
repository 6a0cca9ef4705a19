//! Numbers of the hypercalls (`VMMCALL` from user mode).
//!
//! `rax` = number, arguments in `rdi`, `rsi`, `rdx`; result in `rax` (zero or a negative errno).
//! All other registers survive. A number that is not known raises `#UD` in the guest, as on a
//! processor without a hypervisor.

/// Common upper part of all numbers: "TRAP" in ASCII.
pub const BASE: u64 = 0x5452_4150_0000_0000;

/// Compute VM, launcher: the next `execve` of this process asks to be trusted. No arguments.
/// `-EPERM`: remote servicing is switched off.
pub const TRUST: u64 = BASE | 1;
/// Compute VM: switches the interception form; `rdi` = [`Form`] as a number, or
/// [`BENCH_QUERY`]. Answers the form that was in use before; `-EPERM` unless the host allowed it,
/// `-EINVAL` for an unknown form.
pub const BENCH: u64 = BASE | 2;
/// Compute VM: answers the exits of this vCPU so far; refused like [`BENCH`].
pub const EXITS: u64 = BASE | 3;
/// Compute VM, process 1: the vDSO is mapped at user address `rdi`, `rsi` pages long, all of them
/// touched. Taken once after each start of the machine: `-EPERM` from then on.
pub const VDSO: u64 = BASE | 4;
/// Service VM: registers the mailbox at user address `rdi`, `rsi` bytes long
/// ([`layout::LENGTH`](crate::layout::LENGTH)), whose header holds a
/// [`Registration`](crate::Registration). The memory must be shared (not copy-on-write), touched,
/// locked, and kept out of children (`MADV_DONTFORK`). Answers 0 when the registration has been
/// taken down; what becomes of it is in the header soon (`ADMITTED`), and a doorbell byte says so.
/// `-EAGAIN`: too many at a time, ask again.
pub const REGISTER: u64 = BASE | 16;
/// Service VM: "my mailbox has a response and its `waiting` word was set". No arguments.
pub const DOORBELL: u64 = BASE | 17;

/// Argument of [`BENCH`] that changes nothing.
pub const BENCH_QUERY: u64 = u64::MAX;

/// Forms of interception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Form {
    /// Nothing is intercepted; no process is serviced remotely.
    Off = 0,
    /// `SYSCALL` traps in trusted processes only.
    Watched = 1,
    /// `SYSCALL` and `IRET` of all processes trap.
    Paper = 2,
    /// Only calls of trusted processes that may concern something remote trap: a few instructions
    /// in front of the guest's own entry decide.
    Stub = 3,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Off, Self::Watched, Self::Paper, Self::Stub];

    /// Decodes an untrusted number.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(Self::Off),
            1 => Some(Self::Watched),
            2 => Some(Self::Paper),
            3 => Some(Self::Stub),
            _ => None,
        }
    }

    /// The form of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// The form's name, as on the machine's command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Watched => "watched",
            Self::Paper => "paper",
            Self::Stub => "stub",
        }
    }
}
