//! Signals and each kind of send and receive; `sendmmsg` that stops half-way.
use super::Case;
use super::signals::{handle, shots};
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use guest_sys::raw::{Action, Arg, signals};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::thread::JoinHandle;
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("send_interrupted", interrupted),
    ("send_left", left),
    ("send_restarts_plain", restarts_plain),
    ("send_restarts_messages", restarts_messages),
    ("send_restarts_moved", restarts_moved),
    ("send_timeout_interrupted", timeout_interrupted),
    ("receive_restarts", receive_restarts),
    ("receive_peeks_all", peeks_all),
    ("sendmmsg_stops", stops),
    ("sendmmsg_full", full),
    ("recvmmsg_stops", receives_stop),
];

/// Where structures of the calls lie.
const MESSAGE: usize = FREE + 0x400;
const MESSAGES: usize = FREE + 0x500;
const VECTORS: usize = FREE + 0x600;
/// Bytes of a `struct mmsghdr`.
const MMSGHDR: usize = 64;

/// Sends until nothing is taken any more, neither now nor a little later.
fn fill(p: &Probe, fd: RawFd) {
    // The sooner.
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 4096);
    let send = |length: i64| {
        let flags = n(libc::MSG_DONTWAIT);
        p.quiet(libc::SYS_sendto, &[n(fd), at(DATA), n(length), flags, NULL, NULL]) > 0
    };
    let mut calm = 0;
    while calm < 3 {
        calm = if send(0x1_0000) || send(1) { 0 } else { calm + 1 };
        while send(0x1_0000) || send(1) {}
        std::thread::sleep(Duration::from_millis(80));
    }
}

/// A `struct msghdr` of one vector with ten bytes.
fn message(p: &Probe, place: usize, bytes: Arg) {
    let [vectors, count] = p.vectors(VECTORS + (place & 0xff), &[(bytes, 10)]);
    p.arena.write(place, &[0; MMSGHDR]);
    p.arena.write_pointer(place + 16, vectors);
    if let Arg::Number(count) = count {
        p.arena.write(place + 24, &count.to_ne_bytes());
    }
}

type Sends = Vec<(&'static str, i64, Vec<Arg>)>;

/// Calls that send ten bytes. They share memory: one after the other.
fn sends(p: &Probe, fd: RawFd) -> Sends {
    message(p, MESSAGE, at(DATA));
    message(p, MESSAGES, at(DATA));
    let [vectors, count] = p.vectors(FREE + 0x800, &[(at(DATA), 4), (at(DATA + 4), 6)]);
    vec![
        ("write", libc::SYS_write, vec![n(fd), at(DATA), n(10)]),
        ("writev", libc::SYS_writev, vec![n(fd), vectors, count]),
        ("sendto", libc::SYS_sendto, vec![n(fd), at(DATA), n(10), n(0), NULL, NULL]),
        ("sendmsg", libc::SYS_sendmsg, vec![n(fd), at(MESSAGE), n(0)]),
        ("sendmmsg", libc::SYS_sendmmsg, vec![n(fd), at(MESSAGES), n(1), n(0)]),
    ]
}

/// Calls that move ten bytes of something else.
fn moves(p: &Probe, fd: RawFd) -> Sends {
    let file = p.file(&[7; 1000]);
    let (read, write) = p.pipe(0);
    p.quiet(libc::SYS_write, &[n(write), at(DATA), n(100)]);
    vec![
        ("sendfile", libc::SYS_sendfile, vec![n(fd), n(file), NULL, n(10)]),
        ("splice", libc::SYS_splice, vec![n(read), NULL, n(fd), NULL, n(10), n(0)]),
    ]
}

fn interrupted(p: &mut Probe) {
    let fd = p.stream("deaf");
    fill(p, fd);
    handle(p, Action::Count, 0);
    let calls = sends(p, fd).into_iter().chain(moves(p, fd));
    for (name, number, arguments) in calls {
        let shots = shots(p, 1000);
        p.call(name, number, &arguments);
        drop(shots);
    }
    p.line("handled", signals(libc::SIGUSR1) >= 7);
}

fn left(p: &mut Probe) {
    let fd = p.stream("deaf");
    fill(p, fd);
    handle(p, Action::Escape, libc::SA_RESTART);
    let calls = sends(p, fd).into_iter().chain(moves(p, fd));
    for (name, number, arguments) in calls {
        let shots = shots(p, 1000);
        let left = p.arena.call_escapable(number, &arguments);
        drop(shots);
        p.line(name, if matches!(left, Ok(None)) { "left" } else { "not left" });
    }
    p.call(
        "still full",
        libc::SYS_sendto,
        &[n(fd), at(DATA), n(1), n(libc::MSG_DONTWAIT), NULL, NULL],
    );
}

/// Each call on a connection of its own, whose peer begins to read when it is told, after a while.
fn restarted(p: &Probe, calls: fn(&Probe, RawFd) -> Sends, which: std::ops::Range<usize>) {
    handle(p, Action::Count, libc::SA_RESTART);
    for number in which {
        let fd = p.stream("held");
        let port = p.name_of(fd);
        fill(p, fd);
        let Some((name, number, arguments)) = calls(p, fd).into_iter().nth(number) else { return };
        let release = release(p, port);
        let shots = shots(p, 1000);
        p.call(name, number, &arguments);
        drop(shots);
        p.line("released", matches!(release.join(), Ok(Ok(8))));
        p.close(fd);
    }
}

/// Has the peer go on with the connection from that port, after two more signals.
fn release(p: &Probe, port: u16) -> JoinHandle<std::io::Result<usize>> {
    let (peer, before) = (p.peer, signals(libc::SIGUSR1));
    std::thread::spawn(move || {
        while signals(libc::SIGUSR1) < before + 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut stream = TcpStream::connect(peer)?;
        writeln!(stream, "release {port}")?;
        stream.read_to_end(&mut Vec::new())
    })
}

fn restarts_plain(p: &mut Probe) {
    restarted(p, sends, 0..3);
}

fn restarts_messages(p: &mut Probe) {
    restarted(p, sends, 3..5);
}

fn restarts_moved(p: &mut Probe) {
    restarted(p, moves, 0..2);
}

/// A time-out of the socket makes all of them `EINTR`, whatever the handler says.
fn timeout_interrupted(p: &mut Probe) {
    let fd = p.stream("deaf");
    p.timeout(fd, libc::SO_SNDTIMEO, 20_000);
    fill(p, fd);
    handle(p, Action::Count, libc::SA_RESTART);
    for (name, number, arguments) in sends(p, fd) {
        let shots = shots(p, 1000);
        p.call(name, number, &arguments);
        drop(shots);
    }
    p.timeout(fd, libc::SO_SNDTIMEO, 200);
    for (name, number, arguments) in sends(p, fd) {
        p.call(name, number, &arguments);
    }
}

fn receive_restarts(p: &mut Probe) {
    handle(p, Action::Count, libc::SA_RESTART);
    let (read, write) = p.pipe(0);
    for which in 0..5 {
        let fd = p.stream("asked hello");
        let port = p.name_of(fd);
        message(p, MESSAGES, at(DATA));
        let receive = |flags: i32| vec![n(fd), at(DATA), n(10), n(flags), NULL, NULL];
        let calls = [
            ("recvmmsg", libc::SYS_recvmmsg, vec![n(fd), at(MESSAGES), n(1), n(0), NULL]),
            ("peek", libc::SYS_recvfrom, receive(libc::MSG_PEEK)),
            (
                "all",
                libc::SYS_recvfrom,
                vec![n(fd), at(DATA), n(5), n(libc::MSG_WAITALL), NULL, NULL],
            ),
            ("splice", libc::SYS_splice, vec![n(fd), NULL, n(write), NULL, n(10), n(0)]),
            (
                "preadv2",
                libc::SYS_preadv2,
                vec![n(fd), at(VECTORS + 0x80), n(1), n(-1), n(-1), n(0)],
            ),
        ];
        p.vectors(VECTORS + 0x80, &[(at(DATA), 10)]);
        let Some((name, number, arguments)) = calls.get(which) else { return };
        let release = release(p, port);
        let shots = shots(p, 1000);
        let answer = p.quiet(*number, arguments);
        drop(shots);
        p.arrived(name, answer, DATA, 10);
        p.line("released", matches!(release.join(), Ok(Ok(8))));
        p.close(fd);
    }
    p.call("from the pipe", libc::SYS_read, &[n(read), at(DATA), n(10)]);
}

/// A look that waits for all that was asked for, for the end, or for the time.
fn peeks_all(p: &mut Probe) {
    let flags = libc::MSG_PEEK | libc::MSG_WAITALL;
    let fd = p.stream("twice hello");
    p.receive(fd, 5, flags);
    p.receive(fd, 10, flags);
    p.receive(fd, 10, 0);
    p.timeout(fd, libc::SO_RCVTIMEO, 200);
    p.receive(fd, 3, flags);
    let fd = p.stream("say hello");
    p.receive(fd, 10, flags);
    p.receive(fd, 10, 0);
    p.receive(fd, 10, flags);
    let fd = p.stream("hold hello");
    p.timeout(fd, libc::SO_RCVTIMEO, 300);
    p.receive(fd, 10, flags);
    handle(p, Action::Count, libc::SA_RESTART);
    p.timeout(fd, libc::SO_RCVTIMEO, 0);
    let shots = shots(p, 1000);
    p.receive(fd, 10, flags);
    drop(shots);
}

/// Puts messages of that many bytes; a length of `None` stands for memory that is not there.
fn messages(p: &Probe, lengths: &[Option<u64>]) {
    for (number, length) in lengths.iter().enumerate() {
        let place = MESSAGES + 0x800 + number * MMSGHDR;
        let bytes = if length.is_some() { at(DATA) } else { BAD };
        let [vectors, _] =
            p.vectors(VECTORS + 0x1000 + number * 16, &[(bytes, length.unwrap_or(4))]);
        p.arena.write(place, &[0; MMSGHDR]);
        p.arena.write_pointer(place + 16, vectors);
        p.arena.write(place + 24, &1_u64.to_ne_bytes());
        p.arena.write(place + 56, &0xffff_u32.to_ne_bytes());
    }
}

/// What the call has written as lengths of messages.
fn lengths(p: &Probe, count: usize) {
    let of = |number: usize| p.number(MESSAGES + 0x800 + number * MMSGHDR + 56);
    p.line("lengths", format!("{:?}", (0..count).map(of).collect::<Vec<_>>()));
}

fn many(p: &Probe, label: &str, fd: RawFd, count: i64, flags: i32) {
    let place = at(MESSAGES + 0x800);
    p.call(label, libc::SYS_sendmmsg, &[n(fd), place, n(count), n(flags)]);
}

fn stops(p: &mut Probe) {
    let fd = p.datagrams();
    p.arena.write(DATA, b"datagram");
    let sets: [(&str, &[Option<u64>]); 6] = [
        ("all", &[Some(3), Some(4), Some(5)]),
        ("bad second", &[Some(3), None, Some(5)]),
        ("bad first", &[None, Some(3)]),
        ("too long second", &[Some(3), Some(70_000), Some(5)]),
        ("too long first", &[Some(70_000), Some(5)]),
        ("none", &[]),
    ];
    for (label, set) in sets {
        messages(p, set);
        many(p, label, fd, set.len() as i64, 0);
        lengths(p, set.len());
    }
    // What has been sent comes back in order, and nothing else.
    for _ in 0..5 {
        p.settle(fd, libc::POLLIN);
        p.receive(fd, 20, libc::MSG_DONTWAIT);
    }
    std::thread::sleep(Duration::from_millis(100));
    p.receive(fd, 20, libc::MSG_DONTWAIT);
    messages(p, &[Some(1)]);
    p.call("nowhere", libc::SYS_sendmmsg, &[n(fd), BAD, n(1), n(0)]);
    many(p, "bad flags", fd, 1, libc::MSG_OOB);
    // A stream whose other half is shut down.
    let fd = p.stream("echo");
    messages(p, &[Some(3), None]);
    many(p, "stream", fd, 2, libc::MSG_NOSIGNAL);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    many(p, "broken", fd, 2, libc::MSG_NOSIGNAL);
    p.receive_all(fd);
}

fn full(p: &mut Probe) {
    let fd = p.stream("deaf");
    fill(p, fd);
    messages(p, &[Some(10), Some(10)]);
    many(p, "full", fd, 2, libc::MSG_DONTWAIT);
    lengths(p, 2);
    p.close(fd);
    // The second message has no room.
    let fd = p.stream("deaf");
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 4096);
    messages(p, &[Some(10), Some(4_000_000)]);
    let place = at(MESSAGES + 0x800);
    let answer = p.quiet(libc::SYS_sendmmsg, &[n(fd), place, n(2), n(libc::MSG_DONTWAIT)]);
    p.line("both begun", answer);
    let of = |number: usize| p.number(MESSAGES + 0x800 + number * MMSGHDR + 56);
    p.line("first whole, second not", of(0) == 10 && of(1) < 4_000_000);
}

fn receives_stop(p: &mut Probe) {
    let fd = p.datagrams();
    let place = at(MESSAGES + 0x800);
    p.send(fd, b"two", 0);
    p.wait_bytes(fd, 5);
    std::thread::sleep(Duration::from_millis(100));
    messages(p, &[Some(20), None]);
    let flags = n(libc::MSG_DONTWAIT);
    p.call("bad second", libc::SYS_recvmmsg, &[n(fd), place, n(2), flags, NULL]);
    lengths(p, 2);
    p.call("after it", libc::SYS_recvfrom, &[n(fd), at(DATA), n(20), flags, NULL, NULL]);
    p.error_of(fd);
    // Whether what the call could not store is still there is not compared.
    p.quiet(libc::SYS_recvfrom, &[n(fd), at(DATA), n(20), flags, NULL, NULL]);
    messages(p, &[Some(20), Some(20)]);
    p.call("empty", libc::SYS_recvmmsg, &[n(fd), place, n(2), flags, NULL]);
    p.send(fd, b"two", 0);
    p.wait_bytes(fd, 5);
    let one = n(libc::MSG_WAITFORONE);
    p.call("for one", libc::SYS_recvmmsg, &[n(fd), place, n(1), one, NULL]);
    p.call("bad time", libc::SYS_recvmmsg, &[n(fd), place, n(1), flags, BAD]);
    p.arena.write(FREE, &0_u64.to_ne_bytes());
    p.arena.write(FREE + 8, &1_000_000_000_u64.to_ne_bytes());
    p.call("bad nanoseconds", libc::SYS_recvmmsg, &[n(fd), place, n(1), flags, at(FREE)]);
}
