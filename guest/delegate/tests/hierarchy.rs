//! Processes: forks, inherited sockets, ends of all kinds.

mod common;

use common::{Relay, TCP, receive};
use memory::Memory;
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpStream;
use std::time::Duration;
use wire::{Credentials, Identity, Request, WAIT_FOREVER, layout};

#[test]
fn dispatcher_process() {
    common::dispatcher_process();
}

const SOON: Duration = Duration::from_secs(5);

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

fn status(pid: u32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field).map(|rest| rest.trim().to_owned()))
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn children_inherit_sockets_and_outlive_their_parents() {
    let relay = Relay::start();
    let parent = relay.fork(0);
    let peer = relay.peer(parent, 1);
    let (fd, at) = peer.listener();
    // A call under way in the parent must not keep anything open, or locked, in the child.
    let waiting = peer.post(&Request::Accept { fd, wait: WAIT_FOREVER });
    std::thread::sleep(Duration::from_millis(20));
    let child = relay.fork(parent);
    let heir = relay.peer(child, 1);
    assert_eq!(status(heir.pid, "PPid:"), Some(peer.pid.to_string()));
    peer.cancel(waiting);
    assert!(peer.wait(waiting).cancelled);

    assert_eq!(heir.own_address(fd), at);
    let other = heir.socket(&TCP);
    assert_eq!(peer.value(&Request::LocalName { fd: other }), -9, "only the child's");
    assert_eq!(peer.value(&Request::Close { fd }), 0);
    let _client = TcpStream::connect(at).unwrap();
    assert!(heir.value(&Request::Accept { fd, wait: WAIT_FOREVER }) > 0);

    assert_eq!(relay.peer(parent, 0).value(&Request::Exit), 0);
    assert!(peer.is_gone_within(SOON));
    assert!(heir.is_alive());
    assert_eq!(status(heir.pid, "PPid:"), Some(relay.dispatcher_pid().to_string()));
    assert_eq!(heir.value(&Request::Close { fd }), 0);
    assert!(TcpStream::connect(at).is_err(), "the last one has closed it");
}

#[test]
fn a_killed_delegate_ends_alone() {
    let relay = Relay::start();
    let parent = relay.fork(0);
    let child = relay.fork(parent);
    let (peer, heir) = (relay.peer(parent, 1), relay.peer(child, 1));
    kill(peer.pid);
    assert!(peer.is_gone_within(SOON));
    assert!(relay.peer(parent, 0).is_gone_within(SOON));
    assert!(heir.is_alive());
    let next = relay.fork(0);
    assert!(relay.peer(next, 1).socket(&TCP) > 0);
}

#[test]
fn all_end_with_the_dispatcher_whatever_they_do() {
    let relay = Relay::start();
    let first = relay.fork(0);
    let second = relay.fork(first);
    let third = relay.fork(second);
    let peers = [first, second, third].map(|delegate| relay.peer(delegate, 1));
    let (fd, _) = peers[0].listener();
    peers[0].post(&Request::Accept { fd, wait: WAIT_FOREVER });
    let udp = peers[1].socket(&common::UDP);
    assert_eq!(peers[1].bind(udp, ([127, 0, 0, 1], 0).into()), 0);
    peers[1].post(&receive(udp, 1, WAIT_FOREVER));
    kill(relay.dispatcher_pid());
    for peer in &peers {
        assert!(peer.is_gone_within(SOON));
    }
}

#[test]
fn a_thousand_lives_leave_nothing_behind() {
    let relay = Relay::start();
    let dispatcher = relay.dispatcher_pid();
    let warm = relay.fork(0);
    relay.peer(warm, 0).call(&Request::Exit);
    let before = descriptors(dispatcher);
    let place = |delegate| relay.peer(delegate, 1).mailbox.memory().address();
    for n in 0..1000 {
        let delegate = relay.fork(0);
        let _ = place(delegate);
        let peer = relay.peer(delegate, 1);
        peer.socket(&TCP);
        if n % 2 == 0 {
            assert_eq!(relay.peer(delegate, 0).value(&Request::Exit), 0);
        } else {
            kill(peer.pid);
        }
        assert!(peer.is_gone_within(SOON));
    }
    assert_eq!(descriptors(dispatcher), before);
    let children =
        std::fs::read_to_string(format!("/proc/{dispatcher}/task/{dispatcher}/children"));
    assert_eq!(children.unwrap_or_default().trim(), "");
}

#[test]
fn a_delegate_acts_with_the_rights_of_its_process() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const BIND_LOW_PORTS: u64 = 1 << 10;
    let relay = Relay::start();
    let plain = Credentials { uid: 1000, gid: 1001, capabilities: 0 };
    let user = relay.fork_as(0, plain);
    let peer = relay.peer(user, 1);
    assert_eq!(status(peer.pid, "Uid:").unwrap().split_whitespace().nth(1), Some("1000"));
    assert_eq!(status(peer.pid, "CapEff:").as_deref(), Some("0000000000000000"));
    let raw = Request::Socket { domain: 2, kind: 3, protocol: 1 };
    assert_eq!(peer.value(&raw), -1, "EPERM");
    // A child may have other rights again.
    let capable = Credentials { capabilities: BIND_LOW_PORTS | 1 << 13, ..plain };
    let child = relay.fork_as(user, capable);
    assert!(relay.peer(child, 1).value(&raw) > 2);
}

#[test]
fn a_worker_becomes_whom_it_is_told_and_back() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const ALL: u64 = (1 << 40) - 1;
    let relay = Relay::start();
    let delegate = relay.fork(0);
    let peer = relay.peer(delegate, 1);
    let raw = Request::Socket { domain: 2, kind: 3, protocol: 1 };
    let act_as = |uid: u32, fsuid: u32, capabilities: u64, groups: &[u32]| {
        let whom = Identity { uid, gid: 8, fsuid, fsgid: 9, capabilities, groups: 2 };
        for (n, group) in groups.iter().enumerate() {
            let at = layout::PAYLOAD + 4 * n as u64;
            peer.mailbox.memory().write(at, &group.to_le_bytes()).unwrap();
        }
        assert_eq!(peer.value(&Request::Identity(whom)), 0);
    };
    let line = |field: &str| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", peer.pid)).unwrap();
        let worker = tasks
            .map(|task| task.unwrap().path())
            .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "slot 1")
            .unwrap();
        let status = std::fs::read_to_string(worker.join("status")).unwrap();
        let found = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    act_as(1000, 1002, 0, &[4, 27]);
    assert_eq!(line("Uid:"), ["0", "1000", "0", "1002"]);
    assert_eq!(line("Gid:")[3], "9");
    assert_eq!(line("Groups:"), ["4", "27"]);
    assert_eq!(peer.value(&raw), -1, "EPERM");
    // Only this worker's thread has changed.
    assert_eq!(status(peer.pid, "Uid:").unwrap().split_whitespace().nth(1), Some("0"));
    act_as(0, 0, ALL, &[1, 2]);
    assert_eq!(line("Uid:"), ["0", "0", "0", "0"]);
    assert!(peer.value(&raw) > 2);
    act_as(0, 0, 0, &[1, 2]);
    assert_eq!(peer.value(&raw), -1, "root without capabilities");
    // Too many groups for a mailbox.
    let whom = Identity { groups: u32::MAX, ..Identity::default() };
    assert_eq!(peer.value(&Request::Identity(whom)), -22);
}

#[test]
fn a_descriptor_goes_to_a_stranger() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let relay = Relay::start();
    let plain = Credentials { uid: 1000, gid: 1000, capabilities: 0 };
    let (from, to) = (relay.fork_as(0, plain), relay.fork_as(0, plain));
    let (from, to) = (relay.peer(from, 1), relay.peer(to, 1));
    let (fd, at) = from.listener();
    let pid = from.pid as i32;
    // By way of the dispatcher, whose next delegate must not have it.
    let kept = relay.peer(0, 0).value(&Request::Fetch { pid, fd });
    assert!(kept > 2, "{kept}");
    assert_eq!(from.value(&Request::Close { fd }), 0);
    let third = relay.fork(0);
    assert_eq!(relay.peer(third, 1).value(&Request::LocalName { fd: kept as i32 }), -9);
    let fetched = to.value(&Request::Fetch { pid: 0, fd: kept as i32 });
    assert!(fetched > 2, "{fetched}");
    assert_eq!(relay.peer(0, 0).value(&Request::Close { fd: kept as i32 }), 0);
    assert_eq!(to.own_address(fetched as i32), at);
    assert_eq!(to.value(&Request::Socket { domain: 2, kind: 3, protocol: 1 }), -1, "as before");
    for pid in [-1, i32::MIN] {
        assert!(to.value(&Request::Fetch { pid, fd: 3 }) < 0);
    }
}
