//! The role that tries what it should not: it has kernel calls for its own space, and a portal of the manager.
use crate::board::{self, Word};
use crate::{
    Outcome, PAGE, READ, WRITE, ask, capability, client, end, lasting, ok, persistently, request,
};
use abi::{Error, Event, MemRights, Message, Selector, SpaceAddr, ThreadArgs};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use backing::Tag;
use backing::shares::{MOST_REGIONS, Request};
use core::fmt::Debug;
use rt::sys::{self, Bind};

/// The own space.
const OWN: Selector = Selector(0);
/// Selectors that nobody else uses here, and addresses.
const FIRST_SELECTOR: u32 = 500;
const FIRST_ADDRESS: u64 = 0x70_0000_0000;
const STACK: usize = 8 << 10;

/// What it is told to do, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Order {
    /// Ask for all that it may not have.
    Ask = 1,
    /// Attach what it was given, divide and move it, and count in each part.
    Scatter,
    /// See all of them end.
    Lose,
    /// Touch a region that was never attached, of an object that it may write to.
    Squat,
    /// Count at one place; whenever that ends, begin again.
    Flicker,
    /// Count in regions of any kind, and try to write where it may only read; for as long as that is what it is to do.
    Last,
    /// Use an object whose owner is about to end, until it does.
    Outlive,
}

const ORDERS: [Order; 7] = [
    Order::Ask,
    Order::Scatter,
    Order::Lose,
    Order::Squat,
    Order::Flicker,
    Order::Last,
    Order::Outlive,
];

/// Threads that do what may end them.
pub struct Helpers {
    main: Selector,
    /// Ends that were told while something else was waited for.
    ends: VecDeque<(u64, Message)>,
    stacks: Vec<u64>,
    address: u64,
}

extern "C" fn count(at: u64) -> ! {
    let word = rt::Shared::own(at, 8);
    loop {
        let next = word.read_register(0, 8).unwrap_or(0) + 1;
        let _ = word.write_register(0, 8, next);
    }
}

fn expect<T: Debug>(result: Result<T, Error>, with: Error, what: &str) -> Outcome {
    match result {
        Err(error) if error == with => Ok(()),
        other => Err(format!("{what}: {other:?} instead of {with:?}")),
    }
}

impl Helpers {
    fn new() -> Result<Self, String> {
        Ok(Self {
            main: capability("thread")?,
            ends: VecDeque::new(),
            stacks: Vec::new(),
            address: FIRST_ADDRESS,
        })
    }

    /// Starts one that counts at an address.
    pub fn start(&mut self, number: usize, at: u64) -> Outcome {
        while self.stacks.len() <= number {
            let stack = alloc::vec![0u64; STACK / 8].leak();
            self.stacks.push(stack.as_ptr().addr() as u64);
        }
        let slot = |n: u32| Selector(FIRST_SELECTOR + number as u32 * 3 + n);
        let (thread, portal, time) = (slot(0), slot(1), slot(2));
        for old in [thread, portal, time] {
            let _ = sys::cap_drop(OWN, old);
        }
        let stack = self.stacks[number] + STACK as u64 - 16;
        let args = ThreadArgs { entry: count as *const () as u64, stack, argument: at };
        // Beside the owner, which is on the other processor.
        ok(sys::create_thread(thread, OWN, 1, args), "thread")?;
        ok(sys::create_portal(portal, self.main, number as u64), "portal")?;
        ok(sys::fault_portal(thread, portal), "fault portal")?;
        ok(sys::create_sc(time, thread, 30, 1000), "time")
    }

    /// Lets others go on for a while.
    pub fn pause(&mut self) {
        let end = rt::time::now().get() + rt::time::microseconds(200);
        if let Ok((Event::ThreadEnd(number), words)) = sys::wait(end) {
            self.ends.push_back((number, words));
        }
    }

    /// Waits for the end of any of them, because a manager has refused what it did. The owner has the patience.
    pub fn ended(&mut self) -> Result<u64, String> {
        loop {
            match self.ends.pop_front() {
                None => self.pause(),
                // Code 3: refused.
                Some((number, words)) if words[0] == 3 => return Ok(number),
                other => return Err(format!("{other:?} instead of a fault that is refused")),
            }
        }
    }

    /// Room for a region.
    pub fn place(&mut self) -> u64 {
        self.address += 16 << 20;
        self.address
    }

    /// A region of the manager's that shows an object.
    pub fn bind(&mut self, object: u32, length: u64) -> Result<u64, String> {
        let (base, portal) = (self.place(), capability("shared")?);
        let tag = Tag { object, offset: 0 }.encode().unwrap_or(0);
        let bind = Bind { space: OWN, base, length, portal, tag, rights: WRITE, hint: 12 };
        ok(persistently(|| sys::region_bind(bind)), "bind")?;
        Ok(base)
    }
}

pub fn attach(object: u32, base: u64, length: u64, offset: u64) -> Result<u64, Error> {
    request(Request::Attach { object, base: SpaceAddr(base), length, offset })
}

/// Follows the orders.
pub fn run() -> Outcome {
    let mut helpers = Helpers::new()?;
    for order in ORDERS {
        while board::get(Word::Order) < order as u64 {
            helpers.pause();
        }
        let object = board::get(Word::Object) as u32;
        match order {
            Order::Ask => asks(object, &mut helpers)?,
            Order::Scatter => scatter(object, &mut helpers)?,
            Order::Lose => (0..3).try_for_each(|_| helpers.ended().map(drop))?,
            Order::Squat => squat(object, &mut helpers)?,
            Order::Flicker => flicker(object, &mut helpers)?,
            Order::Last => lasting::hostile(object, &mut helpers)?,
            Order::Outlive => outlive(&mut helpers)?,
        }
        board::set(Word::Done, order as u64);
    }
    Ok(())
}

/// Object 0 is the owner's, and so is `object`; neither is for this program yet.
fn asks(object: u32, helpers: &mut Helpers) -> Outcome {
    let user = client("hostile")?;
    let exec = WRITE | MemRights::EXEC;
    let cases = [
        (Request::Give { object: 0, user, rights: WRITE }, Error::NoRight, "rights to itself"),
        (Request::Give { object, user, rights: READ }, Error::NoRight, "rights to itself"),
        (Request::Give { object: 99, user, rights: READ }, Error::Refused, "no such object"),
        (Request::End { object: 0 }, Error::NoRight, "another's end"),
        (Request::End { object: u32::MAX }, Error::Refused, "no such object"),
        (Request::Detach { object: 0 }, Error::NoRight, "nothing to detach"),
        (Request::Create { length: 0, rights: WRITE, name: 0 }, Error::BadArgument, "no bytes"),
        (
            Request::Create { length: u64::MAX, rights: WRITE, name: 0 },
            Error::BadArgument,
            "too many",
        ),
        (
            Request::Create { length: PAGE, rights: exec, name: 0 },
            Error::BadArgument,
            "written, executed",
        ),
        (
            Request::Create { length: 1 << 20, rights: WRITE, name: 0 },
            Error::NoMemory,
            "beyond the quota",
        ),
    ];
    for (asked, with, what) in cases {
        expect(request(asked), with, what)?;
    }
    for words in [[0; 8], [7; 8], [u64::MAX; 8], [2, 1 << 32, 0, 1, 0, 0, 0, 0]] {
        expect(ask(words), Error::BadArgument, "nonsense")?;
    }
    let base = helpers.bind(object, PAGE)?;
    expect(attach(object, base, PAGE, 0), Error::NoRight, "no rights to it")?;
    own_object(base, helpers)
}

/// Its own object, in regions that do not fit; then its own memory, written by itself, and more regions than are paid for.
fn own_object(base: u64, helpers: &mut Helpers) -> Outcome {
    let own =
        ok(request(Request::Create { length: PAGE, rights: WRITE, name: 1 }), "create")? as u32;
    expect(attach(own, base, 2 * PAGE, 0), Error::BadArgument, "longer than the object")?;
    expect(attach(own, base, PAGE, PAGE), Error::BadArgument, "beyond the object")?;
    expect(attach(own, base + PAGE, PAGE, 0), Error::NoRegion, "no region")?;
    let pinned = helpers.place();
    let portal = OWN;
    let bind =
        Bind { space: OWN, base: pinned, length: PAGE, portal, tag: 0, rights: WRITE, hint: 12 };
    ok(sys::region_bind(bind), "bind")?;
    expect(attach(own, pinned, PAGE, 0), Error::NoRegion, "a region that is not the manager's")?;
    expect(attach(own, 0xffff_8000_0000_0000, PAGE, 0), Error::BadAddress, "in the kernel")?;
    ok(attach(own, base, PAGE, 0), "attach")?;
    let words = rt::Shared::own(base, PAGE);
    let _ = words.write_register(0, 8, 7);
    if words.read_register(0, 8) != Ok(7) {
        return Err("its own object does not keep what it writes".into());
    }
    for _ in 1..MOST_REGIONS {
        ok(attach(own, base, PAGE, 0), "attach again")?;
    }
    // A manager that was started again has given none yet.
    let most = if board::get(Word::Failing) == 0 { 0 } else { 4 * MOST_REGIONS };
    let more = (0..most).take_while(|_| attach(own, base, PAGE, 0).is_ok()).count();
    expect(attach(own, base, PAGE, 0), Error::Quota, &format!("too many regions, and {more}"))?;
    ok(request(Request::Detach { object: own }), "detach")?;
    ok(attach(own, base, PAGE, 0), "attach after that")?;
    if words.read_register(0, 8) != Ok(7) {
        return Err("what it wrote is gone".into());
    }
    end(own)
}

/// Three places of the object, each in a region that is not where and what it was when it was attached, or
/// is one of two.
fn scatter(object: u32, helpers: &mut Helpers) -> Outcome {
    let places = scattered(object, helpers)?;
    places.into_iter().enumerate().try_for_each(|(number, at)| helpers.start(number, at))
}

/// The places; the last one is in a region of two pages that has moved.
pub fn scattered(object: u32, helpers: &mut Helpers) -> Result<[u64; 3], String> {
    let length = 4 * PAGE;
    let first = helpers.bind(object, length)?;
    ok(attach(object, first, length, 0), "attach")?;
    let middle = first + 2 * PAGE;
    ok(sys::region_split(OWN, first, length, middle, 0), "split")?;
    let moved = helpers.place();
    ok(sys::region_move(OWN, middle, 2 * PAGE, moved), "move")?;
    let second = helpers.bind(object, PAGE)?;
    ok(attach(object, second, PAGE, PAGE), "attach a second one")?;
    Ok([first, second + 8, moved + 16])
}

fn squat(object: u32, helpers: &mut Helpers) -> Outcome {
    let base = helpers.bind(object, PAGE)?;
    helpers.start(0, base)?;
    helpers.ended().map(drop)
}

/// The owner says with the next order that it is enough.
fn flicker(object: u32, helpers: &mut Helpers) -> Outcome {
    let base = helpers.bind(object, PAGE)?;
    while attach(object, base, PAGE, 0).is_err() {
        helpers.pause();
    }
    board::set(Word::Done, Order::Flicker as u64);
    while board::get(Word::Order) == Order::Flicker as u64 {
        helpers.start(0, base)?;
        helpers.ended()?;
    }
    Ok(())
}

fn outlive(helpers: &mut Helpers) -> Outcome {
    let object = board::get(Word::Left).checked_sub(1).ok_or("no object")? as u32;
    let base = helpers.bind(object, PAGE)?;
    ok(attach(object, base, PAGE, 0), "attach")?;
    helpers.start(0, base)?;
    let words = rt::Shared::own(base, PAGE);
    while words.read_register(0, 8).is_ok_and(|count| count < 10) {
        helpers.pause();
    }
    board::set(Word::Leave, 1);
    helpers.ended()?;
    expect(attach(object, base, PAGE, 0), Error::Refused, "the object of one that has ended")
}
