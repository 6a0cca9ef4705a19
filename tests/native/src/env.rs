//! What the tests share: memory, selectors, threads.
use abi::{BootInfo, Error, MemRights, RootSelector, Selector, ThreadArgs};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::fmt::Debug;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::Shared;
use rt::sys::{self, Bind};

/// The tests' own space.
pub const SPACE: Selector = Selector(RootSelector::Space as u32);
/// The tests' first thread.
pub const THREAD: Selector = Selector(RootSelector::Thread as u32);
/// Free RAM.
pub const RAM: Selector = Selector(RootSelector::Ram as u32);
/// System control.
pub const SYSTEM: Selector = Selector(RootSelector::System as u32);
/// No selector.
pub const NONE: Selector = Selector(0);

/// Page size.
pub const PAGE: u64 = 4096;
/// Reading and writing.
pub const READ_WRITE: MemRights = MemRights::READ.union(MemRights::WRITE);

const HEAP: u64 = 0x2000_0000;
const HEAP_LENGTH: u64 = 8 << 20;
/// Priority of the first thread is 128; helpers above run as soon as they can.
pub const ABOVE: u8 = 150;
/// Helpers below run when the first thread waits.
pub const BELOW: u8 = 50;
/// A quantum in microseconds.
pub const QUANTUM: u64 = 5_000;

static NEXT_SELECTOR: AtomicU32 = AtomicU32::new(100);
static NEXT_RAM: AtomicU64 = AtomicU64::new(0);
static NEXT_ADDRESS: AtomicU64 = AtomicU64::new(0x4000_0000);

/// A selector that was never used.
pub fn selector() -> Selector {
    Selector(NEXT_SELECTOR.fetch_add(1, Ordering::Relaxed))
}

/// Offset in RAM of fresh pages.
pub fn ram(length: u64) -> u64 {
    NEXT_RAM.fetch_add(length, Ordering::Relaxed)
}

/// Unused addresses, aligned to 2 MiB.
pub fn address(length: u64) -> u64 {
    let length = length.next_multiple_of(2 << 20) + (2 << 20);
    NEXT_ADDRESS.fetch_add(length, Ordering::Relaxed)
}

/// A heap, so that everything else can allocate.
pub fn prepare() {
    let bind = Bind {
        space: SPACE,
        base: HEAP,
        length: HEAP_LENGTH,
        portal: NONE,
        tag: 0,
        rights: READ_WRITE,
        hint: 21,
    };
    let offset = ram(HEAP_LENGTH);
    let done = sys::region_bind(bind)
        .and_then(|()| sys::map(SPACE, HEAP, RAM, offset, HEAP_LENGTH, READ_WRITE));
    if done.is_err() {
        sys::exit(1);
    }
    rt::add_heap(HEAP, HEAP_LENGTH);
}

/// The boot information: processors, and ticks per millisecond.
pub fn boot_info() -> (u64, u64) {
    let words = words_at(BootInfo::ADDRESS, PAGE);
    (words.get(8), words.get(16))
}

/// Selectors from this one on are empty again.
pub fn reuse_from(first: Selector) {
    NEXT_SELECTOR.store(first.0, Ordering::Relaxed);
}

/// What follows `name=` in the machine's command line. `only=TEXT` runs just the tests with that in
/// their name; `stress=MILLISECONDS` makes the last one longer.
pub fn word(name: &str) -> Option<String> {
    let page = words_at(BootInfo::ADDRESS, PAGE);
    let length = page.get(offset_of!(BootInfo, command_line_length) as u64);
    let start = offset_of!(BootInfo, command_line) as u64;
    let line: String = (start..start + length).map(|at| page.byte(at)).collect();
    let value = |word: &str| word.strip_prefix(name)?.strip_prefix('=').map(String::from);
    line.split(' ').find_map(value)
}

/// Number of processors.
pub fn cpus() -> u64 {
    boot_info().0
}

/// A deadline that many milliseconds from now.
pub fn in_milliseconds(count: u64) -> u64 {
    rt::time::now().0 + count * boot_info().1
}

/// Words of mapped memory.
#[derive(Clone, Copy)]
pub struct Words(Shared);

/// Words at an address of a region of this program.
pub fn words_at(base: u64, length: u64) -> Words {
    Words(Shared::own(base, length))
}

impl Words {
    /// The word at a byte offset.
    pub fn get(&self, offset: u64) -> u64 {
        self.0.read_register(offset, 8).unwrap_or(u64::MAX)
    }

    /// The byte at an offset, as a character.
    pub fn byte(&self, offset: u64) -> char {
        char::from(self.0.read_register(offset, 1).unwrap_or(0) as u8)
    }

    /// Sets the word at a byte offset.
    pub fn set(&self, offset: u64, value: u64) {
        let _ = self.0.write_register(offset, 8, value);
    }

    /// Fills a part with zeros.
    pub fn zero(&self, offset: u64, length: u64) {
        let _ = self.0.zero(offset, length);
    }

    /// Copies bytes in.
    pub fn copy(&self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let _ = self.0.write_register(at, 1, u64::from(*byte));
        }
    }
}

/// A pinned region of this program.
pub fn pinned(length: u64, rights: MemRights) -> Bind {
    Bind { space: SPACE, base: address(length), length, portal: NONE, tag: 0, rights, hint: 12 }
}

/// Fresh memory, mapped read-write: address and offset in RAM.
pub fn window(length: u64) -> Result<(u64, u64), String> {
    let bind = pinned(length, READ_WRITE);
    let offset = ram(length);
    ok(sys::region_bind(bind), "bind")?;
    ok(sys::map(SPACE, bind.base, RAM, offset, length, READ_WRITE), "map")?;
    Ok((bind.base, offset))
}

/// The result, or a text that names the step.
pub fn ok<T>(result: Result<T, Error>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {}", error.text()))
}

/// Success when the result is this error.
pub fn refused<T: Debug>(result: Result<T, Error>, with: Error, what: &str) -> Result<(), String> {
    match result {
        Err(error) if error == with => Ok(()),
        other => Err(format!("{what}: {other:?} instead of {with:?}")),
    }
}

/// Success when both are equal.
pub fn equal<T: PartialEq + Debug>(found: T, expected: T, what: &str) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: {found:?} instead of {expected:?}"))
    }
}

/// Success when it holds.
pub fn holds(condition: bool, what: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(String::from(what)) }
}

/// What a helper thread runs.
pub type Body = extern "C" fn(u64) -> !;

const STACK: usize = 16 << 10;

/// A thread of this program, without time of its own.
pub fn thread(cpu: u32, body: Body, argument: u64) -> Result<Selector, String> {
    let stack = vec![0u64; STACK / 8].leak();
    let top = stack.as_ptr().addr() as u64 + STACK as u64 - 8;
    let to = selector();
    let args = ThreadArgs { entry: body as *const () as u64, stack: top & !15, argument };
    ok(sys::create_thread(to, SPACE, cpu, args), "create thread")?;
    Ok(to)
}

/// A thread with time of its own.
pub fn running(cpu: u32, body: Body, argument: u64, priority: u8) -> Result<Selector, String> {
    let thread = thread(cpu, body, argument)?;
    ok(sys::create_sc(selector(), thread, priority, QUANTUM), "create scheduling context")?;
    Ok(thread)
}

/// A portal.
pub fn portal(handler: Selector, badge: u64) -> Result<Selector, String> {
    let to = selector();
    ok(sys::create_portal(to, handler, badge), "create portal")?;
    Ok(to)
}

/// A portal of this thread, where the end of `thread` is reported.
pub fn watch(thread: Selector, badge: u64) -> Result<(), String> {
    let portal = portal(THREAD, badge)?;
    ok(sys::fault_portal(thread, portal), "fault portal")
}

/// Waits for the end of a watched thread: reason, address, detail.
pub fn wait_end(badge: u64) -> Result<[u64; 3], String> {
    wait_end_of(badge).map(|words| [words[0], words[1], words[2]])
}

/// The same, with all that is told of it.
pub fn wait_end_of(badge: u64) -> Result<abi::Message, String> {
    match ok(sys::wait(in_milliseconds(20_000)), "wait")? {
        (abi::Event::ThreadEnd(b), words) if b == badge => Ok(words),
        other => Err(format!("{other:?} instead of the end of thread {badge}")),
    }
}

/// Waits until a condition holds, for a while: the host may be busy.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), String> {
    let end = in_milliseconds(20_000);
    while !condition() {
        if rt::time::now().0 > end {
            return Err(String::from(what));
        }
        let _ = sys::wait(rt::time::now().0 + boot_info().1 / 10);
    }
    Ok(())
}
