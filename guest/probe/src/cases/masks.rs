//! Signal masks of the `p` variants, which change and come back with the wait in one step; time-outs
//! of `epoll_pwait2`; handlers that leave `connect` and waits for events.
use super::Case;
use super::signals::{handle, shots};
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use guest_sys::raw::{Action, Arg, signals};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    ("mask_of_each", of_each),
    ("mask_and_ready", and_ready),
    ("mask_while_waiting", while_waiting),
    ("pwait2_timeouts", timeouts),
    ("short_waits", short_waits),
    ("left_waits", left_waits),
    ("connect_interrupted", connect_interrupted),
    ("connect_left", connect_left),
];

/// Where masks, sets, times and events lie.
const EMPTY: usize = FREE + 0x400;
const PAIR: usize = FREE + 0x410;
const SETS: usize = FREE + 0x500;
const TIME: usize = FREE + 0x700;
const EVENTS: usize = FREE + 0x1000;

type Waits = Vec<(&'static str, i64, Vec<Arg>)>;

/// Waits with an empty mask, on one descriptor. `epoll` has it registered.
fn waits(p: &Probe, fd: RawFd, epoll: RawFd) -> Waits {
    p.arena.write(EMPTY, &[0; 8]);
    p.arena.write_pointer(PAIR, at(EMPTY));
    p.arena.write(PAIR + 8, &8_u64.to_ne_bytes());
    p.select_bit(SETS, fd);
    let set = p.poll_set(&[(fd, libc::POLLIN)]);
    let (mask, size) = (at(EMPTY), n(8));
    let selected = vec![n(fd + 1), at(SETS), NULL, NULL, NULL, at(PAIR)];
    vec![
        ("ppoll", libc::SYS_ppoll, vec![set, n(1), NULL, mask, size]),
        ("pselect6", libc::SYS_pselect6, selected),
        ("epoll_pwait", libc::SYS_epoll_pwait, vec![n(epoll), at(EVENTS), n(4), n(-1), mask, size]),
        (
            "epoll_pwait2",
            libc::SYS_epoll_pwait2,
            vec![n(epoll), at(EVENTS), n(4), NULL, mask, size],
        ),
    ]
}

fn watched(p: &Probe, fd: RawFd) -> RawFd {
    let epoll = p.open("epoll", libc::SYS_epoll_create1, &[n(0)]);
    p.arena.write(EVENTS, &libc::EPOLLIN.to_ne_bytes());
    p.call("add", libc::SYS_epoll_ctl, &[n(epoll), n(libc::EPOLL_CTL_ADD), n(fd), at(EVENTS)]);
    epoll
}

fn block(p: &Probe) {
    let bit = 1_u64 << (libc::SIGUSR1 - 1);
    p.arena.write(FREE, &bit.to_ne_bytes());
    p.call("block", libc::SYS_rt_sigprocmask, &[n(libc::SIG_BLOCK), at(FREE), NULL, n(8)]);
}

/// Sends the signal to this thread.
fn signal(p: &Probe) {
    let (pid, own) = (p.quiet(libc::SYS_getpid, &[]), p.quiet(libc::SYS_gettid, &[]));
    p.quiet(libc::SYS_tgkill, &[n(pid), n(own), n(libc::SIGUSR1)]);
}

/// A signal that is blocked and pending is let in by the call, and by nothing else.
fn of_each(p: &mut Probe) {
    let fd = p.stream("echo");
    let epoll = watched(p, fd);
    handle(p, Action::Count, libc::SA_RESTART);
    block(p);
    for (name, number, arguments) in waits(p, fd, epoll) {
        signal(p);
        let before = signals(libc::SIGUSR1);
        p.poll(&[(fd, libc::POLLIN)], 0);
        p.line("still pending", signals(libc::SIGUSR1) == before);
        p.poll_set(&[(fd, libc::POLLIN)]);
        p.call(name, number, &arguments);
        p.line("handled", signals(libc::SIGUSR1) - before);
        signal(p);
        p.poll(&[(fd, libc::POLLIN)], 50);
        p.line("blocked again", signals(libc::SIGUSR1) - before);
        // Takes it away.
        p.poll_set(&[(fd, libc::POLLIN)]);
        p.call("again", number, &arguments);
    }
}

/// What is ready at once is told, and the signal stays pending.
fn and_ready(p: &mut Probe) {
    let fd = p.stream("echo");
    let epoll = watched(p, fd);
    handle(p, Action::Count, 0);
    block(p);
    p.send(fd, b"x", 0);
    p.wait_bytes(fd, 1);
    for (name, number, arguments) in waits(p, fd, epoll) {
        signal(p);
        let before = signals(libc::SIGUSR1);
        p.call(name, number, &arguments);
        p.line("handled", signals(libc::SIGUSR1) - before);
    }
}

/// One that comes while the call waits, in a thread that blocks it otherwise.
fn while_waiting(p: &mut Probe) {
    let fd = p.stream("echo");
    let epoll = watched(p, fd);
    handle(p, Action::Count, libc::SA_RESTART);
    block(p);
    for (name, number, arguments) in waits(p, fd, epoll) {
        let before = signals(libc::SIGUSR1);
        let shots = shots(p, 1000);
        p.call(name, number, &arguments);
        drop(shots);
        p.line("handled", signals(libc::SIGUSR1) - before);
    }
}

fn timeouts(p: &mut Probe) {
    let (fd, read) = (p.stream("echo"), p.pipe(0).0);
    let epoll = watched(p, fd);
    p.arena.write(EVENTS, &libc::EPOLLIN.to_ne_bytes());
    p.call("pipe", libc::SYS_epoll_ctl, &[n(epoll), n(libc::EPOLL_CTL_ADD), n(read), at(EVENTS)]);
    let wait = |label: &str, seconds: i64, nanoseconds: i64| {
        p.arena.write(TIME, &seconds.to_ne_bytes());
        p.arena.write(TIME + 8, &nanoseconds.to_ne_bytes());
        let start = Instant::now();
        let arguments = [n(epoll), at(EVENTS), n(4), at(TIME), NULL, n(8)];
        p.call(label, libc::SYS_epoll_pwait2, &arguments);
        start.elapsed()
    };
    wait("zero", 0, 0);
    for nanoseconds in [1, 1_000, 1_500_000, 120_000_000] {
        let taken = wait("short", 0, nanoseconds);
        p.line("not too early", taken >= Duration::from_nanos(nanoseconds as u64));
    }
    let taken = wait("a second", 1, 0);
    p.line("not too early", taken >= Duration::from_secs(1));
    wait("bad nanoseconds", 0, 1_000_000_000);
    wait("negative", 0, -1);
    wait("negative seconds", -1, 0);
    let nowhere = [n(epoll), at(EVENTS), n(4), BAD, NULL, n(8)];
    p.call("time nowhere", libc::SYS_epoll_pwait2, &nowhere);
    p.arena.write(TIME, &[0; 16]);
    let room = [n(epoll), at(EVENTS), n(0), at(TIME), NULL, n(8)];
    p.call("no room", libc::SYS_epoll_pwait2, &room);
    let mask = [n(epoll), at(EVENTS), n(4), at(TIME), at(EMPTY), n(7)];
    p.call("bad mask", libc::SYS_epoll_pwait2, &mask);
    p.send(fd, b"x", 0);
    wait("ready", 10, 0);
    p.call("no time", libc::SYS_epoll_pwait2, &[n(epoll), at(EVENTS), n(4), NULL, NULL, n(8)]);
}

/// What is ready is told, however short the wait is.
fn short_waits(p: &mut Probe) {
    let fd = p.stream("echo");
    let epoll = watched(p, fd);
    p.send(fd, b"x", 0);
    p.wait_bytes(fd, 1);
    for _ in 0..5 {
        // So that nothing is still known from the call before.
        p.call("getsockname", libc::SYS_getsockname, &[n(fd), at(EVENTS), BAD]);
        std::thread::sleep(Duration::from_millis(20));
        p.poll(&[(fd, libc::POLLIN)], 1);
        p.arena.write(TIME, &0_u64.to_ne_bytes());
        p.arena.write(TIME + 8, &1_u64.to_ne_bytes());
        p.poll_set(&[(fd, libc::POLLIN)]);
        let set = p.poll_set(&[(fd, libc::POLLIN)]);
        p.call("ppoll", libc::SYS_ppoll, &[set, n(1), at(TIME), NULL, n(8)]);
        p.select_bit(SETS, fd);
        p.arena.write(TIME + 8, &1_u64.to_ne_bytes());
        p.call("select", libc::SYS_select, &[n(fd + 1), at(SETS), NULL, NULL, at(TIME)]);
        p.call("epoll_wait", libc::SYS_epoll_wait, &[n(epoll), at(EVENTS), n(4), n(1)]);
    }
}

fn left_waits(p: &mut Probe) {
    let fd = p.stream("echo");
    let epoll = watched(p, fd);
    let (listener, port) = p.listener(0);
    handle(p, Action::Escape, libc::SA_RESTART);
    let event = vec![n(epoll), at(EVENTS), n(4), n(-1)];
    let mut calls = waits(p, fd, epoll);
    calls.push(("epoll_wait", libc::SYS_epoll_wait, event));
    calls.push(("accept", libc::SYS_accept, vec![n(listener), NULL, NULL]));
    calls.push(("accept4", libc::SYS_accept4, vec![n(listener), NULL, NULL, n(0)]));
    for (name, number, arguments) in calls.iter().chain(&calls) {
        let shots = shots(p, 1000);
        let left = p.arena.call_escapable(*number, arguments);
        drop(shots);
        p.line(name, if matches!(left, Ok(None)) { "left" } else { "not left" });
    }
    // Nothing is lost, nothing is in the way.
    p.send(fd, b"hello", 0);
    p.call("epoll_wait", libc::SYS_epoll_wait, &[n(epoll), at(EVENTS), n(4), n(-1)]);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    p.called_by_peer(port, "hold hello");
    let new = p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.wait_bytes(new, 5);
    p.receive(new, 10, 0);
}

/// A listener whose queue is full: whoever connects waits.
fn crowded(p: &Probe) -> (RawFd, std::net::SocketAddr) {
    let fd = p.socket(libc::SOCK_STREAM);
    p.bind(fd, std::net::SocketAddr::new(p.peer.ip(), 0));
    p.call("listen", libc::SYS_listen, &[n(fd), n(0)]);
    let address = std::net::SocketAddr::new(p.peer.ip(), p.name_of(fd));
    for _ in 0..2 {
        let other = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        let [place, length] = p.address(address);
        p.quiet(libc::SYS_connect, &[n(other), place, length]);
        std::thread::sleep(Duration::from_millis(100));
    }
    (fd, address)
}

/// What becomes of an attempt after its call has ended.
fn goes_on(p: &Probe, listener: RawFd, fd: RawFd, address: std::net::SocketAddr) {
    p.poll(&[(fd, libc::POLLOUT)], 0);
    p.call("flags", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), n(libc::O_NONBLOCK)]);
    p.connect_to(fd, address);
    for _ in 0..2 {
        p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    }
    p.settle(fd, libc::POLLOUT);
    p.error_of(fd);
    p.connect_to(fd, address);
    p.arena.write(DATA, b"x");
    p.call("write", libc::SYS_write, &[n(fd), at(DATA), n(1)]);
}

fn connect_interrupted(p: &mut Probe) {
    let (listener, address) = crowded(p);
    let fd = p.socket(libc::SOCK_STREAM);
    handle(p, Action::Count, 0);
    let first = shots(p, 1000);
    p.connect_to(fd, address);
    drop(first);
    goes_on(p, listener, fd, address);
}

fn connect_left(p: &mut Probe) {
    let (listener, address) = crowded(p);
    let fd = p.socket(libc::SOCK_STREAM);
    handle(p, Action::Escape, libc::SA_RESTART);
    let first = shots(p, 1000);
    let [place, length] = p.address(address);
    let left = p.arena.call_escapable(libc::SYS_connect, &[n(fd), place, length]);
    drop(first);
    p.line("connect", if matches!(left, Ok(None)) { "left" } else { "not left" });
    goes_on(p, listener, fd, address);
}
