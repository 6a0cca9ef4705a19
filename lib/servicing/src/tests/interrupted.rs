//! Calls whose threads come back elsewhere, or not at all: children of handlers, children that are killed; and
//! processes that follow each other quickly.
use super::*;

/// Something arrives at all remote sockets.
fn arrive(g: &Guest, bytes: &[u8]) {
    let mut sockets = g.world.net.sockets.borrow_mut();
    sockets.values_mut().for_each(|socket| socket.received.extend(bytes));
}

#[test]
fn a_child_of_a_handler_returns_to_the_call_that_was_interrupted() {
    for signal in [Signal::Interrupt, Signal::Restart] {
        let (mut g, p, fd) = connected();
        let waits = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
        let child = fork_at(&mut g, p, RSP - 0x300);
        // The handler ends in both.
        let parent = g.handler_returns(&waits, p, signal);
        let own = g.handler_returns(&waits, child, signal);
        if signal == Signal::Interrupt {
            assert_eq!((done(parent), done(own)), (-4, -4));
        } else {
            let (parent, own) = (blocked(parent), blocked(own));
            arrive(&g, b"both");
            assert_eq!(done(g.again(&own)), 4, "{:?}", g.world.lines.borrow());
            assert_eq!(g.read(child, DATA, 4), b"both");
            assert_eq!(done(g.again(&parent)), 4);
        }
        assert_eq!(g.engine.census().in_service, 0);
        // It is a process like any other.
        let result = patient(&mut g, child, nr::write, &[fd, DATA, 1]);
        assert_eq!(result, 1);
    }
}

#[test]
fn a_handlers_child_has_what_its_parents_handlers_have_interrupted() {
    let (mut g, p, fd) = connected();
    let outer = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    let entry = linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 };
    g.write(p, DATA + 0x80, &entry.encode());
    let inner = blocked(g.begin(p, FS, RSP - 0x300, nr::poll, &[DATA + 0x80, 1, u64::MAX]));
    let child = fork_at(&mut g, p, RSP - 0x600);
    let grandchild = fork_at(&mut g, child, RSP - 0x900);
    for process in [grandchild, child, p] {
        let inner = g.handler_returns(&inner, process, Signal::Interrupt);
        assert_eq!(done(inner), -4, "poll");
        let outer = g.handler_returns(&outer, process, Signal::Interrupt);
        assert_eq!(done(outer), -4, "read");
    }
}

#[test]
fn a_call_given_up_for_too_many_handlers_goes_on() {
    let (mut g, p, fd) = connected();
    let place = |n: u64| RSP - 0x100 * n;
    let read = |g: &mut Guest, n: u64| blocked(g.begin(p, FS, place(n), nr::read, &[fd, DATA, 1]));
    let waiting: Vec<_> = (0..12).map(|n| read(&mut g, n)).collect();
    for b in waiting.iter().rev() {
        assert_eq!(done(g.handler_returns(b, p, Signal::Interrupt)), -4);
    }
    assert_eq!(g.engine.census().in_service, 0);
}

#[test]
fn a_vfork_child_that_is_killed_in_a_call_gives_no_result_to_its_parent() {
    let (mut g, p, fd) = connected();
    g.processes[p].suspended = true;
    let parent = blocked(g.begin(p, FS, RSP, nr::vfork, &[]));
    let copy = g.processes[p].clone();
    g.processes.push(copy);
    let child = g.processes.len() - 1;
    assert_eq!(done(g.child(&parent.state, child)), 0);
    g.write(child, DATA, b"untouched");
    let mut end = g.begin(child, FS, RSP, nr::read, &[fd, DATA, 100]);
    for _ in 0..3 {
        // Its delegate comes first.
        if let End::Blocked(b) = end {
            end = g.again(&b);
        }
    }
    blocked(end);
    arrive(&g, b"late");
    g.processes[child].files.clear();
    g.processes[p].suspended = false;
    assert_eq!(done(g.again(&parent)), 500, "the pid, not what was read");
    assert_eq!(g.read(p, DATA, 9), b"untouched");
    assert_eq!(g.engine.census().in_service, 0);
    assert_eq!(g.call(p, nr::read, &[fd, DATA, 100]), 4);
}

#[test]
fn a_daemon_keeps_its_sockets_though_its_parents_delegate_is_only_starting() {
    let (mut g, p, fd) = connected();
    g.world.net.starting.set(true);
    let child = fork_at(&mut g, p, RSP);
    assert!(g.world.net.starting.get(), "nobody has waited for the child's delegate");
    let daemon = fork_at(&mut g, child, RSP);
    g.world.net.starting.set(false);
    for gone in [child, p] {
        g.kill(gone);
    }
    g.write(daemon, DATA, b"daemon");
    assert_eq!(patient(&mut g, daemon, nr::write, &[fd, DATA, 6]), 6);
    let sockets = g.world.net.sockets.borrow();
    let open: Vec<_> = sockets.values().filter(|socket| !socket.closed).collect();
    assert!(open.iter().any(|socket| socket.sent == b"daemon"), "{open:?}");
}

#[test]
fn a_signal_while_a_wake_socket_is_made_is_not_the_calls_end() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let one = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    // The second thread that waits needs a wake socket of its own.
    g.processes[p].signal = Some(Signal::Restart);
    let two = blocked(g.begin(p, FS + 1, RSP - 0x400, nr::read, &[fd, DATA, 1]));
    assert_eq!(g.processes[p].signal, None);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"xy");
    assert_eq!(done(g.again(&two)), 1);
    assert_eq!(done(g.again(&one)), 1);
}
