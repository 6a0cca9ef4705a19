//! Echo requests on datagram sockets (ICMP), where the system lets this user make them
//! (`net.ipv4.ping_group_range`, `icmp(7)`).
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("ping_unconnected", unconnected),
    ("ping_connected", connected),
    ("ping_bound", bound),
    ("ping_bad", bad),
    ("ping_options", options),
];

/// Types of messages.
const ECHO: u8 = 8;
const REPLY: u8 = 0;

/// A socket, if it may be made.
fn open(p: &Probe) -> Option<RawFd> {
    let icmp = [n(libc::AF_INET), n(libc::SOCK_DGRAM), n(libc::IPPROTO_ICMP)];
    let fd = p.quiet(libc::SYS_socket, &icmp);
    if fd == -i64::from(libc::EACCES) {
        p.absent("echo requests are not for this user");
        return None;
    }
    p.line("socket", if fd >= 0 { "open".into() } else { value::result(fd) });
    Some(fd as RawFd)
}

/// An echo request; the kernel fills in identifier and sum.
fn request(kind: u8, number: u16, bytes: &[u8]) -> Vec<u8> {
    let mut request = vec![kind, 0, 0, 0, 0x12, 0x34];
    request.extend(number.to_be_bytes());
    request.extend(bytes);
    request
}

fn target(p: &Probe) -> SocketAddr {
    SocketAddr::new(p.peer.ip(), 0)
}

fn send_to(p: &Probe, label: &str, fd: RawFd, bytes: &[u8], to: SocketAddr) {
    p.arena.write(DATA, bytes);
    let [place, length] = p.address(to);
    let arguments = [n(fd), at(DATA), n(bytes.len() as i64), n(0), place, length];
    p.call(label, libc::SYS_sendto, &arguments);
}

/// Receives a message and says what is the same each time: all but the sum and the identifier.
fn answer(p: &Probe, fd: RawFd) -> u16 {
    p.settle(fd, libc::POLLIN);
    let room = DATA + 0x1000;
    let answer = p.quiet(libc::SYS_recvfrom, &[n(fd), at(room), n(200), n(0), NULL, NULL]);
    let bytes = p.arena.read(room, usize::try_from(answer).unwrap_or(0));
    let [kind, code, _, _, high, low, rest @ ..] = &bytes[..] else {
        p.line("answer", value::result(answer));
        return 0;
    };
    p.line("answer", format!("{answer}: type {kind}, code {code}, {}", value::data(rest)));
    u16::from_be_bytes([*high, *low])
}

fn unconnected(p: &mut Probe) {
    let Some(fd) = open(p) else { return };
    send_to(p, "sendto", fd, &request(ECHO, 1, b"one"), target(p));
    let first = answer(p, fd);
    send_to(p, "sendto", fd, &request(ECHO, 2, &[7; 100]), target(p));
    p.line("same identifier", answer(p, fd) == first);
    p.line("is the port", p.name_of(fd) == first);
    p.receive(fd, 10, libc::MSG_DONTWAIT);
    // Messages have a name.
    send_to(p, "sendto", fd, &request(ECHO, 3, b""), target(p));
    p.settle(fd, libc::POLLIN);
    p.arena.write(FREE, &16_i32.to_ne_bytes());
    let arguments = [n(fd), at(DATA), n(100), n(0), at(FREE + 16), at(FREE)];
    p.call("recvfrom", libc::SYS_recvfrom, &arguments);
    let name = p.arena.read(FREE + 16, 8);
    let IpAddr::V4(own) = p.peer.ip() else { return };
    p.line("from", format!("{} {}", p.number(FREE), name[4..8] == own.octets()));
    p.line("port", u16::from_be_bytes([name[2], name[3]]));
    p.close(fd);
}

fn connected(p: &mut Probe) {
    let Some(fd) = open(p) else { return };
    p.send(fd, &request(ECHO, 1, b"nowhere"), 0);
    p.connect_to(fd, target(p));
    p.send(fd, &request(ECHO, 1, b"one"), 0);
    answer(p, fd);
    p.arena.write(DATA, &request(ECHO, 2, b"two"));
    p.call("write", libc::SYS_write, &[n(fd), at(DATA), n(11)]);
    answer(p, fd);
    p.peer_name(fd);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_RDWR)]);
    p.close(fd);
}

fn bound(p: &mut Probe) {
    let Some(fd) = open(p) else { return };
    p.bind(fd, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0x4321)));
    p.own_name(fd);
    send_to(p, "sendto", fd, &request(ECHO, 1, b"one"), target(p));
    p.line("identifier", answer(p, fd) == 0x4321);
    p.bind(fd, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0x4322)));
    let Some(other) = open(p) else { return };
    p.bind(other, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0x4321)));
    p.close(fd);
    p.bind(other, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0x4321)));
}

fn bad(p: &mut Probe) {
    let Some(fd) = open(p) else { return };
    send_to(p, "reply", fd, &request(REPLY, 1, b"one"), target(p));
    send_to(p, "too short", fd, &[ECHO, 0, 0, 0], target(p));
    send_to(p, "bad code", fd, &[ECHO, 1, 0, 0, 0, 0, 0, 0], target(p));
    p.arena.write(DATA, &request(ECHO, 1, b"one"));
    let [place, _] = p.address(target(p));
    let short = [n(fd), at(DATA), n(11), n(0), place, n(8)];
    p.call("short address", libc::SYS_sendto, &short);
    p.call("listen", libc::SYS_listen, &[n(fd), n(1)]);
    p.call("accept", libc::SYS_accept, &[n(fd), NULL, NULL]);
    p.send(fd, &request(ECHO, 1, b"x"), libc::MSG_OOB);
    let wrong = [n(libc::AF_INET), n(libc::SOCK_STREAM), n(libc::IPPROTO_ICMP)];
    p.open("stream", libc::SYS_socket, &wrong);
}

fn options(p: &mut Probe) {
    let Some(fd) = open(p) else { return };
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 4);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL, 4);
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_TTL, 7);
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
    p.timeout(fd, libc::SO_RCVTIMEO, 200);
    p.receive(fd, 10, 0);
    send_to(p, "sendto", fd, &request(ECHO, 1, b"one"), target(p));
    answer(p, fd);
    p.get_option(fd, libc::IPPROTO_IP, libc::IP_TTL, 4);
}
