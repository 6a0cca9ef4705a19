//! All delegates: how they come, register, and go.
use super::pages::{Pages, frames};
use super::slot::{Completion, Slot};
use super::{Activity, Delegate, Life};
use crate::wake::Wakes;
use crate::world::World;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::Errno;
use wire::vsock::Connection;
use wire::{Kind, Mailbox, Registration, Request};

/// All delegates.
#[derive(Default)]
pub struct Delegates {
    dispatcher: RefCell<Option<Rc<Delegate>>>,
    list: RefCell<Vec<Rc<Delegate>>>,
    /// Doorbell connections: the worker's own port and the number.
    connections: RefCell<Vec<(u32, Connection)>>,
    next: Cell<u32>,
    /// What is done to sockets.
    pub activity: Activity,
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
        let delegate = Delegate::new(id, token, world.now(), self.activity.clone());
        self.list.borrow_mut().push(delegate.clone());
        let completion = parent.order(Request::Fork { delegate: id, token, credentials });
        *delegate.birth.borrow_mut() = Some(completion.clone());
        (delegate, completion)
    }

    /// The living delegate of that number.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<Rc<Delegate>> {
        let list = self.list.borrow();
        list.iter().find(|d| d.id == id && d.life.get() == Life::Ready).cloned()
    }

    /// The pid of a living delegate, zero for the dispatcher.
    #[must_use]
    pub fn pid(&self, id: u32) -> Option<i32> {
        if id == 0 {
            return self.dispatcher().map(|_| 0);
        }
        let delegate = self.find(id)?;
        let response = delegate.birth.borrow().as_ref()?.get()?;
        i32::try_from(response.value).ok().filter(|pid| *pid > 0)
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
        // At every exit: nothing is copied.
        self.list.borrow().iter().for_each(|delegate| delegate.pump(world, wakes));
        if let Some(dispatcher) = &*self.dispatcher.borrow() {
            dispatcher.pump(world, wakes);
        }
        let stillborn = self.list.borrow().iter().find(|d| d.is_stillborn()).cloned();
        if let Some(delegate) = stillborn {
            world.log(format_args!("delegate {} could not be made", delegate.id));
            self.lose(world, wakes, &delegate);
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
        let was = self.dispatcher.borrow_mut().take_if(|d| Rc::ptr_eq(d, delegate));
        if was.is_some() {
            world.service_ready(false);
            // All delegates end with their dispatcher. Of those that have not come yet there is no connection
            // that would say so, and nobody else answers for them.
            let list = self.list.borrow();
            let starting: Vec<_> =
                list.iter().filter(|d| d.life.get() == Life::Starting).cloned().collect();
            drop(list);
            for delegate in starting {
                self.lose(world, wakes, &delegate);
            }
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
    /// What the worker finds in its mailbox, if there is one.
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
        let known = self.connections.borrow().iter().find(|(p, _)| *p == who.port).map(|c| c.1);
        let admitted = self.admit(world, &who);
        let error = admitted.as_ref().err().map(|error| error.result() as i32);
        mailbox.admit(error).map_err(|_| Errno::EFAULT)?;
        let slot = Rc::new(Slot::new(who.slot, who.port, frames, self.activity.clone()));
        if let Some(connection) = known {
            slot.attach(world, connection);
        }
        // The worker waits for its admission.
        slot.ring(world);
        let delegate = admitted?;
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
            let dispatcher = Delegate::new(0, 0, world.now(), self.activity.clone());
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
