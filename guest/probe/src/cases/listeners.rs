//! Listeners that trusted programs have in both VMs (the policy's `place = "both"`), called from either.
use super::Case;
use super::signals::{handle, shots};
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use guest_sys::raw::Action;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("both_accept", accept),
    ("both_restart", restart),
    ("both_interrupt", interrupt),
    ("both_epoll", epoll),
    ("both_epoll_once", epoll_once),
];

/// Ports that the policy has in both VMs; other runs may have some of them.
const PORTS: std::ops::Range<u16> = 21_000..21_100;
const ONCE: i32 = 1 << 30;

/// A socket that listens on one of these ports on all addresses.
fn listener(p: &Probe, flags: i32) -> (RawFd, u16) {
    let fd = p.socket(libc::SOCK_STREAM | flags);
    let free = PORTS.into_iter().find(|port| {
        let [place, length] = p.address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)));
        p.quiet(libc::SYS_bind, &[n(fd), place, length]) == 0
    });
    p.line("bound", free.is_some());
    p.call("listen", libc::SYS_listen, &[n(fd), n(16)]);
    (fd, free.unwrap_or_default())
}

/// A call from the own machine.
fn call(p: &Probe, port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    p.line("called", stream.is_ok());
    let mut stream = stream.ok()?;
    p.line("said", stream.write_all(b"hello").is_ok());
    Some(stream)
}

fn take(p: &Probe, listener: RawFd) -> RawFd {
    p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL])
}

fn accept(p: &mut Probe) {
    let (listener, port) = listener(p, 0);
    for _ in 0..2 {
        let own = call(p, port);
        let fd = take(p, listener);
        p.wait_bytes(fd, 5);
        p.receive(fd, 10, 0);
        p.send(fd, b"back", 0);
        p.close(fd);
        let mut text = String::new();
        p.line("heard", own.is_some_and(|mut own| own.read_to_string(&mut text).is_ok()));
        p.line("text", text);
        let control = p.called_by_peer(port, "say peer");
        let fd = take(p, listener);
        p.receive_all(fd);
        p.close(fd);
        p.close(control);
    }
    p.close(listener);
}

/// A handler with `SA_RESTART` does not end an `accept`; who comes later, from either side, is taken.
fn restart(p: &mut Probe) {
    handle(p, Action::Count, libc::SA_RESTART);
    let (listener, port) = listener(p, 0);
    for own in [true, false] {
        let shots = shots(p, 1000);
        let (q, peer) = (p.in_child("later"), p.peer);
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            let caller = if own {
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
            } else {
                let stream = TcpStream::connect(peer).ok();
                stream.and_then(|mut s| writeln!(s, "connect {port} hold x").is_ok().then_some(s))
            };
            q.line("asked", caller.is_some());
            std::thread::sleep(Duration::from_millis(700));
        });
        let fd = take(p, listener);
        drop(shots);
        p.line("thread", later.join().is_ok());
        p.close(fd);
    }
    p.timeout(listener, libc::SO_RCVTIMEO, 20_000);
    let shots = shots(p, 1000);
    take(p, listener);
    drop(shots);
}

fn interrupt(p: &mut Probe) {
    handle(p, Action::Count, 0);
    let (listener, port) = listener(p, 0);
    let shots = shots(p, 1000);
    take(p, listener);
    drop(shots);
    let _own = call(p, port);
    take(p, listener);
}

fn control(p: &Probe, epoll: RawFd, operation: i32, fd: RawFd, event: (i32, u64)) {
    p.arena.write(FREE, &event.0.to_ne_bytes());
    p.arena.write(FREE + 4, &event.1.to_ne_bytes());
    p.call("ctl", libc::SYS_epoll_ctl, &[n(epoll), n(operation), n(fd), at(FREE)]);
}

/// Data of the events that come, in order.
fn wait(p: &Probe, epoll: RawFd, patience: i32) {
    let place = DATA + 0x1000;
    let answer = p.quiet(libc::SYS_epoll_wait, &[n(epoll), at(place), n(8), n(patience)]);
    let bytes = p.arena.read(place, usize::try_from(answer).unwrap_or(0) * 12);
    let mut data: Vec<u8> = bytes.chunks_exact(12).map(|event| event[4]).collect();
    data.sort_unstable();
    p.line("events", format!("{answer} {data:?}"));
}

fn epoll(p: &mut Probe) {
    let (listener, port) = listener(p, libc::SOCK_NONBLOCK);
    let copy = p.open("dup", libc::SYS_dup, &[n(listener)]);
    let epoll = p.open("epoll", libc::SYS_epoll_create1, &[n(0)]);
    control(p, epoll, libc::EPOLL_CTL_ADD, listener, (libc::EPOLLIN, 1));
    control(p, epoll, libc::EPOLL_CTL_ADD, copy, (libc::EPOLLIN, 2));
    control(p, epoll, libc::EPOLL_CTL_ADD, copy, (libc::EPOLLIN, 2));
    wait(p, epoll, 0);
    let control_of_peer = p.called_by_peer(port, "hold peer");
    p.settle(listener, libc::POLLIN);
    wait(p, epoll, 15_000);
    take(p, listener);
    wait(p, epoll, 0);
    let _own = call(p, port);
    p.settle(listener, libc::POLLIN);
    wait(p, epoll, 15_000);
    control(p, epoll, libc::EPOLL_CTL_DEL, listener, (0, 0));
    wait(p, epoll, 0);
    control(p, epoll, libc::EPOLL_CTL_DEL, listener, (0, 0));
    control(p, epoll, libc::EPOLL_CTL_DEL, copy, (0, 0));
    wait(p, epoll, 0);
    p.close(control_of_peer);
}

/// What is told once is told once, whoever calls.
fn epoll_once(p: &mut Probe) {
    let (listener, port) = listener(p, libc::SOCK_NONBLOCK);
    let epoll = p.open("epoll", libc::SYS_epoll_create1, &[n(0)]);
    let once = (libc::EPOLLIN | ONCE, 7);
    control(p, epoll, libc::EPOLL_CTL_ADD, listener, once);
    for _ in 0..2 {
        let own = call(p, port);
        p.settle(listener, libc::POLLIN);
        wait(p, epoll, 15_000);
        let control_of_peer = p.called_by_peer(port, "hold peer");
        // Until it has come, too: two are taken.
        std::thread::sleep(Duration::from_millis(300));
        wait(p, epoll, 100);
        for _ in 0..2 {
            p.settle(listener, libc::POLLIN);
            take(p, listener);
        }
        wait(p, epoll, 0);
        control(p, epoll, libc::EPOLL_CTL_MOD, listener, once);
        wait(p, epoll, 100);
        p.close(control_of_peer);
        drop(own);
    }
}
