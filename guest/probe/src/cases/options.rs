//! Options, time limits, commands, urgent data.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use crate::value;
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("options_read_back", read_back),
    ("options_kept_at_connect", kept_at_connect),
    ("options_unknown", unknown),
    ("options_time_limits", time_limits),
    ("options_low_water", low_water),
    ("reuse_only_when_asked", reuse_only_when_asked),
    ("urgent_data", urgent_data),
    ("commands", commands),
    ("more_data", more_data),
    ("discarded_data", discarded_data),
    ("filters", filters),
    ("raw_sockets", raw_sockets),
    ("routing_socket", routing_socket),
];

/// Options of an `int` that every Linux takes from everybody: level, option, value.
const NUMBERS: &[(i32, i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, 1),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, 1),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, 40_000),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, 7),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1),
    (libc::IPPROTO_IP, libc::IP_TTL, 33),
    (libc::IPPROTO_IP, libc::IP_TOS, 0x10),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, 2),
    (libc::IPPROTO_IP, libc::IP_RECVERR, 1),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 5),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1),
];
const TCP_NUMBERS: &[(i32, i32, i32)] = &[
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
    (libc::IPPROTO_TCP, libc::TCP_CORK, 1),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 11),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT, 3),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2, 9),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 5000),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, 900),
];

fn read_back(p: &mut Probe) {
    let stream = p.stream("hold x");
    let datagrams = p.datagrams();
    for (level, option, number) in NUMBERS {
        for fd in [stream, datagrams] {
            p.set_option(fd, *level, *option, *number);
            p.get_option(fd, *level, *option, 4);
        }
    }
    for (level, option, number) in TCP_NUMBERS {
        p.set_option(stream, *level, *option, *number);
        if *option != libc::TCP_MAXSEG {
            p.get_option(stream, *level, *option, 4);
        }
    }
    for option in [libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL, libc::SO_ACCEPTCONN] {
        p.get_option(stream, libc::SOL_SOCKET, option, 4);
        p.get_option(datagrams, libc::SOL_SOCKET, option, 2);
    }
    p.get_option(stream, libc::SOL_SOCKET, libc::SO_TYPE, -1);
    p.set_option(datagrams, libc::IPPROTO_UDP, libc::UDP_CORK, 1);
    p.get_option(datagrams, libc::IPPROTO_UDP, libc::UDP_CORK, 4);
}

/// A value of two words: `struct linger`, or two 64-bit words for `struct timeval`.
fn set_words(p: &Probe, fd: RawFd, option: i32, words: &[u8]) {
    p.arena.write(FREE, words);
    let length = n(words.len() as i64);
    let arguments = [n(fd), n(libc::SOL_SOCKET), n(option), at(FREE), length];
    p.call(&format!("set words {option}"), libc::SYS_setsockopt, &arguments);
}

fn kept_at_connect(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM);
    set_words(p, fd, libc::SO_LINGER, &[1_i32.to_ne_bytes(), 5_i32.to_ne_bytes()].concat());
    for (level, option, number) in NUMBERS.iter().chain(TCP_NUMBERS) {
        p.set_option(fd, *level, *option, *number);
    }
    // The last value counts.
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_TTL, 44);
    p.connect_to(fd, p.peer);
    for (level, option, _) in NUMBERS.iter().chain(TCP_NUMBERS) {
        if *option != libc::TCP_MAXSEG {
            p.get_option(fd, *level, *option, 4);
        }
    }
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, 8);
}

fn unknown(p: &mut Probe) {
    let fd = p.stream("hold x");
    for (level, option) in [(1, 999), (6, 999), (0, 63), (41, 79), (17, 1), (999, 1), (-1, 1)] {
        p.set_option(fd, level, option, 1);
        p.get_option(fd, level, option, 4);
    }
    let datagrams = p.datagrams();
    p.set_option(datagrams, 6, 1, 1);
    p.set_option(datagrams, 999, 1, 1);
}

fn time_limits(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM);
    let time = |seconds: i64, microseconds: i64| {
        [seconds.to_ne_bytes(), microseconds.to_ne_bytes()].concat()
    };
    set_words(p, fd, libc::SO_RCVTIMEO, &time(0, 200_000));
    p.connect_to(fd, p.peer);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, 16);
    p.receive(fd, 10, 0);
    p.call("read", libc::SYS_read, &[n(fd), at(DATA), n(1)]);
    set_words(p, fd, libc::SO_RCVTIMEO, &time(0, 1_000_000));
    set_words(p, fd, libc::SO_RCVTIMEO, &time(0, 0)[..8]);
    set_words(p, fd, libc::SO_SNDTIMEO, &time(0, 200_000));
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, 16);
    // The peer does not read: sending ends by the limit.
    p.arena.write(DATA, b"stall\n");
    p.quiet(libc::SYS_write, &[n(fd), at(DATA), n(6)]);
    let last = loop {
        let answer = p.quiet(libc::SYS_write, &[n(fd), at(DATA), n(400_000)]);
        if answer <= 0 {
            break answer;
        }
    };
    p.line("sending ends", value::result(last));
    // What accept makes has the listening socket's limits.
    let (listener, port) = p.listener(0);
    set_words(p, listener, libc::SO_RCVTIMEO, &time(0, 200_000));
    p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.called_by_peer(port, "hold x");
    p.settle(listener, libc::POLLIN);
    let fd = p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, 16);
    p.receive(fd, 1, 0);
    p.receive(fd, 1, 0);
}

fn low_water(p: &mut Probe) {
    let fd = p.stream("later abcdef");
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 5);
    p.receive(fd, 100, 0);
    let fd = p.stream("say abc");
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 5);
    p.receive(fd, 100, 0);
}

fn reuse_only_when_asked(p: &mut Probe) {
    let (listener, port) = p.listener(0);
    p.get_option(listener, libc::SOL_SOCKET, libc::SO_REUSEADDR, 4);
    p.get_option(listener, libc::SOL_SOCKET, libc::SO_REUSEPORT, 4);
    let mut address = Probe::any();
    address.set_port(port);
    let second = p.socket(libc::SOCK_STREAM);
    p.bind(second, address);
    p.set_option(second, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
    p.bind(second, address);
    p.close(listener);
    p.bind(second, address);
    p.call("listen", libc::SYS_listen, &[n(second), n(1)]);
    let third = p.socket(libc::SOCK_STREAM);
    p.set_option(third, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
    p.bind(third, address);
    p.call("listen", libc::SYS_listen, &[n(third), n(1)]);
}

fn urgent_data(p: &mut Probe) {
    let fd = p.stream("urgent");
    p.receive(fd, 1, libc::MSG_WAITALL);
    p.settle(fd, libc::POLLPRI);
    p.wait_bytes(fd, 1);
    p.receive(fd, 10, 0);
    p.call("at mark", libc::SYS_ioctl, &[n(fd), n(0x8905), at(FREE)]);
    p.line("at mark", p.number(FREE));
    p.receive(fd, 10, libc::MSG_OOB);
    p.receive(fd, 10, libc::MSG_OOB);
    p.receive(fd, 2, libc::MSG_WAITALL);
    let plain = p.stream("echo");
    p.receive(plain, 10, libc::MSG_OOB);
    p.send(plain, b"xy", libc::MSG_OOB);
}

fn commands(p: &mut Probe) {
    let fd = p.stream("hold hello");
    p.wait_bytes(fd, 5);
    for command in [0x541b, 0x5411, 0x894b, 0x8905] {
        p.arena.write(FREE, &77_i32.to_ne_bytes());
        p.call(&format!("{command:#x}"), libc::SYS_ioctl, &[n(fd), n(command), at(FREE)]);
        p.line("number", p.number(FREE));
    }
    p.call("terminal", libc::SYS_ioctl, &[n(fd), n(0x5401), at(FREE)]);
    p.call("window", libc::SYS_ioctl, &[n(fd), n(0x5413), at(FREE)]);
    p.arena.write(FREE, &1_i32.to_ne_bytes());
    p.call("FIONBIO", libc::SYS_ioctl, &[n(fd), n(0x5421), at(FREE)]);
    p.receive(fd, 10, 0);
    p.receive(fd, 10, 0);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFL), n(0)]);
    let datagrams = p.datagrams();
    p.call("no time yet", libc::SYS_ioctl, &[n(datagrams), n(0x8906), at(FREE)]);
    p.send(datagrams, b"size 9", 0);
    p.settle(datagrams, libc::POLLIN);
    p.call("size", libc::SYS_ioctl, &[n(datagrams), n(0x541b), at(FREE)]);
    p.line("size", p.number(FREE));
    // Interfaces: number 1 is the same everywhere.
    p.arena.write(FREE, &[0; 40]);
    p.arena.write(FREE, b"lo");
    p.call("SIOCGIFINDEX", libc::SYS_ioctl, &[n(datagrams), n(0x8933), at(FREE)]);
    p.line("index", p.number(FREE + 16));
    p.arena.write(FREE, b"none");
    p.call("SIOCGIFINDEX", libc::SYS_ioctl, &[n(datagrams), n(0x8933), at(FREE)]);
    p.arena.write(FREE, &[0; 16]);
    p.call("SIOCGIFCONF", libc::SYS_ioctl, &[n(datagrams), n(0x8912), at(FREE)]);
    p.line("whole entries", p.number(FREE) % 40);
}

fn more_data(p: &mut Probe) {
    let fd = p.datagrams();
    p.send(fd, b"one ", libc::MSG_MORE);
    p.send(fd, b"datagram", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 100, 0);
    let fd = p.stream("count");
    p.send(fd, b"a", libc::MSG_MORE);
    p.send(fd, b"b", libc::MSG_MORE | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.receive_all(fd);
}

fn discarded_data(p: &mut Probe) {
    let fd = p.stream("hold abcdef");
    p.wait_bytes(fd, 6);
    p.arena.write(DATA, b"untouched");
    let arguments = [n(fd), at(DATA), n(4), n(libc::MSG_TRUNC), NULL, NULL];
    p.call("discard", libc::SYS_recvfrom, &arguments);
    p.arrived("buffer", 9, DATA, 9);
    p.receive(fd, 10, 0);
}

fn filters(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_DGRAM);
    // BPF_RET | BPF_K: drop.
    let (program, drop) = (FREE + 64, [6_u16, 0, 0, 0]);
    p.arena.write(program, &drop.map(u16::to_ne_bytes).concat());
    p.arena.write(FREE, &1_u64.to_ne_bytes());
    p.arena.write_pointer(FREE + 8, at(program));
    let attach = [n(fd), n(libc::SOL_SOCKET), n(libc::SO_ATTACH_FILTER), at(FREE), n(16)];
    p.call("attach", libc::SYS_setsockopt, &attach);
    p.connect_to(fd, p.peer);
    p.send(fd, b"dropped", 0);
    p.poll(&[(fd, libc::POLLIN)], 300);
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
    p.send(fd, b"kept", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 10, 0);
    p.arena.write(FREE, &0_u64.to_ne_bytes());
    p.call("empty", libc::SYS_setsockopt, &attach);
}

/// `SOCK_PACKET`, which only means something with `AF_INET`.
const PACKET: i32 = 10;

fn raw_sockets(p: &mut Probe) {
    p.quiet(libc::SYS_setuid, &[n(65534)]);
    for (family, kind, protocol) in [
        (libc::AF_INET, libc::SOCK_RAW, 1),
        (libc::AF_INET, libc::SOCK_RAW, 0),
        (libc::AF_INET, libc::SOCK_RAW, 300),
        (libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 58),
        (libc::AF_INET, PACKET, 0),
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_PACKET, libc::SOCK_DGRAM, 8),
        (libc::AF_INET, libc::SOCK_RAW | 0x10, 1),
    ] {
        p.open("socket", libc::SYS_socket, &[n(family), n(kind), n(protocol)]);
    }
}

/// What `getaddrinfo` and `getifaddrs` ask.
fn routing_socket(p: &mut Probe) {
    let arguments = [n(libc::AF_NETLINK), n(libc::SOCK_RAW | libc::SOCK_CLOEXEC), n(0)];
    let fd = p.open("socket", libc::SYS_socket, &arguments);
    let name = FREE;
    p.arena.write(name, &[0; 12]);
    p.arena.write(name, &(libc::AF_NETLINK as u16).to_ne_bytes());
    p.call("bind", libc::SYS_bind, &[n(fd), at(name), n(12)]);
    p.arena.write(FREE + 64, &12_i32.to_ne_bytes());
    p.call("getsockname", libc::SYS_getsockname, &[n(fd), at(name), at(FREE + 64)]);
    p.line("length", p.number(FREE + 64));
    let own = p.number(name + 4);
    p.line("has a number", own != 0);
    // RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, number 7, AF_UNSPEC.
    let request = [20_u32, 22 | 0x301 << 16, 7, 0, 0].map(u32::to_ne_bytes).concat();
    p.arena.write(DATA, &request);
    p.arena.write(name, &[0; 12]);
    p.arena.write(name, &(libc::AF_NETLINK as u16).to_ne_bytes());
    p.call("sendto", libc::SYS_sendto, &[n(fd), at(DATA), n(20), n(0), at(name), n(12)]);
    let mut loopback = false;
    for _ in 0..20 {
        let answer = p.quiet(libc::SYS_recvfrom, &[n(fd), at(DATA), n(8192), n(0), NULL, NULL]);
        let Ok(length) = usize::try_from(answer) else {
            return p.line("recvfrom", value::result(answer));
        };
        let bytes = p.arena.read(DATA, length);
        loopback |= bytes.windows(8).any(|w| w == [8, 0, 2, 0, 127, 0, 0, 1]);
        let word = |at: usize| bytes.get(at..at + 4).map(|w| [w[0], w[1], w[2], w[3]]);
        if word(4).is_some_and(|w| w[0] == 3) {
            let sender = word(12).map(i32::from_ne_bytes);
            p.line("done", sender == Some(own));
            break;
        }
    }
    p.line("loopback is there", loopback);
}
