//! Workers and their mailboxes.
use super::pages::Pages;
use super::{Activity, Delegate, Life};
use crate::wake::{Wake, Wakes};
use crate::world::World;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::Errno;
use wire::vsock::{Bytes, Connection, Record};
use wire::{Mailbox, Request, Response};

/// The outcome of a request, for whoever waits for it.
#[derive(Debug, Default)]
pub struct Completion {
    pub(super) response: Cell<Option<Response>>,
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

    pub(super) fn complete(&self, world: &dyn World, wakes: &Wakes, response: Response) {
        self.response.set(Some(response));
        if let Some(wake) = self.waiter.borrow_mut().take() {
            wakes.ring(world, &wake);
        }
    }
}

pub(super) struct Flight {
    sequence: u32,
    /// It may have an effect.
    acts: bool,
    completion: Rc<Completion>,
}

/// A worker and its mailbox.
pub struct Slot {
    /// Number within the delegate.
    pub index: u32,
    pub(super) port: u32,
    frames: Vec<u64>,
    pub(super) connection: Cell<Option<Connection>>,
    ring_due: Cell<bool>,
    sequence: Cell<u32>,
    pub(super) flight: RefCell<Option<Flight>>,
    pub(super) leased: Cell<bool>,
    /// Number of the identity that the worker has taken; zero before that.
    serves_as: Cell<u32>,
    activity: Activity,
}

impl Slot {
    /// A worker that has just registered.
    pub(super) fn new(index: u32, port: u32, frames: Vec<u64>, activity: Activity) -> Self {
        Self {
            index,
            port,
            frames,
            connection: Cell::new(None),
            ring_due: Cell::new(false),
            sequence: Cell::new(0),
            flight: RefCell::new(None),
            leased: Cell::new(false),
            serves_as: Cell::new(0),
            activity,
        }
    }

    /// The mailbox.
    pub fn mailbox<'w>(&'w self, world: &'w dyn World) -> Mailbox<Pages<'w>> {
        Mailbox::new(Pages { memory: world.service(), frames: &self.frames })
    }

    pub(super) fn is_free(&self) -> bool {
        !self.leased.get() && self.flight.borrow().is_none()
    }

    pub(super) fn ring(&self, world: &dyn World) {
        match (self.connection.get(), Bytes::new(&[1])) {
            (Some(connection), Some(bytes)) => {
                world.to_service(&Record::Send { connection, bytes });
            }
            _ => self.ring_due.set(true),
        }
    }

    pub(super) fn attach(&self, world: &dyn World, connection: Connection) {
        self.connection.set(Some(connection));
        if self.ring_due.take() {
            self.ring(world);
        }
    }

    /// Posts a request whose data are in place. True when the worker had to be woken.
    pub(super) fn post(
        &self,
        world: &dyn World,
        request: &Request,
        completion: Rc<Completion>,
    ) -> bool {
        let sequence = match self.sequence.get().wrapping_add(1) {
            0 => 1,
            n => n,
        };
        self.sequence.set(sequence);
        let asleep = self.mailbox(world).post(sequence, request).unwrap_or(false);
        let acts = !Activity::is_look(request);
        *self.flight.borrow_mut() = Some(Flight { sequence, acts, completion });
        if asleep {
            self.ring(world);
        }
        asleep
    }

    /// Takes the response in, if it is there. True when the slot has nothing in flight.
    pub(super) fn check(&self, world: &dyn World, wakes: &Wakes) -> bool {
        let mut flight = self.flight.borrow_mut();
        let Some(current) = flight.as_ref() else { return true };
        let Ok(Some(answer)) = self.mailbox(world).response(current.sequence) else { return false };
        let response = answer.unwrap_or(Response::value(Errno::EIO.result()));
        if let Some(done) = flight.take() {
            if done.acts {
                self.activity.count();
            }
            done.completion.complete(world, wakes, response);
        }
        true
    }

    pub(super) fn cancel(&self, world: &dyn World) {
        let flight = self.flight.borrow();
        let Some(current) = flight.as_ref() else { return };
        if self.mailbox(world).cancel(current.sequence).unwrap_or(false) {
            self.ring(world);
        }
    }

    pub(super) fn fail(&self, world: &dyn World, wakes: &Wakes) {
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
    /// Takes a free slot.
    pub(super) fn new(delegate: Rc<Delegate>, slot: Rc<Slot>, world: Rc<dyn World>) -> Self {
        slot.leased.set(true);
        Self { delegate, slot, world }
    }

    /// The mailbox.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox<Pages<'_>> {
        self.slot.mailbox(&*self.world)
    }

    /// Posts a request; true when the worker had to be woken. A delegate that died after the slot
    /// was leased answers nothing any more: the request fails at once, with `EIO`.
    #[must_use]
    pub fn post(&self, request: &Request) -> (Rc<Completion>, bool) {
        self.delegate.activity.note(request);
        let completion = Rc::new(Completion::default());
        if self.delegate.life() == Life::Dead {
            completion.response.set(Some(Response::value(Errno::EIO.result())));
            return (completion, false);
        }
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

    /// Number of the identity that the worker has taken.
    #[must_use]
    pub fn serves_as(&self) -> u32 {
        self.slot.serves_as.get()
    }

    /// Notes the identity that the worker has taken.
    pub fn set_serves_as(&self, identity: u32) {
        self.slot.serves_as.set(identity);
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
