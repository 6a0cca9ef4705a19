//! Events of watched sockets, as the kernel tells them.

mod common;

use common::{Peer, Relay, receiver};
use std::sync::Arc;
use wire::{Request, SocketEvent, layout};

/// `si_code`.
const POLL_IN: i32 = 1;

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

/// A delegate's worker that tells events, and another one.
fn pair(relay: &Relay, delegate: u32) -> (Arc<Peer>, Arc<Peer>) {
    assert_eq!(relay.peer(delegate, 0).value(&Request::Spawn { slot: 2 }), 0);
    (relay.peer(delegate, 1), relay.peer(delegate, 2))
}

fn told(teller: &Peer, sequence: u32) -> Vec<(i32, i32)> {
    let response = teller.wait(sequence);
    assert!(response.value > 0, "{response:?}");
    let bytes = teller.data(layout::PAYLOAD, response.length);
    let events = bytes.chunks_exact(8).map(|b| SocketEvent::decode(b.try_into().unwrap()));
    events.map(|event| (event.fd, event.code)).collect()
}

#[test]
fn each_arrival_at_a_watched_socket_is_told() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let (teller, peer) = pair(&relay, delegate);
    let (one, to_one) = receiver(&peer);
    let (two, to_two) = receiver(&peer);
    assert_eq!(peer.value(&Request::Watch { fd: two, on: true }), 0);
    assert_eq!(peer.value(&Request::Watch { fd: 999, on: true }), -9);
    let sequence = teller.post(&Request::Events);
    to_one.send(b"nobody looks").unwrap();
    to_two.send(b"x").unwrap();
    assert_eq!(told(&teller, sequence), [(two, POLL_IN)]);
    // What comes between two questions is kept, in order.
    assert_eq!(peer.value(&Request::Watch { fd: one, on: true }), 0);
    for socket in [&to_two, &to_one, &to_two] {
        socket.send(b"x").unwrap();
    }
    let sequence = teller.post(&Request::Events);
    assert_eq!(told(&teller, sequence), [(two, POLL_IN), (one, POLL_IN), (two, POLL_IN)]);
    // Not any more.
    assert_eq!(peer.value(&Request::Watch { fd: two, on: false }), 0);
    let sequence = teller.post(&Request::Events);
    to_two.send(b"x").unwrap();
    to_one.send(b"x").unwrap();
    assert_eq!(told(&teller, sequence), [(one, POLL_IN)]);
    let sequence = teller.post(&Request::Events);
    teller.cancel(sequence);
    assert!(teller.wait(sequence).cancelled);
}

#[test]
fn the_delegate_that_was_asked_last_tells() {
    let relay = Relay::start();
    let parent = relay.fork(0);
    let (teller, peer) = pair(&relay, parent);
    let (fd, other) = receiver(&peer);
    assert_eq!(peer.value(&Request::Watch { fd, on: true }), 0);
    let child = relay.fork(parent);
    let (second, hers) = pair(&relay, child);
    let sequence = teller.post(&Request::Events);
    other.send(b"x").unwrap();
    assert_eq!(told(&teller, sequence), [(fd, POLL_IN)]);
    assert_eq!(hers.value(&Request::Watch { fd, on: true }), 0);
    let (silent, sequence) = (teller.post(&Request::Events), second.post(&Request::Events));
    other.send(b"x").unwrap();
    assert_eq!(told(&second, sequence), [(fd, POLL_IN)]);
    assert_eq!(teller.response(silent), None);
}
