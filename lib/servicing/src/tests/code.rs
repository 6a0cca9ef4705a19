//! Processes whose code is not their program's.
use super::*;
use crate::fake::guest::{IMAGE, USER};
use memory::Memory;
use policy::{Extent, Policy, Program};
use proptest::prelude::*;

const EACCES: i64 = -13;
const EPERM: i64 = -1;
const ECONNRESET: i64 = -104;
/// Present, the program's own, executable.
const CODE_PAGE: u64 = 5;
const ELSEWHERE: u64 = 0x7000_0000;

/// `curl` is the first page of the image, libraries are pages 16 to 23, and pages 32 and 33 another
/// library that it may have; `wget` may have no library.
fn policy() -> Policy {
    let extent = |first, pages| vec![Extent { first, pages }];
    let mut curl = Program::with_defaults("/usr/bin/curl");
    curl.code.own = extent(0, 1);
    curl.code.libraries = extent(32, 2);
    let mut wget = curl.clone();
    wget.path = "/usr/bin/wget".into();
    wget.code.image_libraries = false;
    Policy { programs: vec![curl, wget], libraries: extent(16, 8) }
}

/// The program has made its first calls, and is connected to somewhere.
fn started(policy: Policy, path: &str) -> (Guest, usize, u64) {
    let mut g = Guest::with_policy(policy);
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    become_program(&mut g, p, path);
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    assert_eq!(connect(&mut g, p, fd), 0, "{:?}", g.world.lines.borrow());
    (g, p, fd)
}

fn become_program(g: &mut Guest, p: usize, path: &str) {
    g.write(p, DATA, path.as_bytes());
    g.write(p, DATA + path.len() as u64, &[0]);
    assert_eq!(g.call(p, nr::execve, &[DATA, 0, 0]), 4242 + p as i64);
}

fn connect(g: &mut Guest, p: usize, fd: u64) -> i64 {
    g.write(p, DATA, &address([10, 0, 2, 2], 80));
    g.call(p, nr::connect, &[fd, DATA, 16])
}

/// What becomes of the next connection.
fn next(g: &mut Guest, p: usize) -> i64 {
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    connect(g, p, fd)
}

fn map(g: &mut Guest, p: usize, address: u64, frame: u64, flags: u64) {
    let cr3 = g.processes[p].cr3;
    g.map(cr3, address, frame, flags);
}

fn said(g: &Guest, words: &str) -> bool {
    g.world.lines.borrow().iter().any(|line| line.contains(words))
}

#[test]
fn libraries_of_the_image_are_allowed_and_other_files_are_not() {
    let (mut g, p, _) = started(policy(), "/usr/bin/curl");
    for page in [16, 23, 32, 33] {
        map(&mut g, p, ELSEWHERE + page * 0x1000, IMAGE.start + page * 0x1000, CODE_PAGE);
        assert_eq!(next(&mut g, p), 0, "{page}");
    }
    map(&mut g, p, ELSEWHERE, IMAGE.start + 15 * 0x1000, CODE_PAGE | USER);
    assert_eq!(next(&mut g, p), 0, "data");
    map(&mut g, p, ELSEWHERE, IMAGE.start + 24 * 0x1000, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES);
    let (mut g, p, _) = started(policy(), "/usr/bin/wget");
    map(&mut g, p, ELSEWHERE, IMAGE.start + 32 * 0x1000, CODE_PAGE);
    assert_eq!(next(&mut g, p), 0, "named for it");
    map(&mut g, p, ELSEWHERE, IMAGE.start + 16 * 0x1000, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES, "only the libraries that are named");
}

#[test]
fn whoever_has_other_code_loses_everything_remote_for_good() {
    let (mut g, p, fd) = started(policy(), "/usr/bin/curl");
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES);
    assert!(said(&g, "refused at connect: code at 0x70000000 is not from the root image"));
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), ECONNRESET);
    g.write(p, DATA, &linux_abi::PollFd { fd: fd as i32, events: 1, revents: 0 }.encode());
    assert_eq!(g.call(p, nr::poll, &[DATA, 1, u64::MAX]), 1);
    // It is too late to hide it.
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE | USER);
    assert_eq!(next(&mut g, p), EACCES);
    let udp = g.call(p, nr::socket, &[2, 2, 0]) as u64;
    g.write(p, DATA + 64, &address([10, 0, 2, 2], 53));
    assert_eq!(g.call(p, nr::sendto, &[udp, DATA, 1, 0, DATA + 64, 16]), EPERM);
    assert_eq!(g.call(p, nr::close, &[fd]), 0);
    g.events();
    assert!(g.world.net.log.borrow().contains(&(1, Request::Exit)));
    let lines = g.world.lines.borrow().iter().filter(|l| l.contains("root image")).count();
    assert_eq!(lines, 1, "it is told once");
    // A new program is a new beginning.
    become_program(&mut g, p, "/usr/bin/wget");
    assert_eq!(next(&mut g, p), 0);
}

#[test]
fn a_thread_that_waits_is_told_as_well() {
    let (mut g, p, fd) = started(policy(), "/usr/bin/curl");
    let waiting = blocked(g.begin(p, FS, RSP, nr::read, &[fd, DATA, 100]));
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE);
    let other = done(g.begin(p, FS + 1, RSP - 0x4000, nr::socket, &[2, 1, 0])) as u64;
    g.write(p, DATA + 64, &address([10, 0, 2, 2], 80));
    assert_eq!(
        done(g.begin(p, FS + 1, RSP - 0x4000, nr::connect, &[other, DATA + 64, 16])),
        EACCES
    );
    for record in g.world.net.kill(1) {
        g.engine.service_record(&record);
    }
    g.events();
    assert_eq!(done(g.again(&waiting)), ECONNRESET);
}

#[test]
fn a_page_that_the_guests_kernel_altered_is_noticed_at_the_next_call_from_it() {
    let (mut g, p, fd) = started(policy(), "/usr/bin/curl");
    // A private copy, as a debugger's write makes it.
    let frame = g.frame();
    g.world.compute.write(frame, &[0x0f, 0x05]).unwrap();
    map(&mut g, p, CODE, frame, CODE_PAGE);
    g.write(p, DATA, b"x");
    assert_eq!(g.call(p, nr::write, &[fd, DATA, 1]), ECONNRESET);
    assert!(said(&g, "refused at write: code at 0x400000 is not from the root image"));
}

#[test]
fn the_programs_own_file_has_to_be_there() {
    let mut other = policy();
    other.programs[0].code.own = vec![Extent { first: 40, pages: 1 }];
    other.libraries = vec![Extent { first: 0, pages: 1 }];
    let mut g = Guest::with_policy(other);
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    become_program(&mut g, p, "/usr/bin/curl");
    assert_eq!(next(&mut g, p), EACCES);
    assert!(said(&g, "no code of the program's own file"));
}

#[test]
fn a_loader_may_ask_before_the_programs_own_code_is_there() {
    let mut early = policy();
    early.programs[0].code.own = vec![Extent { first: 40, pages: 1 }];
    early.programs[0].code.libraries = vec![Extent { first: 0, pages: 1 }];
    let (mut g, p, _) = started(early, "/usr/bin/curl");
    assert_eq!(next(&mut g, p), 0, "the call comes from a file that is named for it");
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES);
}

#[test]
fn code_that_can_be_written_to_is_refused_unless_the_program_makes_code() {
    let (mut g, p, _) = started(policy(), "/usr/bin/curl");
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE | 2);
    assert_eq!(next(&mut g, p), EACCES);
    assert!(said(&g, "code at 0x70000000 can be written to"));
    let mut makes = policy();
    makes.programs[0].code.jit = true;
    let (mut g, p, _) = started(makes, "/usr/bin/curl");
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE | 2);
    assert_eq!(next(&mut g, p), 0);
    // Of the image it may still execute its own files only.
    map(&mut g, p, ELSEWHERE, IMAGE.start + 15 * 0x1000, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES);
}

#[test]
fn the_gate_page_holds_the_gate_and_nothing_else() {
    let (mut g, p, _) = started(policy(), "/usr/bin/curl");
    let gate = gate_address(&g, p);
    assert_eq!(next(&mut g, p), 0);
    g.write(p, gate + 0x800, &[0x90]);
    assert_eq!(next(&mut g, p), EACCES);
    assert!(said(&g, &format!("code at {gate:#x} is not from the root image")));
}

#[test]
fn the_vdso_is_what_it_was_when_it_was_shown() {
    let mut g = Guest::with_policy(policy());
    let init = g.start(b"/init");
    let (vdso, other) = (g.frame(), g.frame());
    g.world.compute.write(vdso, b"code").unwrap();
    let show = |g: &mut Guest, arguments| g.hypercall_with(init, hypercall::VDSO, arguments);
    assert_eq!(show(&mut g, [ELSEWHERE, 1]), -14);
    assert_eq!(show(&mut g, [ELSEWHERE + 1, 1]), -22);
    assert_eq!(show(&mut g, [ELSEWHERE, 0]), -22);
    assert_eq!(show(&mut g, [ELSEWHERE, 1 << 40]), -22);
    map(&mut g, init, ELSEWHERE, vdso, CODE_PAGE | 2);
    assert_eq!(show(&mut g, [ELSEWHERE, 1]), -14);
    map(&mut g, init, ELSEWHERE, vdso, CODE_PAGE);
    assert_eq!(show(&mut g, [ELSEWHERE, 1]), 0);
    map(&mut g, init, ELSEWHERE, other, CODE_PAGE);
    assert_eq!(show(&mut g, [ELSEWHERE, 1]), EPERM, "only the first one counts");
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    become_program(&mut g, p, "/usr/bin/curl");
    map(&mut g, p, ELSEWHERE, vdso, CODE_PAGE);
    assert_eq!(next(&mut g, p), 0);
    g.world.compute.write(vdso + 100, b"!").unwrap();
    assert_eq!(next(&mut g, p), EACCES);
}

#[test]
fn a_copy_of_the_vdso_somewhere_else_is_no_vdso() {
    let mut g = Guest::with_policy(policy());
    let init = g.start(b"/init");
    let (vdso, copy) = (g.frame(), g.frame());
    map(&mut g, init, ELSEWHERE, vdso, CODE_PAGE);
    assert_eq!(g.hypercall_with(init, hypercall::VDSO, [ELSEWHERE, 1]), 0);
    let p = g.start(b"/launcher");
    g.hypercall(p, hypercall::TRUST, 0);
    become_program(&mut g, p, "/usr/bin/curl");
    map(&mut g, p, ELSEWHERE, copy, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES);
}

#[test]
fn children_inherit_the_loss() {
    let (mut g, p, _) = started(policy(), "/usr/bin/curl");
    let child = fork(&mut g, p);
    assert_eq!(next(&mut g, child), 0);
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE);
    assert_eq!(next(&mut g, p), EACCES);
    assert_eq!(next(&mut g, child), 0, "its own code is what it was");
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE | USER);
    let late = fork(&mut g, p);
    assert_eq!(next(&mut g, late), EACCES);
}

#[test]
fn a_connection_that_is_accepted_is_a_grant() {
    let (mut g, p, _) = started(policy(), "/usr/bin/curl");
    let fd = g.call(p, nr::socket, &[2, 1, 0]) as u64;
    g.write(p, DATA, &address([0, 0, 0, 0], 8000));
    assert_eq!(g.call(p, nr::bind, &[fd, DATA, 16]), 0);
    assert_eq!(g.call(p, nr::listen, &[fd, 5]), 0);
    let key = *g.world.net.sockets.borrow().keys().next_back().expect("the listener");
    let peer = address([10, 0, 2, 2], 55555);
    g.world.net.sockets.borrow_mut().get_mut(&key).unwrap().backlog.push_back(peer);
    let frame = g.frame();
    map(&mut g, p, ELSEWHERE, frame, CODE_PAGE);
    let before = g.processes[p].files.len();
    assert_eq!(g.call(p, nr::accept, &[fd, 0, 0]), EPERM);
    assert_eq!(g.processes[p].files.len(), before);
    g.events();
    assert!(g.world.net.log.borrow().contains(&(1, Request::Exit)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is mapped: a process is served exactly if all that it can execute is of its files and
    /// can't be written to.
    #[test]
    fn nothing_else_is_accepted(
        pages in prop::collection::vec((0u64..64, 0u64..48, any::<bool>(), 0u64..8, any::<bool>()), 1..6),
    ) {
        let (mut g, p, _) = started(policy(), "/usr/bin/curl");
        let mut at = std::collections::BTreeMap::new();
        for (place, page, in_image, flags, execute) in pages {
            let frame = if in_image { IMAGE.start + page * 0x1000 } else { g.frame() };
            let flags = flags | if execute { 0 } else { 1 << 63 };
            let allowed = in_image && matches!(page, 0 | 16..24 | 32 | 33);
            let runs = flags & 5 == 5 && execute;
            at.insert(place, (frame, flags, !runs || allowed && flags & 2 == 0));
        }
        for (place, (frame, flags, _)) in &at {
            map(&mut g, p, ELSEWHERE + place * 0x1000, *frame, *flags);
        }
        let expected = if at.values().all(|(_, _, good)| *good) { 0 } else { EACCES };
        prop_assert_eq!(next(&mut g, p), expected);
    }

    /// Tables full of nonsense are survived, and trusted by nobody.
    #[test]
    fn hostile_tables_are_refused(
        entries in prop::collection::vec((0u64..256, any::<u64>()), 1..8),
    ) {
        let (mut g, p, _) = started(policy(), "/usr/bin/curl");
        let cr3 = g.processes[p].cr3;
        let mut bad = false;
        for (n, entry) in entries {
            // Entries that hold the program itself stay.
            if memory::Memory::read64(&g.world.compute, cr3 + n * 8).unwrap() == 0 {
                let entry = entry & !(1 << 63) | 5 | 1 << 40;
                g.put(cr3 + n * 8, entry);
                bad = true;
            }
        }
        prop_assert_eq!(next(&mut g, p), if bad { EACCES } else { 0 });
    }
}
