//! Ways to start processes: `posix_spawn`, `vfork`, `clone3`.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use guest_sys::start;
use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

pub const CASES: &[Case] = &[
    ("start_spawn", spawn),
    ("start_vfork", vfork),
    ("start_clone3", clone3),
    ("start_missing", missing),
    ("start_many", many),
];

/// This program, and the words that have it say whether a descriptor is open.
fn again(fd: RawFd) -> (CString, Vec<CString>) {
    let path = std::env::current_exe().unwrap_or_default().into_os_string().into_vec();
    let path = CString::new(path).unwrap_or_default();
    let number = CString::new(fd.to_string()).unwrap_or_default();
    let words = vec![path.clone(), c"descriptor".to_owned(), number];
    (path, words)
}

/// Waits for the child's end.
fn ended(p: &Probe, child: std::io::Result<i32>) {
    let Ok(pid) = child else { return p.line("child", "not started") };
    let answer = p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("child", format!("{}, status {}", answer == i64::from(pid), p.number(FREE)));
}

/// What the child says on its standard output, and writes, comes back.
fn echoed(p: &Probe, fd: RawFd, bytes: usize) {
    p.wait_bytes(fd, bytes);
    p.receive(fd, 100, 0);
}

fn spawn(p: &mut Probe) {
    let (output, other) = (p.stream("echo"), p.stream("echo"));
    let (path, words) = again(other);
    ended(p, start::spawn(&path, &words, output));
    echoed(p, output, "0 4\n".len());
    echoed(p, other, 4);
    // The parent's sockets are as they were.
    p.send(output, b"parent", 0);
    echoed(p, output, 6);
    p.close(output);
    p.close(other);
}

fn vfork(p: &mut Probe) {
    let (own, other) = (p.stream("echo"), p.stream("echo"));
    let marked = p.stream("echo");
    p.call("mark", libc::SYS_fcntl, &[n(marked), n(libc::F_SETFD), n(libc::FD_CLOEXEC)]);
    let (path, words) = again(other);
    ended(p, start::vfork(own, b"before exec", &path, &words));
    echoed(p, own, 11);
    echoed(p, other, 4);
    let (path, words) = again(marked);
    ended(p, start::vfork(own, b"again", &path, &words));
    echoed(p, own, 5);
    p.send(marked, b"still open", 0);
    echoed(p, marked, 10);
}

fn clone3(p: &mut Probe) {
    let fd = p.stream("echo");
    let copy = p.in_child("copy");
    ended(
        p,
        start::clone3(move || {
            copy.send(fd, b"from the child", 0);
            echoed(&copy, fd, 14);
            let own = copy.stream("echo");
            copy.send(own, b"own", 0);
            echoed(&copy, own, 3);
            copy.close(fd);
            3
        }),
    );
    p.send(fd, b"parent", 0);
    echoed(p, fd, 6);
}

/// A program that is not there: the caller goes on with all that it had.
fn missing(p: &mut Probe) {
    let fd = p.stream("echo");
    let (_, words) = again(fd);
    let error = start::spawn(c"/nowhere/at/all", &words, fd).map_err(|error| error.kind());
    p.line("spawn", format!("{error:?}"));
    ended(p, start::vfork(fd, b"no exec", c"/nowhere/at/all", &words));
    echoed(p, fd, 7);
    p.send(fd, b"parent", 0);
    echoed(p, fd, 6);
}

/// One after the other, and several at a time.
fn many(p: &mut Probe) {
    let fd = p.stream("count");
    let (path, words) = again(fd);
    for _ in 0..3 {
        ended(p, start::vfork(fd, b"v", &path, &words));
        ended(p, start::spawn(&path, &words, fd));
    }
    let children: Vec<_> = (0..4).map(|_| start::spawn(&path, &words, 1_000)).collect();
    p.line("at once", children.iter().all(Result::is_err));
    let children: Vec<_> = (0..4)
        .map(|number| {
            let copy = p.in_child(&format!("copy {number}"));
            start::clone3(move || {
                copy.arena.write(DATA, b"c");
                copy.quiet(libc::SYS_write, &[n(fd), at(DATA), n(1)]);
                0
            })
        })
        .collect();
    children.into_iter().for_each(|child| ended(p, child));
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.receive_all(fd);
}
