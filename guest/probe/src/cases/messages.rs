//! `sendmsg`, `recvmsg` and their kin; IPv6 and other families.
use super::Case;
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use guest_sys::raw::Arg;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("message_stream", stream),
    ("message_datagram", datagram),
    ("message_bad", bad),
    ("message_many", many),
    ("ipv6_mapped", ipv6_mapped),
    ("ipv6_wildcard", ipv6_wildcard),
    ("local_families", local_families),
    ("ports", ports),
    ("sequence_of_connections", sequence_of_connections),
];

/// A `struct msghdr` at `place`: name, vectors, control, each with its length.
fn header(p: &Probe, place: usize, name: (Arg, u32), vectors: [Arg; 2], control: (Arg, u64)) {
    p.arena.write(place, &[0; 56]);
    p.arena.write_pointer(place, name.0);
    p.arena.write(place + 8, &name.1.to_ne_bytes());
    p.arena.write_pointer(place + 16, vectors[0]);
    if let Arg::Number(count) = vectors[1] {
        p.arena.write(place + 24, &count.to_ne_bytes());
    }
    p.arena.write_pointer(place + 32, control.0);
    p.arena.write(place + 40, &control.1.to_ne_bytes());
}

const NONE: (Arg, u32) = (NULL, 0);
const NO_CONTROL: (Arg, u64) = (NULL, 0);

fn sendmsg(p: &Probe, fd: RawFd, parts: &[&[u8]], name: (Arg, u32), flags: i32) -> i64 {
    let mut place = DATA;
    let mut vectors = Vec::new();
    for part in parts {
        p.arena.write(place, part);
        vectors.push((at(place), part.len() as u64));
        place += 0x1000;
    }
    let vectors = p.vectors(FREE, &vectors);
    header(p, FREE + 0x100, name, vectors, NO_CONTROL);
    p.call("sendmsg", libc::SYS_sendmsg, &[n(fd), at(FREE + 0x100), n(flags)])
}

fn recvmsg(p: &Probe, fd: RawFd, room: u64, flags: i32) -> i64 {
    let into = DATA + 0x8000;
    let vectors = p.vectors(FREE, &[(at(into), room / 2), (at(into + 0x1000), room - room / 2)]);
    header(p, FREE + 0x100, (at(FREE + 0x200), 64), vectors, (at(FREE + 0x300), 64));
    let answer = p.quiet(libc::SYS_recvmsg, &[n(fd), at(FREE + 0x100), n(flags)]);
    let length = usize::try_from(answer).unwrap_or(0).min(room as usize);
    let first = length.min(room as usize / 2);
    let mut bytes = p.arena.read(into, first);
    bytes.extend(p.arena.read(into + 0x1000, length - first));
    p.line("recvmsg", format!("{} {}", crate::value::result(answer), crate::value::data(&bytes)));
    let header = FREE + 0x100;
    let (name, flags) = (p.number(header + 8), p.number(header + 48));
    p.line("header", format!("name {name}, control {}, flags {flags:#x}", p.number(header + 40)));
    answer
}

fn stream(p: &mut Probe) {
    let fd = p.stream("echo");
    sendmsg(p, fd, &[b"one ", b"", b"two"], NONE, 0);
    p.wait_bytes(fd, 7);
    recvmsg(p, fd, 100, 0);
    recvmsg(p, fd, 100, libc::MSG_DONTWAIT);
    sendmsg(p, fd, &[b"three"], NONE, libc::MSG_MORE);
    sendmsg(p, fd, &[], NONE, 0);
    p.wait_bytes(fd, 5);
    recvmsg(p, fd, 3, libc::MSG_PEEK);
    recvmsg(p, fd, 3, 0);
    recvmsg(p, fd, 0, 0);
    recvmsg(p, fd, 100, 0);
}

fn datagram(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    let [place, _] = p.address(p.peer);
    sendmsg(p, fd, &[b"si", b"ze 100"], (place, 16), 0);
    p.settle(fd, libc::POLLIN);
    recvmsg(p, fd, 10, libc::MSG_PEEK);
    recvmsg(p, fd, 10, libc::MSG_TRUNC);
    let [place, _] = p.address(p.peer);
    sendmsg(p, fd, &[b"x"], (place, 8), 0);
    sendmsg(p, fd, &[b"x"], NONE, 0);
    sendmsg(p, fd, &[], (place, 16), 0);
    p.settle(fd, libc::POLLIN);
    recvmsg(p, fd, 10, 0);
    p.connect_to(fd, p.peer);
    sendmsg(p, fd, &[b"connected"], NONE, 0);
    p.settle(fd, libc::POLLIN);
    recvmsg(p, fd, 100, 0);
}

fn bad(p: &mut Probe) {
    let fd = p.stream("echo");
    p.call("header nowhere", libc::SYS_sendmsg, &[n(fd), BAD, n(0)]);
    p.call("header nowhere", libc::SYS_recvmsg, &[n(fd), BAD, n(0)]);
    header(p, FREE + 0x100, NONE, [BAD, n(1)], NO_CONTROL);
    p.call("vectors nowhere", libc::SYS_sendmsg, &[n(fd), at(FREE + 0x100), n(0)]);
    header(p, FREE + 0x100, NONE, [at(FREE), n(2000)], NO_CONTROL);
    p.call("too many vectors", libc::SYS_sendmsg, &[n(fd), at(FREE + 0x100), n(0)]);
    let vectors = p.vectors(FREE, &[(at(DATA), 4)]);
    header(p, FREE + 0x100, NONE, vectors, (BAD, 32));
    p.call("control nowhere", libc::SYS_sendmsg, &[n(fd), at(FREE + 0x100), n(0)]);
    p.arena.write(FREE + 0x300, &[0xff; 32]);
    header(p, FREE + 0x100, NONE, vectors, (at(FREE + 0x300), 32));
    p.call("bad control", libc::SYS_sendmsg, &[n(fd), at(FREE + 0x100), n(0)]);
    header(p, FREE + 0x100, (BAD, 16), vectors, NO_CONTROL);
    p.call("name nowhere", libc::SYS_sendmsg, &[n(fd), at(FREE + 0x100), n(0)]);
    let datagrams = p.datagrams();
    p.send(datagrams, b"12345", 0);
    p.settle(datagrams, libc::POLLIN);
    let vectors = p.vectors(FREE, &[(BAD, 4)]);
    header(p, FREE + 0x100, NONE, vectors, NO_CONTROL);
    let arguments = [n(datagrams), at(FREE + 0x100), n(libc::MSG_DONTWAIT)];
    p.call("data to nowhere", libc::SYS_recvmsg, &arguments);
}

fn many(p: &mut Probe) {
    let fd = p.datagrams();
    for (number, text) in [&b"first"[..], b"second", b"third"].iter().enumerate() {
        let place = FREE + 0x400 + number * 16;
        p.arena.write(DATA + number * 0x100, text);
        let vectors = p.vectors(place, &[(at(DATA + number * 0x100), text.len() as u64)]);
        header(p, FREE + 0x500 + number * 64, NONE, vectors, NO_CONTROL);
    }
    p.call("sendmmsg", libc::SYS_sendmmsg, &[n(fd), at(FREE + 0x500), n(3), n(0)]);
    for number in 0..3 {
        p.line("sent", p.number(FREE + 0x500 + number * 64 + 56));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    for number in 0..4 {
        let place = FREE + 0x400 + number * 16;
        let vectors = p.vectors(place, &[(at(DATA + 0x1000 + number * 0x100), 20)]);
        header(p, FREE + 0x500 + number * 64, NONE, vectors, NO_CONTROL);
    }
    let flags = n(libc::MSG_WAITFORONE);
    let list = at(FREE + 0x500);
    let count = p.call("recvmmsg", libc::SYS_recvmmsg, &[n(fd), list, n(4), flags, NULL]);
    for number in 0..usize::try_from(count).unwrap_or(0).min(4) {
        let length = p.number(FREE + 0x500 + number * 64 + 56);
        p.arrived("message", length.into(), DATA + 0x1000 + number * 0x100, 20);
    }
    let flags = n(libc::MSG_DONTWAIT);
    p.call("nothing more", libc::SYS_recvmmsg, &[n(fd), list, n(4), flags, NULL]);
    p.call("none", libc::SYS_sendmmsg, &[n(fd), list, n(0), n(0)]);
    p.call("nowhere", libc::SYS_sendmmsg, &[n(fd), BAD, n(2), n(0)]);
}

/// An IPv6 socket, `SOCK_STREAM` or `SOCK_DGRAM`.
fn socket6(p: &Probe, kind: i32) -> RawFd {
    p.open("socket", libc::SYS_socket, &[n(libc::AF_INET6), n(kind), n(0)])
}

fn ipv6_mapped(p: &mut Probe) {
    let IpAddr::V4(ip) = p.peer.ip() else { return };
    let mapped = SocketAddr::new(ip.to_ipv6_mapped().into(), p.peer.port());
    let fd = socket6(p, libc::SOCK_STREAM);
    p.own_name(fd);
    p.get_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 4);
    p.connect_to(fd, mapped);
    p.own_name(fd);
    p.peer_name(fd);
    p.send(fd, b"echo\nhello", 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    let only = socket6(p, libc::SOCK_STREAM);
    p.set_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    p.get_option(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 4);
    p.connect_to(only, mapped);
    let datagrams = socket6(p, libc::SOCK_DGRAM);
    p.connect_to(datagrams, mapped);
    p.send(datagrams, b"hello", 0);
    p.settle(datagrams, libc::POLLIN);
    p.receive(datagrams, 10, 0);
    let old = socket6(p, libc::SOCK_STREAM);
    p.connect_to(old, p.peer);
}

/// A listener on all addresses of both families, reached over IPv4.
fn ipv6_wildcard(p: &mut Probe) {
    let fd = socket6(p, libc::SOCK_STREAM);
    p.bind(fd, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0));
    p.call("listen", libc::SYS_listen, &[n(fd), n(5)]);
    let port = p.own_name(fd);
    let control = p.called_by_peer(port, "hold hello");
    p.settle(fd, libc::POLLIN);
    let accepted = p.open("accept", libc::SYS_accept, &[n(fd), NULL, NULL]);
    p.own_name(accepted);
    p.peer_name(accepted);
    p.wait_bytes(accepted, 5);
    p.receive(accepted, 10, 0);
    p.close(accepted);
    p.receive_all(control);
}

/// Descriptors that are the own kernel's, beside remote ones.
fn local_families(p: &mut Probe) {
    let remote = p.stream("hold hello");
    p.wait_bytes(remote, 5);
    let arguments = [n(libc::AF_UNIX), n(libc::SOCK_STREAM), n(0), at(FREE)];
    p.call("socketpair", libc::SYS_socketpair, &arguments);
    let (a, b) = (p.number(FREE), p.number(FREE + 4));
    p.send(a, b"local", 0);
    p.receive(b, 10, 0);
    p.poll(&[(a, i16::MAX), (b, i16::MAX), (remote, libc::POLLIN)], 0);
    let event = p.open("eventfd", libc::SYS_eventfd2, &[n(3), n(0)]);
    let poll = [(event, libc::POLLIN), (remote, libc::POLLIN | libc::POLLOUT)];
    p.poll(&poll, 0);
    p.arena.write(FREE, &[0; 8]);
    p.call("read", libc::SYS_read, &[n(event), at(FREE), n(8)]);
    p.line("value", p.number(FREE));
    p.poll(&poll, 0);
    // The own machine's loopback.
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = p.socket(libc::SOCK_STREAM);
    p.bind(listener, here);
    p.call("listen", libc::SYS_listen, &[n(listener), n(5)]);
    let port = p.name_of(listener);
    let client = p.socket(libc::SOCK_STREAM);
    p.connect_to(client, SocketAddr::new(here.ip(), port));
    let accepted = p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.send(client, b"own", 0);
    p.receive(accepted, 10, 0);
    let nobody = p.socket(libc::SOCK_STREAM);
    p.connect_to(nobody, SocketAddr::new(here.ip(), 1));
}

/// Ports: chosen, in use, shared, freed.
fn ports(p: &mut Probe) {
    let (first, port) = p.listener(0);
    let any = SocketAddr::from(([0, 0, 0, 0], port));
    let second = p.socket(libc::SOCK_STREAM);
    p.bind(second, any);
    p.set_option(second, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    p.bind(second, any);
    p.close(first);
    p.bind(second, any);
    p.call("listen", libc::SYS_listen, &[n(second), n(5)]);
    p.line("same port", p.own_name(second) == port);
    let third = p.socket(libc::SOCK_DGRAM);
    p.bind(third, any);
    let fourth = p.socket(libc::SOCK_DGRAM);
    p.bind(fourth, any);
    let shared = |p: &Probe| {
        let fd = p.socket(libc::SOCK_DGRAM);
        p.set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        fd
    };
    let (fifth, sixth) = (shared(p), shared(p));
    p.bind(fifth, Probe::any());
    let port = p.own_name(fifth);
    p.bind(sixth, SocketAddr::from(([0, 0, 0, 0], port)));
}

/// Many short connections, one after the other.
fn sequence_of_connections(p: &mut Probe) {
    for _ in 0..30 {
        let fd = p.stream("say hello");
        p.receive_all(fd);
        p.close(fd);
    }
}
