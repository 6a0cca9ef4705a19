//! Corners: no descriptor left, calls that take no sockets, threads that use one socket at the same
//! time, daemons, signal masks.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use guest_sys::raw::{Action, on_signal, signals};
use std::os::fd::RawFd;

pub const CASES: &[Case] = &[
    ("accept_without_descriptors", accept_without_descriptors),
    ("calls_without_sockets", calls_without_sockets),
    ("threads_connect", threads_connect),
    ("threads_bind", threads_bind),
    ("daemon", daemon),
    ("daemon_accepts", daemon_accepts),
    ("mask_of_pselect", mask_of_pselect),
    ("many_descriptors", many_descriptors),
];

/// Sets `RLIMIT_NOFILE`; the highest number allowed stays.
fn limit_descriptors(p: &Probe, most: u64) {
    let old = [n(0), n(7), NULL, at(FREE)];
    p.quiet(libc::SYS_prlimit64, &old);
    p.arena.write(FREE, &most.to_ne_bytes());
    p.call("limit", libc::SYS_prlimit64, &[n(0), n(7), at(FREE), NULL]);
}

fn accept_without_descriptors(p: &mut Probe) {
    let (listener, port) = p.listener(libc::SOCK_NONBLOCK);
    p.called_by_peer(port, "say queued");
    p.settle(listener, libc::POLLIN);
    // The lowest free number is beyond the limit.
    let free = p.quiet(libc::SYS_dup, &[n(listener)]);
    p.quiet(libc::SYS_close, &[n(free)]);
    limit_descriptors(p, free.unsigned_abs());
    for _ in 0..3 {
        p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    }
    p.open("socket", libc::SYS_socket, &[n(libc::AF_INET), n(libc::SOCK_STREAM), n(0)]);
    p.open("dup", libc::SYS_dup, &[n(listener)]);
    p.poll(&[(listener, libc::POLLIN)], 0);
    limit_descriptors(p, 512);
    let fd = p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.line("the number", i64::from(fd) == free);
    p.receive_all(fd);
    // With nothing in the queue, too, the missing number comes first.
    limit_descriptors(p, free.unsigned_abs());
    p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    p.open("bad flags", libc::SYS_accept4, &[n(listener), NULL, NULL, n(3)]);
    limit_descriptors(p, 512);
    p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
}

fn calls_without_sockets(p: &mut Probe) {
    let fd = p.stream("hold data");
    p.settle(fd, libc::POLLIN);
    let ((read, write), file) = (p.pipe(0), p.file(b"0123456789"));
    p.arena.write(DATA, b"piped");
    p.call("write", libc::SYS_write, &[n(write), at(DATA), n(5)]);
    p.call("tee out of it", libc::SYS_tee, &[n(fd), n(write), n(5), n(0)]);
    p.call("tee into it", libc::SYS_tee, &[n(read), n(fd), n(5), n(0)]);
    let [place, count] = p.vectors(FREE, &[(at(DATA), 5)]);
    p.call("vmsplice", libc::SYS_vmsplice, &[n(fd), place, count, n(0)]);
    for (label, from, to) in [("from it", fd, file), ("to it", file, fd), ("to itself", fd, fd)] {
        let copy = [n(from), NULL, n(to), NULL, n(5), n(0)];
        p.call(&format!("copy {label}"), libc::SYS_copy_file_range, &copy);
        p.call(&format!("splice {label}"), libc::SYS_splice, &copy);
    }
    p.call("sendfile from it", libc::SYS_sendfile, &[n(file), n(fd), NULL, n(4)]);
    p.call("fsync", libc::SYS_fsync, &[n(fd)]);
    p.call("ftruncate", libc::SYS_ftruncate, &[n(fd), n(0)]);
    p.receive(fd, 10, 0);
}

/// Runs these at the same time; what the calls answered, in order.
fn together(bodies: Vec<Box<dyn FnOnce() -> i64 + Send>>) -> Vec<i64> {
    let threads: Vec<_> = bodies.into_iter().map(std::thread::spawn).collect();
    let mut answers: Vec<i64> =
        threads.into_iter().map(|thread| thread.join().unwrap_or(i64::MIN)).collect();
    answers.sort_unstable();
    answers
}

/// One of them makes the connection; the others are told that it is there, or have waited for it.
fn threads_connect(p: &mut Probe) {
    for _ in 0..5 {
        let fd = p.socket(libc::SOCK_STREAM);
        let [place, length] = p.address(p.peer);
        let one = || -> Box<dyn FnOnce() -> i64 + Send> {
            let q = p.clone();
            Box::new(move || q.quiet(libc::SYS_connect, &[n(fd), place, length]))
        };
        let answers = together((0..4).map(|_| one()).collect());
        let known = |answer: &i64| *answer == 0 || *answer == -i64::from(libc::EISCONN);
        p.line("connected", answers.last() == Some(&0) && answers.iter().all(known));
        p.send(fd, b"say one\n", 0);
        p.receive_all(fd);
        p.close(fd);
    }
}

/// One of them gives it a port; the socket has an option that was set before.
fn threads_bind(p: &mut Probe) {
    for _ in 0..5 {
        let fd = p.socket(libc::SOCK_DGRAM);
        p.set_option(fd, libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
        let [place, length] = p.address(Probe::any());
        let one = || -> Box<dyn FnOnce() -> i64 + Send> {
            let q = p.clone();
            Box::new(move || q.quiet(libc::SYS_bind, &[n(fd), place, length]))
        };
        let answers = together((0..4).map(|_| one()).collect());
        let lost = -i64::from(libc::EINVAL);
        p.line("bound once", answers == [lost, lost, lost, 0]);
        p.get_option(fd, libc::SOL_SOCKET, libc::SO_BROADCAST, 4);
        p.own_name(fd);
        p.close(fd);
    }
}

/// Makes a daemon: a child that ends at once and leaves a child in a session of its own, which goes
/// on when its parent has ended. Returns when the daemon has ended, too.
fn daemonize(p: &Probe, body: impl FnOnce(&Probe)) {
    let (gone_read, gone_write) = p.pipe(libc::O_CLOEXEC);
    let (end_read, end_write) = p.pipe(libc::O_CLOEXEC);
    let copy = p.in_child("daemon");
    let child = guest_sys::fork::fork(move |_| {
        let session = copy.quiet(libc::SYS_setsid, &[]);
        copy.line("leads a session", session == copy.quiet(libc::SYS_getpid, &[]));
        let own = copy.clone();
        let daemon = guest_sys::fork::fork(move |_| {
            own.quiet(libc::SYS_close, &[n(gone_write)]);
            // Until the parent is gone.
            own.quiet(libc::SYS_read, &[n(gone_read), at(DATA), n(1)]);
            body(&own);
            0
        });
        i32::from(daemon.is_err())
    });
    let Ok(pid) = child else { return p.line("daemon", "no fork") };
    p.quiet(libc::SYS_close, &[n(end_write)]);
    let answer = p.quiet(libc::SYS_wait4, &[n(pid), at(FREE), n(0), NULL]);
    p.line("its parent", format!("{} {}", answer == i64::from(pid), p.number(FREE)));
    p.quiet(libc::SYS_close, &[n(gone_write)]);
    p.call("until it ends", libc::SYS_read, &[n(end_read), at(DATA), n(1)]);
}

fn daemon(p: &mut Probe) {
    let fd = p.stream("echo");
    daemonize(p, |p| {
        p.send(fd, b"daemon", 0);
        p.wait_bytes(fd, 6);
        p.receive(fd, 10, 0);
        let own = p.stream("say hello");
        p.receive_all(own);
    });
    p.send(fd, b"again", 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
}

fn daemon_accepts(p: &mut Probe) {
    let (listener, port) = p.listener(0);
    let control: RawFd = p.called_by_peer(port, "say served");
    daemonize(p, |p| {
        let fd = p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
        p.receive_all(fd);
    });
    p.close(listener);
    p.receive_all(control);
}

fn mask_of_pselect(p: &mut Probe) {
    let fd = p.stream("echo");
    if let Err(error) = on_signal(libc::SIGUSR1, Action::Count, 0) {
        p.line("mistake in the case", error);
    }
    p.arena.write(FREE, &(1_u64 << (libc::SIGUSR1 - 1)).to_ne_bytes());
    p.arena.write(FREE + 8, &0_u64.to_ne_bytes());
    p.arena.write_pointer(FREE + 16, at(FREE + 8));
    p.arena.write(FREE + 24, &8_u64.to_ne_bytes());
    let block = [n(libc::SIG_BLOCK), at(FREE), NULL, n(8)];
    p.call("block", libc::SYS_rt_sigprocmask, &block);
    let (pid, own) = (p.quiet(libc::SYS_getpid, &[]), p.quiet(libc::SYS_gettid, &[]));
    p.call("tgkill", libc::SYS_tgkill, &[n(pid), n(own), n(libc::SIGUSR1)]);
    p.line("handled", signals(libc::SIGUSR1));
    let select = |mask| {
        p.select_bit(FREE + 0x200, fd);
        [n(fd + 1), at(FREE + 0x200), NULL, NULL, NULL, mask]
    };
    p.call("pselect", libc::SYS_pselect6, &select(at(FREE + 16)));
    p.line("handled", signals(libc::SIGUSR1));
    p.arena.write(FREE + 24, &7_u64.to_ne_bytes());
    p.call("bad size", libc::SYS_pselect6, &select(at(FREE + 16)));
    // An empty argument is no mask.
    p.arena.write(FREE + 16, &[0; 16]);
    p.send(fd, b"x", 0);
    p.call("no mask", libc::SYS_pselect6, &select(at(FREE + 16)));
    p.line("selected", p.selected(FREE + 0x200, fd));
}

/// Numbers above the first word of a set, with holes.
fn many_descriptors(p: &mut Probe) {
    let fd = p.stream("echo");
    let numbers = [70, 131, 260];
    for number in numbers {
        p.call("dup2", libc::SYS_dup2, &[n(fd), n(number)]);
    }
    p.close(fd);
    p.send(131, b"x", 0);
    p.wait_bytes(131, 1);
    let set: Vec<_> = numbers.iter().map(|number| (*number, libc::POLLIN)).collect();
    p.poll(&set, 0);
    p.call("close_range", libc::SYS_close_range, &[n(71), n(200), n(0)]);
    p.poll(&set, 0);
    p.receive(260, 10, 0);
    p.call("close_range", libc::SYS_close_range, &[n(60), n(70), n(4)]);
    p.call("flags", libc::SYS_fcntl, &[n(70), n(libc::F_GETFD), n(0)]);
    p.call("flags", libc::SYS_fcntl, &[n(260), n(libc::F_GETFD), n(0)]);
}
