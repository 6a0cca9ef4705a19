//! Sockets that other processes come to have.
use super::fake::rights;
use super::guest::{DATA, File, Guest, Kind};
use super::{FS, RSP, address, blocked, connected, done, fork, patient, trusted};
use linux_abi::nr;
use wire::Request;

const UNIX: i32 = 60;

/// Lays out a message with descriptors at `DATA`.
fn message(g: &Guest, p: usize, control: &[u8]) {
    let mut header = vec![0; 56];
    header[32..40].copy_from_slice(&(DATA + 0x100).to_le_bytes());
    header[40..48].copy_from_slice(&(control.len() as u64).to_le_bytes());
    g.write(p, DATA, &header);
    g.write(p, DATA + 0x100, control);
}

fn fetched(g: &Guest) -> usize {
    let log = g.world.net.log.borrow();
    log.iter().filter(|(_, r)| matches!(r, Request::Fetch { .. })).count()
}

#[test]
fn a_socket_made_before_a_fork_is_remote_in_both() {
    for child_connects in [true, false] {
        let (mut g, p) = trusted();
        let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
        let child = fork(&mut g, p);
        let (first, second) = if child_connects { (child, p) } else { (p, child) };
        g.write(first, DATA, &address([10, 0, 2, 2], 80));
        assert_eq!(patient(&mut g, first, nr::connect, &[fd, DATA, 16]), 0);
        assert_eq!(fetched(&g), 1);
        assert_eq!(patient(&mut g, second, nr::write, &[fd, DATA, 1]), 1);
        // Each has its own share.
        assert_eq!(patient(&mut g, first, nr::close, &[fd]), 0);
        assert_eq!(patient(&mut g, second, nr::write, &[fd, DATA, 1]), 1);
        assert_eq!(patient(&mut g, second, nr::close, &[fd]), 0);
        assert!(g.world.net.sockets.borrow().values().all(|s| s.closed));
    }
}

/// A connected process, a trusted one beside it, and a local socket between them.
fn beside() -> (Guest, usize, usize, u64) {
    let (mut g, p, fd) = connected();
    let other = fork(&mut g, p);
    assert_eq!(patient(&mut g, other, nr::close, &[fd]), 0);
    for process in [p, other] {
        g.processes[process].files.insert(UNIX, File { kind: Kind::Unix, ..File::default() });
    }
    g.processes[p].peer = 4242 + other as i32;
    (g, p, other, fd)
}

/// The same, with the connection's socket on its way to the other one.
fn sent() -> (Guest, usize, usize, u64, File) {
    let (mut g, p, other, fd) = beside();
    let file = g.processes[p].files[&(fd as i32)].clone();
    message(&g, p, &rights(&[fd as i32]));
    assert_eq!(patient(&mut g, p, nr::sendmsg, &[UNIX as u64, DATA, 0]), 1);
    (g, p, other, fd, file)
}

#[test]
fn a_passed_descriptor_arrives_after_its_sender_is_gone() {
    let (mut g, p, other, _, file) = sent();
    g.kill(p);
    g.processes[other].incoming = Some(file);
    message(&g, other, &[0; 24]);
    assert_eq!(patient(&mut g, other, nr::recvmsg, &[UNIX as u64, DATA, 0]), 1);
    let new = i32::from_le_bytes(g.read(other, DATA + 0x110, 4).try_into().unwrap());
    assert_eq!(patient(&mut g, other, nr::write, &[new as u64, DATA, 1]), 1);
    g.events();
    // The dispatcher's own share is gone; the next process does not have it.
    let sockets = g.world.net.sockets.borrow();
    let open: Vec<_> = sockets.iter().filter(|(_, s)| !s.closed).map(|((d, _), _)| *d).collect();
    assert!(!open.contains(&0) && open.contains(&2), "{open:?}");
}

#[test]
fn what_never_arrives_goes_with_the_last_process() {
    let (mut g, p, other, _, _) = sent();
    assert!(g.world.net.sockets.borrow().iter().any(|((d, _), s)| *d == 0 && !s.closed));
    g.kill(p);
    g.kill(other);
    g.events();
    g.engine.doorbell();
    g.events();
    assert!(g.world.net.sockets.borrow().iter().all(|((d, _), s)| *d != 0 || s.closed));
}

#[test]
fn an_untrusted_process_gets_nothing() {
    let (mut g, p, fd) = connected();
    g.processes[p].files.insert(UNIX, File { kind: Kind::Unix, ..File::default() });
    g.processes[p].peer = 99;
    message(&g, p, &rights(&[fd as i32]));
    g.calls.clear();
    assert_eq!(g.call(p, nr::sendmsg, &[UNIX as u64, DATA, 0]), -1);
    assert!(!g.calls.contains(&nr::sendmsg));
    let lines = g.world.lines.borrow();
    assert_eq!(lines.iter().filter(|l| l.contains("untrusted process")).count(), 1);
    assert_eq!(fetched(&g), 0);
}

#[test]
fn a_taken_descriptor_is_remote() {
    let (mut g, p, fd) = connected();
    let other = fork(&mut g, p);
    assert_eq!(patient(&mut g, other, nr::close, &[fd]), 0);
    let new = patient(&mut g, other, nr::pidfd_getfd, &[p as u64, fd, 0]);
    assert!(new > 0);
    assert_eq!(patient(&mut g, other, nr::write, &[new as u64, DATA, 1]), 1);
    assert_eq!(fetched(&g), 1);
    // One of a local file is only a number.
    g.processes[p].files.insert(UNIX, File { kind: Kind::Unix, ..File::default() });
    let new = patient(&mut g, other, nr::pidfd_getfd, &[p as u64, UNIX as u64, 0]);
    assert!(new > 0);
    assert_eq!(fetched(&g), 1);
}

#[test]
fn a_socket_that_was_passed_raises_signals_without_its_sender() {
    for closes in [true, false] {
        passed_raises(closes);
    }
}

fn passed_raises(closes: bool) {
    let (mut g, p, other, fd, file) = sent();
    let control = |g: &mut Guest, command: u32, value: u64| {
        assert_eq!(patient(g, p, nr::fcntl, &[fd, command.into(), value]), 0);
    };
    control(&mut g, linux_abi::F_SETOWN, 77);
    control(&mut g, linux_abi::F_SETSIG, 40);
    control(&mut g, linux_abi::F_SETFL, linux_abi::O_ASYNC.into());
    g.processes[other].incoming = Some(file);
    message(&g, other, &[0; 24]);
    assert_eq!(patient(&mut g, other, nr::recvmsg, &[UNIX as u64, DATA, 0]), 1);
    // It closes its own, or ends.
    if closes {
        assert_eq!(patient(&mut g, p, nr::close, &[fd]), 0);
    } else {
        g.kill(p);
    }
    let key = {
        let sockets = g.world.net.sockets.borrow();
        *sockets.iter().find(|((d, _), s)| *d == 2 && !s.closed).expect("its socket").0
    };
    g.world.net.happens(key, linux_abi::POLL_IN);
    g.events();
    g.events();
    assert!(matches!(g.raised[..], [(77, 40, _)]), "{:?}", g.raised);
}

#[test]
fn who_waits_already_when_a_descriptor_is_sent_gets_the_socket() {
    for form in [wire::hypercall::Form::Watched, wire::hypercall::Form::Stub] {
        super::guest::FORM.set(form);
        let (mut g, p, other, fd) = beside();
        message(&g, other, &[0; 24]);
        let receive = [UNIX as u64, DATA, 0];
        let waits = blocked(g.begin(other, FS, RSP, nr::recvmsg, &receive));
        let file = g.processes[p].files[&(fd as i32)].clone();
        message(&g, p, &rights(&[fd as i32]));
        assert_eq!(patient(&mut g, p, nr::sendmsg, &[UNIX as u64, DATA, 0]), 1);
        g.processes[other].incoming = Some(file);
        assert_eq!(done(g.again(&waits)), 1);
        let new = i32::from_le_bytes(g.read(other, DATA + 0x110, 4).try_into().unwrap());
        assert_eq!(patient(&mut g, other, nr::write, &[new as u64, DATA, 1]), 1);
    }
}
