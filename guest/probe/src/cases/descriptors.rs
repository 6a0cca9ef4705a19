//! Descriptors: `dup`, `close`, `fork`, `exec`, threads.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use std::os::fd::RawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("dup", dup),
    ("dup_onto", dup_onto),
    ("close_range", close_range),
    ("fork_shares", fork_shares),
    ("fork_parent_closes", fork_parent_closes),
    ("exec_closes", exec_closes),
    ("thread_closes", thread_closes),
    ("thread_shuts_down", thread_shuts_down),
    ("two_readers", two_readers),
    ("nonblocking_is_shared", nonblocking_is_shared),
    ("sendfile", sendfile),
    ("splice", splice),
];

fn dup(p: &mut Probe) {
    let fd = p.stream("echo");
    let other = p.open("dup", libc::SYS_dup, &[n(fd)]);
    p.close(fd);
    p.send(fd, b"x", 0);
    p.send(other, b"hello", 0);
    p.wait_bytes(other, 5);
    p.receive(other, 10, 0);
    let high = p.call("F_DUPFD", libc::SYS_fcntl, &[n(other), n(libc::F_DUPFD_CLOEXEC), n(200)]);
    p.call("flags", libc::SYS_fcntl, &[n(high), n(libc::F_GETFD), n(0)]);
    p.call("flags", libc::SYS_fcntl, &[n(other), n(libc::F_GETFD), n(0)]);
    p.close(other);
    p.send(high as RawFd, b"again", 0);
    p.wait_bytes(high as RawFd, 5);
    p.receive(high as RawFd, 10, 0);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(high), n(libc::F_GETFL), n(0)]);
    p.call("F_BAD", libc::SYS_fcntl, &[n(high), n(7777), n(0)]);
    p.close(high as RawFd);
}

fn dup_onto(p: &mut Probe) {
    let fd = p.stream("echo");
    let (read, write) = p.pipe(0);
    // A pipe over a remote socket's number, then the socket over the pipe's.
    let second = p.open("dup", libc::SYS_dup, &[n(fd)]);
    let same = |answer: i64, wanted: RawFd| answer == i64::from(wanted);
    let answer = p.quiet(libc::SYS_dup2, &[n(write), n(second)]);
    p.line("dup2 of a pipe", same(answer, second));
    p.call("write", libc::SYS_write, &[n(second), at(DATA), n(3)]);
    p.call("read", libc::SYS_read, &[n(read), at(DATA), n(10)]);
    let answer = p.quiet(libc::SYS_dup3, &[n(fd), n(read), n(libc::O_CLOEXEC)]);
    p.line("dup3 of the socket", same(answer, read));
    p.call("flags", libc::SYS_fcntl, &[n(read), n(libc::F_GETFD), n(0)]);
    p.close(fd);
    p.send(read, b"hello", 0);
    p.wait_bytes(read, 5);
    p.receive(read, 10, 0);
    let answer = p.quiet(libc::SYS_dup2, &[n(read), n(read)]);
    p.line("onto itself", same(answer, read));
    p.call("dup3 onto itself", libc::SYS_dup3, &[n(read), n(read), n(0)]);
    p.call("dup3, bad flags", libc::SYS_dup3, &[n(read), n(write), n(1)]);
    p.call("dup2, closed", libc::SYS_dup2, &[n(999), n(write)]);
    p.call("dup2, too high", libc::SYS_dup2, &[n(read), n(1 << 30)]);
}

fn close_range(p: &mut Probe) {
    let fd = p.stream("echo");
    let base = p.call("up", libc::SYS_fcntl, &[n(fd), n(libc::F_DUPFD), n(100)]);
    p.call("up", libc::SYS_fcntl, &[n(fd), n(libc::F_DUPFD), n(101)]);
    p.call("up", libc::SYS_fcntl, &[n(fd), n(libc::F_DUPFD), n(102)]);
    p.call("close_range", libc::SYS_close_range, &[n(base), n(101), n(0)]);
    p.call("100", libc::SYS_fcntl, &[n(100), n(libc::F_GETFD), n(0)]);
    p.call("101", libc::SYS_fcntl, &[n(101), n(libc::F_GETFD), n(0)]);
    p.send(102, b"hello", 0);
    p.wait_bytes(102, 5);
    p.receive(fd, 10, 0);
    p.call("backwards", libc::SYS_close_range, &[n(102), n(101), n(0)]);
    p.call("bad flags", libc::SYS_close_range, &[n(102), n(102), n(0x80)]);
    let cloexec = n(libc::CLOSE_RANGE_CLOEXEC as i64);
    p.call("cloexec", libc::SYS_close_range, &[n(102), n(102), cloexec]);
    p.call("flags", libc::SYS_fcntl, &[n(102), n(libc::F_GETFD), n(0)]);
}

/// Runs something in a child of `fork` and waits for its end.
pub fn in_child(p: &Probe, label: &str, body: impl FnOnce(&Probe)) {
    let copy = p.in_child(label);
    let child = guest_sys::fork::fork(move |_| {
        body(&copy);
        7
    });
    let Ok(pid) = child else { return p.line(label, "no fork") };
    let answer = p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    let own = answer == i64::from(pid);
    p.line(label, format!("{own}, status {}", p.number(FREE) >> 8));
}

fn fork_shares(p: &mut Probe) {
    let fd = p.stream("echo");
    in_child(p, "child", |p| {
        p.send(fd, b"from the child", 0);
        p.peer_name(fd);
    });
    p.wait_bytes(fd, 14);
    p.receive(fd, 100, 0);
    // The child's end has not ended the connection.
    p.send(fd, b"from the parent", 0);
    p.wait_bytes(fd, 15);
    in_child(p, "second child", |p| {
        p.receive(fd, 100, 0);
        p.close(fd);
    });
    p.receive(fd, 100, libc::MSG_DONTWAIT);
    in_child(p, "third child", |p| {
        p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    });
    p.receive_all(fd);
    // A socket of the child's own.
    in_child(p, "fourth child", |p| {
        let own = p.stream("echo");
        p.send(own, b"own", 0);
        p.wait_bytes(own, 3);
        p.receive(own, 10, 0);
    });
}

/// The peer sees the end only when the last holder has closed.
fn fork_parent_closes(p: &mut Probe) {
    let fd = p.stream("count");
    let (read, write) = p.pipe(0);
    let copy = p.in_child("child");
    let child = guest_sys::fork::fork(move |_| {
        copy.quiet(libc::SYS_read, &[n(read), at(DATA), n(1)]);
        copy.send(fd, b" and child", 0);
        copy.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
        copy.receive_all(fd);
        0
    });
    p.send(fd, b"parent", 0);
    p.close(fd);
    p.quiet(libc::SYS_write, &[n(write), at(DATA), n(1)]);
    let Ok(pid) = child else { return p.line("child", "no fork") };
    p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("status", p.number(FREE));
}

fn exec_closes(p: &mut Probe) {
    let stays = p.stream("count");
    let goes = p.socket(libc::SOCK_STREAM | libc::SOCK_CLOEXEC);
    p.connect_to(goes, p.peer);
    let marked = p.stream("echo");
    p.call("mark", libc::SYS_fcntl, &[n(marked), n(libc::F_SETFD), n(libc::FD_CLOEXEC)]);
    for (label, fd) in [("stays", stays), ("goes", goes), ("marked", marked)] {
        let own = std::env::current_exe().unwrap_or_default();
        let words = ["descriptor".to_owned(), fd.to_string()];
        let output = Command::new(own).args(words).stdin(Stdio::null()).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        p.line(label, text.unwrap_or_else(|error| error.to_string()));
    }
    p.call("shutdown", libc::SYS_shutdown, &[n(stays), n(libc::SHUT_WR)]);
    p.receive_all(stays);
}

/// Linux finishes a call whose descriptor another thread closes.
fn thread_closes(p: &mut Probe) {
    let fd = p.stream("later hello");
    let q = p.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(350));
        q.close(fd);
    });
    let answer = p.quiet(libc::SYS_read, &[n(fd), at(DATA), n(10)]);
    p.line("thread", thread.join().is_ok());
    p.arrived("read", answer, DATA, 10);
    p.receive(fd, 10, 0);
}

fn thread_shuts_down(p: &mut Probe) {
    let fd = p.stream("echo");
    let q = p.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        q.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_RDWR)]);
    });
    let answer = p.quiet(libc::SYS_read, &[n(fd), at(DATA), n(10)]);
    p.line("thread", thread.join().is_ok());
    p.arrived("read", answer, DATA, 10);
    let (listener, _) = p.listener(0);
    let q = p.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        q.call("shutdown", libc::SYS_shutdown, &[n(listener), n(libc::SHUT_RDWR)]);
    });
    let answer = p.quiet(libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.line("thread", thread.join().is_ok());
    p.line("accept", crate::value::result(answer));
    p.poll(&[(listener, i16::MAX)], 0);
}

/// While one thread waits, calls of another on the same descriptor return at once.
fn two_readers(p: &mut Probe) {
    let (listener, port) = p.listener(0);
    let q = p.clone();
    let thread = std::thread::spawn(move || {
        let fd = q.quiet(libc::SYS_accept, &[n(listener), NULL, NULL]);
        fd as RawFd
    });
    std::thread::sleep(Duration::from_millis(200));
    p.own_name(listener);
    p.peer_name(listener);
    p.get_option(listener, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 4);
    p.set_option(listener, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(listener), n(libc::F_GETFL), n(0)]);
    p.poll(&[(listener, libc::POLLIN)], 0);
    p.call("listen", libc::SYS_listen, &[n(listener), n(5)]);
    p.send(listener, b"x", libc::MSG_NOSIGNAL);
    p.receive(listener, 1, 0);
    let control = p.called_by_peer(port, "hold hello");
    let fd = thread.join().unwrap_or(-1);
    p.line("accepted", fd >= 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
    p.close(fd);
    p.receive_all(control);
}

fn nonblocking_is_shared(p: &mut Probe) {
    let fd = p.stream("echo");
    let other = p.open("dup", libc::SYS_dup, &[n(fd)]);
    p.call("F_SETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), n(libc::O_NONBLOCK)]);
    p.receive(other, 10, 0);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(other), n(libc::F_GETFL), n(0)]);
    p.arena.write(FREE, &0_i32.to_ne_bytes());
    p.call("FIONBIO", libc::SYS_ioctl, &[n(other), n(libc::FIONBIO as i64), at(FREE)]);
    p.call("F_GETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFL), n(0)]);
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.call("FIONREAD", libc::SYS_ioctl, &[n(fd), n(libc::FIONREAD as i64), at(FREE)]);
    p.line("bytes", p.number(FREE));
    p.call("bad ioctl", libc::SYS_ioctl, &[n(fd), n(0x1234), at(FREE)]);
}

fn sendfile(p: &mut Probe) {
    let file = p.file(b"0123456789");
    let fd = p.stream("count");
    p.call("sendfile", libc::SYS_sendfile, &[n(fd), n(file), NULL, n(4)]);
    p.arena.write(FREE, &6_i64.to_ne_bytes());
    p.call("from an offset", libc::SYS_sendfile, &[n(fd), n(file), at(FREE), n(100)]);
    p.line("offset", p.number(FREE));
    p.call("the rest", libc::SYS_sendfile, &[n(fd), n(file), NULL, n(100)]);
    p.call("at the end", libc::SYS_sendfile, &[n(fd), n(file), NULL, n(100)]);
    p.call("bad file", libc::SYS_sendfile, &[n(fd), n(999), NULL, n(100)]);
    p.call("bad offset", libc::SYS_sendfile, &[n(fd), n(file), crate::probe::BAD, n(100)]);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.receive_all(fd);
    p.call("to the closed half", libc::SYS_sendfile, &[n(fd), n(file), at(FREE + 16), n(5)]);
}

fn splice(p: &mut Probe) {
    let fd = p.stream("count");
    let (read, write) = p.pipe(0);
    p.arena.write(DATA, b"through a pipe");
    p.call("write", libc::SYS_write, &[n(write), at(DATA), n(14)]);
    p.call("splice", libc::SYS_splice, &[n(read), NULL, n(fd), NULL, n(100), n(0)]);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    // The peer has told, and closed.
    p.settle(fd, libc::POLLIN | libc::POLLHUP);
    let flags = n(libc::SPLICE_F_NONBLOCK as i64);
    let answer = p.quiet(libc::SYS_splice, &[n(fd), NULL, n(write), NULL, n(100), flags]);
    p.line("back", crate::value::result(answer));
    let answer = p.quiet(libc::SYS_read, &[n(read), at(DATA), n(100)]);
    p.arrived("read", answer, DATA, 100);
}
