//! Threads that only their stacks tell apart.
use super::*;
use linux_abi::{CLONE_SETTLS, CLONE_THREAD, CLONE_VM};

/// Sockets that are connected, with the keys of their remote halves.
fn sockets(g: &mut Guest, p: usize, count: usize) -> Vec<(u64, (u32, i32))> {
    let mut all: Vec<(u64, (u32, i32))> = Vec::new();
    for _ in 0..count {
        let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
        g.write(p, DATA, &address([10, 0, 2, 2], 80));
        assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
        let sockets = g.world.net.sockets.borrow();
        let new = sockets.keys().find(|key| all.iter().all(|(_, known)| known != *key));
        all.push((fd, *new.expect("a remote socket")));
    }
    all
}

#[test]
fn threads_without_storage_of_their_own_wait_at_the_same_time() {
    let (mut g, p) = trusted();
    let all = sockets(&mut g, p, 12);
    let _ = g.begin(p, FS, RSP, nr::clone, &[CLONE_VM | CLONE_THREAD, RSP - 0x400]);
    let stack = |n: usize| RSP - 0x40 * n as u64;
    let at = |n: usize| DATA + 16 * n as u64;
    let waiting: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(n, (fd, _))| blocked(g.begin(p, FS, stack(n), nr::read, &[*fd, at(n), 16])))
        .collect();
    assert_eq!(g.engine.census().in_service, all.len() as u64);
    // The first that began ends first, then the last; none is taken for a handler of another.
    let order = (0..all.len()).step_by(2).chain((0..all.len()).rev().filter(|n| n % 2 == 1));
    for n in order {
        let letter = b'a' + n as u8;
        let mut remote = g.world.net.sockets.borrow_mut();
        remote.get_mut(&all[n].1).expect("a socket").received.push_back(letter);
        drop(remote);
        assert_eq!(done(g.again(&waiting[n])), 1, "thread {n}");
        assert_eq!(g.read(p, at(n), 1), [letter]);
    }
    assert_eq!(g.engine.census().in_service, 0);
}

#[test]
fn a_thread_with_storage_of_its_own_is_an_ordinary_one() {
    let (mut g, p) = trusted();
    let all = sockets(&mut g, p, 1);
    let flags = CLONE_VM | CLONE_THREAD | CLONE_SETTLS;
    let _ = g.begin(p, FS, RSP, nr::clone, &[flags, RSP - 0x400]);
    let _ = blocked(g.begin(p, FS, RSP, nr::read, &[all[0].0, DATA, 1]));
    // A handler's call, below; then one from above: both have been left.
    let _ = blocked(g.begin(p, FS, RSP - 0x200, nr::read, &[all[0].0, DATA, 1]));
    assert_eq!(done(g.begin(p, FS, RSP, nr::fcntl, &[all[0].0, 1])), 0);
    assert_eq!(g.engine.census().in_service, 0);
}

/// A `vfork` whose child has come out, as a process of its own.
fn vfork(g: &mut Guest, p: usize) -> (Blocked, usize) {
    g.processes[p].suspended = true;
    let parent = blocked(g.begin(p, FS, RSP, nr::vfork, &[]));
    let child = g.processes[p].clone();
    g.processes.push(child);
    let child = g.processes.len() - 1;
    assert_eq!(done(g.child(&parent.state, child)), 0);
    (parent, child)
}

#[test]
fn a_vfork_child_uses_its_parents_sockets_before_it_starts_a_program() {
    let (mut g, p, fd) = connected();
    let (parent, child) = vfork(&mut g, p);
    g.write(child, DATA, b"child");
    let end = g.begin(child, FS, RSP, nr::write, &[fd, DATA, 5]);
    let sent = match end {
        End::Blocked(b) => done(g.again(&b)),
        end => done(end),
    };
    assert_eq!(sent, 5, "{:?}", g.world.lines.borrow());
    let hidden = *g.processes[p].files.iter().find(|(_, f)| f.kind == Kind::Vsock).unwrap().0;
    assert_eq!(done(g.begin(child, FS, RSP, nr::dup2, &[hidden as u64, 60])), -9);
    // It starts a program by a call from the very place where its parent's is made.
    g.write(child, DATA, b"/usr/bin/curl\0");
    assert_eq!(done(g.begin(child, FS, RSP, nr::execve, &[DATA, 0, 0])), 4242 + child as i64);
    g.processes[p].suspended = false;
    assert_eq!(done(g.again(&parent)), 500, "the parent gets the pid");
    g.write(p, DATA, b"x");
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
    assert_eq!(g.engine.census().processes, 2);
}

#[test]
fn a_vfork_child_whose_exec_fails_goes_on() {
    let mut g = Guest::new("/usr/bin/curl:/usr/bin/missing");
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    g.write(p, DATA, b"/usr/bin/curl\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    let (parent, child) = vfork(&mut g, p);
    g.write(child, DATA, b"/usr/bin/missing\0");
    assert_eq!(done(g.begin(child, FS, RSP, nr::execve, &[DATA, 0, 0])), -2);
    g.processes[p].suspended = false;
    assert_eq!(done(g.again(&parent)), 500);
}
