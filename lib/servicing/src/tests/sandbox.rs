//! Seccomp filters of programs.
use super::guest::{DATA, Guest, Signal};
use super::{CURL, FS, RSP, address, blocked, connected, done, remote_fd};
use linux_abi::nr;
use proptest::prelude::*;
use wire::{Request, hypercall};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

/// A filter with a result for some calls and another one for all others.
fn filter(listed: &[u64], then: u32, otherwise: u32) -> Vec<(u16, u8, u8, u32)> {
    let mut code = vec![(0x20, 0, 0, 0)];
    for number in listed {
        code.push((0x15, 0, 1, *number as u32));
        code.push((0x06, 0, 0, then));
    }
    code.push((0x06, 0, 0, otherwise));
    code
}

/// Has the program install it.
fn install(g: &mut Guest, p: usize, code: &[(u16, u8, u8, u32)]) {
    let at = DATA + 0x4000;
    for (n, (op, yes, no, k)) in code.iter().enumerate() {
        let mut bytes = op.to_le_bytes().to_vec();
        bytes.extend([*yes, *no]);
        bytes.extend(k.to_le_bytes());
        g.write(p, at + 16 + 8 * n as u64, &bytes);
    }
    g.write(p, at, &(code.len() as u64).to_le_bytes());
    g.write(p, at + 8, &(at + 16).to_le_bytes());
    assert_eq!(g.call(p, nr::seccomp, &[1, 0, at]), 0);
    g.calls.clear();
}

fn requests(g: &Guest) -> usize {
    g.world.net.log.borrow().len()
}

#[test]
fn a_filter_holds_for_what_is_serviced_remotely() {
    let (mut g, p, fd) = connected();
    install(&mut g, p, &filter(&[nr::write], ERRNO | 13, ALLOW));
    let before = requests(&g);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), -13);
    assert_eq!(requests(&g), before);
    assert!(g.calls.is_empty());
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 1, 0, 0, 0]), 1);
    // A second one, that kills: the kernel sees the call and does it.
    install(&mut g, p, &filter(&[nr::sendto], KILL, ALLOW));
    let before = requests(&g);
    g.call(p, nr::sendto, &[fd, DATA, 1, 0, 0, 0]);
    assert_eq!((requests(&g), &g.calls[..]), (before, &[nr::sendto][..]));
    // It comes before refusals of the relay's own.
    install(&mut g, p, &filter(&[nr::io_uring_setup], ERRNO | 1, ALLOW));
    assert_eq!(g.call(p, nr::io_uring_setup, &[8, DATA]), -1);
}

/// What OpenSSH's sandbox leaves (`sandbox-seccomp-filter.c`), as far as it matters here.
const OPENSSH: [u64; 8] = [
    nr::read,
    nr::write,
    nr::ppoll,
    nr::futex,
    nr::close,
    nr::shutdown,
    nr::exit_group,
    nr::getpid,
];

#[test]
fn nothing_that_is_done_on_its_behalf_trips_a_filter() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let buffer = g.reserve(p, 4);
    install(&mut g, p, &filter(&OPENSSH, ALLOW, KILL));
    // Absent pages, without `madvise`.
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend([7; 5000]);
    assert_eq!(g.call(p, nr::read, &[fd, buffer + 10, 9000]), 5000);
    assert_eq!(g.read(p, buffer + 10, 5000), [7; 5000]);
    // Sleeping, and a handler.
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    g.processes[p].signal = Some(Signal::Restart);
    let b = blocked(g.again(&b));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(done(g.again(&b)), 1);
    // Threads at the same time sleep on sockets that were made before.
    let first = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    let second = blocked(g.begin(p, FS + 1, RSP - 0x4000, nr::read, &[fd, DATA, 100]));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"y");
    let ends = [g.again(&first), g.again(&second)];
    assert!(ends.iter().any(|end| matches!(end, super::End::Done(1))));
    assert!(g.calls.iter().all(|call| OPENSSH.contains(call)), "{:?}", g.calls);
}

#[test]
fn strict_mode_still_reads_and_writes() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    assert_eq!(g.call(p, nr::seccomp, &[0, 0, 0]), 0);
    g.calls.clear();
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(done(g.again(&b)), 1);
    g.world.net.frozen.set(true);
    let b = blocked(g.begin(p, FS, RSP, nr::write, &[fd, DATA, 4]));
    g.world.net.frozen.set(false);
    assert_eq!(done(g.again(&b)), 4);
    assert!(g.calls.iter().all(|call| [nr::read, nr::write].contains(call)), "{:?}", g.calls);
}

#[test]
fn a_process_with_an_unknown_filter_is_not_serviced() {
    let mut g = Guest::new("/usr/bin/curl");
    let p = g.start(b"/launcher");
    g.processes[p].filtered = true;
    g.hypercall(p, hypercall::TRUST, 0);
    g.write(p, DATA, CURL);
    g.call(p, nr::execve, &[DATA, 0, 0]);
    assert!(g.world.lines.borrow().iter().any(|l| l.contains("without network")));
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -101);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever a filter forbids, no such call is ever made by anybody.
    #[test]
    fn no_forbidden_call_is_made(
        forbidden in proptest::sample::subsequence(
            vec![nr::madvise, nr::futex, nr::ppoll, nr::read, nr::socket, nr::connect, nr::fcntl,
                 nr::getsockname, nr::close, nr::gettid, nr::tkill, nr::mmap, nr::munmap, nr::geteuid,
                 nr::capget, nr::setfsuid, nr::getgroups, nr::settimeofday],
            0..18,
        ),
        calls in proptest::collection::vec(0usize..6, 1..6),
    ) {
        let (mut g, p, fd) = connected();
        let key = remote_fd(&g);
        let buffer = g.reserve(p, 2);
        install(&mut g, p, &filter(&forbidden, ERRNO | 1, ALLOW));
        g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend([7; 100]);
        for call in calls {
            match call {
                0 => drop(g.begin(p, FS, RSP, nr::recvfrom, &[fd, buffer, 5000, 0, 0, 0])),
                1 => drop(g.call(p, nr::write, &[fd, buffer, 10])),
                2 => drop(g.call(p, nr::setuid, &[1])),
                3 => {
                    g.world.net.frozen.set(true);
                    let end = g.begin(p, FS, RSP, nr::write, &[fd, DATA, 4]);
                    g.world.net.frozen.set(false);
                    if let super::End::Blocked(b) = end {
                        g.again(&b);
                    }
                }
                4 => drop(g.call(p, nr::sendfile, &[fd, fd, 0, 10])),
                _ => drop(g.call(p, nr::dup, &[fd])),
            }
        }
        prop_assert!(g.calls.iter().all(|c| !forbidden.contains(c)), "{:?} {:?}", g.calls, forbidden);
        prop_assert!(g.world.net.log.borrow().iter().all(|(_, r)| !matches!(r, Request::Exit)));
    }
}
