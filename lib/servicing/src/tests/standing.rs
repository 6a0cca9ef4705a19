//! Polls that stay out between calls, against the obvious model: a descriptor is ready while there
//! is something to be read.
use super::guest::FORM;
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
        FORM.set(form);
        let (mut g, p, fd) = connected();
        let pipe = File { kind: Kind::Pipe, ..File::default() };
        g.processes[p].files.insert(9, pipe.clone());
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
                Step::Poll { both, output } => {
                    let remote = if output { 4 } else { 0 } | u16::from(bytes > 0);
                    let here = u16::from(both && local);
                    match b.poll(both, output) {
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
