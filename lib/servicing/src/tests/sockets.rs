//! Sockets: which there are, where they belong, what must not get past the address rule.
use super::guest::{DATA, End, Guest, Signal};
use super::{FS, RSP, address, blocked, connected, done, remote_fd, trusted};
use crate::fake::service::{ROOT, Service, mailbox};
use linux_abi::{Errno, nr};
use wire::{Kind, Registration, Request};

const EPERM: i64 = -1;
const ENETUNREACH: i64 = -101;
const ECONNRESET: i64 = -104;
const ENETDOWN: i64 = -100;

/// `struct sockaddr_nl` of the kernel.
const KERNEL: [u8; 12] = [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn raw_sockets_are_refused_with_a_line() {
    let (mut g, p) = trusted();
    assert_eq!(g.call(p, nr::socket, &[2, 3, 1]), EPERM);
    assert_eq!(g.call(p, nr::socket, &[17, 3, 0x300]), EPERM);
    assert_eq!(g.call(p, nr::socket, &[10, 3, 0]), -93);
    let told = |line: &String| line.contains("is not for trusted programs");
    assert_eq!(g.world.lines.borrow().iter().filter(|line| told(line)).count(), 3);
    // No placeholder was made.
    assert!(g.call(p, nr::socket, &[1, 1, 0]) >= 0);
    assert_eq!(g.engine.census().descriptors, 0);
}

#[test]
fn routing_sockets_are_remote_and_only_ask() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[16, 3, 0]) as u64;
    g.write(p, DATA, &KERNEL);
    assert_eq!(g.call(p, nr::bind, &[fd, DATA, 12]), 0);
    let key = remote_fd(&g);
    let message = |kind: u16| {
        let mut m = 20u32.to_le_bytes().to_vec();
        m.extend(kind.to_le_bytes());
        m.resize(20, 0);
        m
    };
    let to = DATA + 0x100;
    g.write(p, to, &KERNEL);
    g.write(p, DATA, &message(22));
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 20, 0, to, 12]), 20);
    assert_eq!(g.world.net.sockets.borrow()[&key].sent, message(22));
    // RTM_NEWADDR changes something; and nobody but the kernel is spoken to.
    g.write(p, DATA, &message(20));
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 20, 0, to, 12]), EPERM);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 20]), EPERM);
    g.write(p, DATA, &message(22));
    g.write(p, to + 4, &[9]);
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 20, 0, to, 12]), EPERM);
    assert_eq!(g.world.net.sockets.borrow()[&key].sent.len(), 20);
}

#[test]
fn no_destination_of_a_datagram_gets_past_the_rule() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 2, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 3], 53));
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 3, 0, DATA, 16]), 3);
    g.write(p, DATA, &address([127, 0, 0, 1], 53));
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 3, 0, DATA, 16]), ENETUNREACH);
    // `udp_sendmsg` takes AF_UNSPEC for AF_INET.
    g.write(p, DATA, &[0, 0]);
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 3, 0, DATA, 16]), ENETUNREACH);
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 3, 0, DATA, 8]), -22);
    // A source route would be another way around it.
    g.write(p, DATA, &[0x83, 7, 4, 127, 0, 0, 1, 0]);
    assert_eq!(g.call(p, nr::setsockopt, &[fd, 0, 4, DATA, 8]), EPERM);
    assert_eq!(g.call(p, nr::setsockopt, &[fd, 0, 4, DATA, 0]), 0);
    assert_eq!(g.world.net.sockets.borrow()[&remote_fd(&g)].sent.len(), 3);
}

#[test]
fn a_dissolved_socket_decides_anew() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 2, 0]) as u64;
    let (own, far, none) = (DATA, DATA + 16, DATA + 32);
    g.write(p, own, &address([127, 0, 0, 1], 80));
    g.write(p, far, &address([10, 0, 2, 2], 80));
    g.write(p, none, &[0; 16]);
    assert_eq!(g.call(p, nr::connect, &[fd, far, 16]), 0);
    assert_eq!(g.call(p, nr::connect, &[fd, own, 16]), ENETUNREACH);
    g.call(p, nr::connect, &[fd, none, 16]);
    let key = remote_fd(&g);
    assert!(!g.world.net.sockets.borrow()[&key].closed);
    // Now it is the own kernel's, which has no way there in this test either.
    g.call(p, nr::connect, &[fd, own, 16]);
    assert!(g.world.net.sockets.borrow()[&key].closed);
}

#[test]
fn interfaces_are_the_service_vms() {
    let (mut g, p, _) = connected();
    let fd = g.call(p, nr::socket, &[1, 2, 0]) as u64;
    g.write(p, DATA, b"eth0");
    g.call(p, nr::ioctl, &[fd, 0x8933, DATA]);
    let asked = Request::Ioctl { fd: -1, command: 0x8933 };
    assert!(g.world.net.log.borrow().iter().any(|(_, request)| *request == asked));
    assert_eq!(g.call(p, nr::ioctl, &[fd, 0x8914, DATA]), EPERM);
}

#[test]
fn options_go_along_once_each() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    for value in 0..100u32 {
        g.write(p, DATA, &value.to_le_bytes());
        assert_eq!(g.call(p, nr::setsockopt, &[fd, 0, 2, DATA, 4]), 0);
    }
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
    let key = remote_fd(&g);
    let options = g.world.net.sockets.borrow()[&key].options.clone();
    assert_eq!(options, [(0, 2, 99u32.to_le_bytes().to_vec())]);
}

#[test]
fn a_mailbox_with_a_wrong_token_learns_that_it_is_refused() {
    let (mut g, _) = trusted();
    let base = 0x300_0000;
    let mailbox = mailbox(&g.world.service, base);
    let who = Registration { kind: Kind::Worker, port: 9, delegate: 1, slot: 1, token: 1 };
    mailbox.introduce(&who).unwrap();
    assert_eq!(g.engine.register(ROOT, base), Err(Errno::EACCES));
    assert_eq!(mailbox.admitted(), Ok(Some(Err(-13))));
    // One that lies nowhere learns nothing.
    assert_eq!(g.engine.register(ROOT, 0x7000_0000_0000), Err(Errno::EFAULT));
}

#[test]
fn a_delegate_that_dies_while_its_data_are_prepared_leaves_nobody_waiting() {
    // Its mailbox has its worker no more, but the call has it: what is posted there is never answered.
    let (mut g, p, fd) = connected();
    let buffer = g.reserve(p, 1);
    g.dies_at_populate = Some(1);
    let End::Done(result) = g.begin(p, FS, RSP, nr::write, &[fd, buffer, 10]) else {
        panic!("waits for a delegate that is gone");
    };
    assert_eq!(result, ECONNRESET);
    assert!(g.dies_at_populate.is_none(), "nothing was populated");
}

/// A call that needs a new delegate, for the first one is gone.
fn needs_another(g: &mut Guest, p: usize) -> End {
    for record in g.world.net.kill(1) {
        g.engine.service_record(&record);
    }
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    g.begin(p, FS, RSP, nr::connect, &[fd, DATA, 16])
}

/// The dispatcher dies before the delegate that is asked of it shows up.
fn asked_of_a_dying_one(before: impl Fn(&Service)) {
    let (mut g, p, _) = connected();
    before(&g.world.net);
    let b = blocked(needs_another(&mut g, p));
    for record in g.world.net.kill(0) {
        g.engine.service_record(&record);
    }
    assert_eq!(g.engine.census().delegates, 0, "one is waited for");
    assert_eq!(done(g.again(&b)), ENETDOWN);
}

#[test]
fn a_delegate_that_a_dying_dispatcher_never_forks_leaves_nobody_waiting() {
    asked_of_a_dying_one(|net| net.frozen.set(true));
}

#[test]
fn a_delegate_that_dies_with_its_dispatcher_before_it_came_leaves_nobody_waiting() {
    asked_of_a_dying_one(|net| net.starting.set(true));
}

#[test]
fn a_delegate_that_cannot_be_forked_leaves_nobody_waiting() {
    let (mut g, p, _) = connected();
    g.world.net.barren.set(true);
    let result = match needs_another(&mut g, p) {
        End::Blocked(b) => done(g.again(&b)),
        other => done(other),
    };
    assert_eq!(result, ENETDOWN);
    assert_eq!(g.engine.census().delegates, 0, "one is waited for");
    // The next one asks anew.
    g.world.net.barren.set(false);
    let result = match needs_another(&mut g, p) {
        End::Blocked(b) => done(g.again(&b)),
        other => done(other),
    };
    assert_eq!(result, 0);
}

#[test]
fn a_look_at_everything_waits_for_everything() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let arrive = |g: &Guest, bytes: &[u8]| {
        g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(bytes);
    };
    // The fake hands out what it has, looked at or not.
    let look = u64::from(linux_abi::MSG_PEEK | linux_abi::MSG_WAITALL);
    arrive(&g, b"he");
    let b = blocked(g.begin(p, FS, RSP, nr::recvfrom, &[fd, DATA, 4, look, 0, 0]));
    arrive(&g, b"help");
    g.world.net.late.set(true);
    assert_eq!(done(g.again(&b)), 4);
    assert_eq!(g.read(p, DATA, 4), b"help");
    g.world.net.late.set(false);
    // A signal ends it with what there is.
    arrive(&g, b"x");
    let b = blocked(g.begin(p, FS, RSP, nr::recvfrom, &[fd, DATA, 4, look, 0, 0]));
    g.processes[p].signal = Some(Signal::Restart);
    assert_eq!(done(g.again(&b)), 1);
}

#[test]
fn the_error_that_ends_recvmmsg_is_told_by_the_next_call() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let put = |g: &Guest, n: u64, to: u64| {
        let vector = DATA + 0x100 + n * 16;
        g.write(p, vector, &[to.to_le_bytes(), 4u64.to_le_bytes()].concat());
        let mut header = [0u8; 64];
        header[16..24].copy_from_slice(&vector.to_le_bytes());
        header[24] = 1;
        g.write(p, DATA + 0x200 + n * 64, &header);
    };
    put(&g, 0, DATA);
    put(&g, 1, 0x10);
    for _ in 0..2 {
        g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"12345678");
    }
    let messages = [fd, DATA + 0x200, 2, 0, 0];
    assert_eq!(g.call(p, nr::recvmmsg, &messages), 1);
    assert_eq!(g.call(p, nr::read, &[fd, DATA, 4]), -14);
    assert_eq!(g.call(p, nr::read, &[fd, DATA, 4]), 4, "once");
    assert_eq!(g.call(p, nr::recvmmsg, &messages), 1);
    g.write(p, DATA + 8, &4u32.to_le_bytes());
    assert_eq!(g.call(p, nr::getsockopt, &[fd, 1, 4, DATA, DATA + 8]), 0);
    assert_eq!(g.read(p, DATA, 4), 14u32.to_le_bytes());
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 4]), 4);
}
