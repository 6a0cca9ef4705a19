//! UDP, and vectors of buffers.
use super::Case;
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use std::net::SocketAddr;

pub const CASES: &[Case] = &[
    ("udp_echo", echo),
    ("udp_truncation", truncation),
    ("udp_from_strangers", from_strangers),
    ("udp_unconnected", unconnected),
    ("udp_refused", refused),
    ("udp_disconnect", disconnect),
    ("vectors", vectors),
];

fn echo(p: &mut Probe) {
    let fd = p.datagrams();
    p.send(fd, b"one", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
    p.send(fd, b"", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
    p.receive(fd, 100, libc::MSG_DONTWAIT);
    p.peer_name(fd);
    p.own_name(fd);
    p.send(fd, &[7; 65508], 0);
    p.send(fd, &[7; 1400], 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 65536, 0);
}

fn truncation(p: &mut Probe) {
    let fd = p.datagrams();
    p.send(fd, b"size 100", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 10, libc::MSG_PEEK);
    p.receive(fd, 10, libc::MSG_PEEK | libc::MSG_TRUNC);
    p.receive(fd, 10, 0);
    p.receive(fd, 10, libc::MSG_DONTWAIT);
    p.send(fd, b"size 100", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 0, 0);
    p.send(fd, b"two", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 3, libc::MSG_TRUNC);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, libc::MSG_WAITALL);
}

fn from_strangers(p: &mut Probe) {
    // Connected: only the peer is heard.
    let fd = p.datagrams();
    p.send(fd, b"stranger", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
    p.receive(fd, 100, libc::MSG_DONTWAIT);
    // Not connected: everybody is.
    let fd = p.socket(libc::SOCK_DGRAM);
    let [place, length] = p.address(p.peer);
    p.arena.write(DATA, b"stranger");
    p.call("sendto", libc::SYS_sendto, &[n(fd), at(DATA), n(8), n(0), place, length]);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
}

fn unconnected(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    p.send(fd, b"x", 0);
    p.peer_name(fd);
    let [place, length] = p.address(p.peer);
    p.arena.write(DATA, b"hello");
    p.call("sendto", libc::SYS_sendto, &[n(fd), at(DATA), n(5), n(0), place, length]);
    p.settle(fd, libc::POLLIN);
    p.arena.write(FREE, &64_i32.to_ne_bytes());
    let arguments = [n(fd), at(DATA), n(100), n(0), at(FREE + 8), at(FREE)];
    let answer = p.quiet(libc::SYS_recvfrom, &arguments);
    p.arrived("recvfrom", answer, DATA, 100);
    p.line("length", p.number(FREE));
    let port = p.arena.read(FREE + 10, 2);
    p.line("from the peer", port == p.peer.port().to_be_bytes());
    p.call("no address", libc::SYS_sendto, &[n(fd), at(DATA), n(5), n(0), NULL, NULL]);
    p.call("bad address", libc::SYS_sendto, &[n(fd), at(DATA), n(5), n(0), BAD, n(16)]);
    p.call("short address", libc::SYS_sendto, &[n(fd), at(DATA), n(5), n(0), place, n(3)]);
    p.call("listen", libc::SYS_listen, &[n(fd), n(1)]);
    p.open("accept", libc::SYS_accept, &[n(fd), NULL, NULL]);
}

fn refused(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    p.connect_to(fd, SocketAddr::new(p.peer.ip(), 1));
    p.send(fd, b"x", 0);
    p.settle(fd, libc::POLLERR);
    p.receive(fd, 10, 0);
    p.receive(fd, 10, libc::MSG_DONTWAIT);
    p.send(fd, b"x", 0);
    p.settle(fd, libc::POLLERR);
    p.error_of(fd);
    p.error_of(fd);
}

fn disconnect(p: &mut Probe) {
    let fd = p.datagrams();
    p.arena.write(FREE, &[0; 16]);
    p.call("disconnect", libc::SYS_connect, &[n(fd), at(FREE), n(16)]);
    p.peer_name(fd);
    p.send(fd, b"x", 0);
    p.connect_to(fd, p.peer);
    p.peer_name(fd);
    p.send(fd, b"again", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 10, 0);
}

fn vectors(p: &mut Probe) {
    let fd = p.stream("echo");
    p.arena.write(DATA, b"hello world!");
    let three = [(at(DATA), 5), (at(DATA + 5), 1), (at(DATA + 6), 6)];
    let [place, count] = p.vectors(FREE, &three);
    p.call("writev", libc::SYS_writev, &[n(fd), place, count]);
    p.wait_bytes(fd, 12);
    let into = DATA + 0x1000;
    let two = [(at(into), 4), (at(into + 100), 100)];
    let [place, count] = p.vectors(FREE, &two);
    p.call("readv", libc::SYS_readv, &[n(fd), place, count]);
    p.arrived("first", 4, into, 4);
    p.arrived("second", 8, into + 100, 8);
    let [place, count] = p.vectors(FREE, &[(at(DATA), 3), (BAD, 3)]);
    p.call("writev, second bad", libc::SYS_writev, &[n(fd), place, count]);
    let [place, count] = p.vectors(FREE, &[(BAD, 3), (at(DATA), 3)]);
    p.call("writev, first bad", libc::SYS_writev, &[n(fd), place, count]);
    let [place, count] = p.vectors(FREE, &[(at(DATA), 3), (at(DATA), u64::MAX)]);
    p.call("writev, negative", libc::SYS_writev, &[n(fd), place, count]);
    p.call("writev, too many", libc::SYS_writev, &[n(fd), place, n(1025)]);
    p.call("writev, none", libc::SYS_writev, &[n(fd), place, n(0)]);
    p.call("writev, list nowhere", libc::SYS_writev, &[n(fd), BAD, n(1)]);
    p.call("pwrite", libc::SYS_pwrite64, &[n(fd), at(DATA), n(3), n(0)]);
    p.call("pread", libc::SYS_pread64, &[n(fd), at(DATA), n(3), n(0)]);
    p.call("lseek", libc::SYS_lseek, &[n(fd), n(0), n(0)]);
}
