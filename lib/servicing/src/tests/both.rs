//! Listeners in both VMs.
use super::guest::{DATA, Guest, Kind, Signal};
use super::{FS, RSP, address, blocked, done};
use linux_abi::{EpollEvent, PollFd, nr};
use policy::{Decision, ListenRule, Place, Policy, Ports, Program, Protocol};
use wire::hypercall;

/// A trusted program whose listeners are in both VMs, and a socket of it.
fn program() -> (Guest, usize, u64) {
    let mut program = Program::with_defaults("/usr/bin/curl");
    program.code.verify = false;
    let rule = ListenRule {
        nets: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        ports: Ports::all(),
        protocols: vec![Protocol::Tcp],
        deny: false,
        place: Place::Both,
    };
    program.listen.insert(0, rule);
    let any = "0.0.0.0".parse().unwrap();
    assert_eq!(program.bind(Some(Protocol::Tcp), any, 80), Decision::Use(Place::Both));
    let mut g = Guest::with_policy(Policy { programs: vec![program], ..Policy::default() });
    let p = g.start(b"/launcher");
    assert_eq!(g.hypercall(p, hypercall::TRUST, 0), 0);
    g.write(p, DATA, b"/usr/bin/curl\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    (g, p, fd)
}

fn bind(g: &mut Guest, p: usize, fd: u64, port: u16) -> i64 {
    g.write(p, DATA, &address([0, 0, 0, 0], port));
    g.call(p, nr::bind, &[fd, DATA, 16])
}

fn listening() -> (Guest, usize, u64) {
    let (mut g, p, fd) = program();
    assert_eq!(bind(&mut g, p, fd, 8000), 0);
    assert_eq!(g.call(p, nr::listen, &[fd, 5]), 0);
    assert_eq!(g.processes[p].bound, [8000]);
    (g, p, fd)
}

/// Descriptors of the delegate's open sockets.
fn open(g: &Guest) -> Vec<(u32, i32)> {
    let sockets = g.world.net.sockets.borrow();
    sockets.iter().filter(|(_, s)| !s.closed && s.instance.is_none()).map(|(k, _)| *k).collect()
}

fn knock_remote(g: &Guest) {
    let mut sockets = g.world.net.sockets.borrow_mut();
    let listener = sockets.values_mut().find(|s| s.listening && !s.closed).unwrap();
    listener.backlog.push_back(address([10, 0, 2, 2], 5555));
}

fn knock_local(g: &Guest, p: usize, fd: u64) {
    g.processes[p].files[&(fd as i32)].bytes.borrow_mut().push_back(1);
}

#[test]
fn both_halves_have_the_same_port() {
    let (mut g, p, fd) = program();
    // The ports that the service VM gives out first are taken in the compute VM.
    g.processes[p].taken = (4300..4323).collect();
    assert_eq!(bind(&mut g, p, fd, 0), 0);
    assert_eq!(g.processes[p].bound, [4323]);
    assert_eq!(open(&g).len(), 1);
    g.write(p, DATA + 64, &16u32.to_le_bytes());
    assert_eq!(g.call(p, nr::getsockname, &[fd, DATA, DATA + 64]), 0);
    assert_eq!(g.read(p, DATA + 2, 2), 4323u16.to_be_bytes());
}

#[test]
fn a_port_that_is_taken_in_one_vm_is_taken() {
    let (mut g, p, fd) = program();
    g.processes[p].taken.insert(8000);
    assert_eq!(bind(&mut g, p, fd, 8000), -98);
    assert_eq!((open(&g).len(), g.processes[p].bound.len()), (0, 0));
    // The socket is as good as new.
    assert_eq!(bind(&mut g, p, fd, 8001), 0);
    assert_eq!(g.call(p, nr::listen, &[fd, 5]), 0);
    // With every port taken it is an error, too, and nothing is left.
    let other = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.processes[p].taken.extend(4000..5000);
    assert_eq!(g.call(p, nr::listen, &[other, 5]), -98);
    assert_eq!(open(&g).len(), 1);
}

#[test]
fn accept_takes_from_both_in_turn() {
    let (mut g, p, fd) = listening();
    for _ in 0..3 {
        knock_remote(&g);
        knock_local(&g, p, fd);
    }
    let before = g.engine.census().descriptors;
    let mut kinds = Vec::new();
    for _ in 0..6 {
        let had = g.engine.census().descriptors;
        assert!(g.call(p, nr::accept4, &[fd, 0, 0, 0]) > 0);
        kinds.push(g.engine.census().descriptors - had);
    }
    assert_eq!(kinds.iter().sum::<u64>(), 3, "the others are the own kernel's alone");
    assert!(kinds.windows(2).all(|w| w[0] != w[1]), "{kinds:?}");
    assert_eq!(g.engine.census().descriptors, before + 3);
    // Who waits is woken by either.
    let b = blocked(g.begin(p, FS, RSP, nr::accept, &[fd, 0, 0]));
    knock_local(&g, p, fd);
    assert!(done(g.again(&b)) > 0);
    let b = blocked(g.begin(p, FS, RSP, nr::accept, &[fd, 0, 0]));
    knock_remote(&g);
    g.events();
    assert!(done(g.again(&b)) > 0);
    assert_eq!(g.engine.census().in_service, 0);
}

#[test]
fn the_placeholder_never_blocks_and_nobody_sees_that() {
    let (mut g, p, fd) = listening();
    assert_eq!(g.call(p, nr::fcntl, &[fd, 3]), 0);
    assert_eq!(g.call(p, nr::fcntl, &[fd, 4, 0o4000]), 0);
    assert_eq!(g.call(p, nr::fcntl, &[fd, 3]), 0o4000);
    assert_eq!(g.call(p, nr::accept, &[fd, 0, 0]), -11);
    assert_eq!(g.call(p, nr::fcntl, &[fd, 4, 0o2000]), 0);
    assert_eq!(g.call(p, nr::fcntl, &[fd, 3]), 0o2000);
    g.write(p, DATA, &1u32.to_le_bytes());
    assert_eq!(g.call(p, nr::ioctl, &[fd, 0x5421, DATA]), 0);
    assert_eq!(g.call(p, nr::accept, &[fd, 0, 0]), -11);
}

#[test]
fn poll_and_epoll_look_at_both() {
    let (mut g, p, fd) = listening();
    let poll = |g: &mut Guest| {
        g.write(p, DATA, &PollFd { fd: fd as i32, events: 1, revents: 0 }.encode());
        g.call(p, nr::poll, &[DATA, 1, 0])
    };
    let epoll = g.call(p, nr::epoll_create1, &[0]) as u64;
    g.write(p, DATA, &EpollEvent { events: 1, data: 77 }.encode());
    assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 1, fd, DATA]), 0);
    let wait = |g: &mut Guest| g.call(p, nr::epoll_wait, &[epoll, DATA + 0x100, 8, 0]);
    assert_eq!((poll(&mut g), wait(&mut g)), (0, 0));
    knock_local(&g, p, fd);
    assert_eq!((poll(&mut g), wait(&mut g)), (1, 1));
    knock_remote(&g);
    assert_eq!((poll(&mut g), wait(&mut g)), (1, 1));
    assert_eq!(g.read(p, DATA + 0x104, 8), 77u64.to_le_bytes());
    for _ in 0..2 {
        assert!(g.call(p, nr::accept, &[fd, 0, 0]) > 0);
    }
    assert_eq!((poll(&mut g), wait(&mut g)), (0, 0));
    knock_remote(&g);
    assert_eq!((poll(&mut g), wait(&mut g)), (1, 1));
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    g.events();
    assert!(!open(&g).iter().any(|key| g.world.net.sockets.borrow()[key].listening));
}

#[test]
fn a_registration_made_before_it_listens_has_both_halves() {
    let (mut g, p, fd) = program();
    let epoll = g.call(p, nr::epoll_create1, &[0]) as u64;
    g.write(p, DATA, &EpollEvent { events: 1, data: 5 }.encode());
    assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 1, fd, DATA]), 0);
    assert_eq!(g.call(p, nr::listen, &[fd, 5]), 0);
    let b = blocked(g.begin(p, FS, RSP, nr::epoll_wait, &[epoll, DATA, 8, u64::MAX]));
    knock_remote(&g);
    g.events();
    assert_eq!(done(g.again(&b)), 1);
    assert!(g.call(p, nr::accept, &[fd, 0, 0]) > 0);
    knock_local(&g, p, fd);
    assert_eq!(g.call(p, nr::epoll_wait, &[epoll, DATA, 8, u64::MAX]), 1);
}

#[test]
fn a_bound_client_goes_where_its_peer_is() {
    let (mut g, p, fd) = program();
    assert_eq!(bind(&mut g, p, fd, 4000), 0);
    g.write(p, DATA, &address([127, 0, 0, 1], 80));
    // The own kernel of the fake has no way anywhere.
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -101);
    assert_eq!(open(&g).len(), 0);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    assert_eq!(bind(&mut g, p, fd, 4001), 0);
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
    assert_eq!(open(&g).len(), 1);
}

#[test]
fn a_handler_ends_an_accept_only_where_it_has_no_sa_restart() {
    let (mut g, p, fd) = listening();
    let wait = |g: &mut Guest| blocked(g.begin(p, FS, RSP, nr::accept, &[fd, 0, 0]));
    let b = wait(&mut g);
    g.processes[p].signal = Some(Signal::Restart);
    let b = blocked(g.again(&b));
    assert_eq!(g.processes[p].signal, None, "the handler has run");
    knock_local(&g, p, fd);
    assert!(done(g.again(&b)) > 0);
    let b = wait(&mut g);
    g.processes[p].signal = Some(Signal::Restart);
    let b = blocked(g.again(&b));
    g.processes[p].signal = Some(Signal::Interrupt);
    assert_eq!(done(g.again(&b)), -4);
    // With a time-out it is never restarted.
    g.write(p, DATA, &[&1u64.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
    assert_eq!(g.call(p, nr::setsockopt, &[fd, 1, 20, DATA, 16]), 0);
    let b = wait(&mut g);
    g.processes[p].signal = Some(Signal::Restart);
    assert_eq!(done(g.again(&b)), -4);
    // One descriptor of signals is enough, and the program does not see it.
    let ears = g.processes[p].files.iter().filter(|(_, f)| f.kind == Kind::Signals);
    let ears: Vec<i32> = ears.map(|(fd, _)| *fd).collect();
    let [ear] = ears[..] else { panic!("{ears:?}") };
    assert_eq!(g.call(p, nr::close, &[ear as u64]), -9);
    assert_eq!(g.engine.census().in_service, 0);
}

#[test]
fn a_duplicate_in_the_same_epoll_instance_is_told_as_well() {
    let (mut g, p, fd) = listening();
    let copy = g.call(p, nr::dup, &[fd]) as u64;
    let epoll = g.call(p, nr::epoll_create1, &[0]) as u64;
    for (fd, data) in [(fd, 1), (copy, 2)] {
        g.write(p, DATA, &EpollEvent { events: 1, data }.encode());
        assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 1, fd, DATA]), 0);
        assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 1, fd, DATA]), -17);
    }
    let wait = |g: &mut Guest| g.call(p, nr::epoll_wait, &[epoll, DATA + 0x100, 8, 0]);
    knock_remote(&g);
    assert_eq!(wait(&mut g), 2);
    // Without the first one the second still is.
    assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 2, fd, 0]), 0);
    assert_eq!(wait(&mut g), 1);
    assert_eq!(g.read(p, DATA + 0x104, 8), 2u64.to_le_bytes());
    assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 2, copy, 0]), 0);
    assert_eq!(wait(&mut g), 0);
    for fd in [fd, copy] {
        assert_eq!(g.call(p, nr::close, &[fd]), 0);
    }
    g.events();
    assert_eq!(open(&g), [], "nor is a copy left");
}

#[test]
fn what_is_told_once_is_told_by_one_half() {
    for local_first in [true, false] {
        let (mut g, p, fd) = listening();
        let epoll = g.call(p, nr::epoll_create1, &[0]) as u64;
        let control = |g: &mut Guest, operation: u64| {
            g.write(p, DATA, &EpollEvent { events: 1 | 1 << 30, data: 77 }.encode());
            assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, operation, fd, DATA]), 0);
        };
        let wait = |g: &mut Guest| g.call(p, nr::epoll_wait, &[epoll, DATA + 0x100, 8, 0]);
        let knock = |g: &Guest, local| if local { knock_local(g, p, fd) } else { knock_remote(g) };
        control(&mut g, 1);
        for _ in 0..2 {
            knock(&g, local_first);
            assert_eq!(wait(&mut g), 1);
            assert_eq!(g.read(p, DATA + 0x104, 8), 77u64.to_le_bytes());
            knock(&g, !local_first);
            assert_eq!((wait(&mut g), wait(&mut g)), (0, 0));
            for _ in 0..2 {
                assert!(g.call(p, nr::accept, &[fd, 0, 0]) > 0);
            }
            control(&mut g, 3);
            assert_eq!(wait(&mut g), 0);
        }
        // Both at once.
        knock_local(&g, p, fd);
        knock_remote(&g);
        assert_eq!((wait(&mut g), wait(&mut g)), (1, 0));
    }
}
