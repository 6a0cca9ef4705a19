//! Delegates, their workers and mailboxes, as the relay sees them. All that comes from the
//! service VM is hostile: a mailbox is only ever read through copies, lengths are checked by
//! who uses them.
mod pages;
mod registry;
mod slot;
mod standing;

use crate::wake::{Wake, Wakes};
use crate::world::World;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::Errno;
use wire::{Request, Response};

pub use registry::Delegates;
use slot::Slot;
pub use slot::{Completion, Lease};
pub use standing::{Answer, Kept, Standing};

/// Where a delegate is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Asked for.
    Starting,
    /// Its first two workers have registered.
    Ready,
    /// Told to end.
    Leaving,
    /// Gone.
    Dead,
}

/// Counts the requests that may change what a socket is ready for, of all processes: sockets are
/// shared by `fork`. Each counts when it is posted and when it is answered, for its effect lies
/// in between: while the count stands still, nothing is done to any socket.
#[derive(Clone, Debug, Default)]
pub struct Activity(Rc<Cell<u64>>);

impl Activity {
    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// True for a request that does nothing to any socket.
    const fn is_look(request: &Request) -> bool {
        matches!(
            request,
            Request::Poll { .. }
                | Request::Nop
                | Request::File(_)
                | Request::Watch { .. }
                | Request::Events
        )
    }

    fn note(&self, request: &Request) {
        if !Self::is_look(request) {
            self.count();
        }
    }

    fn count(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }
}

struct Order {
    request: Request,
    completion: Rc<Completion>,
}

/// A delegate process; the dispatcher is number 0.
pub struct Delegate {
    /// Its number.
    pub id: u32,
    /// What it must show to register.
    token: u64,
    /// When it was asked for.
    born: u64,
    life: Cell<Life>,
    /// What came of the request to fork it: its pid.
    birth: RefCell<Option<Rc<Completion>>>,
    slots: RefCell<Vec<Rc<Slot>>>,
    orders: RefCell<VecDeque<Order>>,
    spawning: Cell<u32>,
    waiters: RefCell<Vec<Rc<Wake>>>,
    activity: Activity,
}

impl core::fmt::Debug for Delegate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "delegate {} ({:?})", self.id, self.life.get())
    }
}

impl Delegate {
    fn new(id: u32, token: u64, born: u64, activity: Activity) -> Rc<Self> {
        Rc::new(Self {
            id,
            token,
            born,
            life: Cell::new(Life::Starting),
            birth: RefCell::default(),
            slots: RefCell::default(),
            orders: RefCell::default(),
            spawning: Cell::new(0),
            waiters: RefCell::default(),
            activity,
        })
    }

    /// Where it is in its life.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life.get()
    }

    /// Workers registered.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.slots.borrow().len()
    }

    /// True when its parent says that it could not be forked, or is gone and never said anything.
    fn is_stillborn(&self) -> bool {
        let failed = |birth: &Rc<Completion>| birth.get().is_some_and(|r| r.value <= 0);
        self.life.get() == Life::Starting && self.birth.borrow().as_ref().is_some_and(failed)
    }

    fn slot(&self, index: u32) -> Option<Rc<Slot>> {
        self.slots.borrow().iter().find(|s| s.index == index).cloned()
    }

    /// Queues a request for the control slot.
    pub fn order(&self, request: Request) -> Rc<Completion> {
        self.activity.note(&request);
        let completion = Rc::new(Completion::default());
        if self.life.get() == Life::Dead {
            completion.response.set(Some(Response::value(Errno::EIO.result())));
        } else {
            let order = Order { request, completion: completion.clone() };
            self.orders.borrow_mut().push_back(order);
        }
        completion
    }

    /// Takes a free slot; asks for one more worker when there is none.
    pub fn lease(self: &Rc<Self>, world: &Rc<dyn World>, limit: u32) -> Option<Lease> {
        let slots = self.slots.borrow();
        let free = slots.iter().filter(|s| s.index > 0 && s.is_free()).min_by_key(|s| s.index);
        if let Some(slot) = free {
            return Some(Lease::new(self.clone(), slot.clone(), world.clone()));
        }
        let next = slots.iter().map(|s| s.index + 1).max().unwrap_or(0);
        drop(slots);
        if next > 1 && next > self.spawning.get() && next < limit {
            self.spawning.set(next);
            self.order(Request::Spawn { slot: next });
        }
        None
    }

    /// Wakes that thread when a slot comes free or the delegate's life changes.
    pub fn wait(&self, wake: Rc<Wake>) {
        self.waiters.borrow_mut().push(wake);
    }

    fn notify(&self, world: &dyn World, wakes: &Wakes) {
        for wake in self.waiters.borrow_mut().drain(..) {
            wakes.ring(world, &wake);
        }
    }

    fn pump(&self, world: &dyn World, wakes: &Wakes) {
        let slots = self.slots.borrow();
        let mut freed = false;
        for slot in slots.iter() {
            let busy = slot.flight.borrow().is_some();
            freed |= busy && slot.check(world, wakes) && !slot.leased.get();
        }
        if !self.orders.borrow().is_empty()
            && let Some(control) = slots.iter().find(|s| s.index == 0 && s.is_free())
            && let Some(order) = self.orders.borrow_mut().pop_front()
        {
            control.post(world, &order.request, order.completion);
            // There is no thread that could look: the worker has to say when it is done.
            let _ = control.mailbox(world).want_doorbell();
            control.check(world, wakes);
        }
        if freed {
            self.notify(world, wakes);
        }
    }

    fn die(&self, world: &dyn World, wakes: &Wakes) {
        self.life.set(Life::Dead);
        for slot in self.slots.borrow_mut().drain(..) {
            slot.fail(world, wakes);
        }
        for order in self.orders.borrow_mut().drain(..) {
            order.completion.complete(world, wakes, Response::value(Errno::EIO.result()));
        }
        self.notify(world, wakes);
    }
}
