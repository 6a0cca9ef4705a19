//! The calls that are serviced, each as a sequence of steps. A step makes a call of the
//! program's own kernel and waits for the thread to come back; everything between two steps
//! happens while the vCPU stands still.
mod accept;
mod both;
mod buffers;
mod commit;
mod connect;
mod control;
mod descriptors;
mod epoll;
mod files;
mod ids;
mod messages;
mod netlink;
mod options;
mod passing;
mod poll;
mod process;
mod readiness;
mod restarts;
mod rules;
mod sandbox;
mod select;
mod signals;
mod socket;
mod splice;
mod split;
mod transfer;
mod vouch;

use crate::cx::Cx;
use crate::space::Outcome;
use crate::table::{Entry, State, Table};
use crate::world::Kind;
use alloc::rc::Rc;
use linux_abi::{AF_NETLINK, CLONE_SETTLS, CLONE_THREAD, Errno, name, nr};

pub use files::{OpenFile, View, concerns_paths};
pub use ids::{Identity, introduce};
pub use passing::{Passing, forget as forget_passing};
pub use process::{adopt, enter_child, enter_program};
pub use restarts::Ear;
pub use sandbox::screen;
pub use select::{Question, go_on};

/// What is to be done with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The program's kernel carries it out; nothing has to be noted.
    Plain,
    /// Steps are needed.
    Serve,
    /// It fails at once.
    Refuse(Errno),
}

/// What is to be done with a call of a trusted process, without touching its memory.
#[must_use]
pub fn verdict(table: &Table, number: u64, arguments: &[u64; 6]) -> Verdict {
    let [a, b, c] = [0, 1, 2].map(|n| arguments[n] as u32);
    let known = !table.is_empty();
    match number {
        nr::socket if socket::making(a, b, c) != socket::Making::Own => Verdict::Serve,
        nr::ioctl if control::is_about_interfaces(b) => Verdict::Serve,
        nr::execve | nr::fork | nr::vfork | nr::clone3 => Verdict::Serve,
        nr::clone if arguments[0] & CLONE_THREAD == 0 || arguments[0] & CLONE_SETTLS == 0 => {
            Verdict::Serve
        }
        nr::epoll_create | nr::epoll_create1 => Verdict::Serve,
        nr::execveat => Verdict::Refuse(Errno::ENOSYS),
        // A ring would carry calls past everybody. This is what a kernel without rings says, and
        // what makes liburing, libuv and others do without; descriptors of rings that come from
        // elsewhere are of no use either.
        nr::io_uring_setup | nr::io_uring_enter | nr::io_uring_register => {
            Verdict::Refuse(Errno::ENOSYS)
        }
        nr::prctl | nr::seccomp if sandbox::is_install(number, arguments) => Verdict::Serve,
        _ if ids::changes(number, arguments) => Verdict::Serve,
        nr::close_range => Verdict::Serve,
        nr::dup2 | nr::dup3 if [0, 1].iter().any(|n| table.is_hidden(arguments[*n] as i32)) => {
            Verdict::Refuse(Errno::EBADF)
        }
        nr::dup2 | nr::dup3 | nr::poll | nr::ppoll | nr::select | nr::pselect6 if known => {
            Verdict::Serve
        }
        nr::pidfd_getfd => Verdict::Serve,
        // Who waits already when a descriptor is sent must not get it unseen.
        nr::recvmsg | nr::recvmmsg if !table.is_hidden(a as i32) => Verdict::Serve,
        // Descriptors in ancillary data.
        nr::sendmsg | nr::sendmmsg if known => Verdict::Serve,
        _ if table.view.is_active() && concerns_paths(number) => Verdict::Serve,
        _ => by_descriptor(table, number, arguments),
    }
}

/// True for a number with which some arguments change whom a process acts as.
#[must_use]
pub fn may_change_identity(number: u64) -> bool {
    ids::changes(number, &[u64::MAX, 0, 0, 0, 0, 0])
}

fn by_descriptor(table: &Table, number: u64, arguments: &[u64; 6]) -> Verdict {
    let Some(call) = linux_abi::call(number) else { return Verdict::Plain };
    let mut verdict = Verdict::Plain;
    for place in call.descriptors() {
        let fd = arguments.get(place).copied().unwrap_or(u64::MAX);
        if table.is_hidden(fd as i32) {
            return Verdict::Refuse(Errno::EBADF);
        }
        if table.get(fd).is_some() {
            verdict = Verdict::Serve;
        }
    }
    verdict
}

/// Carries a call out.
pub async fn serve(cx: Rc<Cx>) -> Outcome {
    let behind = cx.saved.rip.wrapping_add(crate::cpu::SYSCALL_LENGTH);
    if let Some(outcome) = screen(&cx.table, cx.number, cx.arguments, behind) {
        return outcome;
    }
    vouch::look(&cx);
    match dispatch(&cx).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Return(error.result()),
    }
}

async fn dispatch(cx: &Cx) -> Result<Outcome, Errno> {
    if let Some(outcome) = files::serve(cx).await? {
        return Ok(outcome);
    }
    match cx.number {
        nr::socket => socket::socket(cx).await,
        nr::execve => process::execve(cx).await,
        nr::fork | nr::vfork | nr::clone | nr::clone3 => process::fork(cx).await,
        nr::close_range => descriptors::close_range(cx).await,
        nr::prctl | nr::seccomp => sandbox::install(cx).await,
        n if ids::changes(n, &cx.arguments) => ids::change(cx).await,
        nr::dup2 | nr::dup3 => descriptors::dup_onto(cx).await,
        nr::poll | nr::ppoll => poll::poll(cx).await,
        nr::select | nr::pselect6 => select::select(cx).await,
        nr::pidfd_getfd => passing::take(cx).await,
        nr::splice => splice::splice(cx).await,
        // They don't take sockets, and say so of the placeholder.
        nr::tee | nr::vmsplice | nr::copy_file_range | nr::mmap => Ok(Outcome::Reflect),
        nr::sendfile => splice::sendfile(cx).await,
        nr::epoll_create | nr::epoll_create1 => epoll::create(cx).await,
        nr::epoll_ctl => epoll::control(cx).await,
        nr::ioctl if control::is_about_interfaces(cx.int(1) as u32) => {
            control::interfaces(cx).await
        }
        _ => with_descriptor(cx).await,
    }
}

/// Calls about the descriptor in their first argument.
async fn with_descriptor(cx: &Cx) -> Result<Outcome, Errno> {
    let Some(entry) = cx.table.get(cx.arguments[0]) else {
        return match cx.number {
            nr::sendmsg | nr::sendmmsg => messages::local_send(cx).await,
            nr::recvmsg | nr::recvmmsg => passing::receive_messages(cx).await,
            _ => refuse(cx),
        };
    };
    match cx.number {
        nr::close => return descriptors::close(cx).await,
        nr::dup => return descriptors::dup(cx, &entry).await,
        nr::fcntl => return descriptors::fcntl(cx, &entry).await,
        _ => {}
    }
    if entry.resource.epoll.is_some() {
        return instance(cx, &entry).await;
    }
    // The call uses the socket from here on, whoever closes the descriptor meanwhile.
    let _hold = cx.hold(&entry);
    commit::settled(cx, &entry.resource).await?;
    match entry.resource.state.get() {
        State::Local if cx.number == nr::connect => connect::connect(cx, &entry).await,
        State::Local => Ok(Outcome::Reflect),
        State::Undecided => undecided(cx, &entry).await,
        State::Remote(_) | State::Dead => remote(cx, &entry).await,
    }
}

/// Calls about an epoll instance. All else is what the real one in the program's kernel answers.
async fn instance(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    match cx.number {
        nr::epoll_wait | nr::epoll_pwait | nr::epoll_pwait2 => epoll::wait(cx, entry).await,
        nr::ioctl => control::ioctl_undecided(cx, entry).await,
        _ => Ok(Outcome::Reflect),
    }
}

/// Calls that can make a socket commit; all else is what an unconnected socket answers.
async fn undecided(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    if entry.resource.domain == AF_NETLINK && netlink::commits(cx.number) {
        let hold = cx.hold(entry);
        commit::commit(cx, &hold.resource).await?;
        return remote(cx, entry).await;
    }
    match cx.number {
        nr::connect => connect::connect(cx, entry).await,
        nr::bind => socket::bind(cx, entry).await,
        nr::listen => socket::listen(cx, entry).await,
        nr::setsockopt => options::note_option(cx, entry).await,
        nr::ioctl => control::ioctl_undecided(cx, entry).await,
        nr::sendto => transfer::sendto(cx, entry).await,
        nr::sendmsg => messages::sendmsg(cx, entry).await,
        nr::sendmmsg => messages::sendmmsg(cx, entry).await,
        nr::shutdown => commit::shutdown(cx, &entry.resource).await,
        nr::read | nr::readv | nr::recvfrom | nr::recvmsg | nr::recvmmsg => {
            received_later(cx, entry).await
        }
        _ => Ok(Outcome::Reflect),
    }
}

/// Calls that receive, before the socket has committed.
async fn received_later(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    let [_, _, length, flags, ..] = cx.arguments;
    let flags = match cx.number {
        // Nothing is asked for: nothing is waited for.
        nr::read | nr::readv | nr::recvmmsg if length == 0 => return Ok(Outcome::Reflect),
        nr::recvfrom | nr::recvmmsg => flags as u32,
        nr::recvmsg => length as u32,
        _ => 0,
    };
    commit::receive_later(cx, &entry.resource, flags).await?;
    match entry.resource.state.get() {
        State::Remote(_) | State::Dead => remote(cx, entry).await,
        State::Undecided | State::Local => Ok(Outcome::Reflect),
    }
}

async fn remote(cx: &Cx, entry: &Entry) -> Result<Outcome, Errno> {
    process::borrow_sockets(cx).await?;
    match cx.number {
        nr::connect => connect::connect(cx, entry).await,
        nr::bind => socket::bind(cx, entry).await,
        nr::listen => socket::listen(cx, entry).await,
        nr::accept | nr::accept4 => accept::accept(cx, entry).await,
        nr::shutdown => socket::shutdown(cx, entry).await,
        nr::getsockname | nr::getpeername => socket::names(cx, entry).await,
        nr::getsockopt => options::get_option(cx, entry).await,
        nr::setsockopt => options::set_option(cx, entry).await,
        nr::ioctl => control::ioctl(cx, entry).await,
        nr::read => transfer::read(cx, entry).await,
        nr::readv => transfer::readv(cx, entry).await,
        nr::recvfrom => transfer::recvfrom(cx, entry).await,
        nr::write => transfer::write(cx, entry).await,
        nr::writev => transfer::writev(cx, entry).await,
        nr::sendto => transfer::sendto(cx, entry).await,
        nr::sendmsg => messages::sendmsg(cx, entry).await,
        nr::recvmsg => messages::recvmsg(cx, entry).await,
        nr::sendmmsg => messages::sendmmsg(cx, entry).await,
        nr::recvmmsg => messages::recvmmsg(cx, entry).await,
        // What only asks for the kind of file is answered rightly by the placeholder, which is a
        // socket, too.
        nr::fstat | nr::newfstatat | nr::statx | nr::lseek | nr::fstatfs => Ok(Outcome::Reflect),
        // `ESPIPE`, for the same reason.
        nr::pread64 | nr::pwrite64 | nr::preadv | nr::pwritev => Ok(Outcome::Reflect),
        nr::preadv2 | nr::pwritev2 => transfer::positioned(cx, entry).await,
        number if concerns_kind(number) => Ok(Outcome::Reflect),
        _ => refuse(cx),
    }
}

/// Calls that no socket takes, and calls about paths, which a socket is not the beginning of. The
/// placeholder gives the right answer; nothing of it reaches the network.
const fn concerns_kind(number: u64) -> bool {
    let files = matches!(
        number,
        nr::fsync
            | nr::fdatasync
            | nr::sync_file_range
            | nr::ftruncate
            | nr::fallocate
            | nr::fadvise64
            | nr::readahead
            | nr::getdents
            | nr::getdents64
            | nr::fchdir
            | nr::flock
            | nr::fgetxattr
            | nr::flistxattr
            | nr::epoll_wait
            | nr::epoll_pwait
            | nr::epoll_pwait2
    );
    let paths = matches!(
        number,
        nr::openat
            | nr::openat2
            | nr::mkdirat
            | nr::mknodat
            | nr::fchownat
            | nr::unlinkat
            | nr::renameat
            | nr::renameat2
            | nr::linkat
            | nr::readlinkat
            | nr::fchmodat
            | nr::faccessat
            | nr::faccessat2
            | nr::utimensat
            | nr::futimesat
    );
    files || paths
}

/// A call that is not covered, on a remote descriptor.
pub(crate) fn refuse(cx: &Cx) -> Result<Outcome, Errno> {
    let places = linux_abi::call(cx.number).into_iter().flat_map(linux_abi::Call::descriptors);
    let is_remote = |place: usize| {
        let entry = cx.arguments.get(place).and_then(|fd| cx.table.get(*fd));
        entry.is_some_and(|e| matches!(e.resource.state.get(), State::Remote(_) | State::Dead))
    };
    if !places.into_iter().any(is_remote) {
        return Ok(Outcome::Reflect);
    }
    cx.note(Kind::Refused);
    log_refusal(cx, Errno::EOPNOTSUPP);
    Err(Errno::EOPNOTSUPP)
}

/// One line about a call that is not carried out.
pub(crate) fn log_refusal(cx: &Cx, error: Errno) {
    cx.core.world.log(format_args!(
        "{}[{}]: {} on what is remote is not covered: {}",
        cx.space.name.borrow(),
        cx.space.id,
        name(cx.number),
        error.name(),
    ));
}
