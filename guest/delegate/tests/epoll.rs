//! Epoll instances of a delegate, on real sockets.

mod common;

use common::{Peer, Relay, UDP, receiver};
use std::time::Duration;
use wire::{EpollFound, EpollOperation, EpollRequest, PollEntry, Request, WAIT_FOREVER, layout};

const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLET: u32 = 1 << 31;

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

fn control(peer: &Peer, epoll: i32, op: EpollOperation, fd: i32, events: u32, cookie: u64) -> i64 {
    let operation = op;
    peer.value(&Request::Epoll(EpollRequest::Control { epoll, operation, fd, events, cookie }))
}

fn take(peer: &Peer, epoll: i32, count: u32) -> Vec<(u32, u64)> {
    let response = peer.call(&Request::Epoll(EpollRequest::Take { epoll, count }));
    assert!(response.value >= 0, "{response:?}");
    assert_eq!(response.length as usize, response.value as usize * EpollFound::SIZE);
    let bytes = peer.data(layout::PAYLOAD, response.length);
    let found = bytes.chunks_exact(12).map(|b| EpollFound::decode(b.try_into().unwrap()));
    found.map(|f| (f.events, f.cookie)).collect()
}

#[test]
fn events_are_linux_own() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let epoll = peer.value(&Request::Epoll(EpollRequest::Create)) as i32;
    let (fd, other) = receiver(&peer);
    assert_eq!(control(&peer, epoll, EpollOperation::Add, fd, EPOLLIN | EPOLLET, 7), 0);
    assert_eq!(control(&peer, epoll, EpollOperation::Add, fd, EPOLLIN, 7), -17);
    assert_eq!(take(&peer, epoll, 8), []);
    other.send(b"x").unwrap();
    // Polling the instance takes nothing away.
    for _ in 0..2 {
        peer.put(layout::PAYLOAD, &PollEntry { fd: epoll, events: 1, revents: 0 }.encode());
        assert_eq!(peer.value(&Request::Poll { count: 1, wait: WAIT_FOREVER }), 1);
    }
    assert_eq!(take(&peer, epoll, 8), [(EPOLLIN, 7)]);
    assert_eq!(take(&peer, epoll, 8), [], "an edge is told once");
    let level = EPOLLIN | EPOLLOUT;
    assert_eq!(control(&peer, epoll, EpollOperation::Modify, fd, level, 8), 0);
    assert_eq!(take(&peer, epoll, 8), [(level, 8)]);
    assert_eq!(take(&peer, epoll, 8), [(level, 8)]);
    let once = EPOLLIN | EPOLLONESHOT;
    assert_eq!(control(&peer, epoll, EpollOperation::Modify, fd, once, 9), 0);
    assert_eq!(take(&peer, epoll, 8), [(EPOLLIN, 9)]);
    assert_eq!(take(&peer, epoll, 8), []);
    let copy = peer.value(&Request::Epoll(EpollRequest::Duplicate { fd })) as i32;
    assert!(copy > fd);
    assert_eq!(control(&peer, epoll, EpollOperation::Add, copy, EPOLLIN, 10), 0);
    assert_eq!(take(&peer, epoll, 8), [(EPOLLIN, 10)]);
    assert_eq!(control(&peer, epoll, EpollOperation::Delete, copy, 0, 0), 0);
    assert_eq!(control(&peer, epoll, EpollOperation::Delete, copy, 0, 0), -2);
    assert_eq!(control(&peer, epoll, EpollOperation::Modify, copy, 1, 0), -2);
}

#[test]
fn an_instance_is_shared_with_forked_delegates() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let epoll = peer.value(&Request::Epoll(EpollRequest::Create)) as i32;
    let (fd, other) = receiver(&peer);
    assert_eq!(control(&peer, epoll, EpollOperation::Add, fd, EPOLLIN, 7), 0);
    let child = relay.peer(relay.fork(delegate), 1);
    // Closed here, but the child's delegate still has it open: so it stays registered.
    assert_eq!(peer.value(&Request::Close { fd }), 0);
    other.send(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(take(&peer, epoll, 8), [(EPOLLIN, 7)]);
    assert_eq!(take(&child, epoll, 8), [(EPOLLIN, 7)]);
    assert_eq!(child.value(&Request::Close { fd }), 0);
    assert_eq!(take(&peer, epoll, 8), []);
}

#[test]
fn nonsense_is_refused() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let fd = peer.socket(&UDP);
    let epoll = peer.value(&Request::Epoll(EpollRequest::Create)) as i32;
    let takes = |epoll: i32, count: u32| Request::Epoll(EpollRequest::Take { epoll, count });
    assert_eq!(peer.value(&takes(fd, 1)), -22);
    assert_eq!(peer.value(&takes(epoll, 0)), -22);
    assert_eq!(peer.value(&takes(epoll, u32::MAX)), 0);
    assert_eq!(peer.value(&takes(-1, 1)), -9);
    assert_eq!(control(&peer, epoll, EpollOperation::Add, epoll, 1, 0), -22);
    assert_eq!(control(&peer, fd, EpollOperation::Add, fd, 1, 0), -22);
    assert_eq!(control(&peer, epoll, EpollOperation::Add, 0, 1, 0), -9, "not one of its own");
    assert_eq!(peer.value(&Request::Epoll(EpollRequest::Duplicate { fd: 1 })), -9);
}
