//! `poll`, `select` and their kin over local and remote descriptors; options.
use super::Case;
use crate::probe::{BAD, FREE, NULL, Probe, at, n};

pub const CASES: &[Case] = &[("options", options), ("poll_mixed", poll_mixed)];

fn options(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM);
    let own = [libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL, libc::SO_ACCEPTCONN];
    for option in own {
        p.get_option(fd, libc::SOL_SOCKET, option, 4);
    }
    let fd = p.stream("echo");
    for option in [libc::SO_REUSEADDR, libc::SO_KEEPALIVE, libc::SO_BROADCAST, libc::SO_OOBINLINE] {
        p.get_option(fd, libc::SOL_SOCKET, option, 4);
        p.set_option(fd, libc::SOL_SOCKET, option, 7);
        p.get_option(fd, libc::SOL_SOCKET, option, 4);
    }
    for option in own {
        p.get_option(fd, libc::SOL_SOCKET, option, 4);
    }
    for option in [libc::TCP_NODELAY, libc::TCP_KEEPIDLE, libc::TCP_KEEPCNT, libc::TCP_CORK] {
        p.get_option(fd, libc::IPPROTO_TCP, option, 4);
        p.set_option(fd, libc::IPPROTO_TCP, option, 1);
        p.get_option(fd, libc::IPPROTO_TCP, option, 4);
    }
    for option in [libc::IP_TTL, libc::IP_TOS] {
        p.set_option(fd, libc::IPPROTO_IP, option, 32);
        p.get_option(fd, libc::IPPROTO_IP, option, 4);
        p.get_option(fd, libc::IPPROTO_IP, option, 1);
    }
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 2);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 0);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, -1);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 64);
    p.get_option(fd, libc::SOL_SOCKET, 9999, 4);
    p.get_option(fd, 9999, 1, 4);
    p.set_option(fd, libc::SOL_SOCKET, 9999, 4);
    p.set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 100_000);
    p.set_option(fd, libc::IPPROTO_IP, libc::IP_TTL, 300);
}

fn poll_mixed(p: &mut Probe) {
    let remote = p.stream("echo");
    let (read, write) = p.pipe(0);
    let all = i16::MAX;
    p.poll(&[(remote, libc::POLLIN), (read, all)], 0);
    p.poll(&[(remote, all), (read, all), (write, all)], 0);
    p.poll(&[(remote, libc::POLLIN), (read, libc::POLLIN)], 50);
    p.call("write", libc::SYS_write, &[n(write), at(FREE), n(1)]);
    p.poll(&[(remote, libc::POLLIN), (read, all)], 1000);
    p.poll(&[(read, all), (remote, libc::POLLIN)], -1);
    p.send(remote, b"x", 0);
    p.wait_bytes(remote, 1);
    p.poll(&[(remote, all), (read, all)], -1);
    p.call("read", libc::SYS_read, &[n(read), at(FREE), n(1)]);
    p.poll(&[(read, libc::POLLIN), (remote, libc::POLLIN)], -1);
    p.poll(&[(-1, all), (999, all), (remote, 0), (-7, 0)], 0);
    p.poll(&[(remote, all), (remote, libc::POLLIN), (remote, libc::POLLPRI)], 0);
    p.close(write);
    p.poll(&[(read, all), (remote, libc::POLLPRI)], -1);
    p.poll(&[], 10);
    p.call("no memory", libc::SYS_poll, &[BAD, n(1), n(0)]);
    p.call("too many", libc::SYS_poll, &[at(FREE), n(i32::MAX), n(0)]);
    p.call("none", libc::SYS_poll, &[NULL, n(0), n(0)]);
}
