//! Every request on real sockets, through real processes.

mod common;

use common::{Peer, Relay, TCP, UDP, address, receive, send};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use wire::{PollEntry, Request, WAIT_FOREVER, layout};

const EBADF: i64 = -9;
const EAGAIN: i64 = -11;
const EINVAL: i64 = -22;
const ECONNREFUSED: i64 = -111;
const EINPROGRESS: i64 = -115;
const MILLISECOND: u64 = 1_000_000;
const SOL_SOCKET: i32 = 1;
const POLLIN: u16 = 1;
const POLLOUT: u16 = 4;
const POLLNVAL: u16 = 32;

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

fn worker() -> (Relay, std::sync::Arc<Peer>) {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    (relay, peer)
}

#[test]
fn a_tcp_client_connects_sends_receives_and_closes() {
    let (_relay, peer) = worker();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = peer.socket(&TCP);
    assert_eq!(peer.connect(fd, server.local_addr().unwrap(), WAIT_FOREVER), 0);
    let (mut other, from) = server.accept().unwrap();
    assert_eq!(peer.own_address(fd), from);
    let response = peer.call(&Request::PeerName { fd });
    assert_eq!(peer.data(layout::ADDRESS, response.address), address(server.local_addr().unwrap()));

    assert_eq!(peer.send(fd, b"question"), 8);
    let mut buffer = [0; 8];
    other.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"question");
    other.write_all(b"answer").unwrap();
    let response = peer.call(&receive(fd, 100, WAIT_FOREVER));
    assert_eq!((response.value, response.length), (6, 6));
    assert_eq!(peer.data(layout::PAYLOAD, 6), b"answer");

    other.write_all(b"12345").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    peer.put(layout::PAYLOAD, &[0; 4]);
    assert_eq!(peer.value(&Request::Ioctl { fd, command: 0x541b }), 0);
    assert_eq!(peer.data(layout::PAYLOAD, 4), 5i32.to_ne_bytes());
    assert_eq!(peer.value(&Request::Shutdown { fd, how: 1 }), 0);
    assert_eq!(other.read(&mut buffer).unwrap(), 0);
    assert_eq!(peer.value(&Request::Close { fd }), 0);
    assert_eq!(peer.value(&Request::Close { fd }), EBADF);
    assert_eq!(peer.value(&receive(fd, 1, 0)), EBADF);
}

#[test]
fn a_tcp_server_accepts_with_and_without_waiting() {
    let (_relay, peer) = worker();
    let (fd, at) = peer.listener();
    assert_eq!(peer.value(&Request::Accept { fd, wait: 0 }), EAGAIN);
    let sequence = peer.post(&Request::Accept { fd, wait: WAIT_FOREVER });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(peer.response(sequence), None);
    let mut client = TcpStream::connect(at).unwrap();
    let response = peer.wait(sequence);
    assert!(response.value > 2);
    assert_eq!(peer.data(layout::ADDRESS, response.address), address(client.local_addr().unwrap()));
    let new = response.value as i32;
    client.write_all(b"hi").unwrap();
    assert_eq!(peer.call(&receive(new, 10, WAIT_FOREVER)).value, 2);
    drop(client);
    assert_eq!(peer.call(&receive(new, 10, WAIT_FOREVER)).value, 0);
}

#[test]
fn datagrams_carry_addresses_and_lengths() {
    let (_relay, peer) = worker();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = peer.socket(&UDP);
    let to = address(other.local_addr().unwrap());
    peer.put(layout::ADDRESS, &to);
    peer.put(layout::PAYLOAD, b"ping");
    let request = Request::Send {
        fd,
        flags: 0,
        address: to.len() as u32,
        control: 0,
        length: 4,
        all: false,
        wait: WAIT_FOREVER,
    };
    assert_eq!(peer.value(&request), 4);
    let mut buffer = [0; 10];
    let (length, from) = other.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    other.send_to(&[7; 100], from).unwrap();
    // MSG_TRUNC: the true length is told, the mailbox holds what there was room for.
    let flags = 0x20;
    let request =
        Request::Receive { fd, flags, control: 100, length: 10, all: false, wait: WAIT_FOREVER };
    let response = peer.call(&request);
    assert_eq!((response.value, response.length, response.flags & 0x20), (100, 10, 0x20));
    assert_eq!(peer.data(layout::ADDRESS, response.address), to);
    assert_eq!(peer.data(layout::PAYLOAD, 10), [7; 10]);
}

#[test]
fn connections_that_fail_or_take_long_say_so() {
    let (_relay, peer) = worker();
    let closed = {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.local_addr().unwrap()
    };
    let fd = peer.socket(&TCP);
    assert_eq!(peer.connect(fd, closed, WAIT_FOREVER), ECONNREFUSED);
    // A server whose queue is full does not answer.
    let (full, at) = peer.listener();
    assert_eq!(peer.value(&Request::Listen { fd: full, backlog: 0 }), 0);
    let fd = loop {
        let fd = peer.socket(&TCP);
        if peer.connect(fd, at, 100 * MILLISECOND) == EINPROGRESS {
            break fd;
        }
    };
    assert_eq!(peer.connect(fd, at, 0), -114, "EALREADY");
    let start = Instant::now();
    assert_eq!(peer.connect(fd, at, 50 * MILLISECOND), EINPROGRESS);
    assert!(start.elapsed() >= Duration::from_millis(50));
    // Cancelled while waiting; the attempt goes on.
    peer.put(layout::ADDRESS, &address(at));
    let sequence = peer.post(&Request::Connect { fd, address: 16, wait: WAIT_FOREVER });
    std::thread::sleep(Duration::from_millis(30));
    peer.cancel(sequence);
    assert!(peer.wait(sequence).cancelled);
}

#[test]
fn options_and_timeouts_are_those_of_the_real_socket() {
    let (_relay, peer) = worker();
    let fd = peer.socket(&UDP);
    let size = 100_000i32.to_ne_bytes();
    peer.put(layout::PAYLOAD, &size);
    let set = |name, length| Request::SetOption { fd, level: SOL_SOCKET, name, length };
    assert_eq!(peer.value(&set(8, 4)), 0);
    let response = peer.call(&Request::GetOption { fd, level: SOL_SOCKET, name: 8, length: 4 });
    assert_eq!((response.value, response.length), (0, 4));
    assert_eq!(peer.data(layout::PAYLOAD, 4), 200_000i32.to_ne_bytes());
    // SO_RCVTIMEO: 60 ms.
    let mut timeout = 0u64.to_ne_bytes().to_vec();
    timeout.extend(60_000u64.to_ne_bytes());
    peer.put(layout::PAYLOAD, &timeout);
    assert_eq!(peer.value(&set(20, 16)), 0);
    for wait in [WAIT_FOREVER, 30 * MILLISECOND] {
        let start = Instant::now();
        assert_eq!(peer.value(&receive(fd, 10, wait)), EAGAIN);
        let limit = Duration::from_nanos(wait).min(Duration::from_millis(60));
        assert!(start.elapsed() >= limit && start.elapsed() < limit * 10, "{:?}", start.elapsed());
    }
    // Half a filter, SO_ATTACH_BPF, netfilter: not here.
    let refused = [(1, 26, EINVAL), (1, 50, -92), (0, 64, -92), (41, 64, -92)];
    for (level, name, error) in refused {
        assert_eq!(peer.value(&Request::SetOption { fd, level, name, length: 4 }), error);
    }
}

#[test]
fn interfaces_are_asked_for_without_a_socket() {
    let (_relay, peer) = worker();
    let mut argument = [0; 40];
    argument[..2].copy_from_slice(b"lo");
    peer.put(layout::PAYLOAD, &argument);
    assert_eq!(peer.value(&Request::Ioctl { fd: -1, command: 0x8933 }), 0);
    assert_eq!(peer.data(layout::PAYLOAD, 20)[16..], 1i32.to_ne_bytes());
    // Without room: how long the list would be.
    peer.put(layout::PAYLOAD, &[0; 4]);
    let needed = peer.value(&Request::Ioctl { fd: -1, command: 0x8912 });
    assert!(needed >= 40, "{needed}");
    peer.put(layout::PAYLOAD, &(needed as u32).to_ne_bytes());
    let response = peer.call(&Request::Ioctl { fd: -1, command: 0x8912 });
    assert_eq!(response.value, i64::from(response.length));
    // SIOCSIFFLAGS changes something; of routing sockets there is one protocol.
    assert_eq!(peer.value(&Request::Ioctl { fd: -1, command: 0x8914 }), -95);
    assert!(peer.value(&Request::Socket { domain: 16, kind: 3, protocol: 0 }) > 0);
    assert_eq!(peer.value(&Request::Socket { domain: 16, kind: 3, protocol: 15 }), -97);
}

#[test]
fn poll_reports_what_is_ready_and_waits_for_it() {
    let (_relay, peer) = worker();
    let (listener, at) = peer.listener();
    let udp = peer.socket(&UDP);
    let poll = |entries: &[PollEntry], wait| {
        for (n, entry) in entries.iter().enumerate() {
            peer.put(layout::PAYLOAD + 8 * n as u64, &entry.encode());
        }
        peer.post(&Request::Poll { count: entries.len() as u32, wait })
    };
    let result = |sequence, count: u32| {
        let value = peer.wait(sequence).value;
        let bytes = peer.data(layout::PAYLOAD, 8 * count);
        let (chunks, _) = bytes.as_chunks();
        (value, chunks.iter().map(|c| PollEntry::decode(*c).revents).collect::<Vec<_>>())
    };
    let entry = |fd, events| PollEntry { fd, events, revents: 0xffff };
    let both = [entry(listener, POLLIN), entry(udp, POLLIN | POLLOUT), entry(-1, POLLIN)];
    assert_eq!(result(poll(&both, 0), 3), (1, vec![0, POLLOUT, 0]));
    let start = Instant::now();
    assert_eq!(result(poll(&both[..1], 40 * MILLISECOND), 1), (0, vec![0]));
    assert!(start.elapsed() >= Duration::from_millis(40));
    assert_eq!(result(poll(&[entry(0, POLLIN)], WAIT_FOREVER), 1), (1, vec![POLLNVAL]));
    let sequence = poll(&both[..1], WAIT_FOREVER);
    std::thread::sleep(Duration::from_millis(30));
    let _client = TcpStream::connect(at).unwrap();
    assert_eq!(result(sequence, 1), (1, vec![POLLIN]));
}

#[test]
fn much_data_is_sent_and_received_whole() {
    let (_relay, peer) = worker();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = peer.socket(&TCP);
    assert_eq!(peer.connect(fd, server.local_addr().unwrap(), WAIT_FOREVER), 0);
    let (mut other, _) = server.accept().unwrap();
    let data: Vec<u8> = (0..layout::PAYLOAD_MAX).map(|n| ((n * 31) >> 3) as u8).collect();
    let expected = data.clone();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut buffer = [0; 5000];
        while all.len() < expected.len() * 20 {
            match other.read(&mut buffer).unwrap() {
                0 => break,
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
        assert!(all.chunks(expected.len()).all(|part| part == expected));
        for part in expected.chunks(7000) {
            other.write_all(part).unwrap();
        }
        all.len()
    });
    peer.put(layout::PAYLOAD, &data);
    for _ in 0..20 {
        assert_eq!(peer.value(&send(fd, data.len() as u32)), data.len() as i64);
    }
    assert_eq!(reader.join().unwrap(), data.len() * 20);
    let request = Request::Receive {
        fd,
        flags: 0x100,
        control: 0,
        length: data.len() as u32,
        all: true,
        wait: WAIT_FOREVER,
    };
    assert_eq!(peer.call(&request).value, data.len() as i64);
    assert_eq!(peer.data(layout::PAYLOAD, data.len() as u32), data);
}

#[test]
fn a_part_that_was_sent_wins_over_cancellation() {
    let (_relay, peer) = worker();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = peer.socket(&TCP);
    assert_eq!(peer.connect(fd, server.local_addr().unwrap(), WAIT_FOREVER), 0);
    let (_other, _) = server.accept().unwrap();
    let full = layout::PAYLOAD_MAX;
    loop {
        let sequence = peer.post(&send(fd, full));
        std::thread::sleep(Duration::from_millis(100));
        if peer.response(sequence).is_some() {
            continue;
        }
        peer.cancel(sequence);
        let response = peer.wait(sequence);
        if response.cancelled {
            assert_eq!(response.value, -4);
            break;
        }
        assert!(response.value > 0 && response.value < i64::from(full));
    }
}

#[test]
fn a_socket_closed_by_another_worker_stays_until_the_call_ends() {
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let (control, one) = (relay.peer(delegate, 0), relay.peer(delegate, 1));
    assert_eq!(control.value(&Request::Spawn { slot: 2 }), 0);
    let two = relay.peer(delegate, 2);
    let (fd, at) = one.listener();
    let sequence = one.post(&Request::Accept { fd, wait: WAIT_FOREVER });
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(two.value(&Request::Close { fd }), 0);
    let replacement = two.socket(&TCP);
    assert_ne!(replacement, fd);
    let _client = TcpStream::connect(at).unwrap();
    assert!(one.wait(sequence).value > 0);
    assert_eq!(one.value(&Request::Accept { fd, wait: 0 }), EBADF);
    assert_eq!(two.value(&Request::Spawn { slot: 3 }), EINVAL, "slot 0 only");
}
