//! Polls that stay out between calls, against the obvious model: a descriptor is ready while there
//! is something to be read.
use super::*;
use proptest::prelude::*;
use wire::hypercall::Form;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Bytes arrive from the network.
    Arrive,
    /// The program reads one of them, if there are any.
    Read,
    /// The program sends one.
    Send,
    /// The local pipe becomes readable, or stops being so.
    Pipe(bool),
    /// `poll` over both sides, or the remote one alone; for input, or for output too.
    Poll { both: bool, output: bool },
    /// The same by `select`.
    Select { both: bool, output: bool },
    /// The delegate is slow, or not any more.
    Frozen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Arrive),
        3 => Just(Step::Read),
        1 => Just(Step::Send),
        2 => any::<bool>().prop_map(Step::Pipe),
        8 => (any::<bool>(), proptest::bool::weighted(0.1))
            .prop_map(|(both, output)| Step::Poll { both, output }),
        8 => (any::<bool>(), proptest::bool::weighted(0.3))
            .prop_map(|(both, output)| Step::Select { both, output }),
        1 => any::<bool>().prop_map(Step::Frozen),
    ]
}

/// A connected program with a pipe as descriptor 9.
struct Both {
    g: Guest,
    p: usize,
    fd: u64,
    pipe: File,
}

impl Both {
    fn new(form: Form) -> Self {
        let (g, p, fd, pipe) = with_pipe(form);
        Self { g, p, fd, pipe }
    }

    fn arrive(&self, bytes: &[u8]) {
        let key = remote_fd(&self.g);
        let mut sockets = self.g.world.net.sockets.borrow_mut();
        sockets.get_mut(&key).unwrap().received.extend(bytes);
    }

    /// What `poll` says of remote and local side, if it does not block.
    fn poll(&mut self, both: bool, output: bool) -> Option<(u16, u16)> {
        let events = if output { 5 } else { 1 };
        let entry = |fd: i32, events| linux_abi::PollFd { fd, events, revents: 0 }.encode();
        self.g.write(self.p, DATA, &entry(self.fd as i32, events));
        self.g.write(self.p, DATA + 8, &entry(if both { 9 } else { -1 }, 1));
        match self.g.begin(self.p, FS, RSP, nr::poll, &[DATA, 2, u64::MAX]) {
            End::Done(ready) => {
                let found = |at| u16::from(self.g.read(self.p, at, 1)[0]);
                let result = (found(DATA + 6), found(DATA + 14));
                let count = i64::from(result.0 != 0) + i64::from(result.1 != 0);
                assert_eq!(ready, count);
                Some(result)
            }
            End::Blocked(_) => None,
            End::Child(..) => panic!("a child"),
        }
    }

    /// The same, by `select`.
    fn select(&mut self, both: bool, output: bool) -> Option<(u16, u16)> {
        let remote = 1u64 << self.fd;
        let read = remote | u64::from(both) << 9;
        self.g.write(self.p, DATA, &read.to_le_bytes());
        self.g.write(self.p, DATA + 8, &if output { remote } else { 0 }.to_le_bytes());
        let sets = [10, DATA, if output { DATA + 8 } else { 0 }, 0, 0];
        match self.g.begin(self.p, FS, RSP, nr::select, &sets) {
            End::Done(ready) => {
                let set = |at| {
                    let bytes = self.g.read(self.p, at, 8);
                    u64::from_le_bytes(bytes.try_into().expect("eight"))
                };
                let (read, write) = (set(DATA), if output { set(DATA + 8) } else { 0 });
                assert_eq!(ready, i64::from(read.count_ones() + write.count_ones()));
                let bit = |set: u64, fd| (set >> fd & 1) as u16;
                Some((bit(read, self.fd) | bit(write, self.fd) << 2, bit(read, 9)))
            }
            End::Blocked(_) => None,
            End::Child(..) => panic!("a child"),
        }
    }

    fn polls(&self) -> usize {
        let log = self.g.world.net.log.borrow();
        log.iter().filter(|(_, r)| matches!(r, Request::Poll { .. })).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// No poll ever finds what is not there, none misses what is, and none blocks where something
    /// is ready. Only a slow delegate may be told later than a local side that is ready.
    #[test]
    fn polls_find_what_there_is(steps in proptest::collection::vec(step(), 1..60), stub: bool) {
        let mut b = Both::new(if stub { Form::Stub } else { Form::Watched });
        let (mut bytes, mut local, mut frozen) = (0u32, false, false);
        for step in steps {
            match step {
                Step::Arrive => {
                    b.arrive(b"x");
                    bytes += 1;
                }
                Step::Read if bytes > 0 && !frozen => {
                    prop_assert_eq!(b.g.call(b.p, nr::read, &[b.fd, DATA, 1]), 1);
                    bytes -= 1;
                }
                Step::Send if !frozen => {
                    prop_assert_eq!(b.g.call(b.p, nr::write, &[b.fd, DATA, 1]), 1);
                }
                Step::Pipe(full) => {
                    b.pipe.bytes.borrow_mut().clear();
                    b.pipe.bytes.borrow_mut().extend(full.then_some(1));
                    local = full;
                }
                Step::Poll { both, output } | Step::Select { both, output } => {
                    let remote = if output { 4 } else { 0 } | u16::from(bytes > 0);
                    let here = u16::from(both && local);
                    let found = match step {
                        Step::Poll { .. } => b.poll(both, output),
                        _ => b.select(both, output),
                    };
                    match found {
                        None => prop_assert!(frozen || (remote, here) == (0, 0)),
                        Some((found, pipe)) if frozen => {
                            prop_assert_eq!(pipe, here);
                            prop_assert!(found == remote || found == 0);
                        }
                        Some(found) => prop_assert_eq!(found, (remote, here)),
                    }
                }
                Step::Frozen(on) => frozen = on,
                Step::Read | Step::Send => {}
            }
            b.g.world.net.frozen.set(frozen);
            b.g.events();
        }
        // Nothing that was left out stands in the way of an end, and few workers were needed.
        b.g.world.net.frozen.set(false);
        b.g.events();
        prop_assert_eq!(b.g.call(b.p, nr::close, &[b.fd]), 0);
        prop_assert!(b.g.world.net.sockets.borrow().values().all(|s| s.closed));
        prop_assert!(b.g.engine.census().workers <= 12, "{:?}", b.g.engine.census());
    }
}

#[test]
fn a_loop_over_a_ready_local_side_asks_the_delegate_once() {
    let mut b = Both::new(Form::Stub);
    b.pipe.bytes.borrow_mut().push_back(1);
    assert_eq!(b.poll(true, false), Some((0, 1)));
    let (polls, exits) = (b.polls(), b.g.exits);
    for _ in 0..1000 {
        assert_eq!(b.poll(true, false), Some((0, 1)));
    }
    assert_eq!(b.polls(), polls, "no request at all");
    assert_eq!(b.g.exits - exits, 2000, "the call and the local half");
    // What arrives is told at once, and a close waits for nothing, however slow the delegate is.
    b.arrive(b"x");
    b.g.events();
    assert_eq!(b.poll(true, false), Some((1, 1)));
    b.g.call(b.p, nr::read, &[b.fd, DATA, 1]);
    assert_eq!(b.poll(true, false), Some((0, 1)));
    assert_eq!(b.g.call(b.p, nr::close, &[b.fd]), 0);
    assert!(b.g.world.net.sockets.borrow()[&(1, 21)].closed);
}

#[test]
fn another_process_that_reads_makes_an_old_answer_a_hint() {
    let mut b = Both::new(Form::Watched);
    b.pipe.bytes.borrow_mut().push_back(1);
    assert_eq!(b.poll(true, false), Some((0, 1)));
    // The poll that is out finds a byte; the byte is gone before the next call.
    b.arrive(b"x");
    b.g.events();
    assert_eq!(b.g.call(b.p, nr::read, &[b.fd, DATA, 1]), 1);
    assert_eq!(b.poll(true, false), Some((0, 1)));
    b.pipe.bytes.borrow_mut().clear();
    assert_eq!(b.poll(true, false), None);
}

#[test]
fn a_loop_over_a_ready_remote_side_asks_the_delegate_once() {
    let mut b = Both::new(Form::Stub);
    b.arrive(b"xy");
    assert_eq!(b.select(false, false), Some((1, 0)));
    let (polls, exits) = (b.polls(), b.g.exits);
    for _ in 0..1000 {
        assert_eq!(b.select(false, false), Some((1, 0)));
    }
    assert_eq!(b.polls(), polls, "no request at all");
    assert_eq!(b.g.exits - exits, 1000, "one for each call");
    // The local side is looked at all the same.
    assert_eq!(b.select(true, false), Some((1, 0)));
    b.pipe.bytes.borrow_mut().push_back(1);
    assert_eq!(b.select(true, false), Some((1, 1)));
    // What was not ready is asked for each time.
    assert_eq!(b.select(false, true), Some((5, 0)));
    assert_eq!(b.g.call(b.p, nr::read, &[b.fd, DATA, 2]), 2);
    assert_eq!(b.select(false, true), Some((4, 0)));
    assert_eq!(b.select(true, false), Some((0, 1)));
    b.arrive(b"x");
    b.g.events();
    assert_eq!(b.select(false, true), Some((5, 0)));
    // Whatever is done to a socket, by anybody, makes an answer void: also while it is under way.
    b.g.world.net.frozen.set(true);
    let read = b.g.begin(b.p, FS + 1, RSP - 0x4000, nr::read, &[b.fd, DATA + 64, 1]);
    assert!(matches!(read, End::Blocked(_)));
    assert!(b.select(false, false).is_none());
}

#[test]
fn what_is_ready_is_told_however_short_the_wait_and_before_a_signal() {
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.push_back(1);
    g.write(p, DATA, &linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 }.encode());
    // The answer comes after the time is over.
    g.write(p, DATA + 64, &[1u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
    g.world.net.frozen.set(true);
    let b = blocked(g.begin(p, FS, RSP, nr::ppoll, &[DATA, 1, DATA + 64, 0, 8]));
    g.world.pass(2_000_000_000);
    let b = blocked(g.timed_out(&b));
    g.world.net.frozen.set(false);
    assert_eq!(done(g.again(&b)), 1);
    // A mask lets a signal in that is there already.
    g.write(p, DATA + 128, &0u64.to_le_bytes());
    g.world.net.frozen.set(true);
    g.processes[p].signal = Some(Signal::Interrupt);
    let b = blocked(g.begin(p, FS, RSP, nr::ppoll, &[DATA, 1, 0, DATA + 128, 8]));
    g.world.net.frozen.set(false);
    assert_eq!(done(g.again(&b)), 1);
    assert_eq!(g.processes[p].signal, Some(Signal::Interrupt), "still there");
}
