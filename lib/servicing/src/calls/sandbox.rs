//! The program's own confinement (`seccomp(2)`). Its filters are copied when it installs them;
//! `doc/decisions/remote-calls.md` says why.
use crate::cx::Cx;
use crate::filter::{Decision, Filters, LENGTH_MAX, Program, Subject};
use crate::space::Outcome;
use crate::table::Table;
use linux_abi::{AF_VSOCK, Errno, SOCK_CLOEXEC, SOCK_STREAM, check, nr};

const PR_GET_SECCOMP: u64 = 21;
const PR_SET_SECCOMP: u64 = 22;
/// `SECCOMP_SET_MODE_*` of `seccomp`; `prctl` counts from one.
const STRICT: u64 = 0;
const FILTER: u64 = 1;
/// Wake sockets that a process has before it gives up making any.
const SPARE_WAKES: usize = 3;

/// The mode and the address of the filter, when a call installs one.
fn installs(number: u64, arguments: &[u64; 6]) -> Option<(u64, u64)> {
    match number {
        nr::prctl if arguments[0] as u32 as u64 == PR_SET_SECCOMP => {
            Some((arguments[1].wrapping_sub(1), arguments[2]))
        }
        nr::seccomp => Some((arguments[0] as u32 as u64, arguments[2])),
        _ => None,
    }
    .filter(|(mode, _)| matches!(*mode, STRICT | FILTER))
}

/// True for calls that install a filter.
#[must_use]
pub fn is_install(number: u64, arguments: &[u64; 6]) -> bool {
    installs(number, arguments).is_some()
}

/// What the program's filters say about a call of its own, unless they let it pass.
#[must_use]
pub fn screen(table: &Table, number: u64, arguments: [u64; 6], behind: u64) -> Option<Outcome> {
    if table.filters.is_empty() {
        return None;
    }
    match table.filters.decide(&Subject { number, arguments, behind }) {
        Decision::Allow => None,
        Decision::Fail(error) => Some(Outcome::Return(error.result())),
        // The kernel finds the same, and does what has to be done.
        Decision::Stop => Some(Outcome::Reflect),
    }
}

/// `seccomp` and `prctl(PR_SET_SECCOMP)`.
pub async fn install(cx: &Cx) -> Result<Outcome, Errno> {
    let Some((mode, at)) = installs(cx.number, &cx.arguments) else { return Ok(Outcome::Reflect) };
    if mode == STRICT {
        let result = check(cx.original().await)?;
        cx.table.filters.set_strict();
        return Ok(Outcome::Return(result));
    }
    // Whatever cannot be read, or is too long, the kernel refuses.
    let Ok(program) = program(cx, at).await else { return Ok(Outcome::Reflect) };
    provide(cx, &program).await;
    let result = check(cx.original().await)?;
    cx.table.filters.add(program);
    Ok(Outcome::Return(result))
}

async fn program(cx: &Cx, at: u64) -> Result<Program, Errno> {
    // struct sock_fprog: length, padding, address.
    let header: [u8; 16] = cx.array(at).await?;
    let length = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let mut address = [0; 8];
    address.copy_from_slice(&header[8..]);
    if length > LENGTH_MAX {
        return Err(Errno::EINVAL);
    }
    Ok(Program::decode(&cx.bytes(u64::from_le_bytes(address), length * 8).await?))
}

/// A process that is about to lose the right to make sockets makes some to sleep on.
async fn provide(cx: &Cx, program: &Program) {
    let kind = u64::from(SOCK_STREAM | SOCK_CLOEXEC);
    let socket = [u64::from(AF_VSOCK), kind, 0, 0, 0, 0];
    let after = Filters::default();
    after.add(program.clone());
    let subject = Subject { number: nr::socket, arguments: socket, behind: 0 };
    if after.decide(&subject) == Decision::Allow {
        return;
    }
    let mut kept = alloc::vec::Vec::new();
    while kept.len() < SPARE_WAKES {
        // It may have no descriptor left: then it has one thread that sleeps at a time.
        let Ok(lease) = cx.wake().await else { return };
        kept.push(lease);
    }
}

/// Filters that nobody has seen can neither be kept nor kept away from: the process cannot be
/// serviced.
///
/// # Errors
/// `EPERM`.
pub async fn check_unfiltered(cx: &Cx) -> Result<(), Errno> {
    if cx.table.filters.is_empty() && cx.local(nr::prctl, [PR_GET_SECCOMP, 0, 0, 0, 0, 0]).await > 0
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}
