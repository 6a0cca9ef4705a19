//! `epoll` over local and remote descriptors.
use super::Case;
use crate::probe::{BAD, FREE, NULL, Probe, at, n};
use crate::value;
use guest_sys::raw::{Action, on_signal, signals};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    ("epoll_level", level),
    ("epoll_edge", edge),
    ("epoll_oneshot", oneshot),
    ("epoll_both_sides", both_sides),
    ("epoll_bad_arguments", bad_arguments),
    ("epoll_duplicates", duplicates),
    ("epoll_nested", nested),
    ("epoll_accept", accept),
    ("epoll_connect", connect),
    ("epoll_ends", ends),
    ("epoll_signals", interrupted),
];

const ADD: i32 = libc::EPOLL_CTL_ADD;
const DEL: i32 = libc::EPOLL_CTL_DEL;
const MOD: i32 = libc::EPOLL_CTL_MOD;
const IN: i32 = libc::EPOLLIN;
const OUT: i32 = libc::EPOLLOUT;
const RDHUP: i32 = libc::EPOLLRDHUP;
const ET: i32 = libc::EPOLLET;
const ONESHOT: i32 = libc::EPOLLONESHOT;
/// Where events lie.
const EVENT: usize = FREE + 0x1000;
const EVENTS: usize = FREE + 0x2000;

fn create(p: &Probe) -> RawFd {
    p.open("create", libc::SYS_epoll_create1, &[n(libc::EPOLL_CLOEXEC)])
}

fn control(p: &Probe, epoll: RawFd, op: i32, fd: RawFd, events: i32, data: u64) -> i64 {
    p.arena.write(EVENT, &events.to_ne_bytes());
    p.arena.write(EVENT + 4, &data.to_ne_bytes());
    p.call("ctl", libc::SYS_epoll_ctl, &[n(epoll), n(op), n(fd), at(EVENT)])
}

/// What a wait has brought, by data.
fn found(p: &Probe, answer: i64) -> String {
    let Ok(count) = usize::try_from(answer) else { return value::result(answer) };
    let bytes = p.arena.read(EVENTS, count * 12);
    let mut found: Vec<(u64, i32)> = Vec::new();
    for event in bytes.chunks_exact(12) {
        let (events, data) = event.split_at(4);
        let number = data.try_into().map_or(0, u64::from_ne_bytes);
        found.push((number, events.try_into().map_or(0, i32::from_ne_bytes)));
    }
    found.sort_unstable();
    let words =
        found.iter().map(|(data, bits)| format!("{data:#x} {}", value::events(*bits as i16)));
    format!("{count} {}", words.collect::<Vec<_>>().join(", "))
}

fn quiet(p: &Probe, epoll: RawFd, max: i32, timeout: i32) -> i64 {
    p.quiet(libc::SYS_epoll_wait, &[n(epoll), at(EVENTS), n(max), n(timeout)])
}

fn wait(p: &Probe, epoll: RawFd, max: i32, timeout: i32) -> i64 {
    let answer = quiet(p, epoll, max, timeout);
    p.line("wait", found(p, answer));
    answer
}

fn write(p: &Probe, fd: RawFd) {
    p.quiet(libc::SYS_write, &[n(fd), at(FREE), n(1)]);
}

/// A byte that comes back.
fn echo(p: &Probe, fd: RawFd, bytes: usize) {
    write(p, fd);
    p.wait_bytes(fd, bytes);
}

fn level(p: &mut Probe) {
    let (epoll, fd) = (create(p), p.stream("echo"));
    wait(p, epoll, 8, 0);
    control(p, epoll, ADD, fd, IN, u64::MAX);
    control(p, epoll, ADD, fd, IN, 1);
    wait(p, epoll, 8, 0);
    wait(p, epoll, 8, 60);
    echo(p, fd, 1);
    for _ in 0..3 {
        wait(p, epoll, 8, -1);
    }
    control(p, epoll, MOD, fd, OUT, 0x1234_5678_9abc_def0);
    wait(p, epoll, 8, -1);
    control(p, epoll, MOD, fd, 0, 3);
    wait(p, epoll, 8, 0);
    control(p, epoll, MOD, fd, IN | OUT, 4);
    wait(p, epoll, 8, -1);
    p.receive(fd, 10, 0);
    wait(p, epoll, 8, -1);
    control(p, epoll, DEL, fd, 0, 0);
    control(p, epoll, DEL, fd, 0, 0);
    control(p, epoll, MOD, fd, IN, 0);
    wait(p, epoll, 8, 0);
    p.call("del without", libc::SYS_epoll_ctl, &[n(epoll), n(DEL), n(fd), NULL]);
    control(p, epoll, ADD, fd, OUT, 5);
    p.call("del null", libc::SYS_epoll_ctl, &[n(epoll), n(DEL), n(fd), NULL]);
    control(p, epoll, ADD, fd, OUT, 6);
    p.close(fd);
    wait(p, epoll, 8, 0);
    p.close(epoll);
    wait(p, epoll, 8, 0);
}

fn edge(p: &mut Probe) {
    let (epoll, fd) = (create(p), p.stream("echo"));
    control(p, epoll, ADD, fd, IN | OUT | ET, 1);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 0);
    for bytes in 1..4 {
        echo(p, fd, bytes);
        // What has been sent is acknowledged by now: OUT may have come again as well.
        wait(p, epoll, 8, -1);
        wait(p, epoll, 8, 0);
    }
    control(p, epoll, MOD, fd, IN | ET, 2);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 0);
    p.receive(fd, 1, 0);
    wait(p, epoll, 8, 0);
    p.receive(fd, 100, 0);
    wait(p, epoll, 8, 0);
    echo(p, fd, 1);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 30);
    control(p, epoll, MOD, fd, IN, 3);
    wait(p, epoll, 8, 0);
    wait(p, epoll, 8, 0);
}

fn oneshot(p: &mut Probe) {
    let (epoll, fd) = (create(p), p.stream("echo"));
    control(p, epoll, ADD, fd, IN | ONESHOT, 1);
    echo(p, fd, 1);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 0);
    echo(p, fd, 2);
    wait(p, epoll, 8, 30);
    control(p, epoll, MOD, fd, IN | ONESHOT, 2);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 0);
    control(p, epoll, ADD, fd, IN, 3);
    control(p, epoll, MOD, fd, OUT | ONESHOT | ET, 3);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 0);
    control(p, epoll, DEL, fd, 0, 0);
    control(p, epoll, ADD, fd, IN | OUT, 4);
    wait(p, epoll, 8, -1);
}

fn both_sides(p: &mut Probe) {
    let (epoll, a, b) = (create(p), p.stream("echo"), p.stream("echo"));
    let (read, other) = p.pipe(0);
    for (fd, data) in [(a, 1), (b, 2), (read, 3)] {
        control(p, epoll, ADD, fd, IN, data);
    }
    control(p, epoll, ADD, other, OUT | ET, 4);
    wait(p, epoll, 8, -1);
    wait(p, epoll, 8, 20);
    write(p, other);
    wait(p, epoll, 8, -1);
    echo(p, a, 1);
    wait(p, epoll, 8, -1);
    echo(p, b, 1);
    wait(p, epoll, 8, -1);
    // Everybody has a turn.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        quiet(p, epoll, 1, -1);
        seen.insert(p.arena.read(EVENTS + 4, 1)[0]);
    }
    p.line("seen", format!("{seen:?}"));
    p.poll(&[(epoll, libc::POLLIN | libc::POLLOUT)], -1);
    p.receive(a, 1, 0);
    p.receive(b, 1, 0);
    wait(p, epoll, 8, -1);
    p.call("read", libc::SYS_read, &[n(read), at(FREE), n(1)]);
    wait(p, epoll, 8, 0);
    p.poll(&[(epoll, libc::POLLIN), (read, libc::POLLIN)], 20);
    p.close(other);
    wait(p, epoll, 8, -1);
    control(p, epoll, DEL, read, 0, 0);
    wait(p, epoll, 8, 0);
    write(p, a);
    wait(p, epoll, 8, -1);
}

fn bad_arguments(p: &mut Probe) {
    let (epoll, fd) = (create(p), p.stream("echo"));
    p.open("create1", libc::SYS_epoll_create1, &[n(1)]);
    p.open("create", libc::SYS_epoll_create, &[n(0)]);
    p.open("create", libc::SYS_epoll_create, &[n(1)]);
    control(p, epoll, 0, fd, IN, 0);
    control(p, epoll, 9, fd, IN, 0);
    control(p, fd, ADD, fd, IN, 0);
    control(p, fd, ADD, epoll, IN, 0);
    control(p, 999, ADD, fd, IN, 0);
    control(p, epoll, ADD, 999, IN, 0);
    control(p, epoll, ADD, epoll, IN, 0);
    p.call("no memory", libc::SYS_epoll_ctl, &[n(epoll), n(ADD), n(fd), BAD]);
    control(p, epoll, ADD, fd, IN | libc::EPOLLEXCLUSIVE | ONESHOT, 0);
    control(p, epoll, ADD, fd, OUT | libc::EPOLLEXCLUSIVE | libc::EPOLLWAKEUP, 7);
    control(p, epoll, MOD, fd, OUT, 8);
    control(p, epoll, DEL, fd, 0, 0);
    control(p, epoll, ADD, fd, OUT, 8);
    control(p, epoll, MOD, fd, OUT | libc::EPOLLEXCLUSIVE, 9);
    wait(p, epoll, 8, -1);
    for max in [0, -1, i32::MAX] {
        wait(p, epoll, max, 0);
    }
    wait(p, fd, 8, 0);
    wait(p, 999, 8, 0);
    p.call("no memory", libc::SYS_epoll_wait, &[n(epoll), BAD, n(8), n(0)]);
    let wait_call = libc::SYS_epoll_pwait;
    p.call("set", wait_call, &[n(epoll), at(EVENTS), n(8), n(0), at(FREE), n(4)]);
    p.call("set", wait_call, &[n(epoll), at(EVENTS), n(8), n(0), BAD, n(8)]);
    p.call("set", wait_call, &[n(epoll), at(EVENTS), n(8), n(0), NULL, n(4)]);
    p.arena.write(FREE, &[0xff; 16]);
    let precise = libc::SYS_epoll_pwait2;
    p.call("time", precise, &[n(epoll), at(EVENTS), n(8), at(FREE), NULL, n(8)]);
    p.arena.write(FREE, &[0; 16]);
    p.call("time", precise, &[n(epoll), at(EVENTS), n(8), at(FREE), NULL, n(8)]);
    p.call("time", precise, &[n(epoll), at(EVENTS), n(8), NULL, NULL, n(8)]);
    p.call("read", libc::SYS_read, &[n(epoll), at(FREE), n(8)]);
    p.send(epoll, b"x", 0);
    wait(p, epoll, 8, -1);
}

fn duplicates(p: &mut Probe) {
    let (epoll, fd) = (create(p), p.stream("echo"));
    control(p, epoll, ADD, fd, IN, 1);
    let copy = p.open("dup", libc::SYS_dup, &[n(fd)]);
    control(p, epoll, ADD, copy, IN | OUT | ET, 2);
    control(p, epoll, ADD, copy, IN, 3);
    wait(p, epoll, 8, -1);
    echo(p, fd, 1);
    let second = p.open("dup", libc::SYS_dup, &[n(epoll)]);
    wait(p, second, 8, -1);
    wait(p, epoll, 8, -1);
    p.close(fd);
    wait(p, second, 8, -1);
    control(p, epoll, DEL, fd, 0, 0);
    control(p, epoll, MOD, copy, IN, 4);
    wait(p, epoll, 8, -1);
    p.close(epoll);
    wait(p, second, 8, -1);
    p.close(copy);
    wait(p, second, 8, 0);
    let fd = p.stream("echo");
    control(p, second, ADD, fd, OUT, 5);
    wait(p, second, 8, -1);
}

fn nested(p: &mut Probe) {
    let (outer, inner, fd) = (create(p), create(p), p.stream("echo"));
    let (read, other) = p.pipe(0);
    control(p, outer, ADD, inner, IN, 1);
    control(p, inner, ADD, outer, IN, 1);
    control(p, inner, ADD, fd, IN, 2);
    control(p, inner, ADD, read, IN, 3);
    wait(p, outer, 8, 0);
    p.poll(&[(outer, libc::POLLIN), (inner, libc::POLLIN)], 0);
    echo(p, fd, 1);
    wait(p, outer, 8, -1);
    p.poll(&[(outer, libc::POLLIN), (inner, libc::POLLIN)], -1);
    wait(p, inner, 8, -1);
    write(p, other);
    wait(p, outer, 8, -1);
    wait(p, inner, 8, -1);
    p.receive(fd, 1, 0);
    wait(p, outer, 8, -1);
    wait(p, inner, 8, -1);
    p.call("read", libc::SYS_read, &[n(read), at(FREE), n(1)]);
    wait(p, outer, 8, 0);
    control(p, outer, MOD, inner, IN | ET, 4);
    echo(p, fd, 1);
    wait(p, outer, 8, -1);
    control(p, outer, ADD, fd, IN, 5);
    wait(p, outer, 8, -1);
    control(p, outer, DEL, inner, 0, 0);
    wait(p, outer, 8, -1);
    control(p, outer, ADD, inner, IN, 6);
    wait(p, outer, 8, -1);
    p.close(inner);
    wait(p, outer, 8, -1);
}

fn accept(p: &mut Probe) {
    let (listener, port) = p.listener(libc::SOCK_NONBLOCK);
    let epoll = create(p);
    control(p, epoll, ADD, listener, IN | ET, 1);
    wait(p, epoll, 8, 0);
    let accept = [n(listener), NULL, NULL, n(libc::SOCK_NONBLOCK)];
    for _ in 0..3 {
        let caller = p.called_by_peer(port, "hold hello");
        wait(p, epoll, 8, -1);
        let fd = p.open("accept", libc::SYS_accept4, &accept);
        p.call("accept", libc::SYS_accept4, &accept);
        control(p, epoll, ADD, fd, IN | RDHUP | ET, 2);
        p.wait_bytes(fd, 5);
        wait(p, epoll, 8, -1);
        p.receive(fd, 10, 0);
        wait(p, epoll, 8, 0);
        p.close(fd);
        p.close(caller);
    }
}

fn connect(p: &mut Probe) {
    let epoll = create(p);
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    control(p, epoll, ADD, fd, IN | OUT | RDHUP, 0xabcd);
    wait(p, epoll, 8, -1);
    p.connect_to(fd, p.peer);
    p.settle(fd, libc::POLLOUT);
    wait(p, epoll, 8, -1);
    control(p, epoll, MOD, fd, IN, 2);
    wait(p, epoll, 8, 0);
    control(p, epoll, ADD, fd, IN, 2);
    write(p, fd);
    control(p, epoll, DEL, fd, 0, 0);
    // Nobody listens there.
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let mut nobody = p.peer;
    nobody.set_port(1);
    p.connect_to(fd, nobody);
    control(p, epoll, ADD, fd, OUT | ET, 3);
    wait(p, epoll, 8, -1);
    p.error_of(fd);
}

/// Waits until all of these events are there.
fn settle(p: &Probe, epoll: RawFd, wanted: i32) {
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        quiet(p, epoll, 8, 100);
        let bits = p.arena.read(EVENTS, 4).try_into().map_or(0, i32::from_ne_bytes);
        if bits & wanted == wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    wait(p, epoll, 8, -1);
}

fn ends(p: &mut Probe) {
    let epoll = create(p);
    for (words, wanted) in [
        ("say goodbye", IN | RDHUP),
        ("half", IN | RDHUP),
        ("reset", libc::EPOLLERR | libc::EPOLLHUP),
        ("bye", IN | RDHUP),
    ] {
        let fd = p.stream(words);
        control(p, epoll, ADD, fd, IN | RDHUP, 1);
        settle(p, epoll, wanted);
        p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
        settle(p, epoll, wanted);
        control(p, epoll, MOD, fd, 0, 2);
        p.close(fd);
        wait(p, epoll, 8, 0);
    }
}

/// A signal in so many milliseconds.
fn alarm(p: &Probe, milliseconds: u64) {
    p.arena.write(FREE, &[0; 32]);
    p.arena.write(FREE + 24, &(milliseconds * 1000).to_ne_bytes());
    p.quiet(libc::SYS_setitimer, &[n(libc::ITIMER_REAL), at(FREE), NULL]);
}

fn interrupted(p: &mut Probe) {
    let (epoll, fd) = (create(p), p.stream("echo"));
    let (read, _) = p.pipe(0);
    control(p, epoll, ADD, fd, IN, 1);
    control(p, epoll, ADD, read, IN, 2);
    for flags in [0, libc::SA_RESTART] {
        if let Err(error) = on_signal(libc::SIGALRM, Action::Count, flags) {
            p.line("handler", error);
        }
        alarm(p, 1000);
        wait(p, epoll, 8, -1);
        p.line("handled", signals(libc::SIGALRM));
    }
    // Blocked, but for the time of the wait.
    let set = FREE + 64;
    p.arena.write(set, &(1u64 << (libc::SIGALRM - 1)).to_ne_bytes());
    p.quiet(libc::SYS_rt_sigprocmask, &[n(libc::SIG_BLOCK), at(set), NULL, n(8)]);
    alarm(p, 50);
    wait(p, epoll, 8, 400);
    p.line("blocked", signals(libc::SIGALRM));
    p.arena.write(set, &[0; 8]);
    let arguments = [n(epoll), at(EVENTS), n(8), n(-1), at(set), n(8)];
    p.call("pwait", libc::SYS_epoll_pwait, &arguments);
    p.line("let through", signals(libc::SIGALRM));
    p.arena.write(set, &(1u64 << (libc::SIGALRM - 1)).to_ne_bytes());
    alarm(p, 50);
    let arguments = [n(epoll), at(EVENTS), n(8), n(300), at(set), n(8)];
    p.call("pwait", libc::SYS_epoll_pwait, &arguments);
    p.line("blocked", signals(libc::SIGALRM));
    echo(p, fd, 1);
    wait(p, epoll, 8, -1);
}
