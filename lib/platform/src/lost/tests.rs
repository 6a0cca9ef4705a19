//! A small guest: its RAM is mapped from address 0 for programs, and at `DIRECT` for its kernel.
use super::*;
use memory::Fake;
use proptest::prelude::*;

const DIRECT: u64 = 0xffff_8880_0000_0000;
const PAGES: u64 = 32;
/// The lost page.
const LOST: u64 = 9 * PAGE;
const REP_STOSQ: &[u8] = &[0xf3, 0x48, 0xab];
const STOSB: &[u8] = &[0xaa];
const REP_MOVSQ: &[u8] = &[0xf3, 0x48, 0xa5];
const REP_MOVSB: &[u8] = &[0xf3, 0xa4];
/// `mov [rdi], rax`
const STORE: &[u8] = &[0x48, 0x89, 0x07];
/// `mov rax, [rsi]`
const LOAD: &[u8] = &[0x48, 0x8b, 0x06];
/// `add [rdi], rax`
const ADD: &[u8] = &[0x48, 0x01, 0x07];

fn ram() -> Fake {
    let ram = Fake::new((PAGES * PAGE) as usize);
    let entry = |at: u64, value: u64| ram.write(at, &value.to_le_bytes()).unwrap();
    // Root in page 1, one table in page 2 with a page of 1 GiB, for everybody.
    entry(PAGE, (2 * PAGE) | 7);
    entry(PAGE + 8 * (DIRECT >> 39 & 511), (2 * PAGE) | 7);
    entry(2 * PAGE, 0x87);
    ram
}

fn kernel() -> VcpuState {
    let mut state =
        VcpuState { cr3: PAGE, rip: 0x100, efer: 1 << 10, cr4: SMAP, ..VcpuState::ZERO };
    state.segments[1].attributes = 1 << 9;
    state
}

struct Guest {
    ram: Fake,
    lost: Lost,
    state: VcpuState,
}

impl Guest {
    fn new() -> Self {
        Self { ram: ram(), lost: Lost::default(), state: kernel() }
    }

    fn does(&mut self, bytes: &[u8], address: u64, write: bool) -> Outcome {
        let access = LostAccess { address, write, walk: false };
        let is_lost = |at: u64| at / PAGE == LOST / PAGE;
        self.lost.access(access, bytes, &mut self.state, &self.ram, is_lost)
    }

    /// A string instruction to the kernel's address of `to`.
    fn string(&mut self, bytes: &[u8], from: u64, to: u64, count: u64) -> Outcome {
        let r = &mut self.state.regs.r;
        (r[reg::RSI], r[reg::RDI], r[reg::RCX]) = (from, DIRECT + to, count);
        self.does(bytes, to, true)
    }

    fn raised(&self) -> (u64, u64) {
        (self.state.inject & 0xff, self.state.inject >> 31 & 1)
    }
}

#[test]
fn a_program_gets_a_stack_fault_whatever_it_does() {
    for (bytes, write) in [(STORE, true), (LOAD, false), (REP_STOSQ, true), (&[][..], false)] {
        let mut guest = Guest::new();
        guest.state.cpl = 3;
        guest.state.regs.r[reg::RDI] = LOST;
        assert_eq!(guest.does(bytes, LOST, write), Outcome::Raised);
        assert_eq!((guest.raised(), guest.state.rip), ((12, 1), 0x100));
    }
}

#[test]
fn a_kernel_that_clears_the_page_makes_it_whole() {
    let mut guest = Guest::new();
    guest.state.regs.r[reg::RAX] = 0x0102_0304_0506_0708;
    let Outcome::Whole(page, bytes) = guest.string(REP_STOSQ, 0, LOST, 512) else { panic!() };
    assert_eq!((page, guest.state.rip), (LOST, 0x103));
    assert!(bytes.chunks(8).all(|word| word == [8, 7, 6, 5, 4, 3, 2, 1]));
    let r = &guest.state.regs.r;
    assert_eq!((r[reg::RDI], r[reg::RCX]), (DIRECT + LOST + PAGE, 0));
}

#[test]
fn what_goes_beyond_the_page_is_left_to_the_guest() {
    let mut guest = Guest::new();
    assert_eq!(guest.string(REP_STOSQ, 0, LOST + PAGE - 16, 10), Outcome::Done);
    let r = &guest.state.regs.r;
    assert_eq!((r[reg::RDI], r[reg::RCX], guest.state.rip), (DIRECT + LOST + PAGE, 8, 0x100));
    // An element over the page's end.
    assert_eq!(guest.string(REP_STOSQ, 0, LOST + PAGE - 4, 10), Outcome::Fatal);
}

#[test]
fn parts_in_any_order_make_it_whole() {
    let mut guest = Guest::new();
    let text: Vec<u8> = (0..PAGE).map(|n| (n % 251) as u8).collect();
    guest.ram.write(20 * PAGE, &text).unwrap();
    let from = DIRECT + 20 * PAGE;
    assert_eq!(guest.string(REP_MOVSB, from + 100, LOST + 100, 3000), Outcome::Done);
    assert_eq!(guest.string(REP_MOVSB, from + 3000, LOST + 3000, 1096), Outcome::Done);
    assert_eq!(guest.string(REP_MOVSB, from + 1, LOST + 1, 100), Outcome::Done);
    assert_eq!(guest.string(REP_MOVSB, from + 1, LOST + 1, 50), Outcome::Done, "once more");
    guest.state.regs.r[reg::RAX] = 0;
    let Outcome::Whole(_, bytes) = guest.string(STOSB, 0, LOST, 0) else { panic!() };
    assert_eq!(bytes[..], text[..]);
}

#[test]
fn single_stores_are_kept() {
    let mut guest = Guest::new();
    guest.state.regs.r[reg::RAX] = u64::MAX;
    for n in 0..511 {
        guest.state.regs.r[reg::RDI] = DIRECT + LOST + n * 8;
        assert_eq!(guest.does(STORE, LOST + n * 8, true), Outcome::Done);
        assert_eq!(guest.state.rip, 0x103 + n * 3);
    }
    guest.state.regs.r[reg::RDI] = DIRECT + LOST + 511 * 8;
    let whole = guest.does(STORE, LOST + 511 * 8, true);
    assert_eq!(whole, Outcome::Whole(LOST, Box::new([255; PAGE as usize])));
    // One that begins in the page before, and one that ends in the next.
    guest.state.regs.r[reg::RDI] = DIRECT + LOST - 4;
    assert_eq!(guest.does(STORE, LOST, true), Outcome::Fatal);
    guest.state.regs.r[reg::RDI] = DIRECT + LOST + PAGE - 4;
    assert_eq!(guest.does(STORE, LOST + PAGE - 4, true), Outcome::Fatal);
}

#[test]
fn a_kernel_that_works_for_a_program_gets_the_exception() {
    for bytes in [LOAD, REP_MOVSQ, ADD] {
        let mut guest = Guest::new();
        assert_eq!(guest.does(bytes, LOST, false), Outcome::Fatal, "for itself");
        guest.state.rflags |= ALIGNMENT;
        assert_eq!(guest.does(bytes, LOST, false), Outcome::Raised);
        assert_eq!((guest.raised(), guest.state.rip), ((12, 1), 0x100));
        // Without SMAP the flag has no meaning.
        let mut guest = Guest::new();
        guest.state.rflags |= ALIGNMENT;
        guest.state.cr4 = 0;
        assert_eq!(guest.does(bytes, LOST, false), Outcome::Fatal);
    }
}

#[test]
fn what_a_program_hands_over_may_have_to_be_brought_first() {
    let mut guest = Guest::new();
    guest.state.rflags |= ALIGNMENT;
    // Nothing is mapped there.
    let away = 1 << 40;
    assert_eq!(guest.string(REP_MOVSB, away, LOST, 100), Outcome::Raised);
    assert_eq!((guest.raised(), guest.state.cr2), ((14, 1), away));
    assert_eq!(guest.state.regs.r[reg::RCX], 100);
    // What is lost itself can't be brought.
    guest.state.inject = 0;
    assert_eq!(guest.string(REP_MOVSB, LOST + 8, LOST, 100), Outcome::Raised);
    assert_eq!(guest.raised(), (12, 1));
    guest.state.inject = 0;
    guest.ram.write(5 * PAGE, &[7; 100]).unwrap();
    assert_eq!(guest.string(REP_MOVSB, 5 * PAGE, LOST, 100), Outcome::Done);
    assert_eq!(guest.raised(), (0, 0));
}

#[test]
fn the_copy_of_a_lost_page_is_lost() {
    let mut guest = Guest::new();
    let to = 12 * PAGE;
    let r = &mut guest.state.regs.r;
    (r[reg::RSI], r[reg::RDI], r[reg::RCX]) = (DIRECT + LOST, DIRECT + to, 512);
    assert_eq!(guest.does(REP_MOVSQ, LOST, false), Outcome::Spread(to));
    let r = &guest.state.regs.r;
    assert_eq!(
        (r[reg::RSI], r[reg::RDI], r[reg::RCX]),
        (DIRECT + LOST + PAGE, DIRECT + to + PAGE, 0)
    );
    assert_eq!(guest.state.rip, 0x103);
    // Parts of pages are the kernel's own data.
    let r = &mut guest.state.regs.r;
    (r[reg::RSI], r[reg::RDI], r[reg::RCX]) = (DIRECT + LOST, DIRECT + to, 511);
    assert_eq!(guest.does(REP_MOVSQ, LOST, false), Outcome::Fatal);
}

#[test]
fn page_walks_and_deliveries_cannot_go_on() {
    let mut guest = Guest::new();
    guest.state.cpl = 3;
    guest.state.exit_int_info = IN_DELIVERY;
    assert_eq!(guest.does(LOAD, LOST, false), Outcome::Fatal);
    guest.state.exit_int_info = 0;
    let access = LostAccess::of(1 << 33 | 4, LOST);
    assert!(access.walk && !access.write);
    let outcome = guest.lost.access(access, LOAD, &mut guest.state, &guest.ram, |_| true);
    assert_eq!(outcome, Outcome::Fatal);
    assert!(LostAccess::of(6, LOST).write);
}

#[test]
fn only_so_many_pages_are_kept_in_parts() {
    let mut guest = Guest::new();
    for n in 0..MOST_WRITTEN as u64 + 1 {
        let page = (100 + n) * PAGE;
        guest.state.regs.r[reg::RDI] = DIRECT + page;
        let expected = if n < MOST_WRITTEN as u64 { Outcome::Done } else { Outcome::Fatal };
        assert_eq!(guest.does(STORE, page, true), expected);
    }
}

proptest! {
    /// Whatever the guest executes, in whatever state: an outcome, and a page only becomes whole with what was written.
    #[test]
    fn anything_is_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..16),
        prefix in 0usize..6,
        registers in any::<[u64; 16]>(),
        near in any::<[bool; 3]>(),
        (cpl, flags, write) in (0u64..4, any::<u64>(), any::<bool>()),
        offset in 0..PAGE,
    ) {
        let starts: [&[u8]; 6] = [&[], REP_STOSQ, REP_MOVSB, REP_MOVSQ, STORE, STOSB];
        let bytes: Vec<u8> = starts[prefix].iter().chain(&bytes).copied().collect();
        let mut guest = Guest::new();
        (guest.state.regs.r, guest.state.cpl, guest.state.rflags) = (registers, cpl, flags);
        for (n, register) in [reg::RSI, reg::RDI, reg::RCX].into_iter().enumerate() {
            if near[n] {
                guest.state.regs.r[register] = if n == 2 { 600 } else { DIRECT + LOST + offset };
            }
        }
        let count = guest.state.regs.r[reg::RCX];
        let outcome = guest.does(&bytes, LOST + offset, write);
        match outcome {
            Outcome::Whole(page, _) => {
                prop_assert_eq!((page, offset, cpl), (LOST, 0, 0));
                prop_assert!(count >= 512);
            }
            Outcome::Raised => prop_assert_eq!(guest.state.rip, 0x100),
            Outcome::Spread(_) => prop_assert!(!write && cpl == 0),
            Outcome::Done => prop_assert!(write && cpl == 0),
            Outcome::Fatal => {}
        }
    }
}
