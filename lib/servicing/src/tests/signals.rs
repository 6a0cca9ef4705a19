//! Signals of remote sockets.
use super::guest::{DATA, Guest, Kind};
use super::{FS, RSP, address, blocked, connected, done, fork, remote_fd, trusted};
use linux_abi::{F_GETOWN, F_SETFL, F_SETOWN, F_SETSIG, O_ASYNC, POLL_IN, POLL_PRI, SIGURG, nr};

const OUT: i32 = 2;

fn control(g: &mut Guest, p: usize, fd: u64, command: u32, value: u64) -> i64 {
    g.call(p, nr::fcntl, &[fd, command.into(), value])
}

/// A socket that raises signal 40 of process 77.
fn asking() -> (Guest, usize, u64) {
    let (mut g, p, fd) = connected();
    assert_eq!(control(&mut g, p, fd, F_SETOWN, 77), 0);
    assert_eq!(control(&mut g, p, fd, F_SETSIG, 40), 0);
    assert_eq!(control(&mut g, p, fd, F_SETFL, O_ASYNC.into()), 0);
    (g, p, fd)
}

fn happens(g: &mut Guest, key: (u32, i32), code: i32) -> Vec<(i32, i32, i32)> {
    g.world.net.happens(key, code);
    g.events();
    g.events();
    std::mem::take(&mut g.raised)
}

/// The relay's own descriptors.
fn hidden(g: &Guest, p: usize) -> Vec<u64> {
    let files = g.processes[p].files.iter().filter(|(_, file)| file.kind == Kind::Vsock);
    files.map(|(fd, _)| *fd as u64).collect()
}

#[test]
fn the_owner_gets_the_signal_that_was_chosen() {
    let (mut g, p, fd) = asking();
    let key = remote_fd(&g);
    assert_eq!(control(&mut g, p, fd, F_GETOWN, 0), 77);
    for code in [POLL_IN, OUT, POLL_IN] {
        assert_eq!(
            happens(&mut g, key, code),
            [(77, 40, fd as i32)],
            "{:?}",
            g.world.lines.borrow()
        );
    }
    // The number stands for the socket again.
    assert_eq!(g.processes[p].files[&(fd as i32)].kind, Kind::Inet);
    g.write(p, DATA, b"x");
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
    // Another choice holds at once.
    control(&mut g, p, fd, F_SETSIG, 41);
    control(&mut g, p, fd, F_SETOWN, 78);
    assert_eq!(happens(&mut g, key, POLL_IN), [(78, 41, fd as i32)]);
    control(&mut g, p, fd, F_SETFL, 0);
    assert_eq!(happens(&mut g, key, POLL_IN), []);
    control(&mut g, p, fd, F_SETFL, O_ASYNC.into());
    assert_eq!(happens(&mut g, key, POLL_IN).len(), 1);
    control(&mut g, p, fd, F_SETOWN, 0);
    assert_eq!(happens(&mut g, key, POLL_IN), []);
    assert_eq!(g.world.net.watched.borrow().sockets(), []);
}

#[test]
fn urgent_data_have_their_own_signal() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    control(&mut g, p, fd, F_SETOWN, 77);
    let raised = happens(&mut g, key, POLL_PRI);
    assert!(matches!(raised[..], [(77, signal, _)] if signal == SIGURG as i32), "{raised:?}");
    assert_eq!(happens(&mut g, key, POLL_IN), [], "without O_ASYNC");
    control(&mut g, p, fd, F_SETFL, O_ASYNC.into());
    assert_eq!(happens(&mut g, key, POLL_PRI).len(), 1, "SIGIO is not for urgent data");
    control(&mut g, p, fd, F_SETSIG, 40);
    assert_eq!(happens(&mut g, key, POLL_PRI).len(), 2, "a chosen signal is");
}

#[test]
fn nothing_is_made_for_programs_that_do_not_ask() {
    let (mut g, p, fd) = connected();
    let before = (hidden(&g, p), g.engine.census().workers);
    control(&mut g, p, fd, F_SETFL, 0o4000);
    control(&mut g, p, fd, F_SETFL, 0);
    // Without an owner there is nobody to tell.
    control(&mut g, p, fd, F_SETFL, O_ASYNC.into());
    assert_eq!((hidden(&g, p), g.engine.census().workers), before);
}

#[test]
fn bells_are_hidden_and_go_with_their_socket() {
    let (mut g, p, fd) = connected();
    let wakes = hidden(&g, p);
    control(&mut g, p, fd, F_SETOWN, 77);
    control(&mut g, p, fd, F_SETFL, O_ASYNC.into());
    let bells: Vec<u64> = hidden(&g, p).into_iter().filter(|fd| !wakes.contains(fd)).collect();
    assert_eq!(bells.len(), 2);
    for bell in &bells {
        assert_eq!(g.call(p, nr::close, &[*bell]), -9);
        assert_eq!(g.call(p, nr::dup2, &[fd, *bell]), -9);
    }
    let copy = g.call(p, nr::dup, &[fd]) as u64;
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert_eq!(hidden(&g, p).len(), wakes.len() + 2);
    assert_eq!(g.call(p, nr::close_range, &[3, u64::from(u32::MAX), 0]), 0);
    assert_eq!(hidden(&g, p), wakes, "closed with {copy}");
}

#[test]
fn asked_for_before_the_socket_commits() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 1 | 0o4000, 0]) as u64;
    control(&mut g, p, fd, F_SETOWN, 77);
    control(&mut g, p, fd, F_SETFL, u64::from(O_ASYNC) | 0o4000);
    g.write(p, DATA, &address([10, 0, 2, 2], 0x9999));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -115);
    let key = remote_fd(&g);
    let raised = happens(&mut g, key, OUT);
    assert!(matches!(raised[..], [(77, 0, _)]), "{raised:?}");
}

#[test]
fn a_thread_that_waits_for_data_is_told_instead() {
    let (mut g, p, fd) = asking();
    let key = remote_fd(&g);
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    assert_eq!(happens(&mut g, key, POLL_IN), []);
    assert_eq!(happens(&mut g, key, OUT).len(), 1);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(done(g.again(&b)), 1);
    assert_eq!(happens(&mut g, key, POLL_IN).len(), 1);
}

#[test]
fn a_child_keeps_what_its_parent_has_asked_for() {
    let (mut g, p, fd) = asking();
    let child = fork(&mut g, p);
    let key = remote_fd(&g);
    assert_eq!(g.call(child, nr::close, &[fd]), 0);
    assert_eq!(happens(&mut g, key, POLL_IN), [(77, 40, fd as i32)]);
    // The parent's end leaves its socket to another child.
    let other = fork(&mut g, p);
    g.kill(p);
    g.events();
    let watched = g.world.net.watched.borrow().sockets();
    let key = *watched.iter().find(|(delegate, _)| *delegate != key.0).expect("moved on");
    assert_eq!(happens(&mut g, key, POLL_IN), [(77, 40, fd as i32)]);
    assert_eq!(control(&mut g, other, fd, F_SETSIG, 42), 0);
    assert_eq!(happens(&mut g, key, POLL_IN), [(77, 42, fd as i32)]);
}

#[test]
fn many_events_do_not_fill_a_bell() {
    let (mut g, p, fd) = asking();
    let key = remote_fd(&g);
    for _ in 0..1100 {
        assert_eq!(happens(&mut g, key, OUT).len(), 1);
    }
    let unread = |g: &Guest| -> usize {
        let files = g.processes[p].files.values().filter(|file| file.kind == Kind::Vsock);
        files.map(|file| file.bytes.borrow().len()).sum()
    };
    assert_eq!(unread(&g), 1100);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(g.call(p, nr::read, &[fd, DATA, 1]), 1);
    // A wake-up may have come for nothing.
    assert!(unread(&g) < 4, "{}", unread(&g));
}
