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
