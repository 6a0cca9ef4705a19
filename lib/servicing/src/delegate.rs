//! Delegates, their workers and mailboxes, as the relay sees them. All that comes from the
//! service VM is hostile: a mailbox is only ever read through copies, lengths are checked by
//! who uses them.
use crate::wake::{Wake, Wakes};
use crate::world::World;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::Errno;
use memory::{Memory, OutOfBounds, check};
use paging::{Access, PAGE, Space};
use wire::vsock::{Bytes, Connection, Record};
use wire::{Kind, Mailbox, Registration, Request, Response, layout};

/// The pages of a mailbox, in order, as one memory.
#[derive(Clone, Copy)]
pub struct Pages<'w> {
    memory: &'w dyn Memory,
    frames: &'w [u64],
}

impl Pages<'_> {
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut part: impl FnMut(u64, usize, usize) -> Result<(), OutOfBounds>,
    ) -> Result<(), OutOfBounds> {
        check(offset, length as u64, self.len(), 1)?;
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let inside = at % PAGE;
            let outside = OutOfBounds { offset, length: length as u64 };
            let frame = self.frames.get((at / PAGE) as usize).ok_or(outside)?;
            let n = ((PAGE - inside) as usize).min(length - done);
            part(frame + inside, done, n)?;
            done += n;
        }
        Ok(())
    }
}

impl Memory for Pages<'_> {
    fn len(&self) -> u64 {
        self.frames.len() as u64 * PAGE
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let length = into.len();
        self.each(offset, length, |at, from, n| match into.get_mut(from..from + n) {
            Some(to) => self.memory.read(at, to),
            None => Err(OutOfBounds { offset, length: length as u64 }),
        })
    }
    fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        let length = from.len();
        self.each(offset, length, |at, first, n| match from.get(first..first + n) {
            Some(bytes) => self.memory.write(at, bytes),
            None => Err(OutOfBounds { offset, length: length as u64 }),
        })
    }
    fn load32(&self, offset: u64) -> Result<u32, OutOfBounds> {
        let frame = self.frame(offset)?;
        self.memory.load32(frame)
    }
    fn store32(&self, offset: u64, value: u32) -> Result<(), OutOfBounds> {
        let frame = self.frame(offset)?;
        self.memory.store32(frame, value)
    }
}

impl Pages<'_> {
    /// Where an aligned word lies.
    fn frame(&self, offset: u64) -> Result<u64, OutOfBounds> {
        check(offset, 4, self.len(), 4)?;
        let frame = self.frames.get((offset / PAGE) as usize);
        Ok(frame.ok_or(OutOfBounds { offset, length: 4 })? + offset % PAGE)
    }
}

/// The outcome of a request, for whoever waits for it.
#[derive(Debug, Default)]
pub struct Completion {
    response: Cell<Option<Response>>,
    waiter: RefCell<Option<Rc<Wake>>>,
}

impl Completion {
    /// The response, once it is there.
    #[must_use]
    pub fn get(&self) -> Option<Response> {
        self.response.get()
    }

    /// Who is to be woken.
    pub fn set_waiter(&self, wake: Option<Rc<Wake>>) {
        *self.waiter.borrow_mut() = wake;
    }

    fn complete(&self, world: &dyn World, wakes: &Wakes, response: Response) {
        self.response.set(Some(response));
        if let Some(wake) = self.waiter.borrow_mut().take() {
            wakes.ring(world, &wake);
        }
    }
}

struct Flight {
    sequence: u32,
    completion: Rc<Completion>,
}

/// A worker and its mailbox.
pub struct Slot {
    /// Number within the delegate.
    pub index: u32,
    port: u32,
    frames: Vec<u64>,
    connection: Cell<Option<Connection>>,
    ring_due: Cell<bool>,
    sequence: Cell<u32>,
    flight: RefCell<Option<Flight>>,
    leased: Cell<bool>,
}

impl Slot {
    /// The mailbox.
    pub fn mailbox<'w>(&'w self, world: &'w dyn World) -> Mailbox<Pages<'w>> {
        Mailbox::new(Pages { memory: world.service(), frames: &self.frames })
    }

    fn is_free(&self) -> bool {
        !self.leased.get() && self.flight.borrow().is_none()
    }

    fn ring(&self, world: &dyn World) {
        match (self.connection.get(), Bytes::new(&[1])) {
            (Some(connection), Some(bytes)) => {
                world.to_service(&Record::Send { connection, bytes });
            }
            _ => self.ring_due.set(true),
        }
    }

    fn attach(&self, world: &dyn World, connection: Connection) {
        self.connection.set(Some(connection));
        if self.ring_due.take() {
            self.ring(world);
        }
    }

    /// Posts a request whose data are in place. True when the worker had to be woken.
    fn post(&self, world: &dyn World, request: &Request, completion: Rc<Completion>) -> bool {
        let sequence = match self.sequence.get().wrapping_add(1) {
            0 => 1,
            n => n,
        };
        self.sequence.set(sequence);
        let asleep = self.mailbox(world).post(sequence, request).unwrap_or(false);
        *self.flight.borrow_mut() = Some(Flight { sequence, completion });
        if asleep {
            self.ring(world);
        }
        asleep
    }

    /// Takes the response in, if it is there. True when the slot has nothing in flight.
    fn check(&self, world: &dyn World, wakes: &Wakes) -> bool {
        let mut flight = self.flight.borrow_mut();
        let Some(current) = flight.as_ref() else { return true };
        let Ok(Some(answer)) = self.mailbox(world).response(current.sequence) else { return false };
        let response = answer.unwrap_or(Response::value(Errno::EIO.result()));
        if let Some(done) = flight.take() {
            done.completion.complete(world, wakes, response);
        }
        true
    }

    fn cancel(&self, world: &dyn World) {
        let flight = self.flight.borrow();
        let Some(current) = flight.as_ref() else { return };
        if self.mailbox(world).cancel(current.sequence).unwrap_or(false) {
            self.ring(world);
        }
    }

    fn fail(&self, world: &dyn World, wakes: &Wakes) {
        if let Some(flight) = self.flight.borrow_mut().take() {
            flight.completion.complete(world, wakes, Response::value(Errno::EIO.result()));
        }
    }
}

/// A slot in use by one call. Given back when dropped; a request that is still in flight is
/// cancelled then, without waiting.
pub struct Lease {
    /// Whose.
    pub delegate: Rc<Delegate>,
    slot: Rc<Slot>,
    world: Rc<dyn World>,
}

impl Lease {
    /// The mailbox.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox<Pages<'_>> {
        self.slot.mailbox(&*self.world)
    }

    /// Posts a request; true when the worker had to be woken.
    #[must_use]
    pub fn post(&self, request: &Request) -> (Rc<Completion>, bool) {
        let completion = Rc::new(Completion::default());
        let asleep = self.slot.post(&*self.world, request, completion.clone());
        (completion, asleep)
    }

    /// Looks for the response.
    pub fn check(&self, wakes: &Wakes) -> bool {
        self.slot.check(&*self.world, wakes)
    }

    /// Asks the worker to tell when it is done.
    pub fn want_doorbell(&self) {
        // A mailbox is never shorter than its layout: `Pages` was made with all of its frames.
        let _ = self.mailbox().want_doorbell();
    }

    /// True while a request is in flight.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.slot.flight.borrow().is_some()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(flight) = self.slot.flight.borrow().as_ref() {
            flight.completion.set_waiter(None);
        }
        self.slot.cancel(&*self.world);
        self.slot.leased.set(false);
    }
}

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
    slots: RefCell<Vec<Rc<Slot>>>,
    orders: RefCell<VecDeque<Order>>,
    spawning: Cell<u32>,
    waiters: RefCell<Vec<Rc<Wake>>>,
}

impl core::fmt::Debug for Delegate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "delegate {} ({:?})", self.id, self.life.get())
    }
}

impl Delegate {
    fn new(id: u32, token: u64, born: u64) -> Rc<Self> {
        Rc::new(Self {
            id,
            token,
            born,
            life: Cell::new(Life::Starting),
            slots: RefCell::default(),
            orders: RefCell::default(),
            spawning: Cell::new(0),
            waiters: RefCell::default(),
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

    fn slot(&self, index: u32) -> Option<Rc<Slot>> {
        self.slots.borrow().iter().find(|s| s.index == index).cloned()
    }

    /// Queues a request for the control slot.
    pub fn order(&self, request: Request) -> Rc<Completion> {
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
            slot.leased.set(true);
            let (delegate, slot) = (self.clone(), slot.clone());
            return Some(Lease { delegate, slot, world: world.clone() });
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
        let slots = self.slots.borrow().clone();
        let mut freed = false;
        for slot in &slots {
            let busy = slot.flight.borrow().is_some();
            freed |= busy && slot.check(world, wakes) && !slot.leased.get();
        }
        if let Some(control) = slots.iter().find(|s| s.index == 0 && s.is_free())
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

/// All delegates.
#[derive(Default)]
pub struct Delegates {
    dispatcher: RefCell<Option<Rc<Delegate>>>,
    list: RefCell<Vec<Rc<Delegate>>>,
    /// Doorbell connections: the worker's own port and the number.
    connections: RefCell<Vec<(u32, Connection)>>,
    next: Cell<u32>,
}

/// Most doorbell connections: beyond, the guest is not playing by the rules.
const LIMIT: usize = 16384;

impl Delegates {
    /// The dispatcher, where there is one.
    #[must_use]
    pub fn dispatcher(&self) -> Option<Rc<Delegate>> {
        self.dispatcher.borrow().clone()
    }

    /// Delegates and their workers now.
    #[must_use]
    pub fn census(&self) -> (u64, u64) {
        let list = self.list.borrow();
        let workers: usize = list.iter().map(|d| d.workers()).sum();
        (list.len() as u64, workers as u64)
    }

    /// Asks `parent` (the dispatcher, or the delegate of the parent process) for a delegate.
    pub fn start(
        &self,
        world: &dyn World,
        parent: &Delegate,
        credentials: wire::Credentials,
    ) -> (Rc<Delegate>, Rc<Completion>) {
        let id = match self.next.get().wrapping_add(1) {
            0 => 1,
            n => n,
        };
        self.next.set(id);
        let token = world.random();
        let delegate = Delegate::new(id, token, world.now());
        self.list.borrow_mut().push(delegate.clone());
        let completion = parent.order(Request::Fork { delegate: id, token, credentials });
        (delegate, completion)
    }

    /// Ends a delegate whose process ended.
    pub fn dismiss(&self, delegate: &Delegate) {
        if matches!(delegate.life.get(), Life::Starting | Life::Ready) {
            delegate.life.set(Life::Leaving);
            delegate.order(Request::Exit);
        }
    }

    /// Looks at all mailboxes in use, and posts what waits.
    pub fn pump(&self, world: &dyn World, wakes: &Wakes) {
        let all: Vec<_> = self.list.borrow().iter().cloned().chain(self.dispatcher()).collect();
        for delegate in all {
            delegate.pump(world, wakes);
        }
    }

    /// Gives up on delegates that never came. Answers when to look again.
    pub fn tick(&self, world: &dyn World, wakes: &Wakes, patience: u64) -> Option<u64> {
        let mut next: Option<u64> = None;
        let starting = |d: &Rc<Delegate>| d.slots.borrow().is_empty();
        let waiting: Vec<_> = self.list.borrow().iter().filter(|d| starting(d)).cloned().collect();
        for delegate in waiting {
            let deadline = delegate.born.saturating_add(patience);
            if world.now() >= deadline {
                world.log(format_args!("delegate {} did not appear", delegate.id));
                self.lose(world, wakes, &delegate);
            } else {
                next = Some(next.map_or(deadline, |n| n.min(deadline)));
            }
        }
        next
    }

    fn lose(&self, world: &dyn World, wakes: &Wakes, delegate: &Rc<Delegate>) {
        delegate.die(world, wakes);
        self.list.borrow_mut().retain(|d| !Rc::ptr_eq(d, delegate));
        let mut dispatcher = self.dispatcher.borrow_mut();
        if dispatcher.as_ref().is_some_and(|d| Rc::ptr_eq(d, delegate)) {
            *dispatcher = None;
            world.service_ready(false);
        }
    }

    /// The monitor reported a doorbell connection. False when it is refused.
    pub fn connected(&self, world: &dyn World, port: u32, own: u32, number: Connection) -> bool {
        let mut connections = self.connections.borrow_mut();
        if port != wire::vsock::DOORBELL_PORT || connections.len() >= LIMIT {
            return false;
        }
        connections.retain(|(p, c)| *p != own && *c != number);
        connections.push((own, number));
        drop(connections);
        let all: Vec<_> = self.list.borrow().iter().cloned().chain(self.dispatcher()).collect();
        for slot in all.iter().flat_map(|d| d.slots.borrow().clone()) {
            if slot.port == own {
                slot.attach(world, number);
            }
        }
        true
    }

    /// A doorbell connection is gone, and its delegate with it.
    pub fn closed(&self, world: &dyn World, wakes: &Wakes, number: Connection) {
        self.connections.borrow_mut().retain(|(_, c)| *c != number);
        let has =
            |d: &Rc<Delegate>| d.slots.borrow().iter().any(|s| s.connection.get() == Some(number));
        let all: Vec<_> = self.list.borrow().iter().cloned().chain(self.dispatcher()).collect();
        let Some(lost) = all.into_iter().find(has) else { return };
        if lost.id == 0 {
            world.log(format_args!("the dispatcher is gone: no new sockets until it is back"));
        } else if lost.life.get() != Life::Leaving {
            world.log(format_args!("delegate {} is gone: its sockets are lost", lost.id));
        }
        self.lose(world, wakes, &lost);
    }

    /// The service VM ended.
    pub fn ended(&self, world: &dyn World, wakes: &Wakes) {
        self.connections.borrow_mut().clear();
        let all: Vec<_> = self.list.borrow().iter().cloned().chain(self.dispatcher()).collect();
        if !all.is_empty() {
            world.log(format_args!("the service VM ended: all remote sockets are lost"));
        }
        for delegate in all {
            self.lose(world, wakes, &delegate);
        }
    }

    /// `REGISTER`: a worker of the service VM hands in its mailbox.
    ///
    /// # Errors
    /// What the hypercall answers.
    pub fn register(
        &self,
        world: &dyn World,
        wakes: &Wakes,
        cr3: u64,
        address: u64,
    ) -> Result<(), Errno> {
        let frames = frames(world.service(), cr3, address)?;
        let mailbox = Mailbox::new(Pages { memory: world.service(), frames: &frames });
        let who = mailbox.registration().map_err(|_| Errno::EFAULT)?.ok_or(Errno::EINVAL)?;
        let delegate = self.admit(world, &who)?;
        let slot = Rc::new(Slot {
            index: who.slot,
            port: who.port,
            frames,
            connection: Cell::new(None),
            ring_due: Cell::new(false),
            sequence: Cell::new(0),
            flight: RefCell::new(None),
            leased: Cell::new(false),
        });
        let known = self.connections.borrow().iter().find(|(p, _)| *p == who.port).map(|c| c.1);
        if let Some(connection) = known {
            slot.attach(world, connection);
        }
        delegate.slots.borrow_mut().push(slot);
        self.settle(world, wakes, &delegate);
        Ok(())
    }

    /// Who registers, if it may.
    fn admit(&self, world: &dyn World, who: &Registration) -> Result<Rc<Delegate>, Errno> {
        if who.kind == Kind::Dispatcher {
            if self.dispatcher().is_some() {
                return Err(Errno::EBUSY);
            }
            let dispatcher = Delegate::new(0, 0, world.now());
            *self.dispatcher.borrow_mut() = Some(dispatcher.clone());
            return Ok(dispatcher);
        }
        let list = self.list.borrow();
        let delegate = list.iter().find(|d| d.id == who.delegate).ok_or(Errno::ENOENT)?;
        if delegate.token != who.token {
            return Err(Errno::EACCES);
        }
        if delegate.slot(who.slot).is_some() || who.slot > 1 && who.slot > delegate.spawning.get() {
            return Err(Errno::EEXIST);
        }
        Ok(delegate.clone())
    }

    fn settle(&self, world: &dyn World, wakes: &Wakes, delegate: &Rc<Delegate>) {
        if delegate.id == 0 {
            delegate.life.set(Life::Ready);
            world.service_ready(true);
        } else if delegate.life.get() == Life::Starting
            && delegate.slot(0).is_some()
            && delegate.slot(1).is_some()
        {
            delegate.life.set(Life::Ready);
        }
        delegate.notify(world, wakes);
        delegate.pump(world, wakes);
    }
}

/// The physical pages of a mailbox.
fn frames(memory: &dyn Memory, cr3: u64, address: u64) -> Result<Vec<u64>, Errno> {
    if !address.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let space = Space::running(memory, cr3);
    let mut frames = Vec::with_capacity((layout::LENGTH / PAGE) as usize);
    for n in 0..layout::LENGTH / PAGE {
        let at = address.checked_add(n * PAGE).ok_or(Errno::EFAULT)?;
        let found = space.find(at, Access::Write).map_err(|_| Errno::EFAULT)?;
        check(found.physical, PAGE, memory.len(), PAGE).map_err(|_| Errno::EFAULT)?;
        frames.push(found.physical);
    }
    Ok(frames)
}
