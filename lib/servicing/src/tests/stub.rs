//! The interception form *stub*: its machine code, its tables, and everything else with it.
use super::guest::{FORM, Guest};
use super::processor::{Way, Window};
use super::*;
use crate::calls::{Verdict, verdict};
use crate::stub::{Look, generate, layout as at};
use crate::table::{Entry, State, Table};
use abi::vcpu::{VcpuState, reg};
use memory::Memory;
use proptest::prelude::*;
use std::rc::Rc;
use wire::hypercall::Form;

const BASE: u64 = 0xffff_ffff_bfe0_0000;
const ENTRY: u64 = 0xffff_ffff_9c20_0040;

/// Everything that holds with *watched* holds with *stub*.
#[test]
fn all_forms_service_alike() {
    FORM.set(Form::Stub);
    a_program_starts_with_its_own_name_and_a_delegate();
    data_go_to_the_remote_socket_and_come_back();
    an_untrusted_program_gets_nothing();
    a_failed_exec_leaves_everything_as_it_was();
    loopback_stays_local();
    a_blocked_read_is_woken_by_data();
    signals_interrupt_or_restart_by_the_kernels_own_rules();
    a_handler_makes_calls_inside_a_waiting_one();
    poll_merges_both_sides();
    select_works_over_both_sides();
    a_server_accepts();
    absent_pages_are_populated_and_bad_pointers_are_faults();
    what_is_not_covered_is_refused_not_done_locally();
    duplicates_keep_the_socket_open();
    a_fork_gets_a_delegate_with_the_same_sockets();
    a_dead_delegate_is_an_error_at_once_and_new_sockets_work();
    slow_delegates_put_the_thread_to_sleep();
    a_blocking_connect_waits_for_its_outcome();
    returns_by_iret_work_as_well();
    a_root_in_other_hands_is_noticed();
}

#[test]
fn the_guest_sees_its_own_registers_and_gets_them_back() {
    FORM.set(Form::Stub);
    let (mut g, p) = trusted();
    let own = 0xffff_ffff_8100_0000;
    assert_ne!(g.s.lstar, own, "the stub is there");
    assert_ne!(g.s.sfmask & 0x300, 0);
    for (msr, value) in [(0xc000_0082, own), (0xc000_0084, 0x4_7700)] {
        g.msr(msr, None);
        assert_eq!(g.s.regs.r[reg::RDX] << 32 | g.s.regs.r[reg::RAX], value, "{msr:#x}");
    }
    // A new entry is obeyed; one that no processor would take is not.
    g.msr(0xc000_0082, Some(own + 0x40));
    g.msr(0xc000_0082, None);
    assert_eq!(g.s.regs.r[reg::RAX], (own + 0x40) & 0xffff_ffff);
    g.msr(0xc000_0082, Some(1 << 50));
    assert_ne!(g.s.inject, 0, "#GP");
    g.s.inject = 0;
    g.msr(0xc000_0082, Some(own));
    assert_eq!(g.call(p, nr::getppid, &[]), 1);
    // Its end leaves the guest as it was.
    g.kill(p);
    let q = g.start(b"x");
    assert_eq!(g.hypercall(q, hypercall::EXITS, 0), 0);
    assert_eq!((g.s.lstar, g.s.sfmask, g.s.intercept_syscall_msrs), (own, 0x4_7700, 0));
}

#[test]
fn a_guest_that_takes_the_stub_away_has_its_own_entry_back() {
    FORM.set(Form::Stub);
    let (mut g, p, fd) = connected();
    let stub = g.s.lstar;
    let directory = g.directory();
    let entry = directory + (stub >> 21 & 511) * 8;
    // Whatever it puts there, the next exit notices: the stub goes elsewhere.
    g.put(entry, 0x1234_5000 | 0x83);
    g.write(p, DATA, b"x");
    let _ = g.hypercall(p, hypercall::EXITS, 0);
    assert_ne!(g.s.lstar, stub);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
    // No empty entry: the form is the one that needs none.
    for n in 0..512 {
        if n != 8 {
            g.put(directory + n * 8, 0x1234_5000 | 0x83);
        }
    }
    let _ = g.hypercall(p, hypercall::EXITS, 0);
    assert_eq!(g.s.lstar, 0xffff_ffff_8100_0000);
    assert_eq!(g.s.efer & 1, 0);
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), 1);
    assert!(g.world.lines.borrow().iter().any(|l| l.contains("no stub")));
}

#[test]
fn a_claim_of_the_stub_is_checked() {
    FORM.set(Form::Stub);
    let (mut g, p, fd) = connected();
    let key = remote_fd(&g);
    g.write(p, DATA, b"forged");
    // The kernel jumps to the exit for a program that made no call: its own entry is what it gets.
    let exit = g.s.lstar + generate(g.s.lstar, 0xffff_ffff_8100_0000).unwrap().exit;
    g.load(p);
    g.s.cpl = 0;
    g.s.rip = exit;
    g.s.regs.r[reg::RCX] = DATA + 2;
    for (place, value) in [(reg::RAX, nr::write), (reg::RDI, fd), (reg::RSI, DATA), (reg::RDX, 6)] {
        g.s.regs.r[place] = value;
    }
    g.exit(abi::vcpu::ExitClass::Vmmcall);
    assert_eq!((g.s.rip, g.s.cpl), (0xffff_ffff_8100_0000, 0));
    assert!(g.world.net.sockets.borrow()[&key].sent.is_empty());
    // A program at that address is no stub.
    g.s.cpl = 3;
    g.s.rip = exit;
    g.exit(abi::vcpu::ExitClass::Vmmcall);
    assert_ne!(g.s.inject, 0);
}

#[test]
fn code_is_refused_where_it_cannot_reach() {
    assert!(generate(0x7fff_0000_0000, ENTRY).is_none());
    assert!(generate(BASE, 0xffff_8880_0000_0000).is_none());
    assert!(generate(0xffff_ffff_0000_0000, ENTRY).is_none());
    let code = generate(BASE, ENTRY).unwrap();
    assert_eq!(code.bytes[code.exit as usize..][..3], [0x0f, 0x01, 0xd9]);
}

/// The stub with the tables of one watched process among others.
struct Bench {
    window: Window,
    guest: Guest,
    process: usize,
}

impl Bench {
    fn new() -> Self {
        FORM.set(Form::Stub);
        let (guest, process) = trusted();
        let window = Window::default();
        let code = generate(BASE, ENTRY).unwrap();
        window.code.write(0, &code.bytes).unwrap();
        Self { window, guest, process }
    }

    /// Copies what the engine has written.
    fn tables(&self) {
        let mut bytes = vec![0; at::DATA_LENGTH as usize];
        self.guest.world.window.data.read(0, &mut bytes).unwrap();
        self.window.data.write(0, &bytes).unwrap();
    }

    /// True when the call goes straight to the guest's own entry; no register has changed then.
    fn passes(&self, cr3: u64, number: u64, arguments: [u64; 6]) -> bool {
        let mut s = VcpuState { cr3, rip: BASE, ..VcpuState::ZERO };
        for (n, value) in s.regs.r.iter_mut().enumerate() {
            *value = 0x1111_2222_3333_0000 + n as u64;
        }
        crate::cpu::load_call(&mut s, number, arguments);
        let before = s;
        let way = self.window.run(&mut s);
        assert_eq!(s.regs, before.regs, "registers survive");
        assert!(way == Way::Exit || way == Way::Jump(ENTRY));
        way != Way::Exit
    }
}

fn resource(state: State) -> Rc<crate::table::Resource> {
    let resource = crate::table::Resource::new(1, 2, 1, 0);
    resource.state.set(state);
    Rc::new(resource)
}

fn fill(table: &Table, descriptors: &[i32]) {
    table.take_range(0, u32::MAX, false);
    for fd in descriptors {
        let entry = Entry { resource: resource(State::Remote(7)), close_on_exec: false };
        table.insert(*fd, entry);
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..460, Just(511), Just(512), any::<u64>()]
}

fn argument() -> impl Strategy<Value = u64> {
    let small = 0u64..40;
    let edge = prop_oneof![Just(1000), Just(1001), Just(1023), Just(1024), Just(5000)];
    // The upper half of a descriptor's register does not count.
    let dirty = (0u64..40).prop_map(|n| n | 0xdead_0000_0000);
    prop_oneof![4 => small, 1 => edge, 1 => dirty, 1 => any::<u64>(), 1 => Just(-1i64 as u64)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What the stub lets pass, the relay would have let pass: for every call, every argument, and
    /// every set of descriptors.
    #[test]
    fn the_stub_passes_only_what_is_local(
        descriptors in proptest::collection::vec(prop_oneof![0..40, 1020..1030], 0..6),
        calls in proptest::collection::vec((number(), proptest::array::uniform6(argument())), 200),
    ) {
        let mut b = Bench::new();
        let cr3 = b.guest.processes[b.process].cr3;
        let space = b.guest.engine.space(cr3);
        fill(&space.table, &descriptors);
        let _ = b.guest.hypercall(b.process, hypercall::EXITS, 0);
        b.tables();
        let lowest = descriptors.iter().min().copied().unwrap_or(1000) as u64;
        for (number, arguments) in calls {
            let passes = b.passes(cr3, number, arguments);
            let plain = verdict(&space.table, number, &arguments) == Verdict::Plain;
            let sees_none = matches!(number, nr::select | nr::pselect6)
                && (arguments[0] as u32 as u64) <= lowest;
            prop_assert!(!passes || plain || sees_none, "{number} {arguments:x?}");
            // Nor does it trouble the relay with calls on other descriptors.
            let cheap = [nr::read, nr::write, nr::fstat, nr::close, nr::lseek, nr::getppid, nr::mmap];
            prop_assert!(passes || !plain || !cheap.contains(&number) || arguments[0] as i32 > 1000
                || arguments[4] as i32 > 1000, "{number} {arguments:x?}");
            prop_assert!(b.passes(cr3 + 0x1000, number, arguments), "an untrusted program's call");
        }
    }

    /// However many processes there are, each finds its own record, and others pass at once.
    #[test]
    fn each_process_has_its_own_record(
        pages in proptest::collection::btree_set(1u64..0x2_0000, 1..280),
        others in proptest::collection::vec(1u64..0x2_0000, 20),
    ) {
        let mut b = Bench::new();
        b.guest.engine.forget_all();
        let mut descriptors = Vec::new();
        for page in &pages {
            let space = b.guest.engine.add_space(page << 12);
            descriptors.push((*page, (*page % 1000) as i32));
            fill(&space.table, &[(*page % 1000) as i32]);
        }
        let _ = b.guest.hypercall(b.process, hypercall::EXITS, 0);
        b.tables();
        let full = pages.len() > at::RECORD_COUNT;
        for (page, fd) in descriptors {
            prop_assert!(!b.passes(page << 12, nr::read, [fd as u64, 0, 0, 0, 0, 0]));
            prop_assert_eq!(b.passes(page << 12 | 0xfff, nr::read, [1 + fd as u64, 0, 0, 0, 0, 0]), !full);
        }
        for page in others.into_iter().filter(|p| !pages.contains(p)) {
            prop_assert_eq!(b.passes(page << 12, nr::read, [0; 6]), !full);
            prop_assert!(full || b.window.steps.get() < 1200);
        }
    }
}

#[test]
fn a_duplicate_never_lands_on_a_descriptor_of_the_relays_own() {
    let mut b = Bench::new();
    let cr3 = b.guest.processes[b.process].cr3;
    let _ = b.guest.hypercall(b.process, hypercall::EXITS, 0);
    b.tables();
    let table = b.guest.engine.space(cr3).table.clone();
    assert!(table.is_empty());
    let hidden = table.hidden();
    assert!(!hidden.is_empty());
    for number in [nr::dup2, nr::dup3] {
        assert!(hidden.iter().all(|fd| !b.passes(cr3, number, [2, *fd as u64, 0, 0, 0, 0])));
        assert!(b.passes(cr3, number, [2, 7, 0, 0, 0, 0]));
    }
}

#[test]
fn an_untrusted_call_costs_few_instructions() {
    let mut b = Bench::new();
    let _ = b.guest.hypercall(b.process, hypercall::EXITS, 0);
    b.tables();
    assert!(b.passes(0x1234_5000, nr::read, [0; 6]));
    assert!(b.window.steps.get() <= 16, "{}", b.window.steps.get());
    assert_eq!(Look::of(nr::getpid), Look(0));
}
