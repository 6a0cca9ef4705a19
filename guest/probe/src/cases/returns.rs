//! Calls whose threads come back elsewhere, or not at all: handlers that fork, children of `vfork` that are
//! killed, sockets that become something while somebody waits.
use super::Case;
use super::signals::handle;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use guest_sys::raw::{Action, Arg, forked};
use guest_sys::start;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("return_of_forked_read", forked_read),
    ("return_of_forked_poll", forked_poll),
    ("return_of_forked_restart", forked_restart),
    ("return_of_vfork", vfork),
    ("receive_before_send", before_send),
    ("receive_before_connect", before_connect),
    ("receive_until_shutdown", until_shutdown),
    ("recvmmsg_error_is_polled", error_is_polled),
];

/// How often a thread must be seen asleep to be taken for one that waits, and the time in between.
const SEEN: u32 = 8;
const PERIOD: Duration = Duration::from_millis(50);

/// Sends one `SIGUSR1` to the calling thread when it waits.
fn shot(p: &Probe) -> std::thread::JoinHandle<()> {
    let (pid, own) = (p.quiet(libc::SYS_getpid, &[]), p.quiet(libc::SYS_gettid, &[]));
    let q = p.clone();
    std::thread::spawn(move || {
        let mut seen = 0;
        while seen < SEEN {
            std::thread::sleep(PERIOD);
            let status = std::fs::read_to_string(format!("/proc/self/task/{own}/stat"));
            // The state stands behind the name.
            let sleeps =
                status.is_ok_and(|s| s.rsplit(')').next().is_some_and(|s| s.starts_with(" S")));
            seen = if sleeps { seen + 1 } else { 0 };
        }
        q.quiet(libc::SYS_tgkill, &[n(pid), n(own), n(libc::SIGUSR1)]);
    })
}

/// Makes a call that a handler interrupts, which forks: what it answers in both.
fn in_both(
    p: &Probe,
    label: &str,
    number: i64,
    arguments: &[Arg],
    then: fn(&Probe, RawFd),
    fd: RawFd,
) {
    let own = p.quiet(libc::SYS_getpid, &[]);
    let shot = shot(p);
    let answer = p.quiet(number, arguments);
    if p.quiet(libc::SYS_getpid, &[]) != own {
        let copy = p.in_child("child");
        copy.line(label, value::result(answer));
        then(&copy, fd);
        copy.quiet(libc::SYS_exit_group, &[n(7)]);
    }
    p.line("shot", shot.join().is_ok());
    p.quiet(libc::SYS_wait4, &[n(forked()), at(FREE), n(0), NULL]);
    p.line("child's status", p.number(FREE) >> 8);
    p.line(label, value::result(answer));
    then(p, fd);
}

fn echoes(p: &Probe, fd: RawFd) {
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 5, 0);
}

fn forked_read(p: &mut Probe) {
    let fd = p.stream("echo");
    handle(p, Action::Fork, 0);
    in_both(p, "read", libc::SYS_read, &[n(fd), at(DATA), n(10)], echoes, fd);
    let (listener, _) = p.listener(0);
    in_both(p, "accept", libc::SYS_accept, &[n(listener), NULL, NULL], echoes, fd);
}

fn forked_poll(p: &mut Probe) {
    let fd = p.stream("echo");
    handle(p, Action::Fork, libc::SA_RESTART);
    let set = p.poll_set(&[(fd, libc::POLLIN)]);
    in_both(p, "poll", libc::SYS_poll, &[set, n(1), n(-1)], echoes, fd);
}

/// Both go on reading, and both get their share.
fn forked_restart(p: &mut Probe) {
    let fd = p.stream("asked hellohello");
    handle(p, Action::Fork, libc::SA_RESTART);
    let (peer, port) = (p.peer, p.name_of(fd));
    let release = std::thread::spawn(move || {
        while forked() <= 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut stream = TcpStream::connect(peer)?;
        writeln!(stream, "release {port}")?;
        stream.read_to_end(&mut Vec::new())
    });
    let show = |p: &Probe, _: RawFd| p.line("data", value::data(&p.arena.read(DATA, 5)));
    in_both(p, "read", libc::SYS_read, &[n(fd), at(DATA), n(5)], show, fd);
    p.line("released", matches!(release.join(), Ok(Ok(8))));
}

fn vfork(p: &mut Probe) {
    let fd = p.stream("echo");
    match start::vfork_killed(fd) {
        Ok(pid) => {
            let answer = p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
            p.line("child", format!("{}, status {}", answer == i64::from(pid), p.number(FREE)));
        }
        Err(error) => p.line("child", error),
    }
    echoes(p, fd);
}

/// Begins to receive in another thread, and lets it get there.
fn receiving(p: &Probe, fd: RawFd) -> std::thread::JoinHandle<()> {
    let q = p.in_child("receiver");
    let thread = std::thread::spawn(move || {
        let place = DATA + 0x8000;
        let arguments = [n(fd), at(place), n(100), n(0), NULL, NULL];
        let answer = q.quiet(libc::SYS_recvfrom, &arguments);
        q.arrived("receive", answer, place, 100);
    });
    std::thread::sleep(Duration::from_millis(400));
    thread
}

fn before_send(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    let thread = receiving(p, fd);
    let [place, length] = p.address(p.peer);
    p.arena.write(DATA, b"hello");
    p.call("sendto", libc::SYS_sendto, &[n(fd), at(DATA), n(5), n(0), place, length]);
    p.line("thread", thread.join().is_ok());
}

fn before_connect(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    let thread = receiving(p, fd);
    p.connect_to(fd, p.peer);
    p.send(fd, b"later", 0);
    p.line("thread", thread.join().is_ok());
}

/// It fails, and wakes who receives all the same.
fn until_shutdown(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    let thread = receiving(p, fd);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_RD)]);
    p.line("thread", thread.join().is_ok());
    p.receive(fd, 10, 0);
}

/// An error that ends `recvmmsg` after a message is what `poll` tells, until it is reported; the datagram
/// that could not be stored is gone.
fn error_is_polled(p: &mut Probe) {
    let fd = p.datagrams();
    for text in [&b"one"[..], b"two", b"three"] {
        p.send(fd, text, 0);
    }
    std::thread::sleep(Duration::from_millis(300));
    let (messages, vectors) = (FREE + 0x1000, FREE + 0x2000);
    let rooms = [at(DATA + 0x4000), crate::probe::BAD];
    for (number, room) in rooms.into_iter().enumerate() {
        let (message, vector) = (messages + number * 64, vectors + number * 16);
        p.vectors(vector, &[(room, 10)]);
        p.arena.write(message, &[0; 64]);
        p.arena.write_pointer(message + 16, at(vector));
        p.arena.write(message + 24, &1_u64.to_ne_bytes());
    }
    let receive = [n(fd), at(messages), n(2), n(libc::MSG_DONTWAIT), NULL];
    p.call("recvmmsg", libc::SYS_recvmmsg, &receive);
    p.poll(&[(fd, libc::POLLIN | libc::POLLOUT)], 0);
    p.error_of(fd);
    p.poll(&[(fd, libc::POLLIN | libc::POLLOUT)], 0);
    p.receive(fd, 10, libc::MSG_DONTWAIT);
    p.receive(fd, 10, libc::MSG_DONTWAIT);
}
