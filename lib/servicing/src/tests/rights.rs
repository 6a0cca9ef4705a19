//! Whom delegates act as.
use super::guest::{DATA, Guest};
use super::{CURL, address, connected, trusted};
use linux_abi::nr;
use proptest::prelude::*;
use wire::hypercall;

/// A trusted program of root's.
fn root(initial: bool, capabilities: u64) -> (Guest, usize) {
    let mut g = Guest::new("/usr/bin/curl");
    let p = g.start(b"/launcher");
    g.processes[p].uid = 0;
    g.processes[p].fsuid = 0;
    g.processes[p].capabilities = capabilities;
    g.processes[p].initial = initial;
    g.processes[p].groups = vec![4, 27];
    g.hypercall(p, hypercall::TRUST, 0);
    g.write(p, DATA, CURL);
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    (g, p)
}

fn connect(g: &mut Guest, p: usize) -> u64 {
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
    fd
}

fn acting(g: &Guest) -> (wire::Identity, Vec<u8>) {
    g.world.net.identities.borrow()[&(1, 1)].clone()
}

#[test]
fn a_worker_acts_as_its_process_does() {
    let (mut g, p) = root(true, u64::MAX);
    let fd = connect(&mut g, p);
    let (whom, groups) = acting(&g);
    assert_eq!((whom.uid, whom.fsuid, whom.capabilities), (0, 0, u64::MAX));
    assert_eq!(groups, [4, 0, 0, 0, 27, 0, 0, 0]);
    // It is told once, and again when something has changed, before the next request.
    let told = |g: &Guest| {
        let log = g.world.net.log.borrow();
        log.iter().filter(|(_, r)| matches!(r, wire::Request::Identity(_))).count()
    };
    g.call(p, nr::write, &[fd, DATA, 1]);
    assert_eq!(told(&g), 1);
    assert_eq!(g.call(p, nr::setuid, &[33]), 0);
    assert_eq!(told(&g), 1);
    g.call(p, nr::write, &[fd, DATA, 1]);
    assert_eq!(told(&g), 2);
    let (whom, _) = acting(&g);
    assert_eq!((whom.uid, whom.fsuid, whom.capabilities), (33, 33, 0));
    // `setfsuid` answers the old id, whatever it does.
    assert_eq!(g.call(p, nr::setfsuid, &[7]), 33);
    g.call(p, nr::write, &[fd, DATA, 1]);
    assert_eq!((acting(&g).0.uid, acting(&g).0.fsuid), (33, 7));
}

#[test]
fn capabilities_of_another_user_namespace_are_worth_nothing() {
    let (mut g, p) = root(false, u64::MAX);
    connect(&mut g, p);
    let (whom, _) = acting(&g);
    assert_eq!((whom.uid, whom.capabilities), (65534, 0), "root of his own namespace only");

    let (mut g, p) = root(true, u64::MAX);
    let fd = connect(&mut g, p);
    assert_eq!(g.call(p, nr::unshare, &[linux_abi::CLONE_NEWUSER]), 0);
    g.call(p, nr::write, &[fd, DATA, 1]);
    assert_eq!((acting(&g).0.uid, acting(&g).0.capabilities), (0, 0));
    g.call(p, nr::setuid, &[5]);
    g.call(p, nr::write, &[fd, DATA, 1]);
    assert_eq!(acting(&g).0.uid, 0, "ids of another namespace are not followed");
}

#[test]
fn rings_do_not_exist() {
    let (mut g, p, _) = connected();
    for number in [nr::io_uring_setup, nr::io_uring_enter, nr::io_uring_register] {
        assert_eq!(g.call(p, number, &[8, DATA, 0, 0]), -38);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever a process does with its ids, what is served next is served as it is then.
    #[test]
    fn no_request_is_served_as_somebody_else(steps in proptest::collection::vec((0u32..3, 1u32..5), 1..8)) {
        let (mut g, p) = trusted();
        g.processes[p].uid = 1000;
        let fd = connect(&mut g, p);
        for (what, id) in steps {
            match what {
                0 => drop(g.call(p, nr::setuid, &[u64::from(id)])),
                1 => drop(g.call(p, nr::setfsuid, &[u64::from(id)])),
                _ => {}
            }
            prop_assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
            let (whom, _) = acting(&g);
            prop_assert_eq!((whom.uid, whom.fsuid), (g.processes[p].uid, g.processes[p].fsuid));
        }
    }
}

#[test]
fn a_link_to_the_launcher_is_the_program_for_who_is_trusted_already() {
    for (programs, kept) in [("/usr/bin/curl:/usr/bin/wget", 1), ("/usr/bin/curl", 0)] {
        let mut g = Guest::new(programs);
        let p = g.start(b"/launcher");
        g.hypercall(p, hypercall::TRUST, 0);
        g.write(p, DATA, CURL);
        g.call(p, nr::execve, &[DATA, 0, 0]);
        let fd = connect(&mut g, p);
        g.write(p, DATA, b"/run/trapline/bin/./wget\0");
        g.call(p, nr::execve, &[DATA, 0, 0]);
        g.events();
        assert_eq!(g.engine.census().processes, kept, "{programs}");
        let sent = g.call(p, nr::write, &[fd, DATA, 1]);
        assert_eq!(sent == 1, kept == 1, "{programs}");
    }
}

#[test]
fn requests_for_trust_take_a_bounded_amount_of_memory() {
    let (mut g, p, fd) = connected();
    for _ in 0..80 {
        let q = g.start(b"/launcher");
        assert_eq!(g.hypercall(q, hypercall::TRUST, 0), 0);
    }
    assert_eq!(g.engine.watched().len(), 1 + 64);
    // The last one is served, and so is who was trusted before.
    let q = g.processes.len() - 1;
    g.write(q, DATA, CURL);
    assert_eq!(g.call(q, nr::execve, &[DATA, 0, 0]), 4242 + q as i64);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
}

#[test]
fn without_memory_calls_are_refused_and_nothing_is_lost() {
    let (mut g, p, fd) = connected();
    g.world.full.set(true);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), -12);
    assert_eq!(g.call(p, nr::getppid, &[]), 1);
    g.world.full.set(false);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
}
