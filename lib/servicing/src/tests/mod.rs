//! The whole engine against a fake guest and a fake service VM.
mod alone;
mod both;
mod code;
mod commit;
mod descriptors;
mod epoll;
mod files;
mod interrupted;
mod passing;
mod rights;
mod sandbox;
mod signals;
mod sockets;
mod standing;
mod stub;
mod threads;

use crate::fake::{self, address, guest, instance, processor};
use guest::{Blocked, CODE, DATA, End, File, Guest, Kind, Signal};
use linux_abi::nr;
use wire::{Request, hypercall};

const CURL: &[u8] = b"/usr/bin/curl";

/// A guest in which `curl` has just become trusted and made its first call.
fn trusted() -> (Guest, usize) {
    let mut g = Guest::new("/usr/bin/curl");
    let p = g.start(b"/launcher");
    assert_eq!(g.hypercall(p, hypercall::TRUST, 0), 0);
    g.write(p, DATA, b"/usr/bin/curl\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    assert_eq!(g.engine.census().processes, 1);
    (g, p)
}

fn connected() -> (Guest, usize, u64) {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 1, 0]);
    assert!(fd >= 0);
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd as u64, DATA, 16]), 0);
    (g, p, fd as u64)
}

/// The same, not verbose (with a line for each call, none would be taken for the last one made once more), with a
/// pipe as descriptor 9.
fn with_pipe(form: hypercall::Form) -> (Guest, usize, u64, File) {
    guest::FORM.set(form);
    let (mut g, p, fd) = connected();
    g.engine.set_verbose(false);
    let pipe = File { kind: Kind::Pipe, ..File::default() };
    g.processes[p].files.insert(9, pipe.clone());
    (g, p, fd, pipe)
}

fn remote_fd(g: &Guest) -> (u32, i32) {
    *g.world.net.sockets.borrow().keys().next().expect("a remote socket")
}

fn blocked(end: End) -> Blocked {
    match end {
        End::Blocked(b) => b,
        End::Done(r) => panic!("returned {r}"),
        End::Child(..) => panic!("child"),
    }
}

fn done(end: End) -> i64 {
    match end {
        End::Done(r) => r,
        _ => panic!("did not return"),
    }
}

/// Calls again until the answer is there.
fn patient(g: &mut Guest, p: usize, number: u64, args: &[u64]) -> i64 {
    let mut end = g.begin(p, FS, RSP, number, args);
    loop {
        match end {
            End::Blocked(b) => end = g.again(&b),
            other => return done(other),
        }
    }
}

const FS: u64 = 0x1111_0000;
const RSP: u64 = 0x7fff_fffe_e800;

#[test]
fn a_program_starts_with_its_own_name_and_a_delegate() {
    let (mut g, p) = trusted();
    let top = g.read(p, 0x7fff_fffe_e000, 0x1000);
    let text = String::from_utf8_lossy(&top);
    assert!(text.contains("/usr/bin/curl"), "{text}");
    assert!(!text.contains("./"));
    g.events();
    assert_eq!(g.engine.census().delegates, 1);
    assert_eq!(g.engine.census().workers, 2);
    // A local call costs its two exits and nothing else; with the stub, none at all.
    let before = g.exits;
    assert_eq!(g.call(p, nr::getppid, &[]), 1);
    let exits = if guest::FORM.get() == hypercall::Form::Stub { 0 } else { 2 };
    assert_eq!(g.exits - before, exits);
}

#[test]
fn data_go_to_the_remote_socket_and_come_back() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    g.write(p, DATA, b"hello");
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 5]), 5);
    assert_eq!(g.world.net.sockets.borrow()[&key].sent, b"hello");
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"world!");
    assert_eq!(g.call(p, nr::read, &[fd, DATA, 100]), 6);
    assert_eq!(g.read(p, DATA, 6), b"world!");
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert!(g.world.net.sockets.borrow()[&key].closed);
    assert_eq!(g.call(p, nr::read, &[fd, DATA, 100]), -9);
}

#[test]
fn an_untrusted_program_gets_nothing() {
    let mut g = Guest::new("/usr/bin/curl");
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    g.write(p, DATA, b"/usr/bin/wget\0");
    g.call(p, nr::execve, &[DATA, 0, 0]);
    g.events();
    assert_eq!(g.engine.census().processes, 0);
    let q = g.start(b"x");
    assert_eq!(g.call(q, nr::getppid, &[]), 1);
    assert_eq!(g.hypercall(q, hypercall::EXITS, 0), 0);
    assert_eq!(g.s.intercept_cr3_write, 0, "nothing is watched any more");
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -101);
    assert!(g.world.net.sockets.borrow().is_empty());
}

#[test]
fn a_failed_exec_leaves_everything_as_it_was() {
    let mut g = Guest::new("/usr/bin/curl:/usr/bin/missing");
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    g.write(p, DATA, b"/usr/bin/missing\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), -2);
    g.write(p, DATA, b"/usr/bin/curl\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    assert_eq!(g.engine.census().processes, 1);
}

#[test]
fn spaces_of_programs_that_are_over_are_freed() {
    let mut g = Guest::new("/usr/bin/curl");
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    let mut spaces = g.engine.watched();
    g.write(p, DATA, b"/usr/bin/curl\0");
    // The call never returns in the space that it leaves.
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    assert!(spaces.iter().all(|space| space.upgrade().is_none()), "the launcher's space");
    spaces = g.engine.watched();
    // A call is in service when the process ends.
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
    blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    g.kill(p);
    assert_eq!(g.engine.census().processes, 0);
    assert!(spaces.iter().all(|space| space.upgrade().is_none()), "curl's space");
}

#[test]
fn loopback_stays_local() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([127, 0, 0, 1], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -101);
    assert!(g.world.net.sockets.borrow().is_empty());
}

#[test]
fn a_blocked_read_is_woken_by_data() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    // Other threads go on meanwhile.
    assert_eq!(done(g.begin(p, FS + 1, RSP - 0x400, nr::getppid, &[])), 1);
    let b = blocked(g.again(&b));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"late");
    assert_eq!(done(g.again(&b)), 4);
    assert_eq!(g.read(p, DATA, 4), b"late");
    assert_eq!(g.engine.census().in_service, 0);
}

#[test]
fn signals_interrupt_or_restart_by_the_kernels_own_rules() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    g.processes[p].signal = Some(Signal::Interrupt);
    assert_eq!(done(g.again(&b)), -4);
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    g.processes[p].signal = Some(Signal::Restart);
    let b = blocked(g.again(&b));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(done(g.again(&b)), 1);
    // A poll is never restarted.
    g.write(p, DATA, &linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 }.encode());
    let b = blocked(g.begin(p, FS, RSP, nr::poll, &[DATA, 1, u64::MAX]));
    g.processes[p].signal = Some(Signal::Restart);
    assert_eq!(done(g.again(&b)), -4);
}

#[test]
fn a_handler_makes_calls_inside_a_waiting_one() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"ab");
    assert_eq!(done(g.begin(p, FS, RSP - 0x300, nr::read, &[fd, DATA + 8, 1])), 1);
    assert_eq!(g.engine.census().in_service, 1);
    // The handler returns: the outer call looks again.
    g.processes[p].signal = Some(Signal::Restart);
    assert_eq!(done(g.again(&b)), 1);
    assert_eq!(g.read(p, DATA, 1), b"b");
    // Left by siglongjmp: the next call from the same place forgets it.
    let _ = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    assert_eq!(done(g.begin(p, FS, RSP, nr::fcntl, &[fd, 1])), 0);
    assert_eq!(g.engine.census().in_service, 0);
}

#[test]
fn poll_merges_both_sides() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let pipe = File { kind: Kind::Pipe, ..File::default() };
    g.processes[p].files.insert(9, pipe.clone());
    let entry = |fd: i32| linux_abi::PollFd { fd, events: 1, revents: 0 }.encode();
    let set = |g: &Guest| {
        g.write(p, DATA, &entry(fd as i32));
        g.write(p, DATA + 8, &entry(9));
    };
    let revents = |g: &Guest| (g.read(p, DATA + 6, 1)[0], g.read(p, DATA + 14, 1)[0]);
    set(&g);
    assert_eq!(g.call(p, nr::poll, &[DATA, 2, 0]), 0);
    // The local side is ready first.
    let b = blocked(g.begin(p, FS, RSP, nr::poll, &[DATA, 2, u64::MAX]));
    pipe.bytes.borrow_mut().push_back(1);
    assert_eq!(done(g.again(&b)), 1);
    assert_eq!(revents(&g), (0, 1));
    // Both are.
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(g.call(p, nr::poll, &[DATA, 2, u64::MAX]), 2);
    assert_eq!(revents(&g), (1, 1));
    // The remote side is ready first.
    pipe.bytes.borrow_mut().clear();
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.clear();
    let b = blocked(g.begin(p, FS, RSP, nr::poll, &[DATA, 2, u64::MAX]));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"x");
    assert_eq!(done(g.again(&b)), 1);
    assert_eq!(revents(&g), (1, 0));
    // Many cancellations leave no worker behind.
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.clear();
    for _ in 0..50 {
        let b = blocked(g.begin(p, FS, RSP, nr::poll, &[DATA, 2, u64::MAX]));
        pipe.bytes.borrow_mut().push_back(1);
        assert_eq!(done(g.again(&b)), 1);
        pipe.bytes.borrow_mut().clear();
    }
    assert!(g.engine.census().workers <= 4, "{:?}", g.engine.census());
}

#[test]
fn select_works_over_both_sides() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    g.processes[p].files.insert(9, File { kind: Kind::Pipe, ..File::default() });
    g.write(p, DATA, &((1u64 << 9) | 1 << fd).to_le_bytes());
    let b = blocked(g.begin(p, FS, RSP, nr::select, &[10, DATA, 0, 0, 0]));
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().eof = true;
    assert_eq!(done(g.again(&b)), 1);
    assert_eq!(g.read(p, DATA, 8), (1u64 << fd).to_le_bytes());
}

#[test]
fn a_server_accepts() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &1u32.to_le_bytes());
    assert_eq!(g.call(p, nr::setsockopt, &[fd, 1, 2, DATA, 4]), 0);
    g.write(p, DATA, &address([0, 0, 0, 0], 8000));
    assert_eq!(g.call(p, nr::bind, &[fd, DATA, 16]), 0);
    assert_eq!(g.call(p, nr::listen, &[fd, 5]), 0);
    let key = remote_fd(&g);
    assert_eq!(g.world.net.sockets.borrow()[&key].options.len(), 1);
    g.write(p, DATA + 64, &16u32.to_le_bytes());
    let b = blocked(g.begin(p, FS, RSP, nr::accept4, &[fd, DATA, DATA + 64, 0o2000000]));
    let peer = address([10, 0, 2, 2], 55555);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().backlog.push_back(peer.clone());
    let new = done(g.again(&b));
    assert!(new > fd as i64);
    assert_eq!(g.read(p, DATA, 16), peer);
    g.write(p, DATA, b"ok");
    assert_eq!(g.call(p, nr::write, &[new as u64, DATA, 2]), 2);
}

#[test]
fn absent_pages_are_populated_and_bad_pointers_are_faults() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let buffer = g.reserve(p, 4);
    let big: Vec<u8> = (0..10000u32).map(|n| n as u8).collect();
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(&big);
    assert_eq!(g.call(p, nr::read, &[fd, buffer + 100, 16000]), 10000);
    assert_eq!(g.read(p, buffer + 100, 10000), big);
    for bad in [0x10, 0x7fff_0000_0000, 0xffff_ffff_8100_0000, u64::MAX - 2] {
        assert_eq!(g.call(p, nr::write, &[fd, bad, 10]), -14, "{bad:#x}");
        assert_eq!(g.call(p, nr::read, &[fd, bad, 10]), -14, "{bad:#x}");
        assert_eq!(g.call(p, nr::connect, &[fd, bad, 16]), -14, "{bad:#x}");
    }
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 1 << 20]), -22);
}

#[test]
fn what_is_not_covered_is_refused_not_done_locally() {
    let (mut g, p, fd) = connected();
    assert_eq!(g.call(p, nr::fsetxattr, &[fd, 0, 0, 0, 10, 0]), -95);
    assert_eq!(g.call(p, nr::epoll_ctl, &[50, 1, fd, DATA]), -9);
    assert_eq!(g.call(p, nr::io_uring_setup, &[8, DATA]), -38);
    assert!(g.world.lines.borrow().iter().any(|l| l.contains("fsetxattr")));
    // The relay's own descriptors are not there for the program.
    let hidden = *g.processes[p].files.iter().find(|(_, f)| f.kind == Kind::Vsock).unwrap().0;
    assert_eq!(g.call(p, nr::close, &[hidden as u64]), -9);
    assert_eq!(g.call(p, nr::dup2, &[fd, hidden as u64]), -9);
    assert_eq!(g.call(p, nr::dup2, &[hidden as u64, 50]), -9);
    assert_eq!(g.call(p, nr::close_range, &[3, u64::from(u32::MAX), 0]), 0);
    assert!(g.processes[p].files.contains_key(&hidden));
    assert_eq!(g.engine.census().descriptors, 0);
    assert!(g.world.net.sockets.borrow().values().all(|s| s.closed));
}

#[test]
fn duplicates_keep_the_socket_open() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    let copy = g.call(p, nr::dup, &[fd]) as u64;
    let third = g.call(p, nr::fcntl, &[fd, 0, 30]) as u64;
    g.call(p, nr::close, &[fd]);
    g.call(p, nr::close, &[copy]);
    assert!(!g.world.net.sockets.borrow()[&key].closed);
    g.write(p, DATA, b"z");
    assert_eq!(g.call(p, nr::write, &[third, DATA, 1]), 1);
    let other = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    assert_eq!(g.call(p, nr::dup2, &[other, third]), third as i64);
    g.events();
    assert!(g.world.net.sockets.borrow()[&key].closed);
}

/// Forks, and lets the child come to life.
fn fork(g: &mut Guest, p: usize) -> usize {
    let child = fork_at(g, p, RSP);
    g.events();
    child
}

/// The same from this place of the stack, and without anything else that happens.
fn fork_at(g: &mut Guest, p: usize, rsp: u64) -> usize {
    let mut end = g.begin(p, FS, rsp, nr::fork, &[]);
    while let End::Blocked(b) = end {
        // What it waits for comes meanwhile.
        g.world.net.starting.set(false);
        end = g.again(&b);
    }
    let End::Child(pid, child) = end else { panic!("no child") };
    assert_eq!(pid, 500);
    let mut at_gate = g.s;
    // The child returns from the kernel to where the call was made to return: the gate.
    let address = gate_address(g, p);
    at_gate.rip = 0xffff_ffff_8100_0000;
    at_gate.cpl = 0;
    at_gate.regs.r[abi::vcpu::reg::RCX] = address + 2;
    at_gate.regs.r[abi::vcpu::reg::RSP] = rsp;
    let end = g.child(&at_gate, child);
    assert_eq!(done(end), 0);
    child
}

#[test]
fn a_fork_gets_a_delegate_with_the_same_sockets() {
    let (mut g, p, fd) = connected();
    let child = fork(&mut g, p);
    assert_eq!(g.engine.census().processes, 2);
    assert_eq!(g.engine.census().delegates, 2);
    g.write(p, DATA, b"p");
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert_eq!(g.call(child, nr::write, &[fd, DATA, 1]), 1, "{:?}", g.world.lines.borrow());
    let sockets = g.world.net.sockets.borrow().clone();
    let of = |d: u32| sockets.iter().find(|((n, _), _)| *n == d).unwrap().1;
    assert!(of(1).closed && !of(2).closed);
    assert_eq!(of(2).sent.len(), 1);
    // Its end takes its delegate with it.
    g.kill(child);
    assert_eq!(g.engine.census().processes, 1);
    assert!(g.world.net.log.borrow().contains(&(2, Request::Exit)));
}

fn gate_address(g: &Guest, p: usize) -> u64 {
    let mut page = [0; 5];
    (0x1000_0000..0x1100_0000u64)
        .step_by(0x1000)
        .find(|at| g.tables(p).read(*at, &mut page).is_ok() && page == [0x0f, 5, 0x0f, 1, 0xd9])
        .expect("a gate")
}

#[test]
fn a_dead_delegate_is_an_error_at_once_and_new_sockets_work() {
    let (mut g, p, fd) = connected();
    let b = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    for record in g.world.net.kill(1) {
        g.engine.service_record(&record);
    }
    g.events();
    assert_eq!(done(g.again(&b)), -104);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), -104);
    g.write(p, DATA, &linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 }.encode());
    assert_eq!(g.call(p, nr::poll, &[DATA, 1, u64::MAX]), 1);
    assert_eq!(g.read(p, DATA + 6, 1), [0x19]);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    let b = g.begin(p, FS, RSP, nr::connect, &[fd, DATA, 16]);
    let result = match b {
        End::Blocked(b) => done(g.again(&b)),
        other => done(other),
    };
    assert_eq!(result, 0);
    // Without a service VM there are no sockets, and nothing hangs.
    g.engine.service_record(&wire::vsock::Record::Ended);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -100);
}

#[test]
fn slow_delegates_put_the_thread_to_sleep() {
    let (mut g, p, fd) = connected();
    g.world.net.frozen.set(true);
    g.write(p, DATA, b"late");
    let b = blocked(g.begin(p, FS, RSP, nr::write, &[fd, DATA, 4]));
    assert_eq!(done(g.begin(p, FS + 1, RSP - 0x4000, nr::getppid, &[])), 1);
    g.world.net.frozen.set(false);
    assert_eq!(done(g.again(&b)), 4);
}

#[test]
fn a_blocking_connect_waits_for_its_outcome() {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 0x9999));
    let b = blocked(g.begin(p, FS, RSP, nr::connect, &[fd, DATA, 16]));
    let key = remote_fd(&g);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().slow = false;
    assert_eq!(done(g.again(&b)), 0);
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -106, "EISCONN");
    // One that does not block says so.
    let fd = g.call(p, nr::socket, &[2, 1 | 0o4000, 0]) as u64;
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), -115);
}

#[test]
fn returns_by_iret_work_as_well() {
    let mut g = Guest::new("/usr/bin/curl");
    g.iret = true;
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    g.write(p, DATA, b"/usr/bin/curl\0");
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
}

#[test]
fn a_root_in_other_hands_is_noticed() {
    let (mut g, p, fd) = connected();
    let cr3 = g.processes[p].cr3;
    // The process is gone without a word, another one has its page-table root.
    let q = g.start(CURL);
    let new = g.processes[q].cr3;
    for n in 0..512 {
        let entry = memory::Memory::read64(&g.world.compute, new + n * 8).unwrap();
        g.put(cr3 + n * 8, entry);
    }
    g.processes[q].cr3 = cr3;
    assert_eq!(g.call(q, nr::write, &[fd, DATA, 1]), -38);
    assert_eq!(g.engine.census().processes, 0);
    assert_eq!(CODE, 0x40_0000);
}
