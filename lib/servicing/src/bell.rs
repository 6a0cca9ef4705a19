//! Signals of remote sockets (`SIGIO`, `SIGURG`): who wants them, and how they are raised.
//!
//! A *bell* is a virtual-socket connection of the process that has the owner of the program's
//! socket and `O_ASYNC`. A byte sent there has the program's own kernel raise the signal, by its own
//! rules, whatever the process is doing. What happens to the remote socket is told by its delegate's
//! kernel, which has been asked for the same signals (`Request::Watch`, `Request::Events`).
use crate::core::Core;
use crate::delegate::{Completion, Delegate, Lease, Life};
use crate::table::Resource;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use linux_abi::{POLL_HUP, POLL_IN, POLL_PRI};
use memory::Memory;
use wire::{Request, SocketEvent, layout};

/// Which signal a bell raises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// That of `O_ASYNC`.
    Any,
    /// `SIGURG`.
    Urgent,
}

/// One connection.
#[derive(Debug)]
pub struct Bell {
    /// Number of the socket whose signals it raises.
    pub resource: u64,
    /// Which signal.
    pub tone: Tone,
    /// Descriptor in the process.
    pub fd: i32,
    /// The process's own port.
    pub port: u32,
    /// Bytes sent and not read yet.
    pub rung: Cell<u32>,
}

/// What a socket's program wants to be told by signals.
#[derive(Debug, Default)]
pub struct Signals {
    /// It has asked for them, or said who gets them, at some time.
    pub concerned: Cell<bool>,
    /// `O_ASYNC`, and the descriptor under which it was set.
    pub asynchronous: Cell<Option<i32>>,
    /// A signal of the program's choice (`F_SETSIG`).
    pub chosen: Cell<bool>,
    /// Threads that wait for data: Linux tells these instead.
    pub receivers: Cell<u32>,
    /// The bells; of each tone the last one counts.
    pub bells: RefCell<Vec<Rc<Bell>>>,
    /// Whose kernel tells what happens.
    pub watcher: Cell<Option<u32>>,
    /// No bell can be heard now: it is being made.
    pub deaf: Cell<bool>,
    /// What should have rung meanwhile.
    missed: RefCell<Vec<Tone>>,
}

impl Signals {
    /// Something has happened to the socket.
    fn happened(&self, core: &Core, code: i32, is_stream: bool) {
        let lost = code == 0;
        if code == POLL_PRI || lost {
            self.ring(core, Tone::Urgent);
        }
        let own_way = code == POLL_PRI && !self.chosen.get();
        let told = is_stream && self.receivers.get() > 0 && matches!(code, POLL_IN | POLL_HUP);
        if self.asynchronous.get().is_some() && !own_way && !told {
            self.ring(core, Tone::Any);
        }
    }

    fn ring(&self, core: &Core, tone: Tone) {
        let bells = self.bells.borrow();
        let mut candidates = bells.iter().rev().filter(|bell| bell.tone == tone);
        let heard = !self.deaf.get()
            && candidates.any(|bell| {
                let heard = core.wakes.ring_bell(&*core.world, bell.port);
                bell.rung.set(bell.rung.get().saturating_add(u32::from(heard)));
                heard
            });
        let mut missed = self.missed.borrow_mut();
        if !heard && !missed.contains(&tone) {
            missed.push(tone);
        }
    }

    /// The bells can be heard from now on.
    pub fn listen(&self, core: &Core) {
        self.deaf.set(false);
        for tone in self.missed.take() {
            self.ring(core, tone);
        }
    }
}

/// A thread that waits for data; see [`Signals::receivers`].
pub struct Receiver<'r>(&'r Signals);

impl<'r> Receiver<'r> {
    /// It waits from now on.
    pub fn new(signals: &'r Signals) -> Self {
        signals.receivers.set(signals.receivers.get() + 1);
        Self(signals)
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.0.receivers.set(self.0.receivers.get().saturating_sub(1));
    }
}

/// A delegate that is asked what happens to its sockets.
struct Watcher {
    delegate: Rc<Delegate>,
    /// The question that is out.
    out: RefCell<Option<(Lease, Rc<Completion>)>>,
}

/// All of them, and the sockets that are watched.
#[derive(Default)]
pub struct Watchers {
    list: RefCell<Vec<Rc<Watcher>>>,
    resources: RefCell<Vec<Weak<Resource>>>,
}

/// Answers that are looked at in a row.
const ANSWERS: u32 = 8;

impl Watchers {
    /// A delegate has been asked to watch a socket.
    pub fn add(&self, delegate: &Rc<Delegate>, resource: &Rc<Resource>) {
        resource.signals.watcher.set(Some(delegate.id));
        let mut resources = self.resources.borrow_mut();
        resources.retain(|r| r.strong_count() > 0);
        if !resources.iter().any(|r| r.as_ptr() == Rc::as_ptr(resource)) {
            resources.push(Rc::downgrade(resource));
        }
        let mut list = self.list.borrow_mut();
        if !list.iter().any(|w| Rc::ptr_eq(&w.delegate, delegate)) {
            let (delegate, out) = (delegate.clone(), RefCell::default());
            list.push(Rc::new(Watcher { delegate, out }));
        }
    }

    fn resources(&self) -> Vec<Rc<Resource>> {
        self.resources.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes in what has happened.
    pub fn pump(&self, core: &Core) {
        if self.list.borrow().is_empty() {
            return;
        }
        let list = self.list.borrow().clone();
        for watcher in list {
            if !watcher.turn(core) {
                self.list.borrow_mut().retain(|w| !Rc::ptr_eq(w, &watcher));
                self.move_on(core, watcher.delegate.id, |_| true);
            }
        }
    }

    /// A delegate does not have a socket any more, or does not tell any more of these: another one that has the same
    /// sockets shall.
    pub fn move_on(&self, core: &Core, gone: u32, which: impl Fn(&Resource) -> bool) {
        for resource in self.resources() {
            if resource.signals.watcher.get() != Some(gone) || !which(&resource) {
                continue;
            }
            resource.signals.watcher.set(None);
            let holders = resource.holders.borrow().clone();
            let other = holders.iter().filter(|(id, _)| **id != gone);
            let other = other.filter_map(|(id, fd)| Some((core.delegates.find(*id)?, *fd))).next();
            if let Some((delegate, fd)) = other {
                delegate.order(Request::Watch { fd, on: true });
                self.add(&delegate, &resource);
            }
        }
    }

    fn tell(&self, core: &Core, delegate: u32, event: SocketEvent) {
        for resource in self.resources() {
            let fd = resource.holders.borrow().get(&delegate).copied();
            let code = match fd {
                Some(fd) if fd == event.fd && event.code != 0 => event.code,
                Some(_) if event.fd == SocketEvent::LOST => 0,
                _ => continue,
            };
            resource.signals.happened(core, code, resource.is_stream());
        }
    }
}

impl Watcher {
    /// False when the delegate does not tell any more.
    fn turn(&self, core: &Core) -> bool {
        for _ in 0..ANSWERS {
            if self.delegate.life() != Life::Ready {
                self.out.take();
                return false;
            }
            let out = self.out.take();
            let lease = match out {
                None => match self.delegate.lease(&core.world, core.settings.workers) {
                    Some(lease) => lease,
                    // One more worker is on its way.
                    None => return true,
                },
                Some((lease, completion)) => {
                    lease.check(&core.wakes);
                    let Some(response) = completion.get() else {
                        *self.out.borrow_mut() = Some((lease, completion));
                        return true;
                    };
                    let Ok(count) = usize::try_from(response.value) else { return false };
                    for event in events(&lease, count) {
                        core.watchers.tell(core, self.delegate.id, event);
                    }
                    lease
                }
            };
            let (completion, _) = lease.post(&Request::Events);
            lease.want_doorbell();
            *self.out.borrow_mut() = Some((lease, completion));
        }
        true
    }
}

/// What an answer says.
fn events(lease: &Lease, count: usize) -> Vec<SocketEvent> {
    let event = |n: usize| {
        let mut bytes = [0; SocketEvent::SIZE];
        let at = layout::PAYLOAD + (n * SocketEvent::SIZE) as u64;
        lease.mailbox().memory().read(at, &mut bytes).ok()?;
        Some(SocketEvent::decode(bytes))
    };
    (0..count.min(SocketEvent::MOST)).filter_map(event).collect()
}
