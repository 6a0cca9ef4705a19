//! A guest on another processor whose memory changes while it runs.
use crate::env::{
    ABOVE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, Words, address, boot_info, cpus, equal,
    eventually, ok, pinned, portal, ram, running, selector, thread, words_at,
};
use crate::failing::{count, nonsensical, say, speaker};
use crate::faults::{asked, manager, prepare};
use crate::illegal::Blob;
use crate::{Outcome, Test};
use abi::vcpu::{ExitClass, Segment, VcpuState};
use abi::{Event, MemRights, NO_DEADLINE, Selector, SpaceKind, SystemCounter};
use alloc::string::String;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::sys::{self, Bind};

pub const TESTS: &[Test] = &[
    ("vCPU: its memory changes under it", changes),
    ("vCPU: what its manager revokes while it runs", revoked),
    ("vCPU: its manager answers nonsense", nonsense),
];

const ALL: MemRights = MemRights::READ.union(MemRights::WRITE).union(MemRights::EXEC);

/// Where the code is, what it copies from, and where to.
const CODE: u64 = 0x1000;
const FROM: u64 = 0x3000;
const TO: u64 = 0x2000;
/// A page that it does not touch.
const SPARE: u64 = 0x4000;

/// Address of the state page, for the thread that handles the exits.
static STATE: AtomicU64 = AtomicU64::new(0);
/// Where its FS begins, for those that use it.
pub const FS_BASE: u64 = 0x10_0000;
/// After another exit it goes on all the same.
static GOES_ON: AtomicBool = AtomicBool::new(false);
/// Exits other than the first recall.
static OTHERS: AtomicU64 = AtomicU64::new(0);

/// Handles the exits: the first one starts the guest in real mode, any other one stops it.
extern "C" fn monitor(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Exit(_), words)) = next else { sys::exit(1) };
        let page = words_at(STATE.load(Ordering::SeqCst), PAGE);
        if words[0] == ExitClass::Recall as u64 {
            start(|offset, value| page.set(offset as u64, value));
        } else {
            OTHERS.fetch_add(1, Ordering::SeqCst);
            let stops = !GOES_ON.load(Ordering::SeqCst);
            page.set(offset_of!(VcpuState, blocked) as u64, stops.into());
        }
        next = sys::reply_wait(0, [0; 8], NO_DEADLINE);
    }
}

fn start(set: impl Fn(usize, u64)) {
    for index in 0..6 {
        let at = offset_of!(VcpuState, segments) + index * size_of::<Segment>();
        set(at, if index == 1 { 0x9b_0000 } else { 0x93_0000 } | 0xffff << 32);
        set(at + 8, if index == 4 { FS_BASE } else { 0 });
    }
    set(offset_of!(VcpuState, rip), CODE);
    set(offset_of!(VcpuState, cr0), 0x10);
    set(offset_of!(VcpuState, pat), 0x0007_0406_0007_0406);
}

/// A page of RAM that holds a value, by its offset.
fn page_of(value: &[u8]) -> Result<u64, String> {
    let (bind, offset) = (pinned(PAGE, READ_WRITE), ram(PAGE));
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, RAM, offset, PAGE, READ_WRITE), "map")?;
    words_at(bind.base, PAGE).copy(0, value);
    ok(sys::region_unbind(SPACE, bind.base, PAGE), "unbind")?;
    Ok(offset)
}

/// A guest in real mode; most copy a word for ever, and count the rounds beside it.
pub struct Running {
    /// Its memory.
    pub space: Selector,
    /// Its vCPU.
    pub vcpu: Selector,
    cpu: u32,
    state: u64,
    /// State page and copied word.
    view: Bind,
}

impl Running {
    /// One that copies on the second processor, with memory for code and result in a region of so many
    /// pages. `None` where there is only one processor, or none for guests.
    fn new(pages: u64) -> Result<Option<Self>, String> {
        if cpus() < 2 { Ok(None) } else { Self::with(Blob::Copier, 1, pages) }
    }

    /// The same with other code and on any processor.
    pub fn with(code: Blob, cpu: u32, pages: u64) -> Result<Option<Self>, String> {
        if !crate::guest::available() {
            return Ok(None);
        }
        let (space, vcpu) = (selector(), selector());
        ok(sys::create_space(space, SpaceKind::Guest, 1 << 20), "space")?;
        let bind = Bind { space, length: pages * PAGE, base: CODE, ..pinned(PAGE, ALL) };
        ok(sys::region_bind(bind), "bind")?;
        let (to, state) = (ram(PAGE), ram(PAGE));
        let view = Bind { base: address(2 * PAGE), length: 2 * PAGE, ..pinned(PAGE, READ_WRITE) };
        ok(sys::region_bind(view), "bind view")?;
        ok(sys::map(SPACE, view.base, RAM, state, PAGE, READ_WRITE), "map state")?;
        ok(sys::map(SPACE, view.base + PAGE, RAM, to, PAGE, READ_WRITE), "map result")?;
        let guest = Self { space, vcpu, cpu, state, view };
        guest.map(CODE, page_of(code.code())?)?;
        guest.map(TO, to)?;
        Ok(Some(guest))
    }

    fn map(&self, base: u64, offset: u64) -> Outcome {
        ok(sys::map(self.space, base, RAM, offset, PAGE, ALL), "map")
    }

    /// Makes its vCPU, without time of its own.
    pub fn prepare(&self) -> Outcome {
        OTHERS.store(0, Ordering::SeqCst);
        STATE.store(self.view.base, Ordering::SeqCst);
        ok(sys::create_vcpu(self.vcpu, self.space, self.cpu, RAM, self.state), "vCPU")?;
        let door = portal(thread(self.cpu, monitor, 0)?, 1)?;
        for class in [ExitClass::Other, ExitClass::Error] {
            ok(sys::vcpu_portal(self.vcpu, class as u64, door), "exit portal")?;
        }
        Ok(())
    }

    /// Lets it run, through all exits.
    pub fn go_on(&self) -> Outcome {
        GOES_ON.store(true, Ordering::SeqCst);
        self.run()
    }

    /// How often it was stopped since. From now on it does not go on.
    pub fn exits(&self) -> u64 {
        GOES_ON.store(false, Ordering::SeqCst);
        OTHERS.load(Ordering::SeqCst)
    }

    fn run(&self) -> Outcome {
        self.prepare()?;
        ok(sys::create_sc(selector(), self.vcpu, 10, QUANTUM), "time")
    }

    /// The last word that it copied.
    fn copied(&self) -> u64 {
        self.result().get(0) & 0xffff
    }

    /// What it copies two rounds from now.
    fn copied_next(&self) -> u64 {
        let result = self.result();
        let rounds = result.get(0) >> 16 & 0xffff;
        let end = rt::time::now().0 + boot_info().1 * 20_000;
        while (result.get(0) >> 16).wrapping_sub(rounds) & 0xffff < 2 && rt::time::now().0 < end {}
        self.copied()
    }

    /// The words of the page that it writes to.
    pub fn result(&self) -> Words {
        words_at(self.view.base + PAGE, PAGE)
    }

    /// Ends it.
    pub fn end(self) -> Outcome {
        ok(sys::destroy(self.space), "destroy")?;
        ok(sys::region_unbind(SPACE, self.view.base, self.view.length), "unbind")
    }

    fn end_undisturbed(self) -> Outcome {
        equal(OTHERS.load(Ordering::SeqCst), 0, "other exits")?;
        self.end()
    }
}

fn changes() -> Outcome {
    let Some(guest) = Running::new(4)? else { return Ok(()) };
    let (space, vcpu) = (guest.space, guest.vcpu);
    guest.map(FROM, page_of(&1u16.to_le_bytes())?)?;
    guest.map(SPARE, ram(PAGE))?;
    guest.run()?;
    eventually("the guest copies", || guest.copied() == 1)?;
    for value in 2u16..30 {
        guest.map(FROM, page_of(&value.to_le_bytes())?)?;
        equal(guest.copied_next(), u64::from(value), "copied by the guest")?;
    }
    equal(OTHERS.load(Ordering::SeqCst), 0, "other exits")?;
    // The first answer includes that the pages were mapped. Later ones need an entry of the guest.
    ok(sys::pages_used(space, CODE, 4 * PAGE), "use")?;
    eventually("the use of three of four pages is told", || {
        let used = sys::vcpu_recall(vcpu).and_then(|()| sys::pages_used(space, CODE, 4 * PAGE));
        used == Ok(0b0111)
    })?;
    // Its code goes: the next instruction faults.
    ok(sys::unmap(space, CODE, PAGE), "unmap the code")?;
    eventually("the guest stops", || OTHERS.swap(0, Ordering::SeqCst) == 1)?;
    guest.end_undisturbed()
}

/// What its manager takes away while the guest uses it on another processor faults again at once: no
/// old word is copied any more.
fn revoked() -> Outcome {
    let Some(guest) = Running::new(2)? else { return Ok(()) };
    let handler = running(0, manager, 0, ABOVE)?;
    let bind = Bind { space: guest.space, base: FROM, ..pinned(PAGE, ALL) };
    ok(sys::region_bind(Bind { portal: portal(handler, 1)?, ..bind }), "bind")?;
    let page = |value: u16| page_of(&value.to_le_bytes());
    prepare(page(1)?);
    guest.run()?;
    eventually("the guest copies", || guest.copied() == 1)?;
    equal(asked(), 1, "questions")?;
    for value in 2..30 {
        prepare(page(value)?);
        ok(sys::unmap(guest.space, FROM, PAGE), "unmap")?;
        equal(guest.copied_next(), u64::from(value), "copied after a revocation")?;
        equal(asked(), 1, "questions after it")?;
    }
    // Through a window the same, and without a question where another page takes its place.
    prepare(page(99)?);
    let window = pinned(PAGE, READ_WRITE);
    ok(sys::region_bind(window), "bind")?;
    let fill = |value| {
        ok(sys::map(SPACE, window.base, RAM, page(value)?, PAGE, READ_WRITE), "fill the window")
    };
    fill(30)?;
    ok(sys::region_window(guest.space, FROM, PAGE, window.base), "window")?;
    for value in 31..60 {
        fill(value)?;
        equal(guest.copied_next(), u64::from(value), "copied through the window")?;
    }
    equal(asked(), 0, "questions")?;
    ok(sys::unmap(SPACE, window.base, PAGE), "unmap in the window")?;
    equal((guest.copied_next(), asked()), (99, 1), "the manager's answer, and questions")?;
    ok(sys::region_unbind(SPACE, window.base, PAGE), "unbind")?;
    guest.end_undisturbed()?;
    ok(sys::destroy(handler), "destroy")
}

/// Its monitor is told, and nothing is mapped.
fn nonsense() -> Outcome {
    const LENGTH: u64 = 8 * PAGE;
    for (number, answer) in nonsensical(LENGTH).iter().enumerate() {
        let Some(guest) = Running::new(2)? else { return Ok(()) };
        let handler = running(0, speaker, 0, ABOVE)?;
        let bind = Bind { space: guest.space, base: FROM, length: LENGTH, ..pinned(PAGE, ALL) };
        ok(sys::region_bind(Bind { portal: portal(handler, 1)?, ..bind }), "bind")?;
        let before = count(SystemCounter::FaultsRefused)?;
        say(answer);
        guest.run()?;
        eventually("the monitor is told", || OTHERS.load(Ordering::SeqCst) == 1)?;
        equal((number, count(SystemCounter::FaultsRefused)?), (number, before + 1), "refusals")?;
        equal(guest.copied(), 0, "copied from nowhere")?;
        guest.end()?;
        ok(sys::destroy(handler), "destroy")?;
    }
    Ok(())
}
