//! Cancellation: skipped, interrupting, and very many of it.

mod common;

use common::{Relay, receive};
use std::time::{Duration, Instant};
use wire::{PollEntry, Request, WAIT_FOREVER, layout};

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

#[test]
fn a_call_cancelled_before_it_starts_has_no_effect() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let (listener, _) = peer.listener();
    let next = peer.post(&Request::Nop) + 1;
    peer.wait(next - 1);
    peer.cancel(next);
    let sequence = peer.post(&Request::Close { fd: listener });
    let response = peer.wait(sequence);
    assert_eq!((sequence, response.cancelled, response.value), (next, true, -4));
    assert_eq!(peer.value(&Request::Close { fd: listener }), 0);
}

#[test]
fn a_hundred_thousand_cancellations_leave_no_tail() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let (listener, _) = peer.listener();
    let entry = PollEntry { fd: listener, events: 1, revents: 0 };
    let start = Instant::now();
    for n in 0..100_000 {
        peer.put(layout::PAYLOAD, &entry.encode());
        let sequence = peer.post(&Request::Poll { count: 1, wait: WAIT_FOREVER });
        // Sometimes the worker is asleep in the call, sometimes it has not seen it yet.
        if n % 1000 == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
        peer.cancel(sequence);
        assert!(peer.wait(sequence).cancelled);
    }
    let cancellations = start.elapsed();
    let start = Instant::now();
    assert_eq!(peer.value(&Request::Close { fd: listener }), 0);
    assert!(start.elapsed() < Duration::from_millis(500));
    println!("100 000 cancellations: {cancellations:?}");
}

#[test]
fn blocked_calls_of_many_workers_are_cancelled_one_by_one() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let control = relay.peer(delegate, 0);
    for slot in 2..10 {
        assert_eq!(control.value(&Request::Spawn { slot }), 0);
    }
    let peers: Vec<_> = (1..10).map(|slot| relay.peer(delegate, slot)).collect();
    let fd = peers[0].socket(&common::UDP);
    assert_eq!(peers[0].bind(fd, ([127, 0, 0, 1], 0).into()), 0);
    let calls: Vec<_> = peers.iter().map(|p| p.post(&receive(fd, 10, WAIT_FOREVER))).collect();
    std::thread::sleep(Duration::from_millis(50));
    for (peer, sequence) in peers.iter().zip(&calls) {
        assert_eq!(peer.response(*sequence), None);
        peer.cancel(*sequence);
        let response = peer.wait(*sequence);
        assert_eq!((response.cancelled, response.value), (true, -4));
    }
}
