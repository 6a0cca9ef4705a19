//! Calls that end without being seen again: a `select` whose local side is ready.
use super::*;
use crate::gate::Gate;
use abi::vcpu::reg;
use wire::hypercall::Form;

const EINTR: i64 = -4;
/// Registers that a system call changes.
const CHANGED: [usize; 3] = [reg::RAX, reg::RCX, reg::R11];

/// A connected program with a pipe as descriptor 9, whose remote half is out already.
struct Alone {
    g: Guest,
    p: usize,
    fd: u64,
    pipe: File,
}

impl Alone {
    fn new(form: Form) -> Self {
        let (g, p, fd, pipe) = with_pipe(form);
        let mut alone = Self { g, p, fd, pipe };
        alone.ready(true);
        assert_eq!(alone.select(RSP), 1);
        alone
    }

    fn ready(&self, ready: bool) {
        self.pipe.bytes.borrow_mut().clear();
        self.pipe.bytes.borrow_mut().extend(ready.then_some(1));
    }

    fn sets(&self) -> u64 {
        1 << 9 | 1 << self.fd
    }

    fn begin(&mut self, rsp: u64) -> End {
        self.g.write(self.p, DATA, &self.sets().to_le_bytes());
        self.g.begin(self.p, FS, rsp, nr::select, &[10, DATA, 0, 0, 0, 77])
    }

    fn select(&mut self, rsp: u64) -> i64 {
        done(self.begin(rsp))
    }

    fn set(&self) -> u64 {
        u64::from_le_bytes(self.g.read(self.p, DATA, 8).try_into().unwrap())
    }

    fn gate(&self) -> Gate {
        self.g.engine.space(self.g.processes[self.p].cr3).gate.get().expect("a gate")
    }

    fn arrive(&self) {
        let key = remote_fd(&self.g);
        self.g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.push_back(1);
    }

    /// What the thread finds at its exits, one for a call that ends by itself.
    fn exits(&mut self, rsp: u64) -> usize {
        let before = self.g.exits;
        assert_eq!(self.select(rsp), 1);
        assert_eq!(self.set(), 1 << 9);
        self.g.exits - before
    }
}

#[test]
fn a_ready_local_side_costs_one_exit_and_no_request() {
    let mut a = Alone::new(Form::Stub);
    let requests = a.g.world.net.log.borrow().len();
    for _ in 0..1000 {
        assert_eq!(a.exits(RSP), 1);
    }
    assert_eq!(a.g.world.net.log.borrow().len(), requests);
    assert_eq!(a.g.engine.census().in_service, 0);
    let repeated = a.g.engine.counters().repeated.get();
    assert!(repeated > 990, "{repeated} of 1000 were only made once more");
    // What arrives is told by the next call, beside what is local.
    a.arrive();
    a.g.events();
    assert_eq!(a.select(RSP), 2);
    assert_eq!(a.set(), a.sets());
}

#[test]
fn the_program_finds_its_registers_as_behind_a_system_call() {
    for form in [Form::Stub, Form::Watched, Form::Paper] {
        let mut a = Alone::new(form);
        a.g.write(a.p, DATA + 64, &[5u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
        for time in [0, DATA + 64] {
            a.g.write(a.p, DATA, &a.sets().to_le_bytes());
            a.g.s.regs.r = core::array::from_fn(|n| 0x1111 * n as u64);
            a.g.s.regs.r[reg::R8] = time;
            let end = a.g.begin(a.p, FS, RSP, nr::select, &[10, DATA, 0, 0, time, 77]);
            assert_eq!(done(end), 1);
            let s = &a.g.s;
            assert_eq!((s.rip, s.cpl, s.regs.r[reg::RCX]), (CODE + 2, 3, CODE + 2));
            assert_eq!((s.rflags, s.regs.r[reg::R11]), (0x246, 0x246));
            let places = [reg::RDI, reg::RSI, reg::RDX, reg::R10, reg::R8, reg::R9, reg::RSP];
            let values = [10, DATA, 0, 0, time, 77, RSP];
            for (n, value) in s.regs.r.iter().enumerate().filter(|(n, _)| !CHANGED.contains(n)) {
                let place = places.iter().position(|place| *place == n);
                assert_eq!(*value, place.map_or(0x1111 * n as u64, |p| values[p]), "{n}");
            }
        }
        // What is left of the time, not the zero with which the kernel was asked.
        let left = a.g.read(a.p, DATA + 64, 8);
        assert!((4..=5).contains(&left[0]), "{left:?}");
    }
}

#[test]
fn nothing_ready_waits_for_both_sides() {
    for form in [Form::Stub, Form::Watched] {
        let mut a = Alone::new(form);
        a.ready(false);
        let b = blocked(a.begin(RSP));
        assert_eq!(a.set(), a.sets(), "the program's own sets while it waits");
        a.arrive();
        assert_eq!(done(a.g.again(&b)), 1);
        assert_eq!(a.set(), 1 << a.fd);
    }
}

#[test]
fn a_time_out_is_never_a_result_of_the_first_look() {
    let mut a = Alone::new(Form::Stub);
    a.ready(false);
    a.g.write(a.p, DATA, &a.sets().to_le_bytes());
    a.g.write(a.p, DATA + 64, &[5u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
    let b = blocked(a.g.begin(a.p, FS, RSP, nr::select, &[10, DATA, 0, 0, DATA + 64]));
    a.ready(true);
    assert_eq!(done(a.g.again(&b)), 1);
    assert_eq!(a.set(), 1 << 9);
}

#[test]
fn signals_end_it_or_have_it_restarted() {
    let mut a = Alone::new(Form::Stub);
    a.ready(false);
    a.g.processes[a.p].signal = Some(Signal::Interrupt);
    assert_eq!(a.select(RSP), EINTR);
    assert_eq!(a.set(), a.sets(), "an error changes no set");
    // Without a handler the kernel makes the call again: through the same slot.
    a.g.processes[a.p].signal = Some(Signal::Restart);
    let b = blocked(a.begin(RSP));
    assert_eq!(a.g.processes[a.p].signal, None);
    a.ready(true);
    assert_eq!(done(a.g.again(&b)), 1);
    assert_eq!(a.set(), 1 << 9);
}

#[test]
fn a_closed_descriptor_is_an_error_of_the_kernels_own() {
    let mut a = Alone::new(Form::Stub);
    a.g.processes[a.p].files.remove(&9);
    assert_eq!(a.select(RSP), -9);
    assert_eq!(a.set(), a.sets());
}

#[test]
fn a_call_made_once_more_goes_on_with_its_own_registers() {
    let mut a = Alone::new(Form::Stub);
    a.exits(RSP);
    a.exits(RSP);
    let before = a.g.engine.counters().repeated.get();
    a.ready(false);
    a.g.s.regs.r[reg::RBX] = 0x5555;
    let b = blocked(a.begin(RSP));
    assert_eq!(a.g.engine.counters().repeated.get(), before + 1);
    a.g.s.regs.r[reg::RBX] = 0;
    a.arrive();
    assert_eq!(done(a.g.again(&b)), 1);
    assert_eq!(a.g.s.regs.r[reg::RBX], 0x5555);
    assert_eq!(a.set(), 1 << a.fd);
}

#[test]
fn what_a_call_depends_on_is_looked_at_each_time() {
    let changes: [fn(&mut Alone); 5] = [
        // Other sets.
        |a| {
            a.g.write(a.p, DATA, &(1u64 << a.fd).to_le_bytes());
            blocked(a.g.begin(a.p, FS, RSP, nr::select, &[10, DATA, 0, 0, 0, 77]));
        },
        // Another number of descriptors, so that the local one is not among them.
        |a| {
            a.g.write(a.p, DATA, &a.sets().to_le_bytes());
            assert!(a.fd < 9);
            blocked(a.g.begin(a.p, FS, RSP, nr::select, &[9, DATA, 0, 0, 0, 77]));
        },
        // Another place of the stack, another thread.
        |a| assert_eq!(a.select(RSP - 64), 1),
        |a| {
            a.g.write(a.p, DATA, &a.sets().to_le_bytes());
            let end = a.g.begin(a.p, FS + 8, RSP, nr::select, &[10, DATA, 0, 0, 0, 77]);
            assert_eq!(done(end), 1);
        },
        // Its slot has been altered.
        |a| {
            let slot = a.gate().address + 64;
            a.g.write(a.p, slot + 2, &[0x90]);
            assert_eq!(a.exits(RSP), 1);
        },
    ];
    for change in changes {
        let mut a = Alone::new(Form::Stub);
        a.exits(RSP);
        a.exits(RSP);
        let before = a.g.engine.counters().repeated.get();
        assert!(before > 0);
        change(&mut a);
        assert_eq!(a.g.engine.counters().repeated.get(), before);
    }
}

#[test]
fn calls_of_handlers_and_other_threads_do_not_meet() {
    let mut a = Alone::new(Form::Stub);
    let key = remote_fd(&a.g);
    // A read waits; its handler, and other threads, select many times, and from many depths.
    let b = blocked(a.g.begin(a.p, FS, RSP, nr::read, &[a.fd, DATA + 64, 1]));
    for n in 1..200 {
        assert_eq!(a.select(RSP - n * 64), 1);
        a.g.write(a.p, DATA, &a.sets().to_le_bytes());
        let other = a.g.begin(a.p, FS + n, RSP - 0x1000, nr::select, &[10, DATA, 0, 0, 0]);
        assert_eq!(done(other), 1);
    }
    assert_eq!(a.g.engine.census().in_service, 1);
    a.g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().received.push_back(7);
    assert_eq!(done(a.g.again(&b)), 1);
    assert_eq!(a.g.read(a.p, DATA + 64, 1), [7]);
}

#[test]
fn who_comes_back_unknown_has_been_interrupted() {
    let mut a = Alone::new(Form::Stub);
    a.exits(RSP);
    // A thread that nobody knows stands at the slot's exit.
    a.g.begin(a.p, FS, RSP, nr::getppid, &[]);
    a.g.s.rip = a.gate().address + 64 + 15;
    a.g.s.segments[4].base = FS + 0x99;
    a.g.s.regs.r[reg::RAX] = 0;
    assert_eq!(done(a.g.go(a.p)), EINTR);
    assert_eq!((a.g.s.rip, a.g.s.regs.r[reg::RCX]), (CODE + 2, CODE + 2));
}

#[test]
fn a_child_shares_the_slots_and_has_its_own_calls() {
    let mut a = Alone::new(Form::Stub);
    a.exits(RSP);
    let child = fork(&mut a.g, a.p);
    let page = a.g.read(a.p, a.gate().address, 4096);
    // The stack and the sets are copied first.
    assert_eq!(a.select(RSP), 1);
    assert_eq!(a.exits(RSP), 1);
    a.p = child;
    assert_eq!(a.select(RSP), 1);
    assert_eq!(a.set(), 1 << 9);
    assert_eq!(a.exits(RSP), 1);
    assert_eq!(a.g.read(child, a.gate().address, 4096), page, "one slot for both");
    assert_eq!(a.g.engine.census().processes, 2);
}

#[test]
fn without_a_free_slot_the_relay_goes_on() {
    let mut a = Alone::new(Form::Stub);
    a.exits(RSP);
    let gate = a.gate();
    let slots = (0..).map(|n| gate.address + 64 + 40 * n).take_while(|at| gate.is_slot(*at));
    let example = a.g.read(a.p, gate.address + 64, 40);
    for (n, slot) in slots.skip(1).enumerate() {
        let mut code = example.clone();
        code[30] = n as u8 + 3;
        a.g.write(a.p, slot, &code);
    }
    assert!(gate.is_page(&a.g.read(a.p, gate.address, 4096)));
    assert_eq!(a.exits(RSP), 1, "it has one");
    a.g.write(a.p, DATA + 64, &[5u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
    a.g.write(a.p, DATA, &a.sets().to_le_bytes());
    let before = a.g.exits;
    let end = a.g.begin(a.p, FS, RSP, nr::select, &[10, DATA, 0, 0, DATA + 64]);
    assert_eq!((done(end), a.g.exits - before), (1, 2));
    // One that has been altered is not used.
    a.g.write(a.p, gate.address + 64 + 2, &[0x90]);
    assert!(!gate.is_page(&a.g.read(a.p, gate.address, 4096)));
    assert_eq!(a.exits(RSP), 2);
}

#[test]
fn a_killed_process_leaves_nothing() {
    let mut a = Alone::new(Form::Stub);
    let spaces = a.g.engine.watched();
    a.exits(RSP);
    a.g.kill(a.p);
    assert_eq!(a.g.engine.census().processes, 0);
    assert!(spaces.iter().all(|space| space.upgrade().is_none()));
}
