//! Signals: what interrupts a call, what restarts it, what raises one.
use super::Case;
use crate::probe::{DATA, FREE, NULL, Probe, at, n};
use guest_sys::raw::{Action, Arg, on_signal, signals};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const CASES: &[Case] = &[
    ("signal_pipe", pipe),
    ("signal_interrupts", interrupts),
    ("signal_restarts", restarts),
    ("signal_restarts_accept_and_connect", restarts_accept_and_connect),
    ("signal_never_restarts", never_restarts),
    ("signal_handler_writes", handler_writes),
    ("signal_handler_leaves", handler_leaves),
    ("signal_with_timeout", with_timeout),
    ("signal_ignored", ignored),
    ("signal_mask_of_ppoll", mask_of_ppoll),
];

/// Sends `SIGUSR1` to the calling thread again and again until it is dropped.
pub struct Shots {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// `limit` is how often at most.
pub fn shots(p: &Probe, limit: u32) -> Shots {
    let stop = Arc::new(AtomicBool::new(false));
    let own = p.quiet(libc::SYS_gettid, &[]);
    let pid = p.quiet(libc::SYS_getpid, &[]);
    let (q, seen) = (p.clone(), stop.clone());
    let thread = std::thread::spawn(move || {
        for _ in 0..limit {
            std::thread::sleep(Duration::from_millis(150));
            if seen.load(Ordering::SeqCst) {
                break;
            }
            q.quiet(libc::SYS_tgkill, &[n(pid), n(own), n(libc::SIGUSR1)]);
        }
    });
    Shots { stop, thread: Some(thread) }
}

impl Drop for Shots {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the process.
            let _ = thread.join();
        }
    }
}

pub fn handle(p: &Probe, action: Action, flags: i32) {
    if let Err(error) = on_signal(libc::SIGUSR1, action, flags) {
        p.line("mistake in the case", error);
    }
}

/// Calls that wait, on a connection on which nothing comes. (`arena` is set up by each.)
fn waiting(p: &Probe, fd: RawFd, listener: RawFd) -> Vec<(&'static str, i64, Vec<Arg>)> {
    let [place, count] = p.vectors(FREE, &[(at(DATA), 10)]);
    p.arena.write(FREE + 0x100, &[0; 56]);
    p.arena.write_pointer(FREE + 0x110, place);
    p.arena.write(FREE + 0x118, &1_u64.to_ne_bytes());
    let set = p.poll_set(&[(fd, libc::POLLIN)]);
    vec![
        ("read", libc::SYS_read, vec![n(fd), at(DATA), n(10)]),
        ("readv", libc::SYS_readv, vec![n(fd), place, count]),
        ("recvfrom", libc::SYS_recvfrom, vec![n(fd), at(DATA), n(10), n(0), NULL, NULL]),
        ("recvmsg", libc::SYS_recvmsg, vec![n(fd), at(FREE + 0x100), n(0)]),
        ("accept", libc::SYS_accept, vec![n(listener), NULL, NULL]),
        ("poll", libc::SYS_poll, vec![set, n(1), n(-1)]),
        ("ppoll", libc::SYS_ppoll, vec![set, n(1), NULL, NULL, n(8)]),
    ]
}

fn pipe(p: &mut Probe) {
    // Rust's own start-up ignores it.
    let closed = |p: &Probe| {
        let fd = p.stream("echo");
        p.call("shutdown", libc::SYS_shutdown, &[n(fd), n(libc::SHUT_WR)]);
        fd
    };
    let fd = closed(p);
    p.send(fd, b"x", 0);
    if let Err(error) = on_signal(libc::SIGPIPE, Action::Count, 0) {
        p.line("mistake in the case", error);
    }
    p.send(fd, b"x", libc::MSG_NOSIGNAL);
    p.line("signals", signals(libc::SIGPIPE));
    p.send(fd, b"x", 0);
    p.line("signals", signals(libc::SIGPIPE));
    p.call("write", libc::SYS_write, &[n(fd), at(DATA), n(1)]);
    p.line("signals", signals(libc::SIGPIPE));
    let datagrams = p.datagrams();
    p.call("shutdown", libc::SYS_shutdown, &[n(datagrams), n(libc::SHUT_WR)]);
    p.send(datagrams, b"x", 0);
    p.line("signals", signals(libc::SIGPIPE));
}

fn interrupts(p: &mut Probe) {
    let fd = p.stream("echo");
    let (listener, _) = p.listener(0);
    handle(p, Action::Count, 0);
    for (name, number, arguments) in waiting(p, fd, listener) {
        let shots = shots(p, 1000);
        p.call(name, number, &arguments);
        drop(shots);
    }
    p.line("handled", signals(libc::SIGUSR1) >= 7);
}

fn restarts(p: &mut Probe) {
    handle(p, Action::Count, libc::SA_RESTART);
    let (listener, _) = p.listener(0);
    for which in 0..4 {
        let fd = p.stream("later hello");
        let waiting = waiting(p, fd, listener);
        let Some((name, number, arguments)) = waiting.get(which) else { return };
        let shots = shots(p, 2);
        let answer = p.quiet(*number, arguments);
        drop(shots);
        p.arrived(name, answer, DATA, 10);
    }
    p.line("handled", signals(libc::SIGUSR1) >= 4);
}

fn restarts_accept_and_connect(p: &mut Probe) {
    handle(p, Action::Count, libc::SA_RESTART);
    let (listener, port) = p.listener(0);
    let shots = shots(p, 1000);
    let (q, peer) = (p.clone(), p.peer);
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        let line = format!("connect {port} hold x\n");
        if let Ok(mut stream) = std::net::TcpStream::connect(peer) {
            let sent = std::io::Write::write_all(&mut stream, line.as_bytes());
            q.line("asked", sent.is_ok());
            std::thread::sleep(Duration::from_millis(700));
        }
    });
    p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
    drop(shots);
    p.line("thread", later.join().is_ok());
}

/// `poll` and `select` are never restarted, nor is a call with a time-out.
fn never_restarts(p: &mut Probe) {
    let fd = p.stream("echo");
    let (listener, _) = p.listener(0);
    handle(p, Action::Count, libc::SA_RESTART);
    for (name, number, arguments) in waiting(p, fd, listener).into_iter().skip(5) {
        let shots = shots(p, 1000);
        p.call(name, number, &arguments);
        drop(shots);
    }
    p.arena.write(FREE, &1_u64.to_ne_bytes());
    p.select_bit(FREE + 0x200, fd);
    let shots_select = shots(p, 1000);
    let arguments = [n(fd + 1), at(FREE + 0x200), NULL, NULL, NULL];
    p.call("select", libc::SYS_select, &arguments);
    drop(shots_select);
    p.timeout(fd, libc::SO_RCVTIMEO, 20_000);
    let shots = shots(p, 1000);
    p.call("read with a time-out", libc::SYS_read, &[n(fd), at(DATA), n(10)]);
    drop(shots);
}

fn handler_writes(p: &mut Probe) {
    let fd = p.stream("echo");
    handle(p, Action::Write(fd), libc::SA_RESTART);
    let shots = shots(p, 1);
    // The handler's own byte comes back and ends the call that it interrupted.
    let answer = p.quiet(libc::SYS_read, &[n(fd), at(DATA), n(10)]);
    drop(shots);
    p.arrived("read", answer, DATA, 10);
    p.line("handled", signals(libc::SIGUSR1));
}

fn handler_leaves(p: &mut Probe) {
    let fd = p.stream("echo");
    let (listener, _) = p.listener(0);
    handle(p, Action::Escape, 0);
    for (name, number, arguments) in waiting(p, fd, listener) {
        let shots = shots(p, 1000);
        let left = p.arena.call_escapable(number, &arguments);
        drop(shots);
        p.line(name, if matches!(left, Ok(None)) { "left" } else { "not left" });
    }
    // Nothing of the calls that were left is in the way.
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.receive(fd, 10, 0);
}

fn with_timeout(p: &mut Probe) {
    handle(p, Action::Count, 0);
    let fd = p.stream("echo");
    p.timeout(fd, libc::SO_RCVTIMEO, 300);
    p.receive(fd, 10, 0);
    p.receive(fd, 10, libc::MSG_WAITALL);
    p.get_option(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, 16);
    p.timeout(fd, libc::SO_RCVTIMEO, 20_000);
    let shots = shots(p, 1000);
    p.receive(fd, 10, 0);
    drop(shots);
    p.send(fd, b"hello", 0);
    p.wait_bytes(fd, 5);
    p.timeout(fd, libc::SO_RCVTIMEO, 300);
    p.receive(fd, 10, libc::MSG_WAITALL);
    let (listener, _) = p.listener(0);
    p.timeout(listener, libc::SO_RCVTIMEO, 300);
    p.open("accept", libc::SYS_accept, &[n(listener), NULL, NULL]);
}

fn ignored(p: &mut Probe) {
    let fd = p.stream("later hello");
    handle(p, Action::Ignore, 0);
    let shots = shots(p, 1000);
    let answer = p.quiet(libc::SYS_read, &[n(fd), at(DATA), n(10)]);
    drop(shots);
    p.arrived("read", answer, DATA, 10);
}

fn mask_of_ppoll(p: &mut Probe) {
    let fd = p.stream("echo");
    handle(p, Action::Count, 0);
    let bit = 1_u64 << (libc::SIGUSR1 - 1);
    p.arena.write(FREE, &bit.to_ne_bytes());
    p.arena.write(FREE + 8, &0_u64.to_ne_bytes());
    let block = [n(libc::SIG_BLOCK), at(FREE), NULL, n(8)];
    p.call("block", libc::SYS_rt_sigprocmask, &block);
    let (pid, own) = (p.quiet(libc::SYS_getpid, &[]), p.quiet(libc::SYS_gettid, &[]));
    p.call("tgkill", libc::SYS_tgkill, &[n(pid), n(own), n(libc::SIGUSR1)]);
    p.line("handled", signals(libc::SIGUSR1));
    p.poll(&[(fd, libc::POLLIN)], 100);
    p.line("handled", signals(libc::SIGUSR1));
    let set = p.poll_set(&[(fd, libc::POLLIN)]);
    p.call("ppoll", libc::SYS_ppoll, &[set, n(1), NULL, at(FREE + 8), n(8)]);
    p.line("handled", signals(libc::SIGUSR1));
    p.call("bad size", libc::SYS_ppoll, &[set, n(1), NULL, at(FREE + 8), n(7)]);
}
