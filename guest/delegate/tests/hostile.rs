//! Requests that no honest relay would send: an error each, and the delegate lives on.

mod common;

use common::Relay;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wire::{Request, layout};

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

#[test]
fn descriptors_that_are_no_sockets_cannot_be_named() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    for fd in -3..64 {
        assert_eq!(peer.value(&Request::Close { fd }), -9);
        assert_eq!(peer.value(&Request::Listen { fd, backlog: 1 }), -9);
    }
    assert!(peer.is_alive());
}

#[test]
fn lengths_beyond_the_mailbox_and_odd_kinds_are_refused() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let fd = peer.socket(&common::UDP);
    let (flags, all, wait) = (0, false, 0);
    for length in [layout::PAYLOAD_MAX + 1, u32::MAX, u32::MAX - 4096] {
        let requests = [
            Request::Send { fd, flags, address: 0, control: 0, length, all, wait },
            Request::Send { fd, flags, address: length, control: 0, length: 1, all, wait },
            Request::Send { fd, flags, address: 0, control: length, length: 1, all, wait },
            Request::Receive { fd, flags, control: 0, length, all, wait },
            Request::Receive { fd, flags, control: length, length: 1, all, wait },
            Request::Poll { count: length, wait },
            Request::Bind { fd, address: length },
            Request::Connect { fd, address: length, wait },
            Request::SetOption { fd, level: 1, name: 2, length },
            Request::Shutdown { fd, how: length },
            Request::Socket { domain: 2, kind: length, protocol: 0 },
            Request::Socket { domain: 2, kind: 1, protocol: length },
        ];
        for request in requests {
            let value = peer.value(&request);
            assert!(value < 0, "{request:?}: {value}");
        }
    }
    for domain in [0, 1, 17, 40, u32::MAX] {
        assert_eq!(peer.value(&Request::Socket { domain, kind: 1, protocol: 0 }), -97);
    }
    assert_eq!(peer.value(&Request::Exit), -22, "slot 0 only");
    assert_eq!(relay.peer(0, 0).value(&Request::Exit), -22);
    assert_eq!(relay.peer(0, 0).value(&Request::Spawn { slot: 1 }), -22);
    assert_eq!(relay.peer(delegate, 0).value(&Request::Spawn { slot: 0 }), -22);
}

#[test]
fn any_header_is_answered_and_survived() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    peer.socket(&common::UDP);
    peer.socket(&common::TCP);
    let mut runner = TestRunner::default();
    let word = prop_oneof![0u64..20, any::<u64>(), (0u64..1 << 20), Just(u64::MAX)];
    let header = proptest::array::uniform7(word);
    let outcome = runner.run(&(0u64..50, header, any::<[u8; 32]>()), |(kind, mut words, noise)| {
        // Nothing of this is to take long.
        words[6] = words[6].min(1_000_000);
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        peer.put(layout::ADDRESS, &noise);
        peer.put(layout::PAYLOAD, &noise);
        let sequence = peer.post_raw(&bytes);
        let header = bytes.first_chunk::<{ Request::SIZE }>();
        if header.is_some_and(|header| Request::decode(header) == Ok(Request::Events)) {
            // It waits for as long as nobody cancels it.
            peer.cancel(sequence);
        }
        peer.wait(sequence);
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(peer.value(&Request::Nop), 0);
}
