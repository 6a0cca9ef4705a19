//! Every option that there may be, of each level and each kind of socket; and what some say of themselves.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("every_option_tcp_general", tcp_general),
    ("every_option_tcp_own", tcp_own),
    ("every_option_udp_general", udp_general),
    ("every_option_udp_own", udp_own),
    ("every_option_tcp6_general", tcp6_general),
    ("every_option_tcp6_own", tcp6_own),
    ("every_option_udp6_general", udp6_general),
    ("every_option_udp6_own", udp6_own),
    ("every_option_connected_socket", connected_socket),
    ("every_option_connected_ip", connected_ip),
    ("every_option_connected_tcp", connected_tcp),
    ("every_option_connected_udp", connected_udp),
    ("every_option_connected_udp_own", connected_udp_own),
    ("filter_read_back", filter),
    ("zerocopy_stream", zerocopy_stream),
    ("zerocopy_datagram", zerocopy_datagram),
];

const VALUE: usize = FREE + 0x3000;
const LENGTH: usize = FREE + 0x3100;
const TCP: i32 = libc::IPPROTO_TCP;
const UDP: i32 = libc::IPPROTO_UDP;
const SOCKET: i32 = libc::SOL_SOCKET;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;

/// The levels, and their highest options.
const LEVELS: [(i32, i32); 5] = [(SOCKET, 80), (IP, 63), (IPV6, 79), (TCP, 45), (UDP, 106)];
/// Options that `doc/caveats.md` and `doc/decisions/remote-sockets.md` except: source routes, values with pointers
/// or descriptors. Those about interfaces make a socket remote, and those of `SOL_SOCKET` behind 60 say
/// whose namespace it is.
const LEFT_OUT: &[(i32, i32)] = &[(IP, 4), (IPV6, 57), (IPV6, 5), (IPV6, 6), (TCP, 35), (IPV6, 64)];
/// Values that are another's each time: what the machine is busy with, sizes that adapt, addresses, times.
const VARY: &[(i32, i32)] = &[
    (SOCKET, 7),
    (SOCKET, 8),
    (SOCKET, 17),
    (SOCKET, 31),
    (SOCKET, 49),
    (SOCKET, 55),
    (SOCKET, 56),
    (SOCKET, 57),
    (SOCKET, 59),
    (SOCKET, 71),
    (SOCKET, 77),
    (IP, 14),
    (IP, 41),
    (IPV6, 24),
    (IPV6, 61),
    (TCP, 2),
    (TCP, 10),
    (TCP, 11),
    (TCP, 24),
    (TCP, 26),
];

/// Only this kernel's options are the guests'.
fn is_guests_kernel(p: &Probe) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let same = release.starts_with("6.1.");
    if !same {
        p.absent("another kernel, which has other options");
    }
    same
}

/// `getsockopt(2)` with much room: result, length, and the value where it is the same each time.
fn get(p: &Probe, fd: RawFd, level: i32, option: i32) -> String {
    p.arena.write(LENGTH, &64_i32.to_ne_bytes());
    p.arena.write(VALUE, &[0; 64]);
    let arguments = [n(fd), n(level), n(option), at(VALUE), at(LENGTH)];
    let answer = p.quiet(libc::SYS_getsockopt, &arguments);
    if answer < 0 {
        return value::result(answer);
    }
    let length = p.number(LENGTH);
    let bytes = p.arena.read(VALUE, usize::try_from(length).unwrap_or(0).min(64));
    let varies = VARY.contains(&(level, option)) || length > 16;
    let text = if varies { String::new() } else { value::data(&bytes) };
    format!("{length} {text}")
}

/// Gets all options of these levels of a socket, and sets each on a socket of its own where that is not connected.
fn every(p: &Probe, family: i32, kind: i32, levels: &[i32], connected: bool) {
    let make = || {
        let fd = p.quiet(libc::SYS_socket, &[n(family), n(kind), n(0)]) as RawFd;
        if connected {
            let [place, length] = p.address(p.peer);
            let answer = p.quiet(libc::SYS_connect, &[n(fd), place, length]);
            if answer < 0 {
                p.line("connect", value::result(answer));
            }
        }
        fd
    };
    let old = make();
    for (level, most) in LEVELS.into_iter().filter(|(level, _)| levels.contains(level)) {
        // Those of UDP are few, and far from each other.
        let gap = |option: &i32| level == UDP && (16..100).contains(option);
        let left_out = |option: &i32| gap(option) || LEFT_OUT.contains(&(level, *option));
        for option in (0..=most).filter(|option| !left_out(option)) {
            let before = get(p, old, level, option);
            if connected {
                // One connection for each would take too long.
                p.line(&format!("{kind}: {level}.{option}"), before);
                continue;
            }
            let fd = make();
            let set = |length: i32| {
                p.arena.write(VALUE, &1_i64.to_ne_bytes());
                p.quiet(libc::SYS_setsockopt, &[n(fd), n(level), n(option), at(VALUE), n(length)])
            };
            let (short, word) = (value::result(set(3)), value::result(set(4)));
            let after = get(p, fd, level, option);
            p.quiet(libc::SYS_close, &[n(fd)]);
            p.line(
                &format!("{kind}: {level}.{option}"),
                format!("{before}; set {short}, {word}; {after}"),
            );
        }
    }
    p.close(old);
}

fn tcp_general(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_STREAM, &[SOCKET, IP], false);
    }
}

fn tcp_own(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_STREAM, &[IPV6, TCP, UDP], false);
    }
}

fn udp_general(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_DGRAM, &[SOCKET, IP], false);
    }
}

fn udp_own(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_DGRAM, &[IPV6, TCP, UDP], false);
    }
}

fn tcp6_general(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET6, libc::SOCK_STREAM, &[SOCKET, IP], false);
    }
}

fn tcp6_own(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET6, libc::SOCK_STREAM, &[IPV6, TCP], false);
    }
}

fn udp6_general(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET6, libc::SOCK_DGRAM, &[SOCKET, IP], false);
    }
}

fn udp6_own(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET6, libc::SOCK_DGRAM, &[IPV6, UDP], false);
    }
}

fn connected_socket(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_STREAM, &[SOCKET], true);
    }
}

fn connected_ip(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_STREAM, &[IP], true);
    }
}

fn connected_tcp(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_STREAM, &[TCP], true);
    }
}

fn connected_udp(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_DGRAM, &[SOCKET], true);
    }
}

fn connected_udp_own(p: &mut Probe) {
    if is_guests_kernel(p) {
        every(p, libc::AF_INET, libc::SOCK_DGRAM, &[IP, UDP], true);
    }
}

/// `SO_GET_FILTER` counts in instructions.
fn filter(p: &mut Probe) {
    let fd = p.datagrams();
    let get = |label: &str, room: i32| {
        p.arena.write(LENGTH, &room.to_ne_bytes());
        p.arena.write(VALUE, &[0; 64]);
        let option = [n(fd), n(SOCKET), n(libc::SO_ATTACH_FILTER), at(VALUE), at(LENGTH)];
        p.call(label, libc::SYS_getsockopt, &option);
        p.line("length", p.number(LENGTH));
        p.line("value", value::data(&p.arena.read(VALUE, 24)));
    };
    get("none", 8);
    // Load the length, keep everything.
    let program: [u8; 16] = [0x80, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0xff, 0xff, 0, 0];
    p.arena.write(FREE + 64, &program);
    p.arena.write(FREE, &2_u64.to_ne_bytes());
    p.arena.write_pointer(FREE + 8, at(FREE + 64));
    let attach = [n(fd), n(SOCKET), n(libc::SO_ATTACH_FILTER), at(FREE), n(16)];
    p.call("attach", libc::SYS_setsockopt, &attach);
    get("how long", 0);
    get("too little room", 1);
    get("all", 2);
    get("more room", 7);
    get("negative", -1);
    p.set_option(fd, SOCKET, libc::SO_DETACH_FILTER, 0);
    get("none any more", 8);
}

/// Waits for a notification on the error queue, and prints it.
fn notified(p: &Probe, fd: RawFd) {
    let (header, control) = (FREE + 0x4000, FREE + 0x4100);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        p.arena.write(header, &[0; 56]);
        p.arena.write_pointer(header + 32, at(control));
        p.arena.write(header + 40, &200_u64.to_ne_bytes());
        let flags = libc::MSG_ERRQUEUE;
        let answer = p.quiet(libc::SYS_recvmsg, &[n(fd), at(header), n(flags)]);
        if answer == -i64::from(libc::EAGAIN) && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        }
        p.line("notified", value::result(answer));
        if answer >= 0 {
            // `struct cmsghdr`, then `struct sock_extended_err`.
            let place = format!("{}.{}", p.number(control + 8), p.number(control + 12));
            let kind = value::data(&p.arena.read(control + 20, 3));
            let range = (p.number(control + 24), p.number(control + 28));
            p.line(
                "notification",
                format!("{place} errno {} {kind} {range:?}", p.number(control + 16)),
            );
        }
        return;
    }
}

fn zerocopy_stream(p: &mut Probe) {
    let fd = p.stream("count");
    let bytes = value::pattern(100_000);
    // Without the option the flag means nothing.
    p.send(fd, &bytes[..1000], libc::MSG_ZEROCOPY);
    p.get_option(fd, SOCKET, libc::SO_ZEROCOPY, 4);
    p.set_option(fd, SOCKET, libc::SO_ZEROCOPY, 2);
    p.set_option(fd, SOCKET, libc::SO_ZEROCOPY, 1);
    p.get_option(fd, SOCKET, libc::SO_ZEROCOPY, 4);
    for _ in 0..2 {
        p.send(fd, &bytes, libc::MSG_ZEROCOPY);
        p.settle(fd, libc::POLLERR);
        notified(p, fd);
    }
    // What the program does with its memory meanwhile changes nothing.
    p.arena.write(DATA, &[0; 1000]);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.receive_all(fd);
    p.call(
        "nothing more",
        libc::SYS_recvfrom,
        &[n(fd), at(DATA), n(10), n(libc::MSG_ERRQUEUE), NULL, NULL],
    );
}

fn zerocopy_datagram(p: &mut Probe) {
    let fd = p.datagrams();
    p.set_option(fd, SOCKET, libc::SO_ZEROCOPY, 1);
    for length in [10, 1400] {
        p.send(fd, &value::pattern(length), libc::MSG_ZEROCOPY);
        p.settle(fd, libc::POLLIN);
        p.receive(fd, 2000, 0);
        notified(p, fd);
    }
}
