//! Descriptors that go to another process, and rights that are given up.
use super::Case;
use super::descriptors::in_child;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use guest_sys::fork::fork;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("handed_by_message", by_message),
    ("handed_back", back),
    ("handed_signals", signals),
    ("taken_by_pidfd", taken),
    ("low_port_without_right", low_port),
    ("io_uring_is_not_there", io_uring),
];

const HEADER: usize = FREE + 0x1000;
const CONTROL: usize = FREE + 0x1100;
/// `pidfd_getfd` of another process needs the right to trace it.
const F_SETSIG: i32 = 10;

fn pair(p: &Probe) -> (RawFd, RawFd) {
    let kind = libc::SOCK_STREAM;
    p.call("pair", libc::SYS_socketpair, &[n(libc::AF_UNIX), n(kind), n(0), at(FREE)]);
    (p.number(FREE), p.number(FREE + 4))
}

fn header(p: &Probe, control: u64) {
    let [vectors, _] = p.vectors(HEADER + 0x80, &[(at(DATA), 1)]);
    p.arena.write(HEADER, &[0; 56]);
    p.arena.write_pointer(HEADER + 16, vectors);
    p.arena.write(HEADER + 24, &1_u64.to_ne_bytes());
    p.arena.write_pointer(HEADER + 32, at(CONTROL));
    p.arena.write(HEADER + 40, &control.to_ne_bytes());
}

fn hand(p: &Probe, through: RawFd, fd: RawFd) {
    header(p, 24);
    p.arena.write(CONTROL, &20_u64.to_ne_bytes());
    p.arena.write(CONTROL + 8, &libc::SOL_SOCKET.to_ne_bytes());
    p.arena.write(CONTROL + 12, &libc::SCM_RIGHTS.to_ne_bytes());
    p.arena.write(CONTROL + 16, &fd.to_ne_bytes());
    p.call("hand", libc::SYS_sendmsg, &[n(through), at(HEADER), n(0)]);
}

fn take(p: &Probe, through: RawFd) -> RawFd {
    header(p, 64);
    p.arena.write(CONTROL, &[0; 64]);
    p.call("take", libc::SYS_recvmsg, &[n(through), at(HEADER), n(libc::MSG_CMSG_CLOEXEC)]);
    p.line("control", p.number(HEADER + 40));
    let fd = p.number(CONTROL + 16);
    p.call("flags", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFD), n(0)]);
    fd
}

/// A child that does not have what its parent makes from now on.
fn child(p: &Probe, body: impl FnOnce(&Probe)) -> i32 {
    let copy = p.in_child("child");
    let pid = fork(move |_| {
        body(&copy);
        7
    });
    pid.unwrap_or_else(|error| {
        p.line("child", error);
        -1
    })
}

fn ended(p: &Probe, pid: i32) {
    p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("status", p.number(FREE) >> 8);
}

fn echoes(p: &Probe, fd: RawFd, text: &[u8]) {
    p.send(fd, text, 0);
    p.wait_bytes(fd, text.len());
    p.receive(fd, 100, 0);
}

fn by_message(p: &mut Probe) {
    let (own, other) = pair(p);
    let pid = child(p, |p| {
        let fd = take(p, other);
        echoes(p, fd, b"child");
        p.peer_name(fd);
        p.close(fd);
    });
    let fd = p.stream("echo");
    hand(p, own, fd);
    p.close(fd);
    ended(p, pid);
}

/// A listener goes there, and what it has accepted comes back.
fn back(p: &mut Probe) {
    let (own, other) = pair(p);
    let pid = child(p, |p| {
        let listener = take(p, other);
        let fd = p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
        hand(p, other, fd);
    });
    let (listener, port) = p.listener(0);
    hand(p, own, listener);
    p.close(listener);
    let control = p.called_by_peer(port, "echo");
    let fd = take(p, own);
    ended(p, pid);
    echoes(p, fd, b"mine");
    p.close(fd);
    p.close(control);
}

/// Who is to be told is told, though only another process has the socket.
fn signals(p: &mut Probe) {
    let (own, other) = pair(p);
    let set = 1_u64 << (40 - 1);
    p.arena.write(FREE, &set.to_ne_bytes());
    p.call("block", libc::SYS_rt_sigprocmask, &[n(libc::SIG_BLOCK), at(FREE), NULL, n(8)]);
    let flags = n(libc::SFD_NONBLOCK);
    let held = p.open("signals", libc::SYS_signalfd4, &[n(-1), at(FREE), n(8), flags]);
    let told = |p: &Probe| {
        p.poll(&[(held, libc::POLLIN)], 15_000);
        let got = p.quiet(libc::SYS_read, &[n(held), at(FREE + 0x100), n(128)]);
        p.line("signal", format!("{got} {}", p.number(FREE + 0x100)));
    };
    let pid = child(p, |p| {
        let fd = take(p, other);
        let line = b"later hello\n";
        p.arena.write(DATA, line);
        p.quiet(libc::SYS_write, &[n(fd), at(DATA), n(line.len() as i64)]);
        told(p);
    });
    let fd = p.socket(libc::SOCK_STREAM);
    p.connect_to(fd, p.peer);
    p.call("F_SETOWN", libc::SYS_fcntl, &[n(fd), n(libc::F_SETOWN), n(pid)]);
    p.call("F_SETSIG", libc::SYS_fcntl, &[n(fd), n(F_SETSIG), n(40)]);
    p.call("F_SETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), n(libc::O_ASYNC)]);
    hand(p, own, fd);
    p.close(fd);
    ended(p, pid);
}

fn taken(p: &mut Probe) {
    let (read, write) = p.pipe(0);
    let (go_read, go_write) = p.pipe(0);
    let pid = child(p, |p| {
        let fd = p.stream("echo");
        p.arena.write(DATA, &fd.to_ne_bytes());
        p.quiet(libc::SYS_write, &[n(write), at(DATA), n(4)]);
        p.quiet(libc::SYS_read, &[n(go_read), at(DATA), n(1)]);
    });
    p.quiet(libc::SYS_read, &[n(read), at(DATA), n(4)]);
    let there = p.number(DATA);
    let pidfd = p.open("pidfd_open", libc::SYS_pidfd_open, &[n(pid), n(0)]);
    let fd = p.open("pidfd_getfd", libc::SYS_pidfd_getfd, &[n(pidfd), n(there), n(0)]);
    p.open("no such one", libc::SYS_pidfd_getfd, &[n(pidfd), n(900), n(0)]);
    p.call("go", libc::SYS_write, &[n(go_write), at(DATA), n(1)]);
    ended(p, pid);
    p.call("flags", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFD), n(0)]);
    echoes(p, fd, b"taken");
}

/// Whoever gives up root, or the capability, has no port below 1024; keeping root's id alone is not enough.
fn low_port(p: &mut Probe) {
    let bind = |p: &Probe| {
        let fd = p.socket(libc::SOCK_STREAM);
        p.bind(fd, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 733)));
        p.close(fd);
    };
    in_child(p, "capset", |p| {
        // `_LINUX_CAPABILITY_VERSION_3`, the calling thread; nothing.
        p.arena.write(FREE, &[0x2008_0522_u32.to_ne_bytes(), [0; 4]].concat());
        p.arena.write(FREE + 16, &[0; 24]);
        p.call("capset", libc::SYS_capset, &[at(FREE), at(FREE + 16)]);
        bind(p);
    });
    in_child(p, "setresuid", |p| {
        p.call("setgroups", libc::SYS_setgroups, &[n(0), NULL]);
        p.call("setresgid", libc::SYS_setresgid, &[n(1000), n(1000), n(1000)]);
        p.call("setresuid", libc::SYS_setresuid, &[n(1000), n(1000), n(1000)]);
        bind(p);
        p.call("back", libc::SYS_setresuid, &[n(0), n(0), n(0)]);
    });
    in_child(p, "effective", |p| {
        p.call("setresuid", libc::SYS_setresuid, &[n(-1), n(1000), n(-1)]);
        bind(p);
    });
}

fn io_uring(p: &mut Probe) {
    p.arena.write(DATA, &[0; 120]);
    let answer = p.quiet(libc::SYS_io_uring_setup, &[n(4), at(DATA)]);
    // Trusted programs shall do without; elsewhere there may be one.
    p.line("errors are ENOSYS", answer >= 0 || value::result(answer) == "ENOSYS");
}
