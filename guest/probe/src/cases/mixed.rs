//! `poll`, `select` and their kin over local and remote descriptors; options.
use super::Case;
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use crate::value::{pattern, result};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    ("options", options),
    ("poll_mixed", poll_mixed),
    ("poll_times_out", poll_times_out),
    ("select_mixed", select_mixed),
    ("urgent_data", urgent_data),
    ("stalled_peer", stalled_peer),
    ("many_bytes", many_bytes),
];

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

/// Time-outs are kept: never early, and not later than a busy machine explains.
fn poll_times_out(p: &mut Probe) {
    let remote = p.stream("echo");
    let (read, _) = p.pipe(0);
    for milliseconds in [0, 1, 100, 400] {
        let start = Instant::now();
        p.poll(&[(remote, libc::POLLIN), (read, libc::POLLIN)], milliseconds);
        let waited = start.elapsed();
        p.line("not early", waited >= Duration::from_millis(milliseconds as u64));
    }
    // `ppoll` and `pselect6` leave what is left; `select` does, too.
    let set = p.poll_set(&[(remote, libc::POLLIN)]);
    p.arena.write(FREE, &0_i64.to_ne_bytes());
    p.arena.write(FREE + 8, &200_000_000_i64.to_ne_bytes());
    p.call("ppoll", libc::SYS_ppoll, &[set, n(1), at(FREE), NULL, n(8)]);
    p.line("left", p.arena.read(FREE, 16).iter().all(|byte| *byte == 0));
    p.arena.write(FREE + 8, &1_000_000_000_i64.to_ne_bytes());
    p.call("bad time", libc::SYS_ppoll, &[set, n(1), at(FREE), NULL, n(8)]);
    p.call("time nowhere", libc::SYS_ppoll, &[set, n(1), BAD, NULL, n(8)]);
    p.arena.write(FREE, &0_i64.to_ne_bytes());
    p.arena.write(FREE + 8, &200_000_i64.to_ne_bytes());
    p.select_bit(FREE + 0x100, remote);
    p.call("select", libc::SYS_select, &[n(remote + 1), at(FREE + 0x100), NULL, NULL, at(FREE)]);
    p.line("left", p.arena.read(FREE, 16).iter().all(|byte| *byte == 0));
}

fn select_mixed(p: &mut Probe) {
    let remote = p.stream("echo");
    let (read, write) = p.pipe(0);
    let top = n(remote.max(write) + 1);
    let (input, output, other) = (FREE, FREE + 0x100, FREE + 0x200);
    let time = FREE + 0x300;
    p.arena.write(time, &[0; 16]);
    let round = |label: &str, label_of: &[(&str, usize, i32)], timeout| {
        p.arena.write(input, &[0; 128]);
        for (_, place, fd) in label_of {
            p.select_bit(*place, *fd);
        }
        let answer = p.quiet(libc::SYS_select, &[top, at(input), at(output), at(other), timeout]);
        let set: Vec<String> = label_of
            .iter()
            .map(|(name, place, fd)| format!("{name} {}", p.selected(*place, *fd)))
            .collect();
        p.line(label, format!("{}: {}", result(answer), set.join(", ")));
    };
    round(
        "writable",
        &[("in", input, remote), ("out", output, remote), ("other", other, remote)],
        at(time),
    );
    round(
        "local",
        &[("in", input, read), ("out", output, write), ("other", other, remote)],
        at(time),
    );
    round("wait", &[("in", input, read), ("out", output, remote), ("other", other, read)], NULL);
    p.close(read);
    p.select_bit(input, read);
    p.call("closed", libc::SYS_select, &[top, at(input), NULL, NULL, at(time)]);
    p.call("negative", libc::SYS_select, &[n(-1), NULL, NULL, NULL, at(time)]);
    p.call("nowhere", libc::SYS_select, &[top, BAD, NULL, NULL, at(time)]);
    p.call("nothing", libc::SYS_select, &[n(0), NULL, NULL, NULL, at(time)]);
    p.select_bit(input, remote);
    p.arena.write(time, &[0; 16]);
    p.call("pselect6", libc::SYS_pselect6, &[top, at(input), NULL, NULL, at(time), NULL]);
}

fn urgent_data(p: &mut Probe) {
    let fd = p.stream("urgent");
    p.settle(fd, libc::POLLIN | libc::POLLPRI);
    p.receive(fd, 1, libc::MSG_OOB);
    p.receive(fd, 1, libc::MSG_OOB);
    p.wait_bytes(fd, 2);
    p.receive(fd, 10, 0);
    p.call("SIOCATMARK", libc::SYS_ioctl, &[n(fd), n(0x8905), at(FREE)]);
    p.line("mark", p.number(FREE));
    p.wait_bytes(fd, 2);
    p.receive(fd, 10, 0);
    let fd = p.stream("echo");
    p.send(fd, b"u", libc::MSG_OOB);
    p.wait_bytes(fd, 0);
}

/// A peer that does not read: a full socket, and writability once it does.
fn stalled_peer(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    p.set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 20_000);
    p.connect_to(fd, p.peer);
    p.settle(fd, libc::POLLOUT);
    p.send(fd, b"stall\n", 0);
    let full = loop {
        let sent = p.quiet(libc::SYS_write, &[n(fd), at(DATA), n(1 << 20)]);
        if sent < 0 {
            break sent;
        }
    };
    p.line("full", result(full));
    let other = p.stream("echo");
    p.send(other, b"others go on", 0);
    p.wait_bytes(other, 12);
    p.receive(other, 100, 0);
    p.settle(fd, libc::POLLOUT);
}

fn many_bytes(p: &mut Probe) {
    let fd = p.stream("many 700001");
    p.receive_all(fd);
    let fd = p.stream("count");
    let bytes = pattern(600_000);
    p.send(fd, &bytes, 0);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.receive_all(fd);
}
