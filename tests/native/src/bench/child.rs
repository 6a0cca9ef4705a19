//! Programs in spaces of their own: copies of this one, each of whose threads runs one function.
use abi::{
    Error, Event, FaultMessage, FaultReply, MemRights, NO_DEADLINE, Selector, SpaceKind, ThreadArgs,
};
use alloc::string::String;
use alloc::vec::Vec;
use native_tests::env::{
    Body, NONE, PAGE, QUANTUM, RAM, READ_WRITE, SPACE, address, ok, portal, ram, selector, words_at,
};
use rt::sys::{self, Bind};

/// A part of a program's image, in memory that is mapped into each new space.
struct Part {
    base: u64,
    length: u64,
    rights: MemRights,
    offset: u64,
}

/// This program's image, copied.
pub struct Image(Vec<Part>);

/// Where this program's image lies.
const IMAGE: core::ops::Range<u64> = 0x40_0000..0x1000_0000;
const STACK_TOP: u64 = 0x3000_0000;
const STACK: u64 = 4 * PAGE;
/// Kernel memory that a program gets.
const QUOTA: u64 = 512 << 10;

/// Selectors in the new space.
pub const MEMORY: Selector = Selector(64);
/// The space in which a manager has regions.
pub const CLIENT: Selector = Selector(66);
/// Where a manager sees its memory.
pub const POOL: u64 = 0x5000_0000;

fn pinned(space: Selector, base: u64, length: u64, rights: MemRights) -> Bind {
    Bind { space, base, length, portal: NONE, tag: 0, rights, hint: 12 }
}

impl Image {
    /// Copies it.
    pub fn copy() -> Result<Self, String> {
        let regions: Vec<_> = rt::regions::of(NONE).collect();
        let own = regions.into_iter().filter(|region| IMAGE.contains(&region.base.0));
        own.map(|region| {
            let (base, length, rights) = (region.base.0, region.length, region.rights);
            let (offset, view) = (ram(length), pinned(SPACE, address(length), length, READ_WRITE));
            ok(sys::region_bind(view), "bind")?;
            ok(sys::map(SPACE, view.base, RAM, offset, length, READ_WRITE), "map")?;
            let (from, to) = (words_at(base, length), words_at(view.base, length));
            (0..length).step_by(8).for_each(|at| to.set(at, from.get(at)));
            ok(sys::region_unbind(SPACE, view.base, length), "unbind")?;
            Ok(Part { base, length, rights, offset })
        })
        .collect()
    }
}

impl FromIterator<Part> for Image {
    fn from_iter<T: IntoIterator<Item = Part>>(parts: T) -> Self {
        Self(parts.into_iter().collect())
    }
}

/// A program.
pub struct Child {
    /// Its space.
    pub space: Selector,
    /// Its thread.
    pub thread: Selector,
    stack: u64,
}

impl Child {
    /// A program without time of its own that begins in `body`.
    pub fn new(image: &Image, body: Body, argument: u64) -> Result<Self, String> {
        let child = Self { space: selector(), thread: selector(), stack: ram(STACK) };
        ok(child.fill(image, body, argument), "program")?;
        Ok(child)
    }

    fn fill(&self, image: &Image, body: Body, argument: u64) -> Result<(), Error> {
        sys::create_space(self.space, SpaceKind::Native, QUOTA)?;
        for part in &image.0 {
            sys::region_bind(pinned(self.space, part.base, part.length, part.rights))?;
            sys::map(self.space, part.base, RAM, part.offset, part.length, part.rights)?;
        }
        sys::region_bind(pinned(self.space, STACK_TOP - STACK, STACK, READ_WRITE))?;
        sys::map(self.space, STACK_TOP - STACK, RAM, self.stack, STACK, READ_WRITE)?;
        let entry = body as *const () as u64;
        let args = ThreadArgs { entry, stack: STACK_TOP - 8, argument };
        sys::create_thread(self.thread, self.space, 0, args)
    }

    /// Gives it all memory as `MEMORY`, and `length` bytes of it mapped at `POOL`.
    pub fn give_memory(&self, offset: u64, length: u64) -> Result<(), String> {
        ok(sys::cap_copy(RAM, self.space, MEMORY, sys::ALL_RIGHTS), "give memory")?;
        ok(sys::cap_copy(SPACE, self.space, CLIENT, 0), "give a name for this space")?;
        ok(sys::region_bind(pinned(self.space, POOL, length, READ_WRITE)), "bind")?;
        // Page by page, so that there are no large ones.
        let map = |at| sys::map(self.space, POOL + at, RAM, offset + at, PAGE, READ_WRITE);
        ok((0..length / PAGE).try_for_each(|page| map(page * PAGE)), "map")
    }

    /// A portal of its thread.
    pub fn door(&self) -> Result<Selector, String> {
        portal(self.thread, 5)
    }

    /// Gives it time.
    pub fn start(&self, to: Selector, priority: u8) -> Result<(), Error> {
        sys::create_sc(to, self.thread, priority, QUANTUM)
    }

    /// Ends it and empties its slots.
    pub fn end(&self) {
        let _ = sys::destroy(self.space);
        let _ = sys::cap_drop(NONE, self.space);
        let _ = sys::cap_drop(NONE, self.thread);
    }
}

/// Answers every call with its own words.
pub extern "C" fn echo(_: u64) -> ! {
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        let Ok((Event::Call(_), words)) = next else { sys::exit(1) };
        next = sys::reply_wait(0, words, NO_DEADLINE);
    }
}

/// Gives the processor up for ever.
pub extern "C" fn yielder(_: u64) -> ! {
    loop {
        sys::yield_now();
    }
}

/// How the manager answers; the low bits of a region's tag. The rest of it is the offset, in the
/// memory, of the region's first byte.
pub const PAGES: u64 = 0;
/// All of 2 MiB at once.
pub const LARGE: u64 = 1;
/// The page, filled with zeros first. Such memory begins where `POOL` does.
pub const FRESH: u64 = 2;

const LARGE_PAGE: u64 = 2 << 20;

/// Third word of a call to the manager: not a window is wanted, but where in the memory the page is
/// for a tag (first word) and an offset (second).
pub const WHERE: u64 = 1;

/// A memory manager. A call makes `POOL` the window of the region with the base and length given, or
/// asks for a page on behalf of others.
pub extern "C" fn manager(first: u64) -> ! {
    // In a space of its own `first` is where its memory starts; else it never gets `FRESH`.
    let pool = (first != u64::MAX).then(|| words_at(POOL, LARGE_PAGE));
    let mut next = sys::wait(NO_DEADLINE);
    loop {
        if let Ok((Event::Call(_), [tag, offset, WHERE, ..])) = next {
            let page = (tag & !(PAGE - 1)) + (offset & !(PAGE - 1));
            next = sys::reply_wait(0, [page, PAGE, 0, 0, 0, 0, 0, 0], NO_DEADLINE);
            continue;
        }
        if let Ok((Event::Call(_), words)) = next {
            let done = sys::region_window(CLIENT, words[0], words[1], POOL);
            next = sys::reply_wait(done.map_or_else(|e| e as u64, |()| 0), words, NO_DEADLINE);
            continue;
        }
        let Ok((Event::Fault(_), words)) = next else { sys::exit(1) };
        let fault = FaultMessage::decode(&words);
        let (mode, base) = (fault.tag % PAGE, fault.tag & !(PAGE - 1));
        let size = if mode == LARGE { LARGE_PAGE } else { PAGE };
        let region_offset = fault.offset & !(size - 1);
        let memory_offset = base + region_offset;
        if mode == FRESH
            && let Some(pool) = &pool
        {
            pool.zero(memory_offset - first, PAGE);
        }
        let reply = FaultReply::Map {
            memory: if pool.is_some() { MEMORY } else { RAM },
            memory_offset,
            region_offset,
            length: size,
            rights: READ_WRITE,
        };
        next = sys::reply_wait(0, reply.encode(), NO_DEADLINE);
    }
}
