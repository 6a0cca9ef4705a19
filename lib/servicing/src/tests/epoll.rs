//! Epoll instances over both sides, against a simple one.
use super::guest::{DATA, End, File, Guest, Kind, Signal};
use super::instance::{EDGE, Instance, Level, ONESHOT};
use super::{FS, RSP, address, blocked, connected, done, trusted};
use linux_abi::{EpollEvent, nr};
use proptest::prelude::*;
use std::rc::Rc;

const ADD: u64 = 1;
const DELETE: u64 = 2;
const MODIFY: u64 = 3;
const IN: u32 = 1;
const OUT: u32 = 4;
/// Where events are written.
const EVENTS: u64 = DATA + 0x1000;
const FOREVER: u64 = u64::MAX;

fn create(g: &mut Guest, p: usize) -> u64 {
    let epoll = g.call(p, nr::epoll_create1, &[0o2000000]);
    assert!(epoll >= 0);
    epoll as u64
}

fn control(g: &mut Guest, p: usize, epoll: u64, op: u64, fd: u64, events: u32, data: u64) -> i64 {
    g.write(p, DATA, &EpollEvent { events, data }.encode());
    g.call(p, nr::epoll_ctl, &[epoll, op, fd, DATA])
}

fn events(g: &Guest, p: usize, count: i64) -> Vec<(u32, u64)> {
    assert!(count >= 0, "{count}");
    let bytes = g.read(p, EVENTS, count as usize * 12);
    let decode = |b: &[u8]| EpollEvent::decode(b.try_into().unwrap());
    bytes.chunks_exact(12).map(decode).map(|e| (e.events, e.data)).collect()
}

fn take(g: &mut Guest, p: usize, epoll: u64, max: u64) -> Vec<(u32, u64)> {
    let count = g.call(p, nr::epoll_wait, &[epoll, EVENTS, max, 0]);
    events(g, p, count)
}

fn sleep(g: &mut Guest, p: usize, epoll: u64) -> End {
    g.begin(p, FS, RSP, nr::epoll_pwait, &[epoll, EVENTS, 8, FOREVER, 0, 8])
}

fn socket(g: &mut Guest, p: usize) -> (u64, (u32, i32)) {
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
    let key = *g.world.net.sockets.borrow().keys().next_back().unwrap();
    (fd, key)
}

fn pipe(g: &mut Guest, p: usize, fd: i32) -> File {
    let file = File { kind: Kind::Pipe, ..File::default() };
    g.processes[p].files.insert(fd, file.clone());
    file
}

fn arrive(g: &Guest, key: (u32, i32)) {
    let mut sockets = g.world.net.sockets.borrow_mut();
    let socket = sockets.get_mut(&key).unwrap();
    socket.received.push_back(1);
    socket.arrivals += 1;
}

fn write(file: &File) {
    file.bytes.borrow_mut().push_back(1);
    file.arrivals.set(file.arrivals.get() + 1);
}

#[test]
fn the_first_side_that_is_ready_ends_the_wait() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    let (fd, key) = socket(&mut g, p);
    let file = pipe(&mut g, p, 40);
    assert_eq!(control(&mut g, p, epoll, ADD, fd, IN, 7), 0);
    assert_eq!(control(&mut g, p, epoll, ADD, fd, IN, 7), -17);
    assert_eq!(control(&mut g, p, epoll, ADD, 40, IN, 8), 0);
    assert_eq!(take(&mut g, p, epoll, 8), []);
    let b = blocked(sleep(&mut g, p, epoll));
    arrive(&g, key);
    let count = done(g.again(&b));
    assert_eq!(events(&g, p, count), [(IN, 7)]);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.clear();
    let b = blocked(sleep(&mut g, p, epoll));
    write(&file);
    let count = done(g.again(&b));
    assert_eq!(events(&g, p, count), [(IN, 8)]);
    arrive(&g, key);
    let mut both = take(&mut g, p, epoll, 8);
    both.sort_unstable();
    assert_eq!(both, [(IN, 7), (IN, 8)]);
    // One at a time, both have their turn.
    let turns: Vec<_> = (0..2).flat_map(|_| take(&mut g, p, epoll, 1)).collect();
    assert_eq!(turns.len(), 2);
    assert_ne!(turns[0], turns[1]);
    assert_eq!(control(&mut g, p, epoll, DELETE, fd, 0, 0), 0);
    assert_eq!(control(&mut g, p, epoll, DELETE, fd, 0, 0), -2);
    assert_eq!(control(&mut g, p, epoll, MODIFY, fd, 0, 0), -2);
    assert_eq!(take(&mut g, p, epoll, 8), [(IN, 8)]);
}

#[test]
fn a_signal_interrupts_and_loses_nothing() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    let (fd, key) = socket(&mut g, p);
    assert_eq!(control(&mut g, p, epoll, ADD, fd, IN | EDGE | ONESHOT, 7), 0);
    for signal in [Signal::Interrupt, Signal::Restart] {
        let b = blocked(sleep(&mut g, p, epoll));
        g.processes[p].signal = Some(signal);
        assert_eq!(done(g.again(&b)), -4);
    }
    // Many cancelled waits leave no worker behind, and take no event away.
    arrive(&g, key);
    assert_eq!(take(&mut g, p, epoll, 8), [(IN, 7)]);
    assert_eq!(take(&mut g, p, epoll, 8), []);
    arrive(&g, key);
    assert_eq!(take(&mut g, p, epoll, 8), [], "told once");
    assert_eq!(control(&mut g, p, epoll, MODIFY, fd, IN | ONESHOT, 9), 0);
    assert_eq!(take(&mut g, p, epoll, 8), [(IN, 9)]);
    assert!(g.engine.census().workers <= 4, "{:?}", g.engine.census());
}

#[test]
fn a_thread_that_waits_learns_of_the_first_remote_socket() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    pipe(&mut g, p, 40);
    assert_eq!(control(&mut g, p, epoll, ADD, 40, IN, 8), 0);
    let b = blocked(sleep(&mut g, p, epoll));
    let fs = FS + 1;
    let fd = done(g.begin(p, fs, RSP - 0x400, nr::socket, &[2, 1, 0])) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(done(g.begin(p, fs, RSP - 0x400, nr::connect, &[fd, DATA, 16])), 0);
    let key = *g.world.net.sockets.borrow().keys().next_back().unwrap();
    g.write(p, DATA, &EpollEvent { events: IN, data: 9 }.encode());
    assert_eq!(done(g.begin(p, fs, RSP - 0x400, nr::epoll_ctl, &[epoll, ADD, fd, DATA])), 0);
    let b = blocked(g.again(&b));
    arrive(&g, key);
    let count = done(g.again(&b));
    assert_eq!(events(&g, p, count), [(IN, 9)]);
}

#[test]
fn a_registration_moves_when_its_socket_commits() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    assert_eq!(control(&mut g, p, epoll, ADD, fd, IN | OUT, 7), 0);
    assert_eq!(take(&mut g, p, epoll, 8), [(0x14, 7)], "not connected");
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    assert_eq!(g.call(p, nr::connect, &[fd, DATA, 16]), 0);
    assert_eq!(take(&mut g, p, epoll, 8), [(OUT, 7)]);
    assert_eq!(control(&mut g, p, epoll, MODIFY, fd, IN, 8), 0);
    assert_eq!(take(&mut g, p, epoll, 8), []);
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert_eq!(g.call(p, nr::close, &[epoll]), 0);
    assert!(g.world.net.sockets.borrow().values().all(|s| s.closed));
}

#[test]
fn a_closed_descriptor_stays_registered_while_its_file_is_open() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    let (fd, key) = socket(&mut g, p);
    assert_eq!(control(&mut g, p, epoll, ADD, fd, IN, 7), 0);
    let copy = g.call(p, nr::dup, &[fd]) as u64;
    assert_eq!(control(&mut g, p, epoll, ADD, copy, OUT, 8), 0);
    arrive(&g, key);
    let mut both = take(&mut g, p, epoll, 8);
    both.sort_unstable();
    assert_eq!(both, [(IN, 7), (OUT, 8)]);
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert_eq!(take(&mut g, p, epoll, 8).len(), 2);
    assert_eq!(control(&mut g, p, epoll, DELETE, copy, 0, 0), 0);
    assert_eq!(take(&mut g, p, epoll, 8), [(IN, 7)]);
    assert_eq!(g.call(p, nr::close, &[copy]), 0);
    assert_eq!(take(&mut g, p, epoll, 8), []);
    // The number stands for something else now.
    let (again, _) = socket(&mut g, p);
    assert_eq!(again, fd);
    assert_eq!(control(&mut g, p, epoll, ADD, again, OUT, 9), 0);
    assert_eq!(take(&mut g, p, epoll, 8), [(OUT, 9)]);
}

#[test]
fn copies_are_closed_with_their_socket() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    let (fd, _) = socket(&mut g, p);
    let copy = g.call(p, nr::dup, &[fd]) as u64;
    assert_eq!(control(&mut g, p, epoll, ADD, fd, IN, 7), 0);
    assert_eq!(control(&mut g, p, epoll, ADD, copy, IN, 8), 0);
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    assert_eq!(g.call(p, nr::close, &[copy]), 0);
    g.events();
    let sockets = g.world.net.sockets.borrow().clone();
    assert!(sockets.values().filter(|s| s.instance.is_none()).all(|s| s.closed));
}

#[test]
fn an_instance_in_another_is_ready_when_either_half_is() {
    let (mut g, p) = trusted();
    let (outer, inner) = (create(&mut g, p), create(&mut g, p));
    let file = pipe(&mut g, p, 40);
    assert_eq!(control(&mut g, p, outer, ADD, inner, IN, 5), 0);
    assert_eq!(control(&mut g, p, inner, ADD, 40, IN, 8), 0);
    assert_eq!(control(&mut g, p, outer, ADD, outer, IN, 5), -22);
    let (fd, key) = socket(&mut g, p);
    assert_eq!(control(&mut g, p, inner, ADD, fd, IN, 7), 0);
    assert_eq!(take(&mut g, p, outer, 8), []);
    let b = blocked(sleep(&mut g, p, outer));
    arrive(&g, key);
    let count = done(g.again(&b));
    assert_eq!(events(&g, p, count), [(IN, 5)]);
    write(&file);
    assert_eq!(take(&mut g, p, outer, 8), [(IN, 5)], "one event, though both halves have it");
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.clear();
    assert_eq!(take(&mut g, p, outer, 8), [(IN, 5)]);
    assert_eq!(take(&mut g, p, inner, 8), [(IN, 8)]);
    let entry = |fd: u64| linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 }.encode();
    g.write(p, DATA, &entry(outer));
    g.write(p, DATA + 8, &entry(inner));
    assert_eq!(g.call(p, nr::poll, &[DATA, 2, FOREVER]), 2);
    file.bytes.borrow_mut().clear();
    assert_eq!(g.call(p, nr::poll, &[DATA, 2, 0]), 0);
    let b = blocked(g.begin(p, FS, RSP, nr::poll, &[DATA, 2, FOREVER]));
    arrive(&g, key);
    assert_eq!(done(g.again(&b)), 2);
    assert_eq!(control(&mut g, p, outer, MODIFY, inner, 0, 5), 0);
    assert_eq!(take(&mut g, p, outer, 8), []);
    assert_eq!(control(&mut g, p, outer, DELETE, inner, 0, 5), 0);
    assert_eq!(control(&mut g, p, outer, DELETE, inner, 0, 5), -2);
}

#[test]
fn what_is_lost_with_its_delegate_reports_an_error() {
    let (mut g, p) = trusted();
    let epoll = create(&mut g, p);
    let (level, _) = socket(&mut g, p);
    let (edge, _) = socket(&mut g, p);
    assert_eq!(control(&mut g, p, epoll, ADD, level, IN, 7), 0);
    assert_eq!(control(&mut g, p, epoll, ADD, edge, IN | EDGE, 8), 0);
    let b = blocked(sleep(&mut g, p, epoll));
    for record in g.world.net.kill(1) {
        g.engine.service_record(&record);
    }
    g.events();
    let count = done(g.again(&b));
    let mut told = events(&g, p, count);
    told.sort_unstable();
    assert_eq!(told, [(0x19, 7), (0x19, 8)]);
    assert_eq!(take(&mut g, p, epoll, 8), [(0x19, 7)]);
    assert_eq!(g.call(p, nr::close, &[level]), 0);
    // New sockets work in the same instance.
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    let result = match g.begin(p, FS, RSP, nr::connect, &[fd, DATA, 16]) {
        End::Blocked(b) => done(g.again(&b)),
        other => done(other),
    };
    assert_eq!(result, 0);
    assert_eq!(control(&mut g, p, epoll, ADD, fd, OUT, 9), 0);
    assert_eq!(take(&mut g, p, epoll, 8), [(OUT, 9)]);
}

#[test]
fn bad_arguments_are_linux_errors() {
    let (mut g, p, fd) = connected();
    let epoll = create(&mut g, p);
    assert_eq!(control(&mut g, p, epoll, 9, fd, IN, 7), -22);
    assert_eq!(g.call(p, nr::epoll_ctl, &[epoll, ADD, fd, 0x10]), -14);
    assert_eq!(control(&mut g, p, 77, ADD, fd, IN, 7), -9);
    assert_eq!(control(&mut g, p, fd, ADD, fd, IN, 7), -22);
    assert_eq!(control(&mut g, p, epoll, ADD, fd, OUT, 7), 0);
    for max in [0, u64::MAX] {
        assert_eq!(g.call(p, nr::epoll_wait, &[epoll, EVENTS, max, 0]), -22);
    }
    assert_eq!(g.call(p, nr::epoll_wait, &[epoll, 0x10, 8, 0]), -14);
    assert_eq!(g.call(p, nr::epoll_pwait, &[epoll, EVENTS, 8, 0, EVENTS, 4]), -22);
    assert_eq!(g.call(p, nr::epoll_wait, &[fd, EVENTS, 8, 0]), -22);
    assert_eq!(take(&mut g, p, epoll, 8), [(OUT, 7)]);
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Drain(usize),
    Control(u64, usize, u32),
    Take(usize),
    /// Sleep until something arrives there, or a signal does.
    Sleep(usize, bool),
}

/// Files: two sockets, then two pipes. Each has two descriptors.
const FILES: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![Just(0), Just(EDGE), Just(ONESHOT), Just(EDGE | ONESHOT)];
    let mask = prop_oneof![Just(IN), Just(OUT), Just(IN | OUT), Just(0)];
    let events = (flags, mask).prop_map(|(a, b)| a | b);
    prop_oneof![
        3 => (0..FILES).prop_map(Step::Arrive),
        1 => (0..FILES).prop_map(Step::Drain),
        3 => (1u64..4, 0..FILES * 2, events).prop_map(|(op, n, e)| Step::Control(op, n, e)),
        3 => (1usize..5).prop_map(Step::Take),
        2 => (0..FILES, any::<bool>()).prop_map(|(n, s)| Step::Sleep(n, s)),
    ]
}

struct Both {
    g: Guest,
    p: usize,
    epoll: u64,
    sockets: Vec<(u32, i32)>,
    pipes: Vec<File>,
    fds: Vec<u64>,
    model: Instance,
}

impl Both {
    fn new() -> Self {
        let (mut g, p) = trusted();
        let epoll = create(&mut g, p);
        let (a, first) = socket(&mut g, p);
        let (b, second) = socket(&mut g, p);
        let pipes = vec![pipe(&mut g, p, 40), pipe(&mut g, p, 41)];
        let mut fds = vec![a, b, 40, 41];
        for n in 0..FILES {
            fds.push(g.call(p, nr::dup, &[fds[n]]) as u64);
        }
        let model = Instance::default();
        Self { g, p, epoll, sockets: vec![first, second], pipes, fds, model }
    }

    fn level(&self) -> impl Fn(u64) -> Option<Level> + use<> {
        let sockets = self.g.world.net.sockets.borrow();
        let remote = |key| {
            let socket = &sockets[key];
            (OUT | u32::from(!socket.received.is_empty()), socket.arrivals)
        };
        let local = |f: &File| (u32::from(!f.bytes.borrow().is_empty()), f.arrivals.get());
        let levels: Vec<Level> =
            self.sockets.iter().map(remote).chain(self.pipes.iter().map(local)).collect();
        move |file| levels.get(file as usize).copied()
    }

    fn arrive(&self, file: usize) {
        match self.sockets.get(file) {
            Some(key) => arrive(&self.g, *key),
            None => write(&self.pipes[file - 2]),
        }
    }

    fn drain(&self, file: usize) {
        match self.sockets.get(file) {
            Some(key) => {
                self.g.world.net.sockets.borrow_mut().get_mut(key).unwrap().received.clear();
            }
            None => self.pipes[file - 2].bytes.borrow_mut().clear(),
        }
    }

    /// What was told must be pending, and as much of it as there was room for.
    fn check(&mut self, told: &[(u32, u64)], max: usize) {
        let level = self.level();
        let pending = self.model.pending(&level);
        assert_eq!(told.len(), pending.len().min(max), "{told:?} of {pending:?}");
        for (events, data) in told {
            assert_eq!(self.model.take_one(*data, &level), Some(*events), "{told:?} {pending:?}");
        }
    }

    fn sleep(&mut self, file: usize, signal: bool) {
        let end = sleep(&mut self.g, self.p, self.epoll);
        let b = match end {
            End::Done(count) => {
                let told = events(&self.g, self.p, count);
                return self.check(&told, 8);
            }
            other => blocked(other),
        };
        assert!(self.model.pending(&self.level()).is_empty(), "sleeps though there are events");
        if signal {
            self.g.processes[self.p].signal = Some(Signal::Interrupt);
        }
        self.arrive(file);
        match self.g.again(&b) {
            End::Done(-4) => assert!(signal),
            End::Done(count) => {
                let told = events(&self.g, self.p, count);
                self.check(&told, 8);
            }
            _ => assert!(!signal && self.model.pending(&self.level()).is_empty()),
        }
        self.g.processes[self.p].signal = None;
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Arrive(file) => self.arrive(file),
            Step::Drain(file) => self.drain(file),
            Step::Control(op, n, events) => {
                let (fd, file) = (self.fds[n], (n % FILES) as u64);
                let data = 1000 + n as u64;
                let expected = self.model.control(op, file, fd as i32, events, data);
                let (g, p) = (&mut self.g, self.p);
                assert_eq!(control(g, p, self.epoll, op, fd, events, data), expected);
            }
            Step::Take(max) => {
                let told = take(&mut self.g, self.p, self.epoll, max as u64);
                self.check(&told, max);
            }
            Step::Sleep(file, signal) => self.sleep(file, signal),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whatever is registered where and how, both halves together tell what one instance would:
    /// nothing is lost, nothing is told twice.
    #[test]
    fn behaves_like_one_instance(steps in proptest::collection::vec(step(), 1..60)) {
        let mut both = Both::new();
        for step in &steps {
            both.step(step);
        }
        prop_assert!(both.g.engine.census().workers <= 4);
        prop_assert_eq!(Rc::strong_count(&both.g.world) > 0, true);
    }
}
