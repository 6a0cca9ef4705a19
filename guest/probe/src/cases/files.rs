//! Open files. Where the policy says so, they are another machine's.
use super::Case;
use super::descriptors::in_child;
use super::names::{Folder, folder, path};
use crate::probe::{BAD, DATA, FREE, NULL, Probe, at, n};
use crate::value;
use std::os::fd::RawFd;
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("file_reads_and_writes", reads_and_writes),
    ("file_positions", positions),
    ("file_vectors", vectors),
    ("file_large", large),
    ("file_append", append),
    ("file_flags", flags),
    ("file_sizes", sizes),
    ("file_bad_arguments", bad_arguments),
    ("file_shared", shared),
    ("file_polled", polled),
    ("file_locks", locks),
    ("file_locks_end", locks_end),
    ("file_lock_waits", lock_waits),
    ("file_copies", copies),
    ("file_to_socket", to_socket),
    ("file_to_pipe", to_pipe),
];

const O_RDWR: i32 = libc::O_RDWR;

fn text(p: &Probe, label: &str, fd: RawFd, bytes: &[u8]) -> i64 {
    p.arena.write(DATA, bytes);
    p.call(label, libc::SYS_write, &[n(fd), at(DATA), n(bytes.len() as i64)])
}

fn read(p: &Probe, fd: RawFd, room: usize) {
    let answer = p.quiet(libc::SYS_read, &[n(fd), at(DATA), n(room as i64)]);
    p.arrived("read", answer, DATA, room);
}

fn reads_and_writes(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    text(p, "write", fd, b"hello world");
    read(p, fd, 10);
    p.call("back", libc::SYS_lseek, &[n(fd), n(0), n(libc::SEEK_SET)]);
    read(p, fd, 5);
    read(p, fd, 100);
    read(p, fd, 100);
    p.call("nothing", libc::SYS_read, &[n(fd), at(DATA), n(0)]);
    p.close(fd);
    read(p, fd, 5);
    let fd = f.open("a", libc::O_RDONLY);
    text(p, "write", fd, b"x");
    read(p, fd, 100);
    p.close(fd);
    let fd = f.open("a", libc::O_WRONLY | libc::O_TRUNC);
    read(p, fd, 100);
    p.call("end", libc::SYS_lseek, &[n(fd), n(0), n(libc::SEEK_END)]);
    p.close(fd);
}

fn positions(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    text(p, "write", fd, b"0123456789");
    let seek = |to: i64, whence: i32| {
        p.call("lseek", libc::SYS_lseek, &[n(fd), n(to), n(whence)]);
    };
    seek(3, libc::SEEK_SET);
    seek(2, libc::SEEK_CUR);
    seek(-4, libc::SEEK_END);
    seek(-40, libc::SEEK_END);
    seek(0, 99);
    seek(0, libc::SEEK_CUR);
    let pread = |at_: i64, room: usize| {
        let answer = p.quiet(libc::SYS_pread64, &[n(fd), at(DATA), n(room as i64), n(at_)]);
        p.arrived("pread", answer, DATA, room);
    };
    pread(8, 10);
    pread(20, 10);
    pread(-1, 10);
    p.arena.write(DATA, b"XY");
    p.call("pwrite", libc::SYS_pwrite64, &[n(fd), at(DATA), n(2), n(12)]);
    seek(0, libc::SEEK_CUR);
    pread(9, 10);
    seek(0, libc::SEEK_HOLE);
    seek(5, libc::SEEK_DATA);
    seek(500, libc::SEEK_DATA);
}

fn vectors(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    p.arena.write(DATA, b"one two three");
    let [list, count] = p.vectors(FREE, &[(at(DATA), 4), (at(DATA + 8), 5), (at(DATA), 0)]);
    p.call("writev", libc::SYS_writev, &[n(fd), list, count]);
    p.call("pwritev", libc::SYS_pwritev, &[n(fd), list, count, n(20), n(0)]);
    let [list, count] = p.vectors(FREE, &[(at(DATA), 3), (at(DATA + 3), 50)]);
    let answer = p.quiet(libc::SYS_preadv, &[n(fd), list, count, n(0), n(0)]);
    p.arrived("preadv", answer, DATA, 53);
    let answer = p.quiet(libc::SYS_preadv2, &[n(fd), list, count, n(-1), n(0), n(0)]);
    p.arrived("preadv2", answer, DATA, 53);
    p.call("bad flags", libc::SYS_preadv2, &[n(fd), list, count, n(0), n(0), n(0x4000_0000)]);
    let [list, count] = p.vectors(FREE, &[(at(DATA), 3), (BAD, 5)]);
    p.call("bad place", libc::SYS_preadv, &[n(fd), list, n(5000), n(0), n(0)]);
    let _ = count;
}

/// More than a mailbox holds, in one call.
fn large(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    const SIZE: usize = 1_000_003;
    let bytes: Vec<u8> = (0..SIZE).map(|k| (k % 251) as u8).collect();
    p.arena.write(DATA, &bytes);
    p.call("write", libc::SYS_write, &[n(fd), at(DATA), n(SIZE as i64)]);
    p.arena.write(DATA, &vec![0; SIZE]);
    let answer = p.quiet(libc::SYS_pread64, &[n(fd), at(DATA), n(2_000_000), n(0)]);
    p.line("pread", value::result(answer));
    p.line("equal", p.arena.read(DATA, SIZE) == bytes);
}

fn append(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    text(p, "write", fd, b"begin");
    let more = f.open("a", O_RDWR | libc::O_APPEND);
    p.call("start", libc::SYS_lseek, &[n(more), n(0), n(libc::SEEK_SET)]);
    text(p, "write", more, b" end");
    p.call("position", libc::SYS_lseek, &[n(more), n(0), n(libc::SEEK_CUR)]);
    p.arena.write(DATA, b"!");
    p.call("pwrite", libc::SYS_pwrite64, &[n(more), at(DATA), n(1), n(0)]);
    read(p, fd, 100);
}

fn flags(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    let get = |fd: RawFd| {
        p.call("F_GETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFL), n(0)]);
        p.call("F_GETFD", libc::SYS_fcntl, &[n(fd), n(libc::F_GETFD), n(0)]);
    };
    get(fd);
    let set = n(libc::O_NONBLOCK | libc::O_APPEND);
    p.call("F_SETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), set]);
    get(fd);
    p.call("F_SETFL", libc::SYS_fcntl, &[n(fd), n(libc::F_SETFL), n(0)]);
    get(fd);
    let marked = f.open("a", libc::O_CLOEXEC | libc::O_NONBLOCK);
    get(marked);
    p.call("FIONCLEX", libc::SYS_ioctl, &[n(marked), n(0x5450), NULL]);
    get(marked);
    p.call("TCGETS", libc::SYS_ioctl, &[n(fd), n(0x5401), at(FREE)]);
    text(p, "write", fd, b"12345");
    p.call("start", libc::SYS_lseek, &[n(fd), n(2), n(libc::SEEK_SET)]);
    p.call("FIONREAD", libc::SYS_ioctl, &[n(fd), n(0x541b), at(FREE)]);
    p.line("bytes", p.number(FREE));
    p.call("pipe size", libc::SYS_fcntl, &[n(fd), n(1032), n(0)]);
    p.call("bad command", libc::SYS_fcntl, &[n(fd), n(7777), n(0)]);
    let only = f.open("a", libc::O_PATH);
    read(p, only, 1);
    get(only);
    p.call("socket call", libc::SYS_listen, &[n(fd), n(1)]);
}

fn sizes(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    let size = || {
        p.quiet(libc::SYS_fstat, &[n(fd), at(FREE)]);
        p.line("size", p.number(FREE + 48));
    };
    p.call("ftruncate", libc::SYS_ftruncate, &[n(fd), n(100)]);
    size();
    p.call("ftruncate", libc::SYS_ftruncate, &[n(fd), n(-1)]);
    p.call("fallocate", libc::SYS_fallocate, &[n(fd), n(0), n(50), n(100)]);
    size();
    p.call("fallocate", libc::SYS_fallocate, &[n(fd), n(0), n(-5), n(100)]);
    p.call("fsync", libc::SYS_fsync, &[n(fd)]);
    p.call("fdatasync", libc::SYS_fdatasync, &[n(fd)]);
    p.call("fadvise", libc::SYS_fadvise64, &[n(fd), n(0), n(0), n(3)]);
    p.call("readahead", libc::SYS_readahead, &[n(fd), n(0), n(10)]);
    p.arena.write(FREE, &path("a"));
    p.call("truncate", libc::SYS_truncate, &[at(FREE), n(7)]);
    size();
    p.call("fchmod", libc::SYS_fchmod, &[n(fd), n(0o4711)]);
    p.quiet(libc::SYS_fstat, &[n(fd), at(FREE)]);
    p.line("mode", format!("{:o}", p.number(FREE + 24)));
    p.call("fstatfs", libc::SYS_fstatfs, &[n(fd), at(FREE)]);
    let reader = f.open("a", libc::O_RDONLY);
    p.call("ftruncate", libc::SYS_ftruncate, &[n(reader), n(1)]);
    p.call("getdents64", libc::SYS_getdents64, &[n(fd), at(FREE), n(1000)]);
    p.call("fchdir", libc::SYS_fchdir, &[n(fd)]);
}

fn bad_arguments(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    text(p, "write", fd, b"some text");
    p.call("start", libc::SYS_lseek, &[n(fd), n(0), n(libc::SEEK_SET)]);
    p.call("read", libc::SYS_read, &[n(fd), BAD, n(5)]);
    p.call("write", libc::SYS_write, &[n(fd), BAD, n(5)]);
    p.call("position", libc::SYS_lseek, &[n(fd), n(0), n(libc::SEEK_CUR)]);
    p.call("fstat", libc::SYS_fstat, &[n(fd), BAD]);
    p.call("open", libc::SYS_open, &[BAD, n(0), n(0)]);
    p.call("open", libc::SYS_open, &[NULL, n(0), n(0)]);
    let directory = f.open("", libc::O_DIRECTORY);
    read(p, directory, 10);
    text(p, "write", directory, b"x");
    p.call("ftruncate", libc::SYS_ftruncate, &[n(directory), n(1)]);
    f.open("a", libc::O_DIRECTORY);
    f.open("", O_RDWR);
    f.open("gone", 0);
    f.open("a/b", 0);
    f.open("a", libc::O_CREAT | libc::O_EXCL);
    f.open(&"n".repeat(300), libc::O_CREAT | O_RDWR);
}

fn shared(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    text(p, "write", fd, b"0123456789");
    let copy = p.open("dup", libc::SYS_dup, &[n(fd)]);
    p.call("start", libc::SYS_lseek, &[n(copy), n(2), n(libc::SEEK_SET)]);
    read(p, fd, 2);
    in_child(p, "child", |p| {
        read(p, copy, 2);
        text(p, "write", copy, b"ab");
        p.close(fd);
    });
    read(p, fd, 10);
    p.call("start", libc::SYS_lseek, &[n(copy), n(0), n(libc::SEEK_SET)]);
    p.close(fd);
    read(p, copy, 20);
}

fn polled(p: &mut Probe) {
    let f = folder(p);
    let fd = f.made("a");
    let (reader, _) = p.pipe(0);
    p.poll(&[(fd, libc::POLLIN | libc::POLLOUT), (reader, libc::POLLIN)], 1000);
    let epoll = p.open("epoll", libc::SYS_epoll_create1, &[n(0)]);
    p.arena.write(FREE, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    p.call("epoll_ctl", libc::SYS_epoll_ctl, &[n(epoll), n(1), n(fd), at(FREE)]);
}

/// `struct flock`: kind, from the start, place, length.
fn lock(p: &Probe, kind: i32, start: i64, length: i64) {
    let mut bytes = Vec::new();
    bytes.extend((kind as u16).to_ne_bytes());
    bytes.extend([0; 6]);
    bytes.extend(start.to_ne_bytes());
    bytes.extend(length.to_ne_bytes());
    bytes.extend([0; 8]);
    p.arena.write(FREE, &bytes);
}

fn locks(p: &mut Probe) {
    let f = folder(p);
    let (one, two) = (f.made("a"), f.open("a", O_RDWR));
    let flock = |fd: RawFd, operation: i32| {
        p.call("flock", libc::SYS_flock, &[n(fd), n(operation)]);
    };
    flock(one, libc::LOCK_SH);
    flock(two, libc::LOCK_SH | libc::LOCK_NB);
    flock(two, libc::LOCK_EX | libc::LOCK_NB);
    flock(one, libc::LOCK_UN);
    flock(two, libc::LOCK_EX | libc::LOCK_NB);
    flock(two, 77);
    let record = |p: &Probe, fd: RawFd, command: i32, kind: i32, start: i64| {
        lock(p, kind, start, 10);
        p.call("fcntl", libc::SYS_fcntl, &[n(fd), n(command), at(FREE)]);
    };
    record(p, one, libc::F_SETLK, libc::F_WRLCK, 0);
    record(p, two, libc::F_OFD_SETLK, libc::F_WRLCK, 0);
    in_child(p, "child", |p| {
        record(p, one, libc::F_SETLK, libc::F_RDLCK, 5);
        record(p, one, libc::F_SETLK, libc::F_RDLCK, 10);
        record(p, one, libc::F_GETLK, libc::F_RDLCK, 5);
        let found = p.arena.read(FREE, 28);
        let holder = i64::from(p.number(FREE + 24));
        let parent = p.quiet(libc::SYS_getppid, &[]);
        p.line("found", format!("{:?} {}", found.get(..24), holder == parent));
    });
    p.close(two);
    let two = f.open("a", libc::O_RDONLY);
    record(p, two, libc::F_OFD_SETLK, libc::F_WRLCK, 50);
}

/// A process's record locks end when it closes any descriptor of the file.
fn locks_end(p: &mut Probe) {
    let f = folder(p);
    let file = f.made("a");
    type Close = fn(&Probe, RawFd, RawFd);
    let ways: [(&str, Close); 5] = [
        ("kept", |_, _, _| ()),
        ("close", |p, copy, _| p.close(copy)),
        ("close_range", |p, copy, _| {
            p.call("close_range", libc::SYS_close_range, &[n(copy), n(copy), n(0)]);
        }),
        ("dup2", |p, copy, other| {
            p.call("dup2", libc::SYS_dup2, &[n(other), n(copy)]);
        }),
        ("another one of the file", |p, _, _| {
            let another = p.quiet(libc::SYS_openat, &[n(libc::AT_FDCWD), at(FREE + 0x100), n(0)]);
            p.close(another as RawFd);
        }),
    ];
    p.arena.write(FREE + 0x100, &path("a"));
    let (other, _) = p.pipe(0);
    for (label, close) in ways {
        let copy = p.quiet(libc::SYS_fcntl, &[n(file), n(libc::F_DUPFD), n(100)]) as RawFd;
        lock(p, libc::F_WRLCK, 0, 10);
        p.call("lock", libc::SYS_fcntl, &[n(file), n(libc::F_SETLK), at(FREE)]);
        close(p, copy, other);
        in_child(p, label, |p| {
            lock(p, libc::F_WRLCK, 5, 1);
            p.call("lock", libc::SYS_fcntl, &[n(file), n(libc::F_SETLK), at(FREE)]);
            // Not left to its end, which its delegate may learn of later than its parent.
            lock(p, libc::F_UNLCK, 5, 1);
            p.quiet(libc::SYS_fcntl, &[n(file), n(libc::F_SETLK), at(FREE)]);
        });
    }
}

/// Who waits for a lock gets it when it comes free; a signal ends the wait, or does not.
fn lock_waits(p: &mut Probe) {
    let f = folder(p);
    let (one, two) = (f.made("a"), f.open("a", O_RDWR));
    p.call("flock", libc::SYS_flock, &[n(one), n(libc::LOCK_EX)]);
    let q = p.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        q.quiet(libc::SYS_flock, &[n(one), n(libc::LOCK_UN)]);
    });
    p.call("waits", libc::SYS_flock, &[n(two), n(libc::LOCK_EX)]);
    p.line("thread", thread.join().is_ok());
    let child = in_background(p, move |p| {
        p.line("waits", value::result(p.quiet(libc::SYS_flock, &[n(one), n(libc::LOCK_EX)])));
        0
    });
    std::thread::sleep(Duration::from_millis(300));
    p.quiet(libc::SYS_flock, &[n(two), n(libc::LOCK_UN)]);
    let Some(pid) = child else { return p.line("child", "no fork") };
    p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("status", p.number(FREE));
}

fn in_background(p: &Probe, body: impl FnOnce(&Probe) -> i32) -> Option<i32> {
    let copy = p.in_child("child");
    guest_sys::fork::fork(move |_| body(&copy)).ok()
}

fn copies(p: &mut Probe) {
    let f = folder(p);
    let (from, to) = (f.made("from"), f.made("to"));
    text(p, "write", from, b"0123456789");
    p.arena.write(FREE, &3_i64.to_ne_bytes());
    let call = [n(from), at(FREE), n(to), NULL, n(100), n(0)];
    p.call("copy_file_range", libc::SYS_copy_file_range, &call);
    p.line("position", p.number(FREE));
    let call = [n(from), NULL, n(to), NULL, n(100), n(7)];
    p.call("bad flags", libc::SYS_copy_file_range, &call);
    p.call("start", libc::SYS_lseek, &[n(from), n(8), n(libc::SEEK_SET)]);
    p.call("sendfile", libc::SYS_sendfile, &[n(to), n(from), NULL, n(100)]);
    p.call("position", libc::SYS_lseek, &[n(from), n(0), n(libc::SEEK_CUR)]);
    p.call("start", libc::SYS_lseek, &[n(to), n(0), n(libc::SEEK_SET)]);
    read(p, to, 100);
    let memory = p.file(b"from memory");
    p.call("sendfile", libc::SYS_sendfile, &[n(to), n(memory), NULL, n(100)]);
    p.arena.write(FREE, &1_i64.to_ne_bytes());
    p.call("sendfile", libc::SYS_sendfile, &[n(memory), n(from), at(FREE), n(5)]);
    p.line("position", p.number(FREE));
    p.call("start", libc::SYS_lseek, &[n(memory), n(0), n(libc::SEEK_SET)]);
    read(p, memory, 100);
}

fn to_socket(p: &mut Probe) {
    let f = folder(p);
    let file = f.made("a");
    text(p, "write", file, b"0123456789");
    let fd = p.stream("count");
    p.arena.write(FREE, &6_i64.to_ne_bytes());
    p.call("sendfile", libc::SYS_sendfile, &[n(fd), n(file), at(FREE), n(100)]);
    p.line("offset", p.number(FREE));
    p.call("start", libc::SYS_lseek, &[n(file), n(1), n(libc::SEEK_SET)]);
    p.call("sendfile", libc::SYS_sendfile, &[n(fd), n(file), NULL, n(3)]);
    p.call("position", libc::SYS_lseek, &[n(file), n(0), n(libc::SEEK_CUR)]);
    p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
    p.receive_all(fd);
}

fn to_pipe(p: &mut Probe) {
    let f: Folder = folder(p);
    let file = f.made("a");
    text(p, "write", file, b"0123456789");
    let (reader, writer) = p.pipe(0);
    p.arena.write(FREE, &4_i64.to_ne_bytes());
    let call = [n(file), at(FREE), n(writer), NULL, n(3), n(0)];
    p.call("splice", libc::SYS_splice, &call);
    p.line("offset", p.number(FREE));
    read(p, reader, 10);
    text(p, "write", writer, b"back");
    let call = [n(reader), NULL, n(file), NULL, n(100), n(0)];
    p.call("splice", libc::SYS_splice, &call);
    p.call("start", libc::SYS_lseek, &[n(file), n(0), n(libc::SEEK_SET)]);
    read(p, file, 100);
    let call = [n(file), NULL, n(file), NULL, n(100), n(0)];
    p.call("without a pipe", libc::SYS_splice, &call);
}
