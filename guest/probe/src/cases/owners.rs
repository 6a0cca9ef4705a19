//! Signals of sockets: `SIGIO`, `SIGURG`, who gets them, and which.
use super::Case;
use super::descriptors::in_child;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use guest_sys::fork::fork;
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("owner_is_told", is_told),
    ("owner_of_a_stream", of_a_stream),
    ("owner_chooses_signal", chooses_signal),
    ("owner_of_datagrams", of_datagrams),
    ("owner_of_a_listener", of_a_listener),
    ("owner_while_connecting", while_connecting),
    ("owner_urgent", urgent),
    ("owner_of_two", of_two),
    ("owner_is_a_child", is_a_child),
    ("owner_is_a_group", is_a_group),
    ("owner_by_duplicates", by_duplicates),
    ("owner_after_fork", after_fork),
    ("owner_no_more", no_more),
];

/// `F_SETSIG`, `F_GETSIG`, `F_SETOWN_EX` and `F_GETOWN_EX` (`fcntl(2)`).
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
/// Signals that queue.
const FIRST: i32 = 40;
const SECOND: i32 = 41;
/// `FIOSETOWN`, `SIOCSPGRP`, `FIOGETOWN`, `SIOCGPGRP` (`linux/sockios.h`).
const OWNERS: [i32; 4] = [0x8901, 0x8902, 0x8903, 0x8904];
const FIOASYNC: i32 = 0x5452;
/// How long a signal may take, and how long none is waited for.
const LONG: i32 = 15_000;
const SHORT: i32 = 500;

/// Holds the signals back, and makes them readable.
fn held(p: &Probe) -> RawFd {
    let signals = [libc::SIGIO, libc::SIGURG, FIRST, SECOND];
    let set = signals.iter().fold(0_u64, |set, signal| set | 1 << (signal - 1));
    p.arena.write(FREE, &set.to_ne_bytes());
    p.call("block", libc::SYS_rt_sigprocmask, &[n(libc::SIG_BLOCK), at(FREE), NULL, n(8)]);
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    p.open("signals", libc::SYS_signalfd4, &[n(-1), at(FREE), n(8), n(flags)])
}

/// Waits for a signal: its number, and the descriptor that it names where there is one.
fn signal(p: &Probe, signals: RawFd, patience: i32) -> Option<(i32, i32, i32)> {
    let set = p.poll_set(&[(signals, libc::POLLIN)]);
    p.quiet(libc::SYS_poll, &[set, n(1), n(patience)]);
    let got = p.quiet(libc::SYS_read, &[n(signals), at(FREE + 0x100), n(128)]);
    // `struct signalfd_siginfo`: number, error, code, pid, uid, descriptor.
    let word = |place: usize| p.number(FREE + 0x100 + place);
    (got == 128).then(|| (word(0), word(8), word(20)))
}

/// Waits for a signal and prints it; its code only where it is one of `POLL_IN`.
fn told(p: &Probe, label: &str, signals: RawFd, sockets: &[RawFd]) {
    match signal(p, signals, LONG) {
        None => p.line(label, "no signal"),
        Some((number, _, fd)) if number >= FIRST => {
            let place = sockets.iter().position(|socket| *socket == fd);
            p.line(label, format!("signal {number} of socket {place:?}"));
        }
        Some((number, ..)) => p.line(label, format!("signal {number}")),
    }
}

/// Takes what has come meanwhile, without a word.
fn drain(p: &Probe, signals: RawFd) {
    while signal(p, signals, 0).is_some() {}
}

fn none(p: &Probe, label: &str, signals: RawFd) {
    p.line(label, signal(p, signals, SHORT).is_none());
}

fn own(p: &Probe) -> i64 {
    p.quiet(libc::SYS_getpid, &[])
}

fn set_owner(p: &Probe, fd: RawFd, owner: i64) {
    p.call("F_SETOWN", libc::SYS_fcntl, &[n(fd), n(libc::F_SETOWN), n(owner)]);
}

fn set_signal(p: &Probe, fd: RawFd, signal: i32) {
    p.call("F_SETSIG", libc::SYS_fcntl, &[n(fd), n(F_SETSIG), n(signal)]);
}

fn asynchronous(p: &Probe, fd: RawFd, flags: i32) {
    p.call("F_SETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), n(flags | libc::O_ASYNC)]);
}

fn connected(p: &Probe) -> RawFd {
    let fd = p.socket(libc::SOCK_STREAM);
    p.connect_to(fd, p.peer);
    fd
}

/// Has the peer of a connection begin.
fn ask(p: &Probe, fd: RawFd, words: &str) {
    let line = format!("{words}\n");
    p.arena.write(DATA, line.as_bytes());
    p.quiet(libc::SYS_write, &[n(fd), at(DATA), n(line.len() as i64)]);
}

fn is_told(p: &mut Probe) {
    let fd = p.stream("echo");
    let pid = own(p);
    let owner = |p: &Probe, label: &str| {
        let answer = p.quiet(libc::SYS_fcntl, &[n(fd), n(libc::F_GETOWN), n(0)]);
        let words = if answer == pid { "own".to_owned() } else { answer.to_string() };
        p.line(label, words);
    };
    owner(p, "at first");
    set_owner(p, fd, pid);
    owner(p, "F_GETOWN");
    p.call("nobody", libc::SYS_fcntl, &[n(fd), n(libc::F_SETOWN), n(4_194_303)]);
    p.call("F_GETSIG", libc::SYS_fcntl, &[n(fd), n(F_GETSIG), n(0)]);
    set_signal(p, fd, FIRST);
    p.call("F_GETSIG", libc::SYS_fcntl, &[n(fd), n(F_GETSIG), n(0)]);
    p.call("bad signal", libc::SYS_fcntl, &[n(fd), n(F_SETSIG), n(65)]);
    p.arena.write(FREE, &[0; 8]);
    p.call("F_SETOWN_EX", libc::SYS_fcntl, &[n(fd), n(F_SETOWN_EX), at(FREE)]);
    p.call("bad kind", libc::SYS_fcntl, &[n(fd), n(F_SETOWN_EX), at(DATA + 0x2000)]);
    p.arena.write(DATA + 0x2000, &9_i32.to_ne_bytes());
    p.call("bad kind", libc::SYS_fcntl, &[n(fd), n(F_SETOWN_EX), at(DATA + 0x2000)]);
    p.call("bad address", libc::SYS_fcntl, &[n(fd), n(F_GETOWN_EX), n(8)]);
    owner(p, "F_GETOWN");
    for command in OWNERS {
        p.arena.write(FREE, &(pid as i32).to_ne_bytes());
        p.call("ioctl", libc::SYS_ioctl, &[n(fd), n(command), at(FREE)]);
        p.line("argument", i64::from(p.number(FREE)) == pid);
    }
    for on in [1_i32, 0] {
        p.arena.write(FREE, &on.to_ne_bytes());
        p.call("FIOASYNC", libc::SYS_ioctl, &[n(fd), n(FIOASYNC), at(FREE)]);
        p.call("F_GETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFL), n(0)]);
    }
    p.close(fd);
}

fn of_a_stream(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    set_owner(p, fd, own(p));
    asynchronous(p, fd, 0);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFL), n(0)]);
    none(p, "quiet", signals);
    ask(p, fd, "later hello");
    told(p, "data", signals, &[fd]);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    drain(p, signals);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    told(p, "end", signals, &[fd]);
    p.receive(fd, 10, 0);
    p.close(fd);
}

fn chooses_signal(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    set_owner(p, fd, own(p));
    set_signal(p, fd, FIRST);
    asynchronous(p, fd, 0);
    ask(p, fd, "echo");
    p.send(fd, b"hello", 0);
    let first = signal(p, signals, LONG);
    p.line("first", format!("{:?}", first.map(|(number, code, of)| (number, code, of == fd))));
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    drain(p, signals);
    p.send(fd, b"again", 0);
    told(p, "second", signals, &[fd]);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    drain(p, signals);
    // Another signal, chosen while it is on.
    set_signal(p, fd, SECOND);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    told(p, "end", signals, &[fd]);
    drain(p, signals);
    p.close(fd);
    none(p, "closed", signals);
}

fn of_datagrams(p: &mut Probe) {
    let signals = held(p);
    let fd = p.datagrams();
    set_owner(p, fd, own(p));
    set_signal(p, fd, FIRST);
    asynchronous(p, fd, 0);
    p.send(fd, b"one", 0);
    told(p, "one", signals, &[fd]);
    p.receive(fd, 10, 0);
    // To send is nothing that happens.
    none(p, "quiet", signals);
    p.send(fd, b"later", 0);
    told(p, "later", signals, &[fd]);
    p.receive(fd, 10, 0);
    p.close(fd);
}

fn of_a_listener(p: &mut Probe) {
    let signals = held(p);
    let (fd, port) = p.listener(libc::SOCK_NONBLOCK);
    set_owner(p, fd, own(p));
    asynchronous(p, fd, libc::O_NONBLOCK);
    p.open("nobody", libc::SYS_accept, &[n(fd), NULL, NULL]);
    p.called_by_peer(port, "later hello");
    told(p, "knock", signals, &[fd]);
    p.poll(&[(fd, libc::POLLIN)], LONG);
    let new = p.open("accept", libc::SYS_accept, &[n(fd), NULL, NULL]);
    // What is accepted has neither owner nor O_ASYNC.
    p.call("F_GETFL", libc::SYS_fcntl, &[n(new), n(libc::F_GETFL), n(0)]);
    p.call("F_GETOWN", libc::SYS_fcntl, &[n(new), n(libc::F_GETOWN), n(0)]);
    drain(p, signals);
    p.wait_bytes(new, 5);
    p.receive(new, 10, 0);
    none(p, "quiet", signals);
}

fn while_connecting(p: &mut Probe) {
    let signals = held(p);
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    set_owner(p, fd, own(p));
    set_signal(p, fd, FIRST);
    asynchronous(p, fd, libc::O_NONBLOCK);
    p.connect_to(fd, p.peer);
    told(p, "connected", signals, &[fd]);
    p.settle(fd, libc::POLLOUT);
    drain(p, signals);
    ask(p, fd, "later hello");
    told(p, "data", signals, &[fd]);
    p.close(fd);
    // One that nobody takes.
    let (closed, port) = p.listener(0);
    p.close(closed);
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    set_owner(p, fd, own(p));
    asynchronous(p, fd, libc::O_NONBLOCK);
    p.connect_to(fd, std::net::SocketAddr::new(p.peer.ip(), port));
    told(p, "refused", signals, &[fd]);
    p.settle(fd, libc::POLLERR);
    p.error_of(fd);
}

fn urgent(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    set_owner(p, fd, own(p));
    ask(p, fd, "urgent");
    told(p, "urgent", signals, &[fd]);
    none(p, "nothing else", signals);
    p.settle(fd, libc::POLLPRI);
    p.receive(fd, 1, libc::MSG_OOB);
    p.close(fd);
    // Before it is connected; and a signal for all else does not keep this one away.
    let fd = p.socket(libc::SOCK_STREAM);
    set_owner(p, fd, own(p));
    asynchronous(p, fd, 0);
    p.connect_to(fd, p.peer);
    drain(p, signals);
    ask(p, fd, "urgent");
    let mut seen = [false; 2];
    while let Some((number, ..)) = signal(p, signals, SHORT * 4) {
        seen[usize::from(number == libc::SIGURG)] = true;
    }
    p.line("both", format!("{seen:?}"));
}

fn of_two(p: &mut Probe) {
    let signals = held(p);
    let sockets = [connected(p), connected(p)];
    for (fd, signal) in sockets.into_iter().zip([FIRST, SECOND]) {
        set_owner(p, fd, own(p));
        set_signal(p, fd, signal);
        asynchronous(p, fd, 0);
    }
    for fd in [sockets[1], sockets[0]] {
        ask(p, fd, "hold hello");
        told(p, "data", signals, &sockets);
        p.wait_bytes(fd, 5);
        drain(p, signals);
    }
    p.close(sockets[0]);
    p.call("shutdown", libc::SYS_shutdown, &[n(sockets[1]), n(libc::SHUT_WR)]);
    told(p, "end", signals, &sockets);
}

/// A child that has started and waits for the signals of data.
fn child_that_is_told(p: &mut Probe, fd: RawFd, signals: RawFd) -> Option<i32> {
    let (read, write) = p.pipe(0);
    let copy = p.in_child("child");
    let child = fork(move |_| {
        copy.quiet(libc::SYS_write, &[n(write), at(DATA), n(1)]);
        told(&copy, "data", signals, &[fd]);
        0
    });
    let Ok(pid) = child else {
        p.line("child", "no fork");
        return None;
    };
    p.call("started", libc::SYS_read, &[n(read), at(DATA), n(1)]);
    Some(pid)
}

fn is_a_child(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    let Some(pid) = child_that_is_told(p, fd, signals) else { return };
    set_owner(p, fd, i64::from(pid));
    asynchronous(p, fd, 0);
    ask(p, fd, "later hello");
    p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("status", p.number(FREE));
    none(p, "not the parent", signals);
}

fn is_a_group(p: &mut Probe) {
    let session = p.quiet(libc::SYS_setsid, &[]);
    p.line("leads", session == own(p));
    let signals = held(p);
    let fd = connected(p);
    let Some(pid) = child_that_is_told(p, fd, signals) else { return };
    set_owner(p, fd, -session);
    let answer = p.quiet(libc::SYS_fcntl, &[n(fd), n(libc::F_GETOWN), n(0)]);
    p.line("group", answer == -session);
    asynchronous(p, fd, 0);
    ask(p, fd, "later hello");
    p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("status", p.number(FREE));
    told(p, "data", signals, &[fd]);
}

fn by_duplicates(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    let copy = p.open("dup", libc::SYS_dup, &[n(fd)]);
    set_owner(p, copy, own(p));
    set_signal(p, fd, FIRST);
    asynchronous(p, copy, 0);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFL), n(0)]);
    ask(p, fd, "later hello");
    told(p, "data", signals, &[fd, copy]);
    drain(p, signals);
    // The number that is named is the one that was used, whether it is still open or not.
    p.close(copy);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    told(p, "end", signals, &[fd, copy]);
    p.call("close_range", libc::SYS_close_range, &[n(fd), n(fd), n(0)]);
}

fn after_fork(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    set_owner(p, fd, own(p));
    asynchronous(p, fd, 0);
    // The child has the file as well; its end changes nothing, nor does its close.
    in_child(p, "child", |p| p.close(fd));
    none(p, "quiet", signals);
    ask(p, fd, "later hello");
    told(p, "data", signals, &[fd]);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    drain(p, signals);
    // What the child changes, it changes for all.
    in_child(p, "second child", |p| set_owner(p, fd, 0));
    p.call("F_GETOWN", libc::SYS_fcntl, &[n(fd), n(libc::F_GETOWN), n(0)]);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    none(p, "nobody's", signals);
    p.close(fd);
}

fn no_more(p: &mut Probe) {
    let signals = held(p);
    let fd = connected(p);
    set_owner(p, fd, own(p));
    asynchronous(p, fd, 0);
    p.call("off", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), n(0)]);
    ask(p, fd, "echo");
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    none(p, "quiet", signals);
    asynchronous(p, fd, 0);
    p.send(fd, b"hello", 0);
    told(p, "on again", signals, &[fd]);
}
