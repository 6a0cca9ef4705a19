//! Threads of one process that use one socket at the same time; and what `accept` leaves alone.
use super::guest::{Blocked, DATA, End, Guest, Signal};
use super::{FS, RSP, address, blocked, done, remote_fd, trusted};
use linux_abi::nr;
use proptest::prelude::*;
use wire::Request;

const REMOTE: u64 = DATA + 0x100;
const LOOPBACK: u64 = DATA + 0x200;
const OPTION: u64 = DATA + 0x300;

/// What a thread does with the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    Connect,
    ConnectOwn,
    Bind,
    Send,
    Option(u8),
    Listen,
    Close,
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        3 => Just(Doing::Connect),
        2 => Just(Doing::ConnectOwn),
        2 => Just(Doing::Bind),
        2 => Just(Doing::Send),
        2 => (0u8..4).prop_map(Doing::Option),
        1 => Just(Doing::Listen),
        1 => Just(Doing::Close),
    ]
}

/// A socket of a trusted program, and addresses in its memory.
fn socket(kind: u64) -> (Guest, usize, u64) {
    let (mut g, p) = trusted();
    let fd = g.call(p, nr::socket, &[2, kind, 0]) as u64;
    g.write(p, REMOTE, &address([10, 0, 2, 2], 80));
    g.write(p, LOOPBACK, &address([127, 0, 0, 1], 80));
    for n in 0..4u64 {
        g.write(p, OPTION + n * 4, &(n as u32).to_le_bytes());
    }
    (g, p, fd)
}

fn begin(g: &mut Guest, p: usize, fd: u64, thread: u64, doing: Doing) -> End {
    let (fs, rsp) = (FS + thread, RSP - thread * 0x400);
    match doing {
        Doing::Connect => g.begin(p, fs, rsp, nr::connect, &[fd, REMOTE, 16]),
        Doing::ConnectOwn => g.begin(p, fs, rsp, nr::connect, &[fd, LOOPBACK, 16]),
        Doing::Bind => g.begin(p, fs, rsp, nr::bind, &[fd, REMOTE, 16]),
        Doing::Send => g.begin(p, fs, rsp, nr::sendto, &[fd, DATA, 1, 0, REMOTE, 16]),
        Doing::Option(n) => {
            let option = [fd, 0, u64::from(n), OPTION + u64::from(n) * 4, 4];
            g.begin(p, fs, rsp, nr::setsockopt, &option)
        }
        Doing::Listen => g.begin(p, fs, rsp, nr::listen, &[fd, 1]),
        Doing::Close => g.begin(p, fs, rsp, nr::close, &[fd]),
    }
}

/// Threads that wait, each with its number.
type Waiting = Vec<(u64, Blocked)>;

/// Lets a thread go on, and keeps it where it waits again; its result otherwise.
fn go_on(waiting: &mut Waiting, thread: u64, end: End) -> Option<i64> {
    match end {
        End::Done(result) => Some(result),
        End::Blocked(b) => {
            waiting.push((thread, b));
            None
        }
        End::Child(..) => panic!("a child"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the order in which several threads' calls on one socket begin, are answered and
    /// go on: all of them end, there is one remote socket or none, it has the options whose
    /// `setsockopt` worked, and no thread finds a connection that it has not made to be lost.
    #[test]
    fn threads_share_one_commitment(
        datagram: bool,
        steps in proptest::collection::vec((doing(), 0u8..4, any::<u8>()), 2..7),
    ) {
        let (mut g, p, fd) = socket(if datagram { 2 } else { 1 });
        let mut waiting = Waiting::new();
        let mut results = Vec::new();
        let mut closes = false;
        for (thread, (doing, answers, pick)) in steps.iter().enumerate() {
            closes |= *doing == Doing::Close;
            g.world.net.frozen.set(true);
            let end = begin(&mut g, p, fd, thread as u64, *doing);
            if let Some(result) = go_on(&mut waiting, thread as u64, end) {
                results.push((*doing, result));
            }
            // The delegate gets some turns; somebody may go on.
            for _ in 0..*answers {
                g.world.net.frozen.set(false);
                g.events();
                g.world.net.frozen.set(true);
                if waiting.is_empty() {
                    break;
                }
                let (thread, b) = waiting.remove(usize::from(*pick) % waiting.len());
                let end = g.again(&b);
                if let Some(result) = go_on(&mut waiting, thread, end) {
                    results.push((steps[thread as usize].0, result));
                }
            }
        }
        g.world.net.frozen.set(false);
        for _ in 0..200 {
            g.events();
            let Some((thread, b)) = (!waiting.is_empty()).then(|| waiting.remove(0)) else { break };
            let end = g.again(&b);
            if let Some(result) = go_on(&mut waiting, thread, end) {
                results.push((steps[thread as usize].0, result));
            }
        }
        prop_assert!(waiting.is_empty(), "somebody waits for ever: {:?}", results);
        g.events();
        // Some other call: what is over is given back at the next exit.
        g.call(p, nr::getppid, &[]);
        g.events();
        prop_assert_eq!(g.engine.census().in_service, 0);
        for (doing, result) in &results {
            prop_assert!(*result != -104 && *result != -5, "{:?}: {}", doing, result);
        }
        let sockets = g.world.net.sockets.borrow();
        let open = sockets.values().filter(|s| !s.closed).count();
        prop_assert!(open <= usize::from(!closes), "{} open, {:?}", open, results);
        if let (Some(socket), false) = (sockets.values().find(|s| !s.closed), closes) {
            for (doing, result) in &results {
                if let (Doing::Option(n), 0) = (doing, result) {
                    let has = socket.options.iter().any(|(_, name, _)| *name == i32::from(*n));
                    prop_assert!(has, "option {} is lost: {:?}", n, results);
                }
            }
        }
    }
}

#[test]
fn the_options_are_there_before_another_thread_goes_on() {
    let (mut g, p, fd) = socket(1);
    assert_eq!(g.call(p, nr::setsockopt, &[fd, 0, 2, OPTION, 4]), 0);
    g.world.net.frozen.set(true);
    let one = blocked(begin(&mut g, p, fd, 1, Doing::Bind));
    let two = blocked(begin(&mut g, p, fd, 2, Doing::Connect));
    g.world.net.frozen.set(false);
    g.events();
    let two = blocked(g.again(&two));
    assert_eq!(done(g.again(&one)), 0);
    assert_eq!(done(g.again(&two)), 0);
    let log = g.world.net.log.borrow();
    let place = |what: fn(&Request) -> bool| log.iter().position(|(_, r)| what(r)).unwrap();
    let option = place(|r| matches!(r, Request::SetOption { .. }));
    assert!(option < place(|r| matches!(r, Request::Connect { .. })));
    assert_eq!(log.iter().filter(|(_, r)| matches!(r, Request::Socket { .. })).count(), 1);
}

/// A listening socket, and one connection in its queue.
fn listening() -> (Guest, usize, u64) {
    let (mut g, p, fd) = socket(1);
    assert_eq!(begin_done(&mut g, p, fd, Doing::Bind), 0);
    assert_eq!(begin_done(&mut g, p, fd, Doing::Listen), 0);
    queue(&g);
    (g, p, fd)
}

fn queue(g: &Guest) {
    let key = remote_fd(g);
    let peer = address([10, 0, 2, 2], 55555);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().backlog.push_back(peer);
}

fn begin_done(g: &mut Guest, p: usize, fd: u64, doing: Doing) -> i64 {
    done(begin(g, p, fd, 0, doing))
}

#[test]
fn a_connection_without_a_descriptor_stays_in_the_queue() {
    let (mut g, p, fd) = listening();
    let key = remote_fd(&g);
    g.processes[p].limit = 4;
    for _ in 0..3 {
        assert_eq!(g.call(p, nr::accept, &[fd, 0, 0]), -24);
    }
    assert_eq!(g.world.net.sockets.borrow()[&key].backlog.len(), 1);
    g.processes[p].limit = 1024;
    let new = g.call(p, nr::accept, &[fd, 0, 0]);
    assert!(new > fd as i64);
    assert_eq!(g.call(p, nr::write, &[new as u64, DATA, 1]), 1);
    // With an empty queue, too, the missing descriptor comes first.
    g.processes[p].limit = 4;
    assert_eq!(g.call(p, nr::accept, &[fd, 0, 0]), -24);
}

#[test]
fn a_waiting_accept_occupies_no_descriptor() {
    let (mut g, p, fd) = listening();
    assert!(g.call(p, nr::accept, &[fd, 0, 0]) > 0);
    let before = g.processes[p].files.len();
    blocked(g.begin(p, FS, RSP, nr::accept, &[fd, 0, 0]));
    assert_eq!(g.processes[p].files.len(), before);
    // A handler leaves it, and nothing is left of it.
    assert_eq!(done(g.begin(p, FS, RSP, nr::fcntl, &[fd, 1])), 0);
    assert_eq!((g.processes[p].files.len(), g.engine.census().in_service), (before, 0));
    // One that finds nothing and does not wait takes no number either.
    assert_eq!(g.call(p, nr::fcntl, &[fd, 4, 0o4000]), 0);
    assert_eq!(g.call(p, nr::accept, &[fd, 0, 0]), -11);
    assert_eq!(g.processes[p].files.len(), before);
    assert_eq!(g.engine.census().descriptors, 2);
}

#[test]
fn who_receives_before_the_socket_is_remote_gets_its_datagrams() {
    for (number, args) in [(nr::read, 2), (nr::recvfrom, 3), (nr::readv, 2)] {
        let (mut g, p, fd) = socket(2);
        let vector = [DATA + 0x400, 100].map(u64::to_le_bytes).concat();
        g.write(p, DATA + 0x500, &vector);
        let at = if number == nr::readv { (DATA + 0x500, 1) } else { (DATA + 0x400, 100) };
        let receive = [fd, at.0, at.1, 0, 0, 0];
        let waits = blocked(g.begin(p, FS + 9, RSP - 0x4000, number, &receive[..args.max(3)]));
        // A handler with SA_RESTART does not end it.
        g.processes[p].signal = Some(Signal::Restart);
        let waits = blocked(g.again(&waits));
        assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 1, 0, REMOTE, 16]), 1);
        let waits = blocked(g.again(&waits));
        let key = remote_fd(&g);
        g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"answer");
        assert_eq!(done(g.again(&waits)), 6);
        assert_eq!(g.read(p, DATA + 0x400, 6), b"answer");
        assert_eq!(g.engine.census().in_service, 0);
    }
}

#[test]
fn who_receives_before_the_socket_commits_is_told_what_becomes_of_it() {
    // It goes to the own VM, is shut down, or nothing happens to it: its own kernel goes on.
    let (mut g, p, fd) = socket(2);
    let receive = |g: &mut Guest, fd| g.begin(p, FS + 9, RSP - 0x4000, nr::read, &[fd, DATA, 9]);
    let waits = blocked(receive(&mut g, fd));
    g.call(p, nr::connect, &[fd, LOOPBACK, 16]);
    let waits = blocked(g.again(&waits));
    assert_eq!(waits.state.regs.r[abi::vcpu::reg::RDI], fd, "the program's own call");
    let fd = g.call(p, nr::socket, &[2, 2, 0]) as u64;
    let waits = blocked(receive(&mut g, fd));
    g.call(p, nr::shutdown, &[fd, 2]);
    let waits = blocked(g.again(&waits));
    assert_eq!(waits.state.regs.r[abi::vcpu::reg::RDI], fd);
    let fd = g.call(p, nr::socket, &[2, 2, 0]) as u64;
    let waits = blocked(receive(&mut g, fd));
    g.processes[p].signal = Some(Signal::Interrupt);
    assert_eq!(done(g.again(&waits)), -4);
}

#[test]
fn who_polls_a_socket_is_told_of_it_when_another_thread_makes_it_remote() {
    for with_remote in [false, true] {
        let (mut g, p, fd) = socket(2);
        let mut set = linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 }.encode().to_vec();
        if with_remote {
            let other = g.call(p, nr::socket, &[2, 1, 0]) as u64;
            assert_eq!(g.call(p, nr::connect, &[other, REMOTE, 16]), 0);
            set.extend(linux_abi::PollFd { fd: other as i32, events: 1, revents: 0 }.encode());
        }
        let count = set.len() as u64 / 8;
        g.write(p, DATA + 0x400, &set);
        let poll = [DATA + 0x400, count, u64::MAX];
        let waits = blocked(g.begin(p, FS + 9, RSP - 0x4000, nr::poll, &poll));
        assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 1, 0, REMOTE, 16]), 1);
        let waits = blocked(g.again(&waits));
        {
            let mut sockets = g.world.net.sockets.borrow_mut();
            let (_, last) = sockets.iter_mut().next_back().expect("its remote socket");
            last.received.extend(b"answer");
        }
        g.events();
        assert_eq!(done(g.again(&waits)), 1);
        assert_eq!(g.read(p, DATA + 0x406, 1), [1]);
        assert_eq!(g.engine.census().in_service, 0);
    }
}

#[test]
fn who_polls_an_instance_is_told_of_its_first_remote_socket() {
    let (mut g, p, fd) = socket(2);
    let epoll = g.call(p, nr::epoll_create1, &[0]) as u64;
    let entry = linux_abi::PollFd { fd: epoll as i32, events: 1, revents: 0 };
    g.write(p, DATA + 0x400, &entry.encode());
    let poll = [DATA + 0x400, 1, u64::MAX];
    let waits = blocked(g.begin(p, FS + 9, RSP - 0x4000, nr::poll, &poll));
    assert_eq!(g.call(p, nr::sendto, &[fd, DATA, 1, 0, REMOTE, 16]), 1);
    g.write(p, DATA + 0x500, &linux_abi::EpollEvent { events: 1, data: 5 }.encode());
    assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, 1, fd, DATA + 0x500]), 0);
    let waits = blocked(g.again(&waits));
    let key = remote_fd(&g);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.extend(b"answer");
    g.events();
    assert_eq!(done(g.again(&waits)), 1);
}
