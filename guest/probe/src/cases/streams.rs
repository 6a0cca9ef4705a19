//! TCP: connections, their ends, readiness.
use super::Case;
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use std::net::SocketAddr;

pub const CASES: &[Case] = &[
    ("tcp_echo", echo),
    ("tcp_end_of_file", end_of_file),
    ("tcp_reset", reset),
    ("tcp_refused", refused),
    ("tcp_connect_without_blocking", connect_without_blocking),
    ("tcp_refused_without_blocking", refused_without_blocking),
    ("tcp_names", names),
    ("tcp_shutdown", shutdown),
    ("tcp_accept", accept),
    ("tcp_bad_arguments", bad_arguments),
    ("tcp_unconnected", unconnected),
    ("tcp_peek_and_waitall", peek_and_waitall),
];

fn echo(p: &mut Probe) {
    let fd = p.stream("echo");
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 100, 0);
    p.send(fd, b"", 0);
    p.receive(fd, 100, libc::MSG_DONTWAIT);
    p.poll(&[(fd, libc::POLLIN | libc::POLLOUT)], 0);
    p.close(fd);
    p.send(fd, b"closed", 0);
}

fn end_of_file(p: &mut Probe) {
    let fd = p.stream("say goodbye");
    p.settle(fd, libc::POLLIN | libc::POLLRDHUP);
    p.receive(fd, 4, 0);
    p.receive(fd, 100, 0);
    p.receive(fd, 100, 0);
    p.poll(&[(fd, i16::MAX)], 0);
    p.error_of(fd);
    p.close(fd);
    p.close(fd);
}

fn reset(p: &mut Probe) {
    let fd = p.stream("reset");
    p.settle(fd, libc::POLLERR | libc::POLLHUP);
    p.error_of(fd);
    p.receive(fd, 10, 0);
    p.send(fd, b"x", libc::MSG_NOSIGNAL);
    p.poll(&[(fd, i16::MAX)], 0);
    p.peer_name(fd);
    let fd = p.stream("reset");
    p.settle(fd, libc::POLLERR | libc::POLLHUP);
    p.receive(fd, 10, 0);
    p.receive(fd, 10, 0);
}

/// An address of the peer's machine where nobody listens.
fn nobody(p: &Probe) -> SocketAddr {
    SocketAddr::new(p.peer.ip(), 1)
}

fn refused(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM);
    p.connect_to(fd, nobody(p));
    p.error_of(fd);
    p.poll(&[(fd, i16::MAX)], 0);
    p.peer_name(fd);
    p.connect_to(fd, p.peer);
    p.connect_to(fd, p.peer);
    p.peer_name(fd);
}

fn connect_without_blocking(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    p.poll(&[(fd, i16::MAX)], 0);
    p.connect_to(fd, p.peer);
    p.settle(fd, libc::POLLOUT);
    p.error_of(fd);
    p.connect_to(fd, p.peer);
    p.receive(fd, 10, 0);
    p.send(fd, b"echo\nabc", 0);
    p.settle(fd, libc::POLLIN);
    p.receive(fd, 10, 0);
}

fn refused_without_blocking(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    p.connect_to(fd, nobody(p));
    p.settle(fd, libc::POLLERR);
    p.error_of(fd);
    p.error_of(fd);
    p.poll(&[(fd, i16::MAX)], 0);
    p.send(fd, b"x", libc::MSG_NOSIGNAL);
}

fn names(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM);
    p.own_name(fd);
    p.peer_name(fd);
    p.bind(fd, Probe::any());
    p.own_name(fd);
    p.connect_to(fd, p.peer);
    p.own_name(fd);
    p.peer_name(fd);
    // A short buffer is cut, the length is the whole one.
    p.arena.write(FREE, &4_i32.to_ne_bytes());
    p.call("short", libc::SYS_getpeername, &[n(fd), at(FREE + 8), at(FREE)]);
    p.line("length", p.number(FREE));
    p.arena.write(FREE, &(-1_i32).to_ne_bytes());
    p.call("negative", libc::SYS_getpeername, &[n(fd), at(FREE + 8), at(FREE)]);
    p.call("bad address", libc::SYS_getpeername, &[n(fd), BAD, at(FREE)]);
    p.call("bad length", libc::SYS_getsockname, &[n(fd), at(FREE + 8), BAD]);
}

fn shutdown(p: &mut Probe) {
    let fd = p.stream("count");
    p.send(fd, b"hello", 0);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.settle(fd, libc::POLLIN | libc::POLLRDHUP);
    p.receive_all(fd);
    p.send(fd, b"more", libc::MSG_NOSIGNAL);
    p.call("again", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_RDWR)]);
    p.call("bad", libc::SYS_shutdown, &[n(fd), n(7)]);
    p.poll(&[(fd, i16::MAX)], 0);
    let fd = p.stream("half");
    p.settle(fd, libc::POLLRDHUP);
    p.send(fd, b"still", 0);
    p.call("read half", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_RD)]);
    p.receive(fd, 10, 0);
    let fresh = p.socket(libc::SOCK_STREAM);
    p.call("fresh", libc::SYS_shutdown, &[n(fresh), n(libc::SHUT_WR)]);
}

fn accept(p: &mut Probe) {
    let (listener, port) = p.listener(0);
    p.poll(&[(listener, i16::MAX)], 0);
    let control = p.called_by_peer(port, "hold hello");
    p.settle(listener, libc::POLLIN);
    p.arena.write(FREE, &16_i32.to_ne_bytes());
    let arguments = [n(listener), at(FREE + 8), at(FREE), n(libc::SOCK_CLOEXEC)];
    let fd = p.open("accept4", libc::SYS_accept4, &arguments);
    p.line("length", p.number(FREE));
    p.call("flags", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFD), n(0)]);
    p.line("same port", p.own_name(fd) == port);
    p.peer_name(fd);
    p.wait_bytes(fd, 5);
    p.receive(fd, 100, 0);
    p.close(fd);
    p.receive_all(control);
    p.call("O_NONBLOCK", libc::SYS_fcntl, &[n(listener), n(libc::F_SETFL), n(libc::O_NONBLOCK)]);
    p.open("nobody", libc::SYS_accept4, &[n(listener), NULL, NULL, n(0)]);
    p.open("bad flags", libc::SYS_accept4, &[n(listener), NULL, NULL, n(1)]);
    p.call("read", libc::SYS_read, &[n(listener), at(DATA), n(1)]);
    let not = p.socket(libc::SOCK_STREAM);
    p.open("not listening", libc::SYS_accept, &[n(not), NULL, NULL]);
}

fn bad_arguments(p: &mut Probe) {
    let fd = p.stream("echo");
    p.call("send from nowhere", libc::SYS_sendto, &[n(fd), BAD, n(5), n(0), NULL, NULL]);
    p.call("write from nowhere", libc::SYS_write, &[n(fd), BAD, n(5)]);
    p.call("write nothing from nowhere", libc::SYS_write, &[n(fd), BAD, n(0)]);
    p.call("negative length", libc::SYS_write, &[n(fd), at(DATA), n(-1)]);
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.call("read to nowhere", libc::SYS_read, &[n(fd), BAD, n(5)]);
    p.receive(fd, 10, libc::MSG_DONTWAIT);
    p.arena.write(FREE, &4_i32.to_ne_bytes());
    p.call("option to nowhere", libc::SYS_getsockopt, &[n(fd), n(1), n(3), BAD, at(FREE)]);
    p.call("option from nowhere", libc::SYS_setsockopt, &[n(fd), n(1), n(2), BAD, n(4)]);
    p.call("short option", libc::SYS_setsockopt, &[n(fd), n(1), n(2), at(FREE), n(2)]);
    let [place, _] = p.address(p.peer);
    let fresh = p.socket(libc::SOCK_STREAM);
    p.call("short address", libc::SYS_connect, &[n(fresh), place, n(4)]);
    p.call("long address", libc::SYS_connect, &[n(fresh), place, n(400)]);
    p.call("address nowhere", libc::SYS_connect, &[n(fresh), BAD, n(16)]);
    p.open("bad type", libc::SYS_socket, &[n(libc::AF_INET), n(77), n(0)]);
    p.open("bad protocol", libc::SYS_socket, &[n(libc::AF_INET), n(libc::SOCK_STREAM), n(17)]);
    p.open("bad family", libc::SYS_socket, &[n(99), n(libc::SOCK_STREAM), n(0)]);
    p.call("no descriptor", libc::SYS_sendto, &[n(999), at(DATA), n(5), n(0), NULL, NULL]);
}

fn unconnected(p: &mut Probe) {
    let fd = p.socket(libc::SOCK_STREAM);
    p.send(fd, b"x", libc::MSG_NOSIGNAL);
    p.receive(fd, 10, 0);
    p.call("listen", libc::SYS_listen, &[n(fd), n(1)]);
    p.connect_to(fd, p.peer);
    let bound = p.socket(libc::SOCK_STREAM);
    p.bind(bound, Probe::any());
    p.bind(bound, Probe::any());
    p.receive(bound, 10, 0);
    p.bind(bound, SocketAddr::from(([192, 0, 2, 1], 0)));
    let fresh = p.socket(libc::SOCK_STREAM);
    p.bind(fresh, SocketAddr::from(([192, 0, 2, 1], 0)));
    p.bind(fresh, p.peer);
}

fn peek_and_waitall(p: &mut Probe) {
    let fd = p.stream("twice abc");
    p.wait_bytes(fd, 3);
    p.receive(fd, 2, libc::MSG_PEEK);
    p.receive(fd, 6, libc::MSG_WAITALL);
    p.receive(fd, 6, libc::MSG_DONTWAIT);
    let fd = p.stream("say abc");
    p.receive(fd, 6, libc::MSG_WAITALL);
    let fd = p.stream("hold abcdef");
    p.wait_bytes(fd, 6);
    p.receive(fd, 4, libc::MSG_TRUNC);
    p.receive(fd, 4, 0);
}
